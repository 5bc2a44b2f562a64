/** Furthest that the wall clock may leave the steady one before it was set, or the machine slept; milliseconds. */
const JUMP = 2_000;
/** No answer is older than this when it arrives: what is further back was set back; microseconds. */
const OLDEST = 60_000_000;

/**
 * The server's clock, as far as it can be told from here. The steady clock counts on from what the server last said; the
 * wall clock also counts what the machine slept through, and whatever somebody sets it by.
 */
export class ServerClock {
  #server = Date.now() * 1000;
  #wall = Date.now();
  #steady = performance.now();

  /**
   * The server said that it was `instant` (microseconds). That was a while ago, as answers take their time: it only ever
   * moves the clock forward, unless the server's own was set back.
   */
  sync(instant: number): void {
    const now = this.steadyNow();
    this.#set(this.jumped() || now - instant > OLDEST ? instant : Math.max(now, instant));
  }

  /** The server's clock was at `instant` (microseconds) when the wall clock here was at `wall` (milliseconds). */
  resume(instant: number, wall: number): void {
    this.#set(instant + Math.max(0, Date.now() - wall) * 1000);
  }

  /** Microseconds since 1970, by the steady clock alone: while the service is heard. */
  steadyNow(): number {
    return this.#server + (performance.now() - this.#steady) * 1000;
  }

  /** Microseconds since 1970, with what the machine may have slept through: while nobody says better. */
  wallNow(): number {
    return Math.max(this.steadyNow(), this.#server + (Date.now() - this.#wall) * 1000);
  }

  /** Whether the wall clock was set, or the machine slept, since the server last said anything. */
  jumped(): boolean {
    return Math.abs(Date.now() - this.#wall - (performance.now() - this.#steady)) > JUMP;
  }

  /** A jump that was seen is not one any more. */
  accept(): void {
    this.#set(this.wallNow());
  }

  #set(instant: number): void {
    this.#server = instant;
    this.#wall = Date.now();
    this.#steady = performance.now();
  }
}

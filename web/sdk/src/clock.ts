/** Furthest that the wall clock may leave the steady one before it was set, or the machine slept; milliseconds. */
const JUMP = 2_000;

/**
 * The server's clock, as far as it can be told from here. The steady clock counts on from what the server last said; the
 * wall clock also counts what the machine slept through, and whatever somebody sets it by.
 */
export class ServerClock {
  #server = Date.now() * 1000;
  #wall = Date.now();
  #steady = performance.now();

  /** The server says that it is `instant` (microseconds) now, or was at `wall`. */
  sync(instant: number, wall = Date.now()): void {
    this.#server = instant;
    this.#wall = wall;
    this.#steady = performance.now() - (Date.now() - wall);
  }

  /** Microseconds since 1970. While the service is heard the steady clock alone counts. */
  now(heard: boolean): number {
    const steady = performance.now() - this.#steady;
    return this.#server + (heard ? steady : Math.max(steady, Date.now() - this.#wall)) * 1000;
  }

  /** Whether the wall clock was set, or the machine slept. */
  jumped(): boolean {
    return Math.abs(Date.now() - this.#wall - (performance.now() - this.#steady)) > JUMP;
  }
}

/** Difference between wall clock and monotonic clock that counts as a jump; milliseconds. */
const JUMP_THRESHOLD = 2_000;
/** Maximum age of a received instant; microseconds. An older instant means that the server's clock was set back. */
const MAX_INSTANT_AGE = 60_000_000;

/**
 * Estimate of the server's clock. The monotonic clock extrapolates from the last instant that the server sent. The wall
 * clock additionally counts the time during which the machine slept, but it can be set at any time.
 */
export class ServerClock {
  #serverTime = Date.now() * 1000;
  #wallTime = Date.now();
  #monotonicTime = performance.now();

  /**
   * Adjusts the estimate to an instant that the server sent; microseconds. The instant is in the past by the transfer
   * time. It therefore only moves the estimate forward, unless a clock jumped or the server's clock was set back.
   */
  sync(instant: number): void {
    const now = this.monotonicNow();
    this.#set(this.hasJumped() || now - instant > MAX_INSTANT_AGE ? instant : Math.max(now, instant));
  }

  /**
   * Restores an estimate: the server's clock was `instant` (microseconds) at `wallTime` (milliseconds, local clock).
   */
  restore(instant: number, wallTime: number): void {
    this.#set(instant + Math.max(0, Date.now() - wallTime) * 1000);
  }

  /** Server time in microseconds since 1970, by the monotonic clock. For use while the server is reachable. */
  monotonicNow(): number {
    return this.#serverTime + (performance.now() - this.#monotonicTime) * 1000;
  }

  /**
   * Server time in microseconds since 1970, including time during which the machine may have slept. For use while the
   * server is unreachable. Never earlier than `monotonicNow`.
   */
  wallNow(): number {
    return Math.max(this.monotonicNow(), this.#serverTime + (Date.now() - this.#wallTime) * 1000);
  }

  /** Whether the wall clock was set, or the machine slept, since the last adjustment. */
  hasJumped(): boolean {
    return Math.abs(Date.now() - this.#wallTime - (performance.now() - this.#monotonicTime)) > JUMP_THRESHOLD;
  }

  /** Continues from `wallNow`. `hasJumped` is false afterwards. */
  acceptJump(): void {
    this.#set(this.wallNow());
  }

  #set(instant: number): void {
    this.#serverTime = instant;
    this.#wallTime = Date.now();
    this.#monotonicTime = performance.now();
  }
}

/** Maximum delay of `setTimeout`; milliseconds. */
export const MAX_TIMER_DELAY = 2 ** 31 - 1;

/** Delay of a deadline that never passes. */
export const NEVER = Number.POSITIVE_INFINITY;

export type Deadline =
  /** End of the phase of the connection: a timeout, or the start of the next attempt. */
  | 'connection'
  /** Next expiry of an override, or the `validUntil` of the values. */
  | 'expiry'
  /** Request for a snapshot after `validUntil`. */
  | 'refresh'
  /** Timeout for the response to a snapshot request that runs beside the stream. */
  | 'refreshTimeout';

/** Deadlines by the monotonic clock. All share one timer, which is set for the earliest. */
export class Deadlines {
  /** Time of each pending deadline; milliseconds of `performance.now()`. */
  readonly #times = new Map<Deadline, number>();
  #timer: ReturnType<typeof setTimeout> | undefined;

  readonly #onPassed: (deadline: Deadline) => void;

  constructor(onPassed: (deadline: Deadline) => void) {
    this.#onPassed = onPassed;
  }

  has(deadline: Deadline): boolean {
    return this.#times.has(deadline);
  }

  /** Sets or replaces a deadline. It passes after `delay` milliseconds, or never with `NEVER`. */
  set(deadline: Deadline, delay: number): void {
    this.#times.set(deadline, performance.now() + delay);
    this.#startTimer();
  }

  clear(...deadlines: Deadline[]): void {
    for (const deadline of deadlines) this.#times.delete(deadline);
    this.#startTimer();
  }

  #startTimer(): void {
    clearTimeout(this.#timer);
    const delay = Math.min(...this.#times.values()) - performance.now();
    if (delay === NEVER) return;
    this.#timer = setTimeout(() => this.#onTimer(), Math.min(MAX_TIMER_DELAY, Math.max(0, Math.ceil(delay))));
  }

  #onTimer(): void {
    for (const deadline of [...this.#times.keys()]) {
      // A previous handler may have cleared or postponed this deadline.
      if ((this.#times.get(deadline) ?? NEVER) > performance.now()) continue;
      this.#times.delete(deadline);
      this.#onPassed(deadline);
    }
    this.#startTimer();
  }
}

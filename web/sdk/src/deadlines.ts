/** Longest that a timer can be set for; milliseconds. */
export const MAX_TIMER = 2 ** 31 - 1;

/** A wait without an end. */
export const NEVER = Number.POSITIVE_INFINITY;

/** What a client waits for; all of it shares one timer. */
export type Deadline =
  /** The answer, or the next sign of life. */
  | 'silence'
  /** The next attempt. */
  | 'retry'
  /** The next instant at which time changes something. */
  | 'boundary'
  /** The question for what time has changed. */
  | 'refresh'
  /** The answer to it. */
  | 'answer';

/** Deadlines by the steady clock, and the timer for the earliest of them. */
export class Deadlines {
  readonly #at = new Map<Deadline, number>();
  #timer: ReturnType<typeof setTimeout> | undefined;

  readonly #ring: (deadline: Deadline) => void;

  constructor(ring: (deadline: Deadline) => void) {
    this.#ring = ring;
  }

  has(deadline: Deadline): boolean {
    return this.#at.has(deadline);
  }

  /** Rings after `wait` milliseconds, whatever was set before; `NEVER` is never. */
  set(deadline: Deadline, wait: number): void {
    this.#at.set(deadline, performance.now() + wait);
    this.#arm();
  }

  clear(...deadlines: Deadline[]): void {
    for (const deadline of deadlines) this.#at.delete(deadline);
    this.#arm();
  }

  #arm(): void {
    clearTimeout(this.#timer);
    const wait = Math.min(...this.#at.values()) - performance.now();
    if (wait === NEVER) return;
    this.#timer = setTimeout(() => this.#rung(), Math.min(MAX_TIMER, Math.max(0, Math.ceil(wait))));
  }

  #rung(): void {
    const now = performance.now();
    const due = [...this.#at].filter(([, at]) => at <= now).map(([deadline]) => deadline);
    this.clear(...due);
    due.forEach(this.#ring);
  }
}

/** When to try again. Milliseconds throughout. */

/** Waits grow from what the service wishes (`retry:`), or else from this. */
const INITIAL_WAIT = 1_000;
const MAX_WAIT = 30_000;
/** Whoever is refused (401, 403) will be so again for a while. */
const INITIAL_WAIT_REFUSED = 60_000;
const MAX_WAIT_REFUSED = 600_000;
/** Longest that `Retry-After` is believed. */
const MAX_RETRY_AFTER = 3_600_000;
/** Shortest that `retry:` is believed. */
const MIN_RETRY = 100;

/** What a failure says of the next attempt. */
export interface RetryHint {
  /** The service knows who asks and says no, or does not know them. */
  readonly refused: boolean;
  /** How long the service asks to be left alone. */
  readonly retryAfter: number;
}

/** Counts what fails, and says how long to wait. */
export class Retry {
  #initial = INITIAL_WAIT;
  #failures = 0;
  #refusals = 0;
  #notBefore = 0;

  /** The service wishes that waits grow from here. */
  startFrom(wait: number): void {
    this.#initial = Math.max(MIN_RETRY, wait);
  }

  /** The service answered as it should: whoever asks is not refused. */
  answered(): void {
    this.#refusals = 0;
  }

  /** It was good for a while: what failed before says nothing of what fails next. */
  wasGood(): void {
    this.#failures = 0;
  }

  /** Everything begins anew. */
  reset(): void {
    this.#failures = 0;
    this.#refusals = 0;
    this.#notBefore = 0;
  }

  /** The wait after a stream that the service ended as it should, be it after a good while or far too soon. */
  afterGoodbye(wasGood: boolean): number {
    return backoff(wasGood ? 1 : ++this.#failures, Math.random(), this.#initial);
  }

  /** The wait after a failure. */
  after(failure: RetryHint): number {
    const wait = failure.refused
      ? backoff(++this.#refusals, Math.random(), INITIAL_WAIT_REFUSED, MAX_WAIT_REFUSED)
      : backoff(++this.#failures, Math.random(), this.#initial);
    this.#notBefore = performance.now() + failure.retryAfter;
    return Math.max(failure.retryAfter, wait);
  }

  /** Whether there is no reason to wait but caution. */
  get mayHurry(): boolean {
    return this.#refusals === 0 && performance.now() >= this.#notBefore;
  }
}

/**
 * The wait after so many failures: it doubles from one to the next up to `max`. `random` (0 to 1) takes up to half of it
 * away, so that clients which failed together do not come back together.
 */
export function backoff(failures: number, random: number, initial = INITIAL_WAIT, max = MAX_WAIT): number {
  return (Math.min(max, initial * 2 ** Math.max(0, failures - 1)) * (1 + random)) / 2;
}

/** The wait that `Retry-After` (RFC 9110, section 10.2.3: seconds or a date) asks for; 0 if none, an hour at most. */
export function parseRetryAfter(header: string | null, now = Date.now()): number {
  if (header === null) return 0;
  const wait = /^\d+$/.test(header.trim()) ? Number(header) * 1000 : Date.parse(header) - now;
  return Math.min(MAX_RETRY_AFTER, Math.max(0, wait || 0));
}

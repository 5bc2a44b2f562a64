/** Delays between connection attempts. All durations are in milliseconds. */

/** First delay of the exponential backoff, unless the server sends `retry:`. */
const INITIAL_DELAY = 1_000;
const MAX_DELAY = 30_000;
/** First delay after 401 and 403. It is longer because another attempt is unlikely to succeed. */
const INITIAL_REJECTED_DELAY = 60_000;
const MAX_REJECTED_DELAY = 600_000;
/** Maximum accepted `Retry-After`. */
const MAX_RETRY_AFTER = 3_600_000;
/** Minimum accepted `retry:` of an event stream. */
const MIN_INITIAL_DELAY = 100;

/** Duration after which a stream counts as stable and resets the backoff. */
const STABLE_STREAM_DURATION = 10_000;

/** Properties of a failure that determine the delay before the next attempt. */
export interface RetryHint {
  /** Whether the server rejected the credential (401 or 403). */
  readonly rejected: boolean;
  /** Delay that the server requested with `Retry-After`; 0 if none. */
  readonly retryAfter: number;
}

/** Counts failures and computes the delay before the next attempt. */
export class Retry {
  #initialDelay = INITIAL_DELAY;
  #failures = 0;
  #rejections = 0;
  /** Earliest time of the next attempt according to `Retry-After`; milliseconds of `performance.now()`. */
  #notBefore = 0;

  /** Sets the first delay of the backoff, as the server requested with `retry:`. */
  setInitialDelay(delay: number): void {
    this.#initialDelay = Math.max(MIN_INITIAL_DELAY, delay);
  }

  /** Resets the count of rejections after a successful response. */
  accepted(): void {
    this.#rejections = 0;
  }

  reset(): void {
    this.#failures = 0;
    this.#rejections = 0;
    this.#notBefore = 0;
  }

  /**
   * Counts the end of an attempt whose stream lasted for `streamDuration`. Returns the delay before the next attempt.
   * `failure` is `null` if the server announced the end of the stream.
   */
  delayAfter(failure: RetryHint | null, streamDuration: number): number {
    const wasStable = streamDuration >= STABLE_STREAM_DURATION;
    if (wasStable) this.#failures = 0;
    // A stream that the server closes too soon counts as a failure.
    if (!failure) return backoff(wasStable ? 1 : ++this.#failures, Math.random(), this.#initialDelay);
    const delay = failure.rejected
      ? backoff(++this.#rejections, Math.random(), INITIAL_REJECTED_DELAY, MAX_REJECTED_DELAY)
      : backoff(++this.#failures, Math.random(), this.#initialDelay);
    this.#notBefore = performance.now() + failure.retryAfter;
    return Math.max(failure.retryAfter, delay);
  }

  /** Whether the delay may be skipped: the credential was not rejected, and no `Retry-After` is pending. */
  get canSkipDelay(): boolean {
    return this.#rejections === 0 && performance.now() >= this.#notBefore;
  }
}

/**
 * Returns the delay after a number of consecutive failures. It doubles with each failure up to `max`. `random` (0 to 1)
 * reduces it by up to half (0: by half, 1: not at all), which spreads out clients that failed at the same time.
 */
export function backoff(failures: number, random: number, initial = INITIAL_DELAY, max = MAX_DELAY): number {
  return (Math.min(max, initial * 2 ** Math.max(0, failures - 1)) * (1 + random)) / 2;
}

/**
 * Parses `Retry-After` (RFC 9110, section 10.2.3: seconds or a date) to milliseconds from now, at most one hour.
 * Returns 0 if the header is missing or malformed.
 */
export function parseRetryAfter(header: string | null, now = Date.now()): number {
  if (header === null) return 0;
  const delay = /^\d+$/.test(header.trim()) ? Number(header) * 1000 : Date.parse(header) - now;
  return Math.min(MAX_RETRY_AFTER, Math.max(0, delay || 0));
}

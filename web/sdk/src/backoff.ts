/** When to try again. Milliseconds throughout. */

/** Waits grow from what the server asks for (`retry:`), or else this. */
export const FIRST = 1_000;
const MOST = 30_000;
/** Whoever is refused (401, 403) will be so again for a while. */
const FIRST_REFUSED = 60_000;
const MOST_REFUSED = 600_000;
/** Longest that `Retry-After` is believed. */
const MOST_ASKED = 3_600_000;

/**
 * The wait before attempt `failures` + 1: it doubles from failure to failure up to a bound. `random` (0 to 1) takes up to
 * half of it away, so that clients which failed together do not come back together.
 */
export function backoff(failures: number, random: number, first = FIRST): number {
  return spread(Math.min(MOST, first * 2 ** Math.max(0, failures - 1)), random);
}

/** The same for whoever is refused. */
export function backoffRefused(refusals: number, random: number): number {
  return spread(Math.min(MOST_REFUSED, FIRST_REFUSED * 2 ** Math.max(0, refusals - 1)), random);
}

function spread(wait: number, random: number): number {
  return wait / 2 + (wait / 2) * random;
}

/** The wait that `Retry-After` (RFC 9110, section 10.2.3: seconds or a date) asks for; 0 if none. */
export function retryAfter(header: string | null, now = Date.now()): number {
  if (header === null) return 0;
  const wait = /^\d+$/.test(header.trim()) ? Number(header) * 1000 : Date.parse(header) - now;
  return Math.min(MOST_ASKED, Math.max(0, wait || 0));
}

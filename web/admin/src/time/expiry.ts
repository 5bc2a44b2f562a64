/** Choice of an expiry: a period from now, a picked time, or never. */

import { readLocalTime, toLocalTime } from './zones';

const HOUR = 3_600_000;
const DAY = 24 * HOUR;

export type ExpiryPreset = '1h' | '4h' | 'today' | '24h' | '7d' | '30d' | 'pick' | 'keep' | 'never';

export interface ExpiryChoice {
  /** `keep`: the current expiry of the override. `null`: nothing is chosen. */
  readonly preset: ExpiryPreset | null;
  /** Local time for the preset `pick`, such as `2027-02-12T12:00`. */
  readonly local: string;
  /** Time zone of `local` and of the displayed times. */
  readonly zone: string;
  /** Index of the chosen instant if a clock change repeats or skips `local`. `null` if none is chosen. */
  readonly reading: 0 | 1 | null;
}

export type Expiry =
  | { readonly kind: 'at'; readonly time: number }
  | { readonly kind: 'never' }
  | { readonly kind: 'invalid'; readonly message: string };

const PERIODS: Partial<Record<ExpiryPreset, number>> = {
  '1h': HOUR,
  '4h': 4 * HOUR,
  '24h': DAY,
  '7d': 7 * DAY,
  '30d': 30 * DAY,
};

export const DEFAULT_PRESET: ExpiryPreset = '7d';
const STORAGE_KEY = 'feature-flags:last-expiry';

/** Returns the most recently used period. `never` is not remembered: an admin must choose it each time. */
export function lastPreset(): ExpiryPreset {
  try {
    const stored = localStorage.getItem(STORAGE_KEY) as ExpiryPreset | null;
    return stored && PERIODS[stored] ? stored : DEFAULT_PRESET;
  } catch {
    return DEFAULT_PRESET;
  }
}

export function rememberPreset(preset: ExpiryPreset | null): void {
  if (!preset || !PERIODS[preset]) return;
  try {
    localStorage.setItem(STORAGE_KEY, preset);
  } catch {
    // The browser denies storage, so the period is not remembered.
  }
}

/** Returns 18:00 of the current day in a time zone, or `null` if it has passed. */
export function todayAt18(now: number, zone: string): number | null {
  const local = `${toLocalTime(now, zone).slice(0, 10)}T18:00`;
  const instant = readLocalTime(local, zone)?.instants[0];
  return instant !== undefined && instant > now ? instant : null;
}

/** Returns the expiry of a choice. `now`: server time, milliseconds. `kept`: current expiry, for the preset `keep`. */
export function expiryOf(choice: ExpiryChoice, now: number, kept: string | null = null): Expiry {
  const { preset } = choice;
  if (preset === null) return { kind: 'invalid', message: 'Choose when the override expires.' };
  if (preset === 'never') return { kind: 'never' };
  if (preset === 'keep') return kept === null ? { kind: 'never' } : { kind: 'at', time: Date.parse(kept) };
  if (preset === 'today') {
    const time = todayAt18(now, choice.zone);
    return time === null ? { kind: 'invalid', message: 'Today 18:00 has passed.' } : { kind: 'at', time };
  }
  const period = PERIODS[preset];
  // Rounds up to whole minutes, which are easier to read and to compare.
  if (period !== undefined) return { kind: 'at', time: Math.ceil((now + period) / 60_000) * 60_000 };
  return pickedExpiry(choice, now);
}

function pickedExpiry({ local, zone, reading }: ExpiryChoice, now: number): Expiry {
  const readings = readLocalTime(local, zone);
  if (!readings) return { kind: 'invalid', message: 'Enter a date and a time.' };
  if (readings.kind !== 'exact' && reading === null) {
    return { kind: 'invalid', message: 'Choose which of the two times you mean.' };
  }
  const time = readings.instants[readings.kind === 'exact' ? 0 : (reading ?? 0)];
  if (time === undefined || time <= now) return { kind: 'invalid', message: 'This time has passed on the server.' };
  return { kind: 'at', time };
}

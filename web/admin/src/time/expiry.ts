/** Choice of an expiry: a period from now, a picked time, or never. */

import { readLocalTime, toLocalTime } from './zones';

const HOUR = 3_600_000;
const DAY = 24 * HOUR;

export type ExpiryPreset = '1h' | '4h' | 'today' | '24h' | '7d' | '30d' | 'pick' | 'keep' | 'never';

export interface ExpiryChoice {
  /** `keep`: the expiry that the override has. */
  readonly preset: ExpiryPreset | null;
  /** Local time of `pick`, such as `2027-02-12T12:00`. */
  readonly local: string;
  /** Zone of `local`, and of the times that are shown. */
  readonly zone: string;
  /** Which of two instants a doubled or skipped local time means. */
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

/** The period that was used last. Never `never`: an override without expiry is a decision each time. */
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
    // The browser denies storage.
  }
}

/** End of working hours of the current day in a zone, or `null` if it has passed. */
export function todayAt18(now: number, zone: string): number | null {
  const local = `${toLocalTime(now, zone).slice(0, 10)}T18:00`;
  const instant = readLocalTime(local, zone)?.instants[0];
  return instant !== undefined && instant > now ? instant : null;
}

/** Returns the instant of a choice. `now` is the server's time in milliseconds; `kept` the expiry of `keep`. */
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
  // Whole minutes are easier to read and to compare.
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

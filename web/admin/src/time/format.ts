/** Formats instants in a given time zone. */

const MINUTE = 60_000;
const HOUR = 60 * MINUTE;
const DAY = 24 * HOUR;

const formatters = new Map<string, Intl.DateTimeFormat>();

function formatter(options: Intl.DateTimeFormatOptions, timeZone: string): Intl.DateTimeFormat {
  const key = JSON.stringify([options, timeZone]);
  let found = formatters.get(key);
  if (!found) {
    found = new Intl.DateTimeFormat('en-GB', { ...options, timeZone, hourCycle: 'h23' });
    formatters.set(key, found);
  }
  return found;
}

function partsOf(time: number, options: Intl.DateTimeFormatOptions, zone: string): Record<string, string> {
  const parts = formatter(options, zone).formatToParts(time);
  return Object.fromEntries(parts.map(({ type, value }) => [type, value]));
}

const DATE_PARTS = { weekday: 'short', day: 'numeric', month: 'short', year: 'numeric' } as const;
const TIME_PARTS = { hour: '2-digit', minute: '2-digit' } as const;

function clockTime(time: number, zone: string): string {
  const { hour, minute } = partsOf(time, TIME_PARTS, zone);
  return `${hour}:${minute}`;
}

function dayKey(time: number, zone: string): string {
  const { day, month, year } = partsOf(time, DATE_PARTS, zone);
  return `${day} ${month} ${year}`;
}

/** Formats as `Fri 12 Feb, 12:00` or `Today, 12:22`. Includes the year unless it is the current one. */
export function formatInstant(time: number, now: number, zone: string): string {
  if (dayKey(time, zone) === dayKey(now, zone)) return `Today, ${clockTime(time, zone)}`;
  const parts = partsOf(time, DATE_PARTS, zone);
  const year = parts.year === partsOf(now, DATE_PARTS, zone).year ? '' : ` ${parts.year}`;
  return `${parts.weekday} ${parts.day} ${parts.month}${year}, ${clockTime(time, zone)}`;
}

/** Formats as `Fri 12 Feb 2027, 12:00`. */
export function formatFull(time: number, zone: string): string {
  const parts = partsOf(time, DATE_PARTS, zone);
  return `${parts.weekday} ${parts.day} ${parts.month} ${parts.year}, ${clockTime(time, zone)}`;
}

/** Formats as `4 Mar 2025`. */
export function formatDate(time: number, zone: string): string {
  return dayKey(time, zone);
}

/** Formats as `11:00 UTC`. Includes the date if it differs from the date in `zone`. */
export function formatUtc(time: number, zone: string): string {
  const date = dayKey(time, 'UTC') === dayKey(time, zone) ? '' : `${partsOf(time, DATE_PARTS, 'UTC').day} `;
  const month = date === '' ? '' : `${partsOf(time, DATE_PARTS, 'UTC').month}, `;
  return `${date}${month}${clockTime(time, 'UTC')} UTC`;
}

/** Returns the abbreviation of the time zone, such as `CET` or `GMT+5:30`. */
export function zoneAbbreviation(time: number, zone: string): string {
  return partsOf(time, { timeZoneName: 'short' }, zone).timeZoneName ?? zone;
}

/** Formats a duration in its largest unit, such as `40 min` or `3 d`. */
function duration(milliseconds: number): string {
  const absolute = Math.abs(milliseconds);
  if (absolute < MINUTE) return `${Math.max(1, Math.round(absolute / 1000))} s`;
  if (absolute < HOUR) return `${Math.round(absolute / MINUTE)} min`;
  if (absolute < DAY) return `${Math.round(absolute / HOUR)} h`;
  if (absolute < 365 * DAY) return `${Math.round(absolute / DAY)} d`;
  return `${Math.round(absolute / (365 * DAY))} y`;
}

/** Formats relative to `now`: `in 3 d`, `2 h ago` or `just now`. */
export function formatRelative(time: number, now: number): string {
  const difference = time - now;
  if (difference > 0) return `in ${duration(difference)}`;
  return difference > -10_000 ? 'just now' : `${duration(difference)} ago`;
}

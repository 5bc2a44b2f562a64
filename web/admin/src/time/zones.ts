/** Conversion between local times, as date inputs hold them, and instants. */

const MINUTE = 60_000;
const DAY = 86_400_000;

/** Time zone of this browser. */
export function browserZone(): string {
  return Intl.DateTimeFormat().resolvedOptions().timeZone;
}

/** Returns the names of all time zones; those in `first` come first. */
export function zoneNames(first: readonly string[]): string[] {
  return [...new Set([...first, 'UTC', ...Intl.supportedValuesOf('timeZone')])];
}

const formatters = new Map<string, Intl.DateTimeFormat>();

/** Returns the local time in a zone, encoded as if it were UTC; milliseconds since 1970. */
function wallClock(time: number, zone: string): number {
  let formatter = formatters.get(zone);
  if (!formatter) {
    const digits = { year: 'numeric', month: '2-digit', day: '2-digit', hour: '2-digit', minute: '2-digit' } as const;
    formatter = new Intl.DateTimeFormat('en-US', { ...digits, second: '2-digit', hourCycle: 'h23', timeZone: zone });
    formatters.set(zone, formatter);
  }
  const parts = Object.fromEntries(formatter.formatToParts(time).map(({ type, value }) => [type, Number(value)]));
  const { year = 0, month = 1, day = 1, hour = 0, minute = 0, second = 0 } = parts;
  return Date.UTC(year, month - 1, day, hour, minute, second);
}

/** Returns the offset of a zone from UTC at an instant; milliseconds. */
function offsetAt(time: number, zone: string): number {
  return wallClock(time, zone) - Math.floor(time / 1000) * 1000;
}

/** Instants that a local time can mean. */
export interface Readings {
  /** `exact`: one instant. `doubled`: the clock shows the time twice. `skipped`: the clock never shows the time. */
  readonly kind: 'exact' | 'doubled' | 'skipped';
  /** The possible instants, earlier first; milliseconds since 1970. */
  readonly instants: readonly number[];
}

/**
 * Returns the instants that a local time (`2027-02-12T12:00`) can mean in a zone. For a skipped time, the instants use
 * the offsets before and after the clock change. Returns `null` for text that is not a local time.
 */
export function readLocalTime(local: string, zone: string): Readings | null {
  if (!/^\d{4,6}-\d\d-\d\dT\d\d:\d\d(:\d\d)?$/.test(local)) return null;
  const wall = Date.parse(`${local}Z`);
  if (Number.isNaN(wall)) return null;
  const offsets = [...new Set([offsetAt(wall - DAY, zone), offsetAt(wall + DAY, zone)])];
  const candidates = offsets.map((offset) => wall - offset).sort((a, b) => a - b);
  const exact = candidates.filter((time) => wallClock(time, zone) === wall);
  if (exact.length === 0) return { kind: 'skipped', instants: candidates };
  return { kind: exact.length > 1 ? 'doubled' : 'exact', instants: exact };
}

/** Returns the local time of an instant for a date input. */
export function toLocalTime(time: number, zone: string): string {
  return new Date(wallClock(time, zone)).toISOString().slice(0, 16);
}

/** Formats the offset of a zone at an instant, such as `+02:00`. */
export function formatOffset(time: number, zone: string): string {
  const minutes = offsetAt(time, zone) / MINUTE;
  const absolute = Math.abs(minutes);
  const pad = (value: number) => String(Math.floor(value)).padStart(2, '0');
  return `${minutes < 0 ? '-' : '+'}${pad(absolute / 60)}:${pad(absolute % 60)}`;
}

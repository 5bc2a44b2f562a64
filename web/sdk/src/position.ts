/** Position in the server's sequence of changes. Positions are ordered within an epoch only. */
export interface Position {
  /** Changes when the server's database is restored, because revisions are reused afterwards. */
  readonly epoch: string;
  /** Number of the change-log revision. */
  readonly revision: number;
  /** Time of the evaluation by the server's clock; microseconds since 1970. */
  readonly instant: number;
}

/** Parses the `id` of an event, `<epoch>:<revision>:<microseconds>`. Returns `null` if it is malformed. */
export function parsePosition(id: string): Position | null {
  const [, epoch, ...numbers] = /^([^:]+):(\d+):(\d+)$/.exec(id) ?? [];
  const [revision, instant] = numbers.map(Number);
  // A double does not represent larger numbers exactly.
  const isSafe = Number.isSafeInteger(revision) && Number.isSafeInteger(instant);
  return isSafe ? ({ epoch, revision, instant } as Position) : null;
}

/** Parses the `revision` (`<epoch>:<number>`) and `evaluated_at` of a response. Returns `null` if one is malformed. */
export function parseResponsePosition(revision: string, evaluatedAt: string): Position | null {
  return parsePosition(`${revision}:${parseInstant(evaluatedAt)}`);
}

/** Formats a position as the `id` of an event. */
export function formatPosition({ epoch, revision, instant }: Position): string {
  return `${epoch}:${revision}:${instant}`;
}

/** Whether `a` is later than `b`. Always false for positions of different epochs. */
export function isAfter(a: Position, b: Position): boolean {
  return a.epoch === b.epoch && (a.revision > b.revision || (a.revision === b.revision && a.instant > b.instant));
}

/**
 * Parses an RFC 3339 timestamp in UTC to microseconds since 1970. Returns `null` if it is malformed. `Date.parse` alone
 * would lose the microseconds.
 */
export function parseInstant(text: string): number | null {
  const [, seconds, fraction = ''] = /^(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(?:\.(\d+))?Z$/.exec(text) ?? [];
  const millis = seconds === undefined ? Number.NaN : Date.parse(`${seconds}Z`);
  return Number.isNaN(millis) ? null : millis * 1000 + Number(fraction.slice(0, 6).padEnd(6, '0'));
}

/** Where a client stands: which changes it has, and as of which instant. Ordered within an epoch. */
export interface Position {
  /** Another one begins when the service's database was restored: its numbers are then used again. */
  readonly epoch: string;
  readonly revision: number;
  /** The server's clock, in microseconds since 1970. */
  readonly at: number;
}

/** Reads the `id` of an event: `<epoch>:<revision>:<microseconds>`. */
export function parsePosition(id: string): Position | null {
  const [, epoch, revision, at] = /^([^:]+):(\d+):(\d+)$/.exec(id) ?? [];
  return epoch === undefined ? null : checked(epoch, Number(revision), Number(at));
}

/** The position of an answer with this `revision` (`<epoch>:<number>`) and this `evaluated_at`. */
export function positionOf(revision: string, evaluatedAt: string): Position | null {
  const [, epoch, number] = /^([^:]+):(\d+)$/.exec(revision) ?? [];
  const at = parseInstant(evaluatedAt);
  return epoch === undefined || at === null ? null : checked(epoch, Number(number), at);
}

function checked(epoch: string, revision: number, at: number): Position | null {
  return Number.isSafeInteger(revision) && Number.isSafeInteger(at) ? { epoch, revision, at } : null;
}

/** The `id` that an event at this position has. */
export function formatPosition({ epoch, revision, at }: Position): string {
  return `${epoch}:${revision}:${at}`;
}

/** Whether `a` comes after `b`. Positions of two epochs have no order. */
export function isAfter(a: Position, b: Position): boolean {
  return a.epoch === b.epoch && (a.revision > b.revision || (a.revision === b.revision && a.at > b.at));
}

/** An RFC 3339 instant in UTC as microseconds since 1970; `null` if it is none. `Date` knows milliseconds only. */
export function parseInstant(text: string): number | null {
  const [, seconds, fraction = ''] = /^(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(?:\.(\d+))?Z$/.exec(text) ?? [];
  const millis = seconds === undefined ? Number.NaN : Date.parse(`${seconds}Z`);
  return Number.isNaN(millis) ? null : millis * 1000 + Number(fraction.slice(0, 6).padEnd(6, '0'));
}

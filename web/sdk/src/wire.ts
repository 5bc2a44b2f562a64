/** Parses and validates responses and stream events. Throws a `Failure` for malformed input. */

import { Failure } from './failure.js';
import type { components } from './generated/openapi.js';
import { type Position, parseInstant, parsePosition, parseResponsePosition } from './position.js';
import type { Json } from './types.js';

type Schemas = components['schemas'];
/** Evaluation result of a flag in the format of the server. */
export type WireFlag = Omit<Schemas['OwnFlagResult'], 'value' | 'then'> & {
  value: Json;
  then?: Omit<Schemas['ResultAfterExpiry'], 'value'> & { value: Json };
};

/** Values of all flags of one user. */
export interface Snapshot {
  readonly kind: 'snapshot';
  readonly userId: string;
  readonly position: Position;
  /** Microseconds since 1970. `null` if the passing of time changes no value. */
  readonly validUntil: number | null;
  readonly stale: boolean;
  readonly flags: ReadonlyMap<string, WireFlag>;
}

/** Changes since the previous position. */
export interface Change {
  readonly kind: 'change';
  readonly position: Position;
  /** Microseconds since 1970. `null` if the passing of time changes no value. */
  readonly validUntil: number | null;
  /** New results of changed and added flags. */
  readonly set: ReadonlyMap<string, WireFlag>;
  /** Names of removed flags. */
  readonly unset: readonly string[];
}

/** Event that changes the state or its position. */
export type StateEvent =
  | Snapshot
  | Change
  | { readonly kind: 'heartbeat'; readonly position: Position; readonly stale: boolean };

export type StreamEvent = StateEvent | { readonly kind: 'bye'; readonly reason: string };

/** Parses the response of `/api/flags/me`. */
export function parseSnapshot(text: string): Snapshot {
  return toSnapshot(parseObject(text));
}

/** Parses a stream event. Returns `null` for unknown kinds, which newer servers may send. */
export function parseEvent(kind: string | undefined, id: string | undefined, data: string): StreamEvent | null {
  switch (kind) {
    case 'snapshot':
      return { ...toSnapshot(parseObject(data)), ...positionFromId(id) };
    case 'change':
      return { ...toChange(parseObject(data)), ...positionFromId(id) };
    case 'heartbeat': {
      const { stale } = parseObject(data) as Partial<Schemas['StreamHeartbeat']>;
      check(typeof stale === 'boolean');
      return { kind, position: parseEventId(id), stale };
    }
    case 'bye': {
      const { reason } = parseObject(data) as { reason?: unknown };
      return { kind, reason: String(reason) };
    }
    default:
      return null;
  }
}

/** The `id` of an event takes precedence over the position in its data. */
function positionFromId(id: string | undefined): { position: Position } | null {
  return id === undefined ? null : { position: parseEventId(id) };
}

/** Parses the `id` of an event. Unlike `parsePosition`, throws if it is malformed. */
export function parseEventId(id: unknown): Position {
  const position = typeof id === 'string' ? parsePosition(id) : null;
  check(position !== null);
  return position;
}

function toSnapshot(body: Partial<Schemas['OwnFlagsResponse']>): Snapshot {
  check(typeof body.user_id === 'string' && typeof body.stale === 'boolean');
  return {
    kind: 'snapshot',
    userId: body.user_id,
    stale: body.stale,
    ...toValidity(body),
    flags: parseFlags(body.flags),
  };
}

function toChange(body: Partial<Schemas['OwnFlagsChange']>): Change {
  check(Array.isArray(body.unset) && body.unset.every((name) => typeof name === 'string'));
  return { kind: 'change', ...toValidity(body), set: parseFlags(body.set), unset: body.unset };
}

function toValidity(body: { revision?: unknown; evaluated_at?: unknown; valid_until?: unknown }) {
  const { revision, evaluated_at, valid_until } = body;
  check(typeof revision === 'string' && typeof evaluated_at === 'string');
  const position = parseResponsePosition(revision, evaluated_at);
  check(position !== null);
  return { position, validUntil: toInstantOrNull(valid_until) };
}

function toInstantOrNull(text: unknown): number | null {
  if (text === null) return null;
  const instant = typeof text === 'string' ? parseInstant(text) : null;
  check(instant !== null);
  return instant;
}

/** Validates and freezes evaluation results by flag name. */
export function parseFlags(flags: unknown): ReadonlyMap<string, WireFlag> {
  check(isObject(flags));
  return new Map(Object.entries(flags).map(([name, flag]) => [name, toFlag(flag)]));
}

function toFlag(flag: unknown): WireFlag {
  checkResult(flag);
  const { override, then } = flag;
  if (override !== undefined) {
    check(isObject(override) && typeof override.created_at === 'string' && typeof override.updated_at === 'string');
    toInstantOrNull(override.expires_at);
  }
  if (then !== undefined) checkResult(then);
  return deepFreeze(flag) as unknown as WireFlag;
}

function checkResult(result: unknown): asserts result is Record<string, unknown> {
  check(isObject(result) && 'value' in result && typeof result.source === 'string');
}

function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

function parseObject(text: string): Record<string, unknown> {
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch (cause) {
    throw new Failure('protocol', UNEXPECTED_FORMAT, { cause });
  }
  check(isObject(value));
  return value;
}

const UNEXPECTED_FORMAT = 'response or event has an unexpected format';

function check(condition: boolean): asserts condition {
  if (!condition) throw new Failure('protocol', UNEXPECTED_FORMAT);
}

/** Freezes a value deeply, because all callers of the client share it. */
function deepFreeze<T>(value: T): T {
  if (typeof value === 'object' && value !== null) {
    Object.values(value).forEach(deepFreeze);
    Object.freeze(value);
  }
  return value;
}

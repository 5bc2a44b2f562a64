/** What comes over the wire, read and checked: nothing half right goes on. */

import type { components } from './generated/openapi.js';
import { type Position, parseInstant, parsePosition, positionOf } from './position.js';
import type { Json } from './types.js';

type Schemas = components['schemas'];
/** A flag's result as the service writes it. */
export type WireFlag = Omit<Schemas['OwnFlagResult'], 'value' | 'then'> & {
  value: Json;
  then?: Omit<Schemas['ResultAfterExpiry'], 'value'> & { value: Json };
};

/** All that the user gets. */
export interface Snapshot {
  readonly userId: string;
  readonly position: Position;
  /** Microseconds since 1970; `null` if time changes nothing. */
  readonly validUntil: number | null;
  readonly stale: boolean;
  readonly flags: ReadonlyMap<string, WireFlag>;
}

/** What has become of it since. */
export interface Change {
  readonly position: Position;
  readonly validUntil: number | null;
  readonly set: ReadonlyMap<string, WireFlag>;
  readonly unset: readonly string[];
}

/** One event of the stream, or `null` for a kind that this client does not know. */
export type StreamEvent =
  | { readonly kind: 'snapshot'; readonly snapshot: Snapshot }
  | { readonly kind: 'change'; readonly change: Change }
  | { readonly kind: 'heartbeat'; readonly position: Position; readonly stale: boolean }
  | { readonly kind: 'bye'; readonly reason: string };

/** What came is not what the service sends. */
export class Malformed extends Error {}

/** Reads the answer of `/api/flags/me`. */
export function readSnapshot(text: string): Snapshot {
  return snapshotOf(parse(text));
}

/** Reads an event. */
export function readEvent(kind: string | undefined, id: string | undefined, data: string): StreamEvent | null {
  switch (kind) {
    case 'snapshot':
      return { kind, snapshot: { ...snapshotOf(parse(data)), ...at(id) } };
    case 'change':
      return { kind, change: { ...changeOf(parse(data)), ...at(id) } };
    case 'heartbeat': {
      const { stale } = parse(data) as Partial<Schemas['StreamHeartbeat']>;
      check(typeof stale === 'boolean');
      return { kind, position: readPosition(id), stale };
    }
    case 'bye': {
      const { reason } = parse(data) as { reason?: unknown };
      return { kind, reason: String(reason) };
    }
    default:
      return null;
  }
}

function at(id: string | undefined): { position: Position } | null {
  return id === undefined ? null : { position: readPosition(id) };
}

/** Reads the `id` of an event. */
export function readPosition(id: unknown): Position {
  const position = typeof id === 'string' ? parsePosition(id) : null;
  check(position !== null);
  return position;
}

function snapshotOf(body: Partial<Schemas['OwnFlagsResponse']>): Snapshot {
  check(typeof body.user_id === 'string' && typeof body.stale === 'boolean');
  return { userId: body.user_id, stale: body.stale, ...whenOf(body), flags: readFlags(body.flags) };
}

function changeOf(body: Partial<Schemas['OwnFlagsChange']>): Change {
  check(Array.isArray(body.unset) && body.unset.every((name) => typeof name === 'string'));
  return { ...whenOf(body), set: readFlags(body.set), unset: body.unset };
}

function whenOf(body: { revision?: unknown; evaluated_at?: unknown; valid_until?: unknown }) {
  const { revision, evaluated_at, valid_until } = body;
  check(typeof revision === 'string' && typeof evaluated_at === 'string');
  const position = positionOf(revision, evaluated_at);
  check(position !== null);
  return { position, validUntil: instantOrNull(valid_until) };
}

function instantOrNull(text: unknown): number | null {
  if (text === null) return null;
  const instant = typeof text === 'string' ? parseInstant(text) : null;
  check(instant !== null);
  return instant;
}

/** Reads results by name. */
export function readFlags(flags: unknown): ReadonlyMap<string, WireFlag> {
  check(isObject(flags));
  return new Map(Object.entries(flags).map(([name, flag]) => [name, flagOf(flag)]));
}

function flagOf(flag: unknown): WireFlag {
  checkResult(flag);
  const { override, then } = flag;
  if (override !== undefined) {
    check(isObject(override) && typeof override.created_at === 'string' && typeof override.updated_at === 'string');
    instantOrNull(override.expires_at);
  }
  if (then !== undefined) checkResult(then);
  return freeze(flag) as unknown as WireFlag;
}

function checkResult(result: unknown): asserts result is Record<string, unknown> {
  check(isObject(result) && 'value' in result && typeof result.source === 'string');
}

function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

function parse(text: string): Record<string, unknown> {
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch (cause) {
    throw new Malformed('not the shape of flags', { cause });
  }
  check(isObject(value));
  return value;
}

function check(condition: boolean): asserts condition {
  if (!condition) throw new Malformed('not the shape of flags');
}

/** All the way down: whoever reads a value cannot change it for others. */
function freeze<T>(value: T): T {
  if (typeof value === 'object' && value !== null) {
    Object.values(value).forEach(freeze);
    Object.freeze(value);
  }
  return value;
}

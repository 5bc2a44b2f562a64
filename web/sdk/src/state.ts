/**
 * State of all flags of a user, and pure functions that derive a new state from events and from the passing of time.
 */

import { NEVER } from './deadlines.js';
import { isAfter, type Position, parseInstant } from './position.js';
import type { Change, WireFlag } from './wire.js';

/** Values of all flags of one user at one position. Immutable. */
export interface FlagState {
  readonly userId: string;
  readonly position: Position;
  /**
   * Next instant at which the passing of time may change a value in a way that only the server can determine;
   * microseconds since 1970. `null` if there is none.
   */
  readonly validUntil: number | null;
  readonly flags: ReadonlyMap<string, WireFlag>;
}

/** Replaces the state by a snapshot. Ignores a snapshot of the same user and epoch that is not later than the state. */
export function applySnapshot(state: FlagState | null, snapshot: FlagState): FlagState {
  const { userId, position, validUntil, flags } = snapshot;
  const isSameUser = state?.userId === userId;
  if (isSameUser && state.position.epoch === position.epoch && !isAfter(position, state.position)) return state;
  return { userId, position, validUntil, flags: isSameUser ? reuseUnchanged(state.flags, flags) : flags };
}

/** Applies a change completely. Ignores it if it is not later than the state or belongs to another epoch. */
export function applyChange(state: FlagState, change: Change): FlagState {
  if (!isAfter(change.position, state.position)) return state;
  const flags = new Map(state.flags);
  for (const name of change.unset) flags.delete(name);
  for (const [name, flag] of change.set) flags.set(name, flag);
  const { position, validUntil } = change;
  return { ...state, position, validUntil, flags: reuseUnchanged(state.flags, flags) };
}

/** Moves the state to a later position at which no flag has changed. */
export function advanceTo(state: FlagState, position: Position): FlagState {
  return isAfter(position, state.position) ? { ...state, position } : state;
}

/**
 * Replaces the results of overrides that have expired at `now` (microseconds of the server's clock) by the results that
 * the server announced in `then`.
 */
export function expireOverrides(state: FlagState, now: number): FlagState {
  const expired = [...state.flags].filter(([, flag]) => (expiryOf(flag) ?? now + 1) <= now);
  if (expired.length === 0) return state;
  const flags = new Map(state.flags);
  for (const [name, flag] of expired) {
    if (flag.then) flags.set(name, Object.freeze({ ...flag.then, flag_type: flag.flag_type }));
  }
  return { ...state, flags };
}

/**
 * Returns the next instant after `now` at which a value changes or may change: the expiry of an override for which the
 * server announced the next result, or `validUntil`. Expects a result of `expireOverrides` for the same instant.
 */
export function nextChange(state: FlagState, now: number): number {
  const validUntil = state.validUntil ?? NEVER;
  const expiries = [...state.flags.values()].map((flag) => expiryOf(flag) ?? NEVER);
  return expiries.reduce((a, b) => Math.min(a, b), validUntil > now ? validUntil : NEVER);
}

function expiryOf(flag: WireFlag): number | null {
  const expiresAt = flag.then && flag.override?.expires_at;
  return expiresAt ? parseInstant(expiresAt) : null;
}

/** Returns the names of the flags whose value or override differs between two states. Compares by identity. */
export function changedFlags(before: FlagState | null, after: FlagState | null): Set<string> {
  const [oldFlags, newFlags] = [before?.flags ?? new Map(), after?.flags ?? new Map()];
  const differs = (a?: WireFlag, b?: WireFlag) => !a || !b || a.value !== b.value || a.override !== b.override;
  const names = [...oldFlags.keys(), ...newFlags.keys()];
  return new Set(oldFlags === newFlags ? [] : names.filter((name) => differs(oldFlags.get(name), newFlags.get(name))));
}

/**
 * Returns `after` with equal objects of `before` reused, so that comparison by identity detects changes. Reuses the
 * whole map, whole results, or the value and override of a result.
 */
function reuseUnchanged(before: ReadonlyMap<string, WireFlag>, after: ReadonlyMap<string, WireFlag>) {
  const flags = new Map([...after].map(([name, flag]) => [name, reuseUnchangedFields(before.get(name), flag)]));
  const isUnchanged = flags.size === before.size && [...flags].every(([name, flag]) => flag === before.get(name));
  return isUnchanged ? before : flags;
}

function reuseUnchangedFields(before: WireFlag | undefined, flag: WireFlag): WireFlag {
  if (!before || before === flag || isEqual(before, flag)) return before ?? flag;
  if (!isEqual(before.value, flag.value)) return flag;
  const override = before.override && isEqual(before.override, flag.override) ? { override: before.override } : {};
  return Object.freeze({ ...flag, value: before.value, ...override });
}

function isEqual(a: unknown, b: unknown): boolean {
  return a === b || JSON.stringify(a) === JSON.stringify(b);
}

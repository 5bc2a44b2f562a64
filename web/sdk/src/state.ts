/** What is known of the flags, and how events change it: pure functions over values that never change. */

import { isAfter, type Position, parseInstant } from './position.js';
import type { Change, Snapshot, WireFlag } from './wire.js';

/** All that one user gets, as of one position. */
export interface FlagState {
  readonly userId: string;
  readonly position: Position;
  /** When time alone may next change something that only the service can tell; microseconds. */
  readonly validUntil: number | null;
  readonly flags: ReadonlyMap<string, WireFlag>;
}

/** Takes a snapshot in place of all there is, unless it is of the same user and epoch and not later. */
export function applySnapshot(state: FlagState | null, snapshot: Snapshot): FlagState {
  const { userId, position, validUntil, flags } = snapshot;
  const same = state?.userId === userId;
  if (same && state.position.epoch === position.epoch && !isAfter(position, state.position)) return state;
  return { userId, position, validUntil, flags: same ? keepEqual(state.flags, flags) : flags };
}

/** Puts a change in whole, or not at all if it is not later. One of another epoch says nothing of this state. */
export function applyChange(state: FlagState, change: Change): FlagState {
  if (!isAfter(change.position, state.position)) return state;
  const flags = new Map(state.flags);
  for (const name of change.unset) flags.delete(name);
  for (const [name, flag] of change.set) flags.set(name, flag);
  const { position, validUntil } = change;
  return { ...state, position, validUntil, flags: keepEqual(state.flags, flags) };
}

/** Moves on to a later position at which nothing else has changed. */
export function moveTo(state: FlagState, position: Position): FlagState {
  return isAfter(position, state.position) ? { ...state, position } : state;
}

/** Ends the overrides whose end has come at `now` (microseconds of the server's clock): what is to be `then` is so now. */
export function endOverrides(state: FlagState, now: number): FlagState {
  const due = [...state.flags].filter(([, flag]) => (endOf(flag) ?? now + 1) <= now);
  if (due.length === 0) return state;
  const flags = new Map(state.flags);
  for (const [name, flag] of due) {
    if (flag.then) flags.set(name, Object.freeze({ ...flag.then, flag_type: flag.flag_type }));
  }
  return { ...state, flags };
}

/** When the next override ends that says what is to be then; microseconds. */
export function nextEnd(state: FlagState): number | null {
  const ends = [...state.flags.values()].map(endOf).filter((end) => end !== null);
  return ends.length > 0 ? ends.reduce((a, b) => Math.min(a, b)) : null;
}

function endOf(flag: WireFlag): number | null {
  const end = flag.then && flag.override?.expires_at;
  return end ? parseInstant(end) : null;
}

/** The names of the flags of which readers see something else: their value, or the override that decides. */
export function difference(before: FlagState | null, after: FlagState | null): Set<string> {
  const [old, young] = [before?.flags ?? new Map(), after?.flags ?? new Map()];
  const looksOther = (a?: WireFlag, b?: WireFlag) => !a || !b || a.value !== b.value || a.override !== b.override;
  const names = [...old.keys(), ...young.keys()];
  return new Set(old === young ? [] : names.filter((name) => looksOther(old.get(name), young.get(name))));
}

/**
 * What is the same stays the same object, so that nobody who compares sees a change: the whole map, a result, or of a
 * result at least its value and override.
 */
function keepEqual(before: ReadonlyMap<string, WireFlag>, after: ReadonlyMap<string, WireFlag>) {
  const kept = new Map([...after].map(([name, flag]) => [name, keepParts(before.get(name), flag)]));
  const same = kept.size === before.size && [...kept].every(([name, flag]) => flag === before.get(name));
  return same ? before : kept;
}

function keepParts(old: WireFlag | undefined, flag: WireFlag): WireFlag {
  if (!old || old === flag || isEqual(old, flag)) return old ?? flag;
  if (!isEqual(old.value, flag.value)) return flag;
  const override = old.override && isEqual(old.override, flag.override) ? { override: old.override } : {};
  return Object.freeze({ ...flag, value: old.value, ...override });
}

function isEqual(a: unknown, b: unknown): boolean {
  return a === b || JSON.stringify(a) === JSON.stringify(b);
}

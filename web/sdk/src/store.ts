/** Current state as the application reads it, and the listeners for its changes. */

import { changedFlags, type FlagState } from './state.js';
import type { FlagListener, FlagsChanged, FlagValue, OverrideInfo } from './types.js';

export class Store {
  #state: FlagState | null = null;
  #stale = true;
  /** Cached result of `values`. `null` after a change. */
  #values: Record<string, FlagValue> | null = null;
  /** Changes that listeners have not yet received. */
  readonly #pendingChanges: FlagsChanged[] = [];
  #isNotifying = false;
  /** Listeners, with the name of the flag that they listen to. `null`: all flags. */
  readonly #subscriptions = new Set<{ flagName: string | null; listener: FlagListener }>();

  readonly #onListenerError: (cause: unknown) => void;

  constructor(onListenerError: (cause: unknown) => void) {
    this.#onListenerError = onListenerError;
  }

  get state(): FlagState | null {
    return this.#state;
  }

  get stale(): boolean {
    return this.#stale;
  }

  value(flagName: string): FlagValue {
    return this.#state?.flags.get(flagName)?.value;
  }

  /** Returns the same object until a value changes. */
  values(): Record<string, FlagValue> {
    if (!this.#values) {
      const flags = [...(this.#state?.flags ?? [])];
      this.#values = Object.freeze(Object.fromEntries(flags.map(([name, flag]) => [name, flag.value])));
    }
    return this.#values;
  }

  /** Returns the same object until the override changes. */
  overrideInfo(flagName: string): OverrideInfo | null {
    const flag = this.#state?.flags.get(flagName);
    if (flag?.source !== 'override' || !flag.override) return null;
    const { override, value } = flag;
    let info = overrideInfos.get(override);
    if (!info) {
      info = Object.freeze({
        flagName,
        value,
        createdAt: override.created_at,
        updatedAt: override.updated_at,
        expiresAt: override.expires_at,
        ...(override.reason === undefined ? {} : { reason: override.reason }),
      });
      overrideInfos.set(override, info);
    }
    return info;
  }

  /** Replaces the state and notifies the listeners that the change affects. */
  update(state: FlagState | null, stale: boolean): void {
    const flags = state === this.#state ? new Set<string>() : changedFlags(this.#state, state);
    const statusChanged = stale !== this.#stale || (state === null) !== (this.#state === null);
    this.#state = state;
    this.#stale = stale;
    if (flags.size > 0) this.#values = null;
    if (flags.size === 0 && !statusChanged) return;
    this.#pendingChanges.push({ flags, stale });
    // A listener may cause another change. All listeners receive the first change before the second.
    if (this.#isNotifying) return;
    this.#isNotifying = true;
    for (let change = this.#pendingChanges.shift(); change; change = this.#pendingChanges.shift()) this.#notify(change);
    this.#isNotifying = false;
  }

  #notify(change: FlagsChanged): void {
    for (const subscription of [...this.#subscriptions]) {
      const isAffected = subscription.flagName === null || change.flags.has(subscription.flagName);
      // A previous listener may have removed this subscription.
      if (!isAffected || !this.#subscriptions.has(subscription)) continue;
      try {
        subscription.listener(change);
      } catch (cause) {
        this.#onListenerError(cause);
      }
    }
  }

  /** Adds a listener for one flag, or with `null` for all changes. Returns a function that removes it. */
  subscribe(flagName: string | null, listener: FlagListener): () => void {
    const subscription = { flagName, listener };
    this.#subscriptions.add(subscription);
    return () => void this.#subscriptions.delete(subscription);
  }
}

const overrideInfos = new WeakMap<object, OverrideInfo>();

/** What readers see: the present state, and who is told when it changes. */

import { difference, type FlagState } from './state.js';
import type { FlagListener, FlagsChanged, FlagValue, OverrideInfo } from './types.js';

export class Store {
  #current: FlagState | null = null;
  #isStale = true;
  #values: Record<string, FlagValue> | null = null;
  /** What listeners have still to be told. */
  readonly #untold: FlagsChanged[] = [];
  #isTelling = false;
  readonly #listeners = new Set<{ name: string | null; listener: FlagListener }>();

  readonly #threw: (cause: unknown) => void;

  constructor(threw: (cause: unknown) => void) {
    this.#threw = threw;
  }

  get state(): FlagState | null {
    return this.#current;
  }

  get stale(): boolean {
    return this.#isStale;
  }

  value(name: string): FlagValue {
    return this.#current?.flags.get(name)?.value;
  }

  /** One object for as long as nothing changes. */
  all(): Record<string, FlagValue> {
    if (!this.#values) {
      const flags = [...(this.#current?.flags ?? [])];
      this.#values = Object.freeze(Object.fromEntries(flags.map(([name, flag]) => [name, flag.value])));
    }
    return this.#values;
  }

  /** One object for as long as the override stays as it is. */
  override(name: string): OverrideInfo | null {
    const flag = this.#current?.flags.get(name);
    if (flag?.source !== 'override' || !flag.override) return null;
    const { override, value } = flag;
    let info = infos.get(override);
    if (!info) {
      info = Object.freeze({
        flagName: name,
        value,
        createdAt: override.created_at,
        updatedAt: override.updated_at,
        expiresAt: override.expires_at,
        ...(override.reason === undefined ? {} : { reason: override.reason }),
      });
      infos.set(override, info);
    }
    return info;
  }

  /** Puts a state in place of the present one, and tells whoever it concerns. */
  update(state: FlagState | null, stale: boolean): void {
    const flags = state === this.#current ? new Set<string>() : difference(this.#current, state);
    const turned = stale !== this.#isStale || (state === null) !== (this.#current === null);
    this.#current = state;
    this.#isStale = stale;
    if (flags.size > 0) this.#values = null;
    if (flags.size === 0 && !turned) return;
    this.#untold.push({ flags, stale });
    // A listener that changes something is told of it when all know what was before.
    if (this.#isTelling) return;
    this.#isTelling = true;
    for (let change = this.#untold.shift(); change; change = this.#untold.shift()) this.#tell(change);
    this.#isTelling = false;
  }

  #tell(change: FlagsChanged): void {
    for (const entry of [...this.#listeners]) {
      const concerned = entry.name === null || change.flags.has(entry.name);
      if (!concerned || !this.#listeners.has(entry)) continue;
      try {
        entry.listener(change);
      } catch (cause) {
        this.#threw(cause);
      }
    }
  }

  subscribe(name: string | null, listener: FlagListener): () => void {
    const entry = { name, listener };
    this.#listeners.add(entry);
    return () => void this.#listeners.delete(entry);
  }
}

const infos = new WeakMap<object, OverrideInfo>();

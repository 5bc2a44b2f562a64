/** Keeps values from one start to the next. */

import type { FlagState } from './state.js';
import type { FlagClientOptions, FlagStorage } from './types.js';
import { readSnapshot } from './wire.js';

const VERSION = 1;

/** What is kept: the answer of `/api/flags/me` that would give this state, and when it was so. */
export function encodeState(state: FlagState): string {
  const { userId, position, validUntil, flags } = state;
  return JSON.stringify({
    user_id: userId,
    revision: `${position.epoch}:${position.revision}`,
    evaluated_at: instantText(position.at),
    valid_until: validUntil === null ? null : instantText(validUntil),
    stale: true,
    flags: Object.fromEntries(flags),
  });
}

/** Reads it again. Throws if it is anything else. */
export function decodeState(text: string): FlagState {
  const { userId, position, validUntil, flags } = readSnapshot(text);
  return { userId, position, validUntil, flags };
}

function instantText(micros: number): string {
  const seconds = Math.floor(micros / 1_000_000);
  const fraction = String(micros - seconds * 1_000_000).padStart(6, '0');
  return `${new Date(seconds * 1000).toISOString().slice(0, 19)}.${fraction}Z`;
}

/** A state that was kept. */
export interface Kept {
  readonly state: FlagState;
  /** The wall clock when it was written; milliseconds. */
  readonly writtenAt: number;
  /** The server's clock then; microseconds. */
  readonly serverAt: number;
}

/**
 * A store with one entry for each service and user, and one that says whose was the last. An entry counts only for the
 * credential that it was written with, or for whom the application says the user is.
 */
export class Persistence {
  #writing: Promise<void> = Promise.resolve();

  readonly #storage: FlagStorage;
  readonly #baseUrl: string;
  readonly #userId: string | undefined;
  readonly #failed: (cause: unknown) => void;

  constructor(storage: FlagStorage, baseUrl: string, userId: string | undefined, failed: (cause: unknown) => void) {
    this.#storage = storage;
    this.#baseUrl = baseUrl;
    this.#userId = userId;
    this.#failed = failed;
  }

  static open(options: FlagClientOptions, baseUrl: string, failed: (cause: unknown) => void): Persistence | null {
    let storage: FlagStorage | undefined;
    try {
      // Reading the property alone throws where the browser blocks it.
      storage = options.storage === 'local' ? globalThis.localStorage : options.storage;
    } catch (cause) {
      failed(cause);
    }
    return storage ? new Persistence(storage, baseUrl, options.userId, failed) : null;
  }

  /** What was kept for this credential; whatever was kept for another one is removed. */
  async load(credential: string | null): Promise<Kept | null> {
    try {
      const last = this.#userId ?? (await this.#lastUser(credential));
      const text = last && (await this.#storage.getItem(this.#key(last)));
      if (!text) return null;
      const { version, written_at, server_at, state } = JSON.parse(text);
      if (version !== VERSION || typeof written_at !== 'number' || typeof server_at !== 'number') return null;
      const kept = decodeState(state);
      return kept.userId === last ? { state: kept, writtenAt: written_at, serverAt: server_at } : null;
    } catch (cause) {
      this.#failed(cause);
      return null;
    }
  }

  /** Keeps a state in place of the one before; the server's clock says `serverAt` (microseconds) now. */
  save(state: FlagState, serverAt: number, credential: string | null): void {
    const entry = { version: VERSION, written_at: Date.now(), server_at: serverAt, state: encodeState(state) };
    this.#write(async () => {
      await this.#storage.setItem(this.#key(state.userId), JSON.stringify(entry));
      await this.#storage.setItem(this.#lastKey(), JSON.stringify({ user_id: state.userId, credential }));
    });
  }

  /** Removes what was kept for the user who was the last. */
  clear(): void {
    this.#write(() => this.#forget());
  }

  async #forget(): Promise<void> {
    const last = await this.#storage.getItem(this.#lastKey());
    const userId: unknown = last ? JSON.parse(last).user_id : null;
    if (typeof userId === 'string') await this.#storage.removeItem(this.#key(userId));
    await this.#storage.removeItem(this.#lastKey());
  }

  async #lastUser(credential: string | null): Promise<string | null> {
    const last = await this.#storage.getItem(this.#lastKey());
    if (!last) return null;
    const { user_id, credential: theirs } = JSON.parse(last);
    // Nobody knows whose a cookie is.
    if (credential !== null && theirs === credential && typeof user_id === 'string') return user_id;
    await this.#forget();
    return null;
  }

  /** One after the other, so that the last state is the one that stays. */
  #write(step: () => Promise<void>): void {
    this.#writing = this.#writing.then(step).catch(this.#failed);
  }

  #lastKey(): string {
    return `feature-flags:${this.#baseUrl}`;
  }

  #key(userId: string): string {
    return `${this.#lastKey()}:${userId}`;
  }
}

/** Keeps values from one start to the next. */

import { formatPosition } from './position.js';
import type { FlagState } from './state.js';
import type { FlagClientOptions, FlagStorage } from './types.js';
import { readFlags, readPosition } from './wire.js';

/** Of what is kept; what another version kept is not looked at. */
const VERSION = 1;

/** A state as text, for another tab or the next start. */
export function encodeState({ userId, position, validUntil, flags }: FlagState): string {
  return JSON.stringify({ userId, position: formatPosition(position), validUntil, flags: Object.fromEntries(flags) });
}

/** Reads it again. Throws if it is anything else. */
export function decodeState(text: string): FlagState {
  const { userId, position, validUntil, flags } = JSON.parse(text);
  return { userId, position: readPosition(position), validUntil, flags: readFlags(flags) };
}

/** A state that was kept. */
interface Kept {
  readonly state: FlagState;
  /** The wall clock when it was written; milliseconds. */
  readonly writtenAt: number;
  /** The server's clock then; microseconds. */
  readonly serverAt: number;
}

/** A state to be kept. */
interface Entry {
  readonly state: FlagState;
  readonly serverAt: number;
  readonly credential: string | null;
}

/**
 * The entry of one user of a service, and one that says whose it is. It counts only for the credential that it was written
 * with, or for whom the application says the user is; those of others are removed.
 */
export class Persistence {
  readonly #storage: FlagStorage;
  readonly #baseUrl: string;
  readonly #userId: string | undefined;
  readonly #failed: (cause: unknown) => void;
  /** What is to be written; a storage that takes its time gets the latest alone. */
  #next: Entry | null = null;
  /** Whose entry must be removed before anything else is written. */
  readonly #unwanted = new Set<string>();
  #busy = false;
  /** Whose entry there is; `undefined` if nobody has looked. */
  #owner: string | null | undefined;

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

  /** Whether kept values can be told to be the right ones without a credential. */
  get knowsUser(): boolean {
    return this.#userId !== undefined;
  }

  /** What was kept for this credential; whatever was kept for another one is removed. */
  async load(credential: string | null): Promise<Kept | null> {
    try {
      const userId = await this.#ownerFor(credential);
      const text = userId && (await this.#storage.getItem(this.#key(userId)));
      if (!text) return null;
      const { writtenAt, serverAt, state } = JSON.parse(text);
      const kept = { state: decodeState(state), writtenAt: Number(writtenAt), serverAt: Number(serverAt) };
      return kept.state.userId === userId && kept.writtenAt + kept.serverAt > 0 ? kept : null;
    } catch (cause) {
      this.#failed(cause);
      return null;
    }
  }

  /** Keeps a state in place of the one before; the server's clock says `serverAt` (microseconds) now. */
  save(state: FlagState, serverAt: number, credential: string | null): void {
    this.#next = { state, serverAt, credential };
    void this.#work();
  }

  /** Removes what is kept, and what was to be: for `userId` and for whoever was the last. */
  clear(userId: string | undefined): void {
    this.#next = null;
    this.#unwanted.add(userId ?? '');
    void this.#work();
  }

  /** One step after the other, so that what comes last is what stays. */
  async #work(): Promise<void> {
    if (this.#busy) return;
    this.#busy = true;
    try {
      for (;;) {
        const [unwanted] = this.#unwanted;
        const entry = this.#next;
        if (unwanted !== undefined) {
          this.#unwanted.delete(unwanted);
          await this.#forget(unwanted);
        } else if (entry) {
          this.#next = null;
          await this.#write(entry);
        } else break;
      }
    } catch (cause) {
      this.#failed(cause);
    } finally {
      this.#busy = false;
    }
  }

  async #write({ state, serverAt, credential }: Entry): Promise<void> {
    const { userId } = state;
    if (this.#owner === undefined) await this.#readOwner();
    if (this.#owner && this.#owner !== userId) await this.#forget();
    this.#owner = userId;
    const entry = { writtenAt: Date.now(), serverAt, state: encodeState(state) };
    await this.#storage.setItem(this.#key(userId), JSON.stringify(entry));
    await this.#storage.setItem(this.#ownerKey(), JSON.stringify({ userId, credential }));
  }

  async #forget(userId?: string): Promise<void> {
    if (userId) await this.#storage.removeItem(this.#key(userId));
    const { userId: owner } = await this.#readOwner();
    this.#owner = null;
    if (owner) await this.#storage.removeItem(this.#key(owner));
    await this.#storage.removeItem(this.#ownerKey());
  }

  /** The user whose entry it is, if it counts; whatever does not is removed. */
  async #ownerFor(credential: string | null): Promise<string | null> {
    const { userId, credential: theirs } = await this.#readOwner();
    // Nobody but the application knows whose a cookie is.
    const counts = this.knowsUser ? userId === this.#userId : credential !== null && theirs === credential;
    if (!counts) await this.#forget();
    return counts ? userId : null;
  }

  async #readOwner(): Promise<{ userId: string | null; credential?: unknown }> {
    const text = await this.#storage.getItem(this.#ownerKey());
    let owner: { userId: string | null; credential?: unknown } = { userId: null };
    try {
      owner = JSON.parse(text ?? '');
    } catch {
      // What cannot be read is nobody's.
    }
    this.#owner = owner.userId;
    return owner;
  }

  #ownerKey(): string {
    return `feature-flags:${VERSION}:${this.#baseUrl}`;
  }

  #key(userId: string): string {
    return `${this.#ownerKey()}:${userId}`;
  }
}

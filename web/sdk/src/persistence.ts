/** Persists the state in a `FlagStorage` for the next start. */

import { formatPosition } from './position.js';
import type { FlagState } from './state.js';
import type { FlagClientOptions, FlagStorage } from './types.js';
import { parseEventId, parseFlags } from './wire.js';

/** Version of the stored format. Part of every key, so entries of other versions are ignored. */
const VERSION = 1;

/** Serializes a state for the storage or for another tab. */
export function encodeState({ userId, position, validUntil, flags }: FlagState): string {
  return JSON.stringify({ userId, position: formatPosition(position), validUntil, flags: Object.fromEntries(flags) });
}

/** Parses the output of `encodeState`. Throws if the text is malformed. */
export function decodeState(text: string): FlagState {
  const { userId, position, validUntil, flags } = JSON.parse(text);
  return { userId, position: parseEventId(position), validUntil, flags: parseFlags(flags) };
}

interface PersistedState {
  readonly state: FlagState;
  /** Local wall clock at the time of writing; milliseconds since 1970. */
  readonly writtenAt: number;
  /** Server's clock at the time of writing; microseconds since 1970. */
  readonly serverAt: number;
}

interface PendingWrite {
  readonly state: FlagState;
  /** Server's clock; microseconds since 1970. */
  readonly serverAt: number;
  readonly fingerprint: string | null;
}

interface Owner {
  readonly userId: string | null;
  /** Fingerprint of the credential that the state was written with. */
  readonly credential?: unknown;
}

/**
 * Persisted state of one user per server. Two entries are stored: the state, under the user's id, and its owner (user
 * id and fingerprint of the credential). If the application passed `userId`, the state is used only if it belongs to
 * that user, otherwise only if the fingerprint matches. A state that must not be used is removed.
 */
export class Persistence {
  readonly #storage: FlagStorage;
  readonly #baseUrl: string;
  readonly #userId: string | undefined;
  readonly #onError: (cause: unknown) => void;
  /** Next state to write. A slow storage skips all but the latest. */
  #pendingWrite: PendingWrite | null = null;
  /** Users whose entries must be removed before the next write. The empty string means the current owner only. */
  readonly #pendingRemovals = new Set<string>();
  #isProcessing = false;
  /** User id of the stored owner. `undefined` until the entry has been read. */
  #ownerId: string | null | undefined;

  constructor(storage: FlagStorage, baseUrl: string, userId: string | undefined, onError: (cause: unknown) => void) {
    this.#storage = storage;
    this.#baseUrl = baseUrl;
    this.#userId = userId;
    this.#onError = onError;
  }

  /** Returns `null` if persistence is not enabled or `localStorage` is not available. */
  static create(options: FlagClientOptions, baseUrl: string, onError: (cause: unknown) => void): Persistence | null {
    let storage: FlagStorage | undefined;
    try {
      // If the browser blocks storage, reading the property throws.
      storage = options.storage === 'local' ? globalThis.localStorage : options.storage;
    } catch (cause) {
      onError(cause);
    }
    return storage ? new Persistence(storage, baseUrl, options.userId, onError) : null;
  }

  /** Whether the application passed `userId`, so that the owner can be verified without a credential. */
  get hasUserId(): boolean {
    return this.#userId !== undefined;
  }

  /** Returns the state that was persisted with this credential, or `null`. Removes the state of another credential. */
  async load(fingerprint: string | null): Promise<PersistedState | null> {
    try {
      const userId = await this.#verifyOwner(fingerprint);
      const text = userId && (await this.#storage.getItem(this.#stateKey(userId)));
      if (!text) return null;
      const { writtenAt, serverAt, state } = JSON.parse(text);
      const persisted = { state: decodeState(state), writtenAt: Number(writtenAt), serverAt: Number(serverAt) };
      return persisted.state.userId === userId && persisted.writtenAt + persisted.serverAt > 0 ? persisted : null;
    } catch (cause) {
      this.#onError(cause);
      return null;
    }
  }

  /** Replaces the persisted state. `serverAt` is the current time of the server's clock; microseconds. */
  save(state: FlagState, serverAt: number, fingerprint: string | null): void {
    this.#pendingWrite = { state, serverAt, fingerprint };
    void this.#processQueue();
  }

  /** Cancels a pending write, and removes the state of the stored owner and of `userId`. */
  clear(userId: string | undefined): void {
    this.#pendingWrite = null;
    this.#pendingRemovals.add(userId ?? '');
    void this.#processQueue();
  }

  /** Runs removals and writes one at a time, because an asynchronous storage could otherwise reorder them. */
  async #processQueue(): Promise<void> {
    if (this.#isProcessing) return;
    this.#isProcessing = true;
    try {
      for (;;) {
        const [removal] = this.#pendingRemovals;
        const write = this.#pendingWrite;
        if (removal !== undefined) {
          this.#pendingRemovals.delete(removal);
          await this.#remove(removal);
        } else if (write) {
          this.#pendingWrite = null;
          await this.#write(write);
        } else break;
      }
    } catch (cause) {
      this.#onError(cause);
    } finally {
      this.#isProcessing = false;
    }
  }

  async #write({ state, serverAt, fingerprint }: PendingWrite): Promise<void> {
    const { userId } = state;
    if (this.#ownerId === undefined) await this.#readOwner();
    if (this.#ownerId && this.#ownerId !== userId) await this.#remove();
    this.#ownerId = userId;
    const entry = { writtenAt: Date.now(), serverAt, state: encodeState(state) };
    await this.#storage.setItem(this.#stateKey(userId), JSON.stringify(entry));
    const owner: Owner = { userId, credential: fingerprint };
    await this.#storage.setItem(this.#ownerKey(), JSON.stringify(owner));
  }

  /** Removes the owner entry, the owner's state and the state of `userId`. */
  async #remove(userId?: string): Promise<void> {
    if (userId) await this.#storage.removeItem(this.#stateKey(userId));
    const { userId: ownerId } = await this.#readOwner();
    this.#ownerId = null;
    if (ownerId) await this.#storage.removeItem(this.#stateKey(ownerId));
    await this.#storage.removeItem(this.#ownerKey());
  }

  /** Returns the owner's user id if the persisted state may be used. Otherwise removes the state and returns `null`. */
  async #verifyOwner(fingerprint: string | null): Promise<string | null> {
    const { userId, credential } = await this.#readOwner();
    // Without a token there is no fingerprint, because scripts cannot read the session cookie.
    const isOwner = this.hasUserId ? userId === this.#userId : fingerprint !== null && credential === fingerprint;
    if (!isOwner) await this.#remove();
    return isOwner ? userId : null;
  }

  async #readOwner(): Promise<Owner> {
    const text = await this.#storage.getItem(this.#ownerKey());
    let owner: Owner = { userId: null };
    try {
      owner = JSON.parse(text ?? '');
    } catch {
      // A malformed entry counts as missing.
    }
    this.#ownerId = owner.userId;
    return owner;
  }

  #ownerKey(): string {
    return `feature-flags:${VERSION}:${this.#baseUrl}`;
  }

  #stateKey(userId: string): string {
    return `${this.#ownerKey()}:${userId}`;
  }
}

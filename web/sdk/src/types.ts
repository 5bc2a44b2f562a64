/** Any JSON value. Values that the client returns are deeply frozen. */
export type Json = boolean | string | number | null | readonly Json[] | { readonly [key: string]: Json };

/** Value of a flag. `undefined` if the flag does not exist or no values have arrived yet. */
export type FlagValue = Json | undefined;

/**
 * Type of a flag's value, inferred from the fallback. A literal type widens to its base type (`false` to `boolean`).
 * The client does not check the contents of objects and arrays at run time.
 */
export type Widened<T> = T extends boolean
  ? boolean
  : T extends string
    ? string
    : T extends number
      ? number
      : T extends null
        ? Json
        : T extends readonly never[]
          ? readonly Json[]
          : T;

/** Active override of one flag for the user. */
export interface OverrideInfo {
  /** Name of the overridden flag. */
  readonly flagName: string;
  /** Value that the override supplies. */
  readonly value: FlagValue;
  /** Time of creation, RFC 3339 in UTC. */
  readonly createdAt: string;
  /** Time of the last update, RFC 3339 in UTC. */
  readonly updatedAt: string;
  /** Time of expiry, RFC 3339 in UTC. `null` if the override does not expire. */
  readonly expiresAt: string | null;
  /** Reason that an administrator entered. Present only if the server shows reasons to users. */
  readonly reason?: string | null;
}

/** Change that is passed to listeners. */
export interface FlagsChanged {
  /** Names of the flags that were added or removed, or whose value or override changed. May be empty. */
  readonly flags: ReadonlySet<string>;
  /** Whether values may be out of date. */
  readonly stale: boolean;
}

/** Callback for changes. The client catches its exceptions and passes them to `onError` with kind `listener`. */
export type FlagListener = (change: FlagsChanged) => void;

/** Error that the client handled itself. It never changes a value. */
export interface FlagClientError {
  /**
   * Cause of the error:
   * - `network`: the server is unreachable, or the connection was interrupted
   * - `timeout`: the server did not respond in time, or a stream sent nothing for 45 seconds
   * - `http`: the server responded with an error; see `status`
   * - `protocol`: the response or event does not contain flags in the expected format
   * - `token`: the token function threw or rejected
   * - `storage`: persisted values could not be read or written
   * - `listener`: a listener threw
   */
  readonly kind: 'network' | 'timeout' | 'http' | 'protocol' | 'token' | 'storage' | 'listener';
  /** Description in English, for logs. */
  readonly message: string;
  /** HTTP status code. Present only for kind `http`. */
  readonly status?: number | undefined;
  /** Underlying exception, if there is one. */
  readonly cause?: unknown;
}

/** Key-value storage for persisted values. `localStorage` implements it. Methods may return promises. */
export interface FlagStorage {
  /** Returns the text stored under `key`, or `null`. */
  getItem(key: string): string | null | Promise<string | null>;
  /** Stores `value` under `key` and replaces an existing entry. */
  setItem(key: string, value: string): void | Promise<void>;
  /** Removes the entry. Does nothing if it does not exist. */
  removeItem(key: string): void | Promise<void>;
}

/**
 * Credential for `Authorization: Bearer`, or a function that returns one. The client calls the function for each
 * connection, so it can return a renewed token of the same user.
 */
export type Token = string | (() => string | Promise<string>);

/** Options of `createFlagClient`. */
export interface FlagClientOptions {
  /** URL of the server, for example `https://flags.example.com`. May contain a path. */
  baseUrl: string;
  /** API token or JWT that acts as the user. Without a token, the server identifies the user by the session cookie. */
  token?: Token | undefined;
  /** Whether requests send cookies, as in `fetch`. Default: `same-origin` without a token, `omit` with one. */
  credentials?: 'omit' | 'same-origin' | 'include' | undefined;
  /**
   * Persists values for the next start: `'local'` uses `localStorage`, or pass a storage of your own.
   * Default: values are not persisted.
   */
  storage?: 'local' | FlagStorage | undefined;
  /**
   * Id of the user, if the application knows it. The client can then restore persisted values before the server
   * responds, even with cookies or with a token that differs at each start.
   */
  userId?: string | undefined;
  /** Whether browser tabs of the same user share one event stream, if the browser supports it. Default: `true`. */
  shareTabs?: boolean | undefined;
  /**
   * Called for each error that the client handles. The client retries by itself and ignores exceptions of the callback.
   */
  onError?: ((error: FlagClientError) => void) | undefined;
  /** Replacement for the global `fetch`. */
  fetch?: typeof fetch | undefined;
}

/**
 * Values of all flags for one user, kept up to date by the server. Reads are synchronous. No method throws, and no
 * returned promise rejects.
 */
export interface FlagClient {
  /** Returns the flag's value, or `undefined` if the flag does not exist. Never throws. */
  getFlag(flagName: string): FlagValue;
  /**
   * Returns the flag's value, or `fallback` if the flag does not exist or its value has another type. The contents
   * of objects and arrays are not checked. Never throws.
   */
  getFlag<T extends Json | object>(flagName: string, fallback: T): Widened<T>;
  /** Returns the values of all flags by name. The object is frozen, and the same object until a value changes. */
  getUserFlags(): Record<string, FlagValue>;
  /** Returns whether an active override supplies the flag's value. */
  hasOverride(flagName: string): boolean;
  /** Returns the active override that supplies the flag's value, or `null`. */
  getOverrideInfo(flagName: string): OverrideInfo | null;
  /** Whether values may be out of date: the server is unreachable, or it reports that its own data is stale. */
  readonly stale: boolean;
  /** Id of the user whose values the client has. `null` while there are none. */
  readonly userId: string | null;
  /** Revision of the values, `<epoch>:<number>`. `null` while there are none. */
  readonly revision: string | null;
  /**
   * Resolves to `true` as soon as the client has values, including persisted ones. Resolves to `false` if it has none
   * after the timeout, or when the client is closed. Never rejects.
   *
   * @param timeout - Timeout in milliseconds. Default 5,000, at most 2,147,483,647 (24 days). `Infinity` disables it.
   */
  ready(timeout?: number): Promise<boolean>;
  /**
   * Calls `listener` after each change of a value or override, and when `stale` changes.
   *
   * @returns A function that removes the listener.
   */
  subscribe(listener: FlagListener): () => void;
  /**
   * Calls `listener` after each change of this flag's value or override.
   *
   * @returns A function that removes the listener.
   */
  subscribe(flagName: string, listener: FlagListener): () => void;
  /**
   * Requests the current values immediately. Resolves to `true` when they are applied. Resolves to `false` if the
   * request failed, or if the client was closed or reset meanwhile. Never rejects.
   */
  refresh(): Promise<boolean>;
  /** Replaces the credential. Discards all values, including persisted ones, and reconnects immediately. */
  setToken(token: Token | undefined): void;
  /**
   * Discards all values, including persisted ones, and reconnects with the current credential. Call it after a sign-in
   * or sign-out by cookie.
   */
  reset(): void;
  /** Closes the client permanently. Values remain readable and are reported as stale. */
  close(): void;
}

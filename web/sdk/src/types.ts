/** Any JSON value. What the client gives out is frozen. */
export type Json = boolean | string | number | null | readonly Json[] | { readonly [key: string]: Json };

/** What a flag gives. `undefined`: there is no such flag, or nothing is known of it yet. */
export type FlagValue = Json | undefined;

/**
 * The type that a fallback stands for: of a literal, the type it is a literal of. Of objects and arrays the client sees
 * only that a value is one.
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

/** An override that decides what the user gets now. */
export interface OverrideInfo {
  readonly flagName: string;
  readonly value: FlagValue;
  /** RFC 3339, in UTC. */
  readonly createdAt: string;
  /** RFC 3339, in UTC. */
  readonly updatedAt: string;
  /** RFC 3339, in UTC; `null` if it never ends. */
  readonly expiresAt: string | null;
  /** Only if the server was told to show reasons to users. */
  readonly reason?: string | null;
}

/** A change, as listeners are told of it. */
export interface FlagsChanged {
  /** The flags whose value or override is another one, or that came or went. */
  readonly flags: ReadonlySet<string>;
  /** Whether values may be out of date. */
  readonly stale: boolean;
}

/** Is told of changes. What it throws is passed on to `onError`. */
export type FlagListener = (change: FlagsChanged) => void;

/** Why something failed that the client tries again. */
export interface FlagClientError {
  /**
   * - `network`: the service cannot be reached, or the connection broke
   * - `timeout`: it does not answer, or a stream fell silent
   * - `http`: it answered with an error; see `status`
   * - `protocol`: it answered with something else than flags
   * - `token`: the function that gives the token failed
   * - `storage`: values cannot be kept or read
   * - `listener`: a listener threw
   */
  readonly kind: 'network' | 'timeout' | 'http' | 'protocol' | 'token' | 'storage' | 'listener';
  readonly message: string;
  /** The HTTP status, if there was an answer. */
  readonly status?: number | undefined;
  readonly cause?: unknown;
}

/** Where values are kept from one start to the next. `localStorage` is one. */
export interface FlagStorage {
  getItem(key: string): string | null | Promise<string | null>;
  setItem(key: string, value: string): void | Promise<void>;
  removeItem(key: string): void | Promise<void>;
}

/** A credential for `Authorization: Bearer`, or a function that gives one; it is called for each connection. */
export type Token = string | (() => string | Promise<string>);

export interface FlagClientOptions {
  /** Where the service is, such as `https://flags.example.com`. */
  baseUrl: string;
  /** An API token or a JWT that acts as the user. Without one the session's cookie counts. */
  token?: Token | undefined;
  /** Whether cookies go along; unless given, `same-origin` without a token and `omit` with one. */
  credentials?: 'omit' | 'same-origin' | 'include' | undefined;
  /** Keeps values for the next start: `'local'` in `localStorage`, or a store of your own. Not kept unless given. */
  storage?: 'local' | FlagStorage | undefined;
  /**
   * The user's id, if the application knows it. With it, kept values are found before the service has answered, also
   * where cookies or changing tokens say who the user is.
   */
  userId?: string | undefined;
  /** Whether tabs of the same user share one stream, where the browser can; `true` unless given. */
  shareTabs?: boolean | undefined;
  /** Is told what failed and is tried again. */
  onError?: ((error: FlagClientError) => void) | undefined;
  /** Used in place of the global `fetch`. */
  fetch?: typeof fetch | undefined;
}

/**
 * What one user gets of all flags, kept up to date. Reading is synchronous and never throws.
 */
export interface FlagClient {
  /** What the user gets of this flag; `undefined` if there is none. */
  getFlag(flagName: string): FlagValue;
  /** The same, or `fallback` if there is no such flag or it gives something of another type. */
  getFlag<T extends Json | object>(flagName: string, fallback: T): Widened<T>;
  /** What the user gets of each flag: frozen, and one object for as long as nothing changes. */
  getUserFlags(): Record<string, FlagValue>;
  /** Whether an override decides what the user gets of this flag. */
  hasOverride(flagName: string): boolean;
  /** That override; `null` if none is active. */
  getOverrideInfo(flagName: string): OverrideInfo | null;
  /** Whether values may be out of date: the service is out of reach, or says so of itself. */
  readonly stale: boolean;
  /** Whom the values are for, once that is known. */
  readonly userId: string | null;
  /** `<epoch>:<number>` of the state that the values are from. */
  readonly revision: string | null;
  /**
   * Resolves to `true` once there are values, be they kept ones, and to `false` if there are none after `timeout`
   * milliseconds (5,000 unless given, 24 days at most; `Infinity` waits) or when the client is closed. Never rejects.
   */
  ready(timeout?: number): Promise<boolean>;
  /** Calls `listener` after each change; returns what ends that. */
  subscribe(listener: FlagListener): () => void;
  /** Calls `listener` after each change of this flag. */
  subscribe(flagName: string, listener: FlagListener): () => void;
  /** Asks the service now. Resolves to whether what it says is in force; `false` also if the client began anew meanwhile. */
  refresh(): Promise<boolean>;
  /** Takes another credential in place of the present one: forgets all values and begins anew. */
  setToken(token: Token | undefined): void;
  /** Forgets all values, kept ones too, and begins anew: for after a sign-in or sign-out by cookie. */
  reset(): void;
  /** Ends the client. Values stay readable, and stale. */
  close(): void;
}

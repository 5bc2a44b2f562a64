import { SUPERSEDED } from './abortable.js';
import { Connection } from './connection.js';
import { type Deadline, Deadlines, MAX_TIMER_DELAY, NEVER } from './deadlines.js';
import { Failure, timeoutFailure } from './failure.js';
import { valueOrFallback } from './fallback.js';
import { followPageLifecycle } from './page-lifecycle.js';
import { Persistence } from './persistence.js';
import { Refresher } from './refresher.js';
import { Store } from './store.js';
import { TabCoordinator } from './tab-coordinator.js';
import type {
  FlagClient,
  FlagClientError,
  FlagClientOptions,
  FlagListener,
  FlagValue,
  Json,
  OverrideInfo,
  Token,
  Widened,
} from './types.js';
import { Values } from './values.js';

/** Default timeout of `ready`; milliseconds. */
const READY_TIMEOUT = 5_000;

/**
 * Creates a client for one user. It connects immediately and stays connected until `close` is called. A Node process
 * does not exit while a client is open.
 *
 * @throws TypeError if `baseUrl` is not an http or https URL, or contains a user name or password.
 */
export function createFlagClient(options: FlagClientOptions): FlagClient {
  return new DefaultFlagClient(options);
}

/** Client that reads from the store. The connection, the refresher and the other tabs keep the store up to date. */
class DefaultFlagClient implements FlagClient {
  readonly #store: Store;
  readonly #deadlines = new Deadlines((deadline) => this.#handleDeadline(deadline));
  readonly #values: Values;
  readonly #connection: Connection;
  readonly #refresher: Refresher;
  readonly #removePageListeners: () => void;
  #token: Token | undefined;
  /** Called when the client is closed, to resolve the pending promises of `ready`. */
  readonly #onClose = new Set<() => void>();

  constructor(options: FlagClientOptions) {
    const baseUrl = normalizeBaseUrl(options.baseUrl);
    const report = (error: FlagClientError) => {
      try {
        options.onError?.(error);
      } catch {
        // Exceptions of `onError` cannot be reported, so they are ignored.
      }
    };
    const reportAs = (kind: FlagClientError['kind'], message: string) => (cause: unknown) =>
      report(new Failure(kind, message, { cause }));
    this.#token = options.token;
    this.#store = new Store(reportAs('listener', 'a listener threw'));
    const deadlines = this.#deadlines;
    const connect = () => this.#connection.connect();
    const tabs = new TabCoordinator(baseUrl, options.shareTabs ?? true, {
      onStreamNeeded: connect,
      onUpdate: (update) => values.receiveFromLeader(update) && this.#connection.follow(),
      onStateRequest: () => values.announce(values.state),
    });
    const persistence = Persistence.create(
      options,
      baseUrl,
      reportAs('storage', 'cannot read or write persisted values'),
    );
    const values = new Values(this.#store, persistence, deadlines, tabs);
    const server = {
      baseUrl,
      credentials: options.credentials,
      fetch: options.fetch ?? ((...args) => fetch(...args)),
    };
    const deps = { server, deadlines, values, tabs, report, token: () => this.#currentToken() };
    this.#values = values;
    this.#connection = new Connection(deps, () => this.#refresher.abort(SUPERSEDED));
    this.#refresher = new Refresher(deps, this.#connection);
    this.#removePageListeners = followPageLifecycle({
      connect,
      suspend: () => this.#stop('idle'),
      wake: () => this.#connection.wake(values.detectSleep()),
    });
    connect();
  }

  getFlag(flagName: string): FlagValue;
  getFlag<T extends Json | object>(flagName: string, fallback: T): Widened<T>;
  getFlag(flagName: string, fallback?: Json | object): FlagValue | object {
    const value = this.#store.value(flagName);
    return fallback === undefined ? value : valueOrFallback(value, fallback);
  }

  getUserFlags(): Record<string, FlagValue> {
    return this.#store.values();
  }

  hasOverride(flagName: string): boolean {
    return this.getOverrideInfo(flagName) !== null;
  }

  getOverrideInfo(flagName: string): OverrideInfo | null {
    return this.#store.overrideInfo(flagName);
  }

  get stale(): boolean {
    return this.#store.stale;
  }

  get userId(): string | null {
    return this.#store.state?.userId ?? null;
  }

  get revision(): string | null {
    const position = this.#store.state?.position;
    return position ? `${position.epoch}:${position.revision}` : null;
  }

  ready(timeout = READY_TIMEOUT): Promise<boolean> {
    return new Promise((resolve) => {
      let timer: ReturnType<typeof setTimeout> | undefined;
      const finish = () => {
        clearTimeout(timer);
        unsubscribe();
        this.#onClose.delete(finish);
        resolve(this.#store.state !== null);
      };
      const unsubscribe = this.#store.subscribe(null, () => this.#store.state && finish());
      this.#onClose.add(finish);
      if (this.#isClosed || this.#store.state) finish();
      else if (timeout !== NEVER) timer = setTimeout(finish, Math.min(MAX_TIMER_DELAY, timeout));
    });
  }

  subscribe(listener: FlagListener): () => void;
  subscribe(flagName: string, listener: FlagListener): () => void;
  subscribe(nameOrListener: string | FlagListener, listener?: FlagListener): () => void {
    if (typeof nameOrListener === 'function') return this.#store.subscribe(null, nameOrListener);
    return this.#store.subscribe(nameOrListener, listener ?? (() => {}));
  }

  async refresh(): Promise<boolean> {
    return !this.#isClosed && this.#refresher.refresh();
  }

  setToken(token: Token | undefined): void {
    if (this.#isClosed) return;
    this.#connection.reset();
    this.#token = token;
    this.#values.clear();
    // A listener may have set another token in the meantime.
    if (this.#token === token && !this.#store.state) this.#connection.connect();
  }

  reset(): void {
    this.setToken(this.#token);
  }

  close(): void {
    if (this.#isClosed) return;
    this.#removePageListeners();
    this.#values.cancelLoading();
    this.#stop('closed');
    this.#deadlines.clear('expiry', 'refresh');
    for (const finish of this.#onClose) finish();
  }

  get #isClosed(): boolean {
    return this.#connection.phase === 'closed';
  }

  #stop(kind: 'idle' | 'closed'): void {
    this.#connection.stop(kind);
    this.#values.publish();
  }

  /** The only place that reacts to the passing of time. No deadline is pending after `close`. */
  #handleDeadline(deadline: Deadline): void {
    if (deadline === 'connection') this.#connection.timeOut();
    else if (deadline === 'expiry') this.#values.publish();
    else if (deadline === 'refreshTimeout') this.#refresher.abort(timeoutFailure());
    else void this.#refresher.refreshOverdue();
  }

  async #currentToken(): Promise<string | undefined> {
    try {
      return typeof this.#token === 'function' ? await this.#token() : this.#token;
    } catch (cause) {
      throw new Failure('token', 'the token function failed', { cause });
    }
  }
}

/** Removes query, fragment and trailing slashes. */
function normalizeBaseUrl(baseUrl: string): string {
  let url: URL | null = null;
  try {
    url = new URL(baseUrl);
  } catch {
    // The check below rejects an unparsable URL together with other invalid URLs.
  }
  if (!url || !/^https?:$/.test(url.protocol) || url.username || url.password) {
    throw new TypeError(`baseUrl must be an http(s) URL without credentials (got ${baseUrl})`);
  }
  return url.href.replace(/\/*([?#].*)?$/, '');
}

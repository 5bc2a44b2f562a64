import { MAX_TIMER, NEVER } from './deadlines.js';
import { Engine } from './engine.js';
import { ofType } from './fallback.js';
import { watchPage } from './page.js';
import { Persistence } from './persistence.js';
import { Store } from './store.js';
import { Failure, Transport } from './transport.js';
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

/** How long `ready` waits unless told otherwise; milliseconds. */
const READY_WITHIN = 5_000;

/**
 * A client for one user. It begins at once, and goes on until it is closed.
 *
 * @throws TypeError if `baseUrl` is no http or https URL, or has a user or password in it
 */
export function createFlagClient(options: FlagClientOptions): FlagClient {
  return new LiveFlagClient(options);
}

class LiveFlagClient implements FlagClient {
  readonly #store: Store;
  readonly #engine: Engine;
  readonly #unwatch: () => void;
  #token: Token | undefined;
  #closed = false;
  readonly #onClose = new Set<() => void>();

  constructor(options: FlagClientOptions) {
    const baseUrl = checkedUrl(options.baseUrl);
    const report = (error: FlagClientError) => {
      try {
        options.onError?.(error);
      } catch {
        // Nobody is left to be told.
      }
    };
    const failed = (kind: FlagClientError['kind'], message: string) => (cause: unknown) =>
      report(new Failure(kind, message, { cause }));
    this.#token = options.token;
    this.#store = new Store(failed('listener', 'a listener threw'));
    this.#engine = new Engine(
      {
        baseUrl,
        store: this.#store,
        transport: new Transport(baseUrl, options.credentials, options.fetch ?? ((...call) => fetch(...call))),
        persistence: Persistence.open(options, baseUrl, failed('storage', 'values cannot be kept or read')),
        shareTabs: options.shareTabs ?? true,
        report,
      },
      options.token,
    );
    this.#unwatch = watchPage(this.#engine);
    this.#engine.connect();
  }

  getFlag(flagName: string): FlagValue;
  getFlag<T extends Json | object>(flagName: string, fallback: T): Widened<T>;
  getFlag(flagName: string, fallback?: Json | object): FlagValue | object {
    const value = this.#store.value(flagName);
    return fallback === undefined ? value : ofType(value, fallback);
  }

  getUserFlags(): Record<string, FlagValue> {
    return this.#store.all();
  }

  hasOverride(flagName: string): boolean {
    return this.getOverrideInfo(flagName) !== null;
  }

  getOverrideInfo(flagName: string): OverrideInfo | null {
    return this.#store.override(flagName);
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

  ready(timeout = READY_WITHIN): Promise<boolean> {
    return new Promise((resolve) => {
      let timer: ReturnType<typeof setTimeout> | undefined;
      const done = () => {
        clearTimeout(timer);
        unsubscribe();
        this.#onClose.delete(done);
        resolve(this.#store.state !== null);
      };
      const unsubscribe = this.#store.subscribe(null, () => this.#store.state && done());
      this.#onClose.add(done);
      if (this.#closed || this.#store.state) done();
      else if (timeout !== NEVER) timer = setTimeout(done, Math.min(MAX_TIMER, timeout));
    });
  }

  subscribe(listener: FlagListener): () => void;
  subscribe(flagName: string, listener: FlagListener): () => void;
  subscribe(first: string | FlagListener, second?: FlagListener): () => void {
    if (typeof first === 'function') return this.#store.subscribe(null, first);
    return this.#store.subscribe(first, second ?? (() => {}));
  }

  refresh(): Promise<boolean> {
    return this.#engine.refresh();
  }

  setToken(token: Token | undefined): void {
    this.#token = token;
    this.#engine.restart(token);
  }

  reset(): void {
    this.#engine.restart(this.#token);
  }

  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    this.#unwatch();
    this.#engine.close();
    for (const done of [...this.#onClose]) done();
  }
}

function checkedUrl(baseUrl: string): string {
  let url: URL | null = null;
  try {
    url = new URL(baseUrl);
  } catch {
    // Told below, with what would be right.
  }
  if (!url || !/^https?:$/.test(url.protocol) || url.username || url.password) {
    throw new TypeError(`baseUrl must be a URL such as https://flags.example.com, not ${baseUrl}`);
  }
  return url.href.replace(/[?#].*$/, '').replace(/\/+$/, '');
}

/**
 * One stream for all tabs of a user: whoever holds the lock (Web Locks) leads and has the stream, and tells the others by a
 * BroadcastChannel what has become of it. When the leader goes, the browser gives the lock to the next.
 */

/** Of what tabs tell each other. Tabs that speak another version share nothing with this one. */
const VERSION = 1;

/** What the leader tells. */
export interface TabNews {
  /** The state as it is kept, if it has changed. */
  readonly state?: string;
  /** Whether the leader hears the service. */
  readonly fresh: boolean;
  /** Whether the service says that it is stale itself. */
  readonly serverStale: boolean;
  /** The server's clock; microseconds. */
  readonly serverAt: number;
}

export interface TabHandler {
  /** From now on this tab has the stream. */
  lead(): void;
  /** The leader tells something. */
  told(news: TabNews): void;
  /** A tab that has just come wants to know everything. */
  asked(): void;
}

type Message = { kind: 'news'; news: TabNews } | { kind: 'hello' };

export class Tabs {
  readonly #channel: BroadcastChannel;
  readonly #left = new AbortController();
  #release: (() => void) | null = null;

  private constructor(name: string, handler: TabHandler) {
    this.#channel = new BroadcastChannel(name);
    this.#channel.onmessage = ({ data }: MessageEvent<Message>) => {
      if (data.kind === 'hello') {
        if (this.leads) handler.asked();
      } else if (!this.leads) handler.told(data.news);
    };
    const lead = () =>
      new Promise<void>((release) => {
        this.#release = release;
        handler.lead();
      });
    // It is rejected when this tab leaves before its turn.
    navigator.locks.request(name, { signal: this.#left.signal }, lead).catch(() => {});
    this.#channel.postMessage({ kind: 'hello' } satisfies Message);
  }

  /** Joins the tabs that show this user what this service says; `null` where the browser cannot. */
  static join(baseUrl: string, userId: string, handler: TabHandler): Tabs | null {
    const able = typeof BroadcastChannel === 'function' && globalThis.navigator?.locks && 'document' in globalThis;
    return able ? new Tabs(`feature-flags:${VERSION}:${baseUrl}:${userId}`, handler) : null;
  }

  get leads(): boolean {
    return this.#release !== null;
  }

  /** Tells the others, if this tab leads. */
  tell(news: TabNews): void {
    if (this.leads) this.#channel.postMessage({ kind: 'news', news } satisfies Message);
  }

  leave(): void {
    this.#left.abort();
    this.#release?.();
    this.#release = null;
    this.#channel.close();
  }
}

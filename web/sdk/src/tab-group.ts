/**
 * One stream for all tabs of a user: whoever holds the lock (Web Locks) leads and has the stream, and tells the others by a
 * BroadcastChannel what has become of it. When the leader goes, the browser gives the lock to the next.
 */

/** Of what tabs tell each other. Tabs that speak another version share nothing with this one. */
const VERSION = 1;

/** What the leader tells. */
export interface TabNews {
  /** The state as it is kept, if it has changed or somebody asked for it. */
  readonly state?: string;
  /** The position at which the flags last changed: whoever stands before it must ask. */
  readonly changedAt: string;
  /** Whether the leader hears the service. */
  readonly fresh: boolean;
  /** Whether the service says that it is stale itself. */
  readonly serverStale: boolean;
  /** The server's clock; microseconds. */
  readonly serverAt: number;
}

interface TabHandler {
  /** From now on this tab has the stream. */
  lead(): void;
  /** The browser does not let this page share anything. */
  refused(): void;
  /** The leader tells something. */
  told(news: TabNews): void;
  /** A tab wants to know everything. */
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
      if (data?.kind === 'hello' && this.leads) handler.asked();
      else if (data?.kind === 'news' && !this.leads) handler.told(data.news);
    };
    const lead = () =>
      new Promise<void>((release) => {
        this.#release = release;
        handler.lead();
      });
    navigator.locks.request(name, { signal: this.#left.signal }, lead).catch(() => {
      if (!this.#left.signal.aborted) handler.refused();
    });
    this.ask();
  }

  /** Joins the tabs that show this user what this service says; `null` where the browser cannot or will not. */
  static join(baseUrl: string, userId: string, handler: TabHandler): Tabs | null {
    const able = typeof BroadcastChannel === 'function' && globalThis.navigator?.locks && 'document' in globalThis;
    try {
      return able ? new Tabs(`feature-flags:${VERSION}:${baseUrl}:${userId}`, handler) : null;
    } catch {
      return null;
    }
  }

  get leads(): boolean {
    return this.#release !== null;
  }

  /** Asks the leader for everything. */
  ask(): void {
    this.#channel.postMessage({ kind: 'hello' } satisfies Message);
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

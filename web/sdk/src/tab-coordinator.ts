/**
 * Leader election among the browser tabs of one user. The tab that holds a Web Lock is the leader. It has the only
 * event stream and sends updates to the followers over a BroadcastChannel. When the leader closes, the browser grants
 * the lock to the next tab.
 */

/** Version of the messages. Part of the channel's name, so tabs with another version form a separate group. */
const VERSION = 1;

/** Message from the leader to the followers. */
export interface LeaderUpdate {
  /** Encoded state. Present if the flags changed or a follower requested the state. */
  readonly state?: string;
  /** Position of the last change of a flag. Followers with an earlier position must request the state. */
  readonly changedAt: string;
  /** Whether the leader is connected to the server. */
  readonly fresh: boolean;
  /** Whether the server reports that its own data is stale. */
  readonly serverStale: boolean;
  /** Server's clock; microseconds since 1970. */
  readonly serverAt: number;
}

interface TabHandler {
  /** Called when this tab must open a stream: it became the leader, or the browser denied the lock. */
  onStreamNeeded(): void;
  /** Called in followers for each update of the leader. */
  onUpdate(update: LeaderUpdate): void;
  /** Called in the leader if a follower requests the state. */
  onStateRequest(): void;
}

type Message = { kind: 'update'; update: LeaderUpdate } | { kind: 'request' };

export class TabCoordinator {
  readonly #baseUrl: string;
  readonly #handler: TabHandler;
  /** Whether this tab may join a group. */
  #isEnabled: boolean;
  /** Channel of the group. `null` if this tab is in no group. */
  #channel: BroadcastChannel | null = null;
  /** Cancels the request for the lock. */
  #membership = new AbortController();
  /** Releases the lock. `null` unless this tab is the leader. */
  #releaseLock: (() => void) | null = null;

  constructor(baseUrl: string, isEnabled: boolean, handler: TabHandler) {
    this.#baseUrl = baseUrl;
    this.#handler = handler;
    this.#isEnabled = isEnabled && 'document' in globalThis && 'locks' in navigator;
  }

  get isLeader(): boolean {
    return this.#releaseLock !== null;
  }

  /** Whether another tab has the stream or is about to open it. */
  get isFollower(): boolean {
    return this.#channel !== null && !this.isLeader;
  }

  /**
   * Joins the tabs with the same server and user, if the browser supports it. Returns whether this tab is a follower.
   */
  join(userId: string): boolean {
    if (this.#isEnabled && !this.#channel) {
      try {
        this.#joinGroup(`feature-flags:${VERSION}:${this.#baseUrl}:${userId}`);
      } catch {
        // The browser denies BroadcastChannel or Web Locks, so this tab joins no group.
      }
    }
    return this.isFollower;
  }

  #joinGroup(name: string): void {
    const channel = new BroadcastChannel(name);
    this.#membership = new AbortController();
    const { signal } = this.#membership;
    channel.onmessage = ({ data }: MessageEvent<Message>) => {
      if (data?.kind === 'request' && this.isLeader) this.#handler.onStateRequest();
      else if (data?.kind === 'update' && this.isFollower) this.#handler.onUpdate(data.update);
    };
    const holdLock = () =>
      new Promise<void>((release) => {
        this.#releaseLock = release;
        this.#handler.onStreamNeeded();
      });
    navigator.locks.request(name, { signal }, holdLock).catch(() => {
      if (signal.aborted) return;
      this.#isEnabled = false;
      this.leave();
      this.#handler.onStreamNeeded();
    });
    this.#channel = channel;
    this.requestState();
  }

  /** Requests the state from the leader. */
  requestState(): void {
    this.#channel?.postMessage({ kind: 'request' } satisfies Message);
  }

  /** Sends an update to the followers. Only the leader may call it. */
  broadcast(update: LeaderUpdate): void {
    this.#channel?.postMessage({ kind: 'update', update } satisfies Message);
  }

  leave(): void {
    this.#membership.abort();
    this.#releaseLock?.();
    this.#releaseLock = null;
    this.#channel?.close();
    this.#channel = null;
  }
}

/** Client of the admin event stream. All tabs of this browser share one connection. */

import { createParser, type EventSourceMessage } from 'eventsource-parser';
import { announceSignedOut, rememberRevision } from '../api/client';
import type { ChangedResource } from '../api/types';
import { observeServerTime } from '../time/clock';

const STREAM_PATH = '/api/admin/stream';
const CHANNEL = 'feature-flags:admin:1';
/** Time without data after which a connection counts as broken: two heartbeats and a margin; milliseconds. */
const SILENCE_TIMEOUT = 35_000;
const MAX_DELAY = 15_000;

export interface StreamState {
  /** `live`: events arrive. `reconnecting`: the connection was lost. `signedOut`: the credential was rejected. */
  readonly connection: 'connecting' | 'live' | 'reconnecting' | 'signedOut';
  /** Whether the server reports that it cannot read its database. */
  readonly stale: boolean;
  /** When the state began; milliseconds since 1970. */
  readonly since: number;
}

/** Message that a tab receives from the stream, directly or through the tab with the connection. */
export type StreamMessage =
  | { readonly kind: 'state'; readonly state: StreamState }
  | { readonly kind: 'changes'; readonly changes: readonly ChangedResource[] }
  /** Everything may have changed, so all responses must be reloaded. */
  | { readonly kind: 'snapshot' };

type TabMessage = StreamMessage | { readonly kind: 'request' };

export const INITIAL_STATE: StreamState = { connection: 'connecting', stale: false, since: Date.now() };

/** Stays connected until `signal` is aborted. One tab (the leader) has the connection and notifies the other tabs. */
export function followChanges(userId: string, onMessage: (message: StreamMessage) => void, signal: AbortSignal): void {
  const channel = new BroadcastChannel(`${CHANNEL}:${userId}`);
  signal.addEventListener('abort', () => channel.close());
  let state = INITIAL_STATE;
  let isLeader = false;
  channel.onmessage = ({ data }: MessageEvent<TabMessage>) => {
    if (data.kind !== 'request') {
      if (!isLeader) onMessage(data);
    } else if (isLeader) channel.postMessage({ kind: 'state', state } satisfies TabMessage);
  };
  channel.postMessage({ kind: 'request' } satisfies TabMessage);

  const publish = (message: StreamMessage) => {
    if (signal.aborted) return;
    if (message.kind === 'state') state = message.state;
    onMessage(message);
    channel.postMessage(message);
  };
  const lead = async () => {
    isLeader = true;
    // This tab may have missed changes since the previous leader closed.
    if (state.connection !== 'connecting') publish({ kind: 'snapshot' });
    await keepConnected(publish, signal);
  };
  navigator.locks.request(`${CHANNEL}:${userId}`, { signal }, lead).catch(() => {
    // The signal was aborted while this tab waited for the lock.
  });
}

async function keepConnected(publish: (message: StreamMessage) => void, signal: AbortSignal): Promise<void> {
  const stream = new ChangeStream(publish);
  while (!signal.aborted) {
    const outcome = await stream.read(signal);
    if (outcome === 'signedOut') await untilSignedInAgain(signal);
    else await pause(outcome, signal);
  }
}

/** Waits until the time has passed or the browser is online again. */
function pause(milliseconds: number, signal: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    const finish = () => {
      clearTimeout(timer);
      removeEventListener('online', finish);
      signal.removeEventListener('abort', finish);
      resolve();
    };
    const timer = setTimeout(finish, milliseconds);
    addEventListener('online', finish);
    signal.addEventListener('abort', finish);
  });
}

let notifySignedIn: (() => void) | null = null;

/** Reconnects. Call it after the user has signed in again. */
export function resumeStream(): void {
  notifySignedIn?.();
}

function untilSignedInAgain(signal: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    notifySignedIn = resolve;
    signal.addEventListener('abort', () => resolve());
  });
}

class ChangeStream {
  readonly #publish: (message: StreamMessage) => void;
  #position: string | null = null;
  #failures = 0;
  #initialDelay = 1000;
  #state = INITIAL_STATE;

  constructor(publish: (message: StreamMessage) => void) {
    this.#publish = publish;
  }

  /** Reads one stream to its end. Returns the delay before the next attempt, in milliseconds. */
  async read(signal: AbortSignal): Promise<number | 'signedOut'> {
    const attempt = new AbortController();
    const abort = () => attempt.abort();
    signal.addEventListener('abort', abort);
    let silence = setTimeout(abort, SILENCE_TIMEOUT);
    try {
      const response = await fetch(STREAM_PATH, {
        headers: { Accept: 'text/event-stream', ...(this.#position ? { 'Last-Event-ID': this.#position } : {}) },
        signal: attempt.signal,
        cache: 'no-store',
      });
      observeServerTime(response.headers.get('Date'));
      if (response.status === 401 || response.status === 403) return this.#signedOut(response.status);
      if (!response.ok || !response.body) return this.#failed(Number(response.headers.get('Retry-After')) * 1000);
      const parser = createParser({
        onEvent: (event) => this.#receive(event),
        onRetry: (delay) => {
          this.#initialDelay = delay;
        },
      });
      const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
      for (let chunk = await reader.read(); !chunk.done; chunk = await reader.read()) {
        clearTimeout(silence);
        silence = setTimeout(abort, SILENCE_TIMEOUT);
        parser.feed(chunk.value);
      }
      return this.#failed(0);
    } catch {
      return this.#failed(0);
    } finally {
      clearTimeout(silence);
      signal.removeEventListener('abort', abort);
      attempt.abort();
    }
  }

  #receive({ event, id, data }: EventSourceMessage): void {
    if (id) this.#position = id;
    if (event === 'bye') return;
    this.#failures = 0;
    const parsed = JSON.parse(data) as { revision: string; stale?: boolean; changes?: ChangedResource[] };
    rememberRevision(parsed.revision);
    if (event === 'snapshot') this.#publish({ kind: 'snapshot' });
    if (event === 'change') this.#publish({ kind: 'changes', changes: parsed.changes ?? [] });
    this.#setState('live', parsed.stale ?? (event === 'change' ? false : this.#state.stale));
  }

  #failed(retryAfter: number): number {
    this.#failures += 1;
    this.#setState('reconnecting', this.#state.stale);
    const delay = Math.min(MAX_DELAY, this.#initialDelay * 2 ** Math.min(this.#failures - 1, 4));
    return Math.max(retryAfter || 0, delay * (0.5 + Math.random() / 2));
  }

  #signedOut(status: number): 'signedOut' {
    this.#setState('signedOut', false);
    if (status === 401) announceSignedOut();
    return 'signedOut';
  }

  #setState(connection: StreamState['connection'], stale: boolean): void {
    if (this.#state.connection === connection && this.#state.stale === stale) return;
    this.#state = { connection, stale, since: Date.now() };
    this.#publish({ kind: 'state', state: this.#state });
  }
}

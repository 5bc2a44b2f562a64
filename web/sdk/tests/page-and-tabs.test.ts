// @vitest-environment jsdom
import { afterEach, beforeEach, describe, expect, test, vi } from 'vitest';
import { createFlagClient, type FlagClient, type Token } from '../src/index.js';
import { ScriptedServer } from './scripted-server.js';

const EPOCH = '11111111111141118111111111111111';
const realSetImmediate = setImmediate;
let server: ScriptedServer;
let clients: FlagClient[];

/** Runs pending promises, I/O callbacks and timers that are already due. */
async function settle(): Promise<void> {
  for (let turn = 0; turn < 6; turn += 1) {
    await new Promise((resolve) => realSetImmediate(resolve));
    await vi.advanceTimersByTimeAsync(0);
  }
}

function snapshot(revision: number, value: boolean, user = 'u') {
  const flag = { value, flag_type: 'boolean', variant: null, source: 'default' };
  const evaluatedAt = `2030-01-01T00:00:${String(revision).padStart(2, '0')}.000000Z`;
  return {
    user_id: user,
    revision: `${EPOCH}:${revision}`,
    evaluated_at: evaluatedAt,
    valid_until: null,
    stale: false,
    flags: { a: flag },
  };
}

function snapshotEvent(revision: number, value: boolean): Uint8Array {
  return Buffer.from(`event: snapshot\ndata: ${JSON.stringify(snapshot(revision, value))}\n\n`);
}

async function startClient(shareTabs = false, revision = 1, user = 'u', token: Token = 't'): Promise<FlagClient> {
  const client = createFlagClient({ baseUrl: 'http://localhost', token, fetch: server.fetch, shareTabs });
  clients.push(client);
  await settle();
  server.respond({ to: 'me', status: 200, json: snapshot(revision, revision > 1, user) });
  await settle();
  return client;
}

async function startStreamingClient(): Promise<FlagClient> {
  const client = await startClient();
  server.respond({ to: 'stream', status: 200 });
  await settle();
  return client;
}

beforeEach(() => {
  vi.useFakeTimers({ toFake: ['setTimeout', 'clearTimeout', 'Date', 'performance'] });
  vi.setSystemTime(new Date('2030-01-01T00:00:00Z'));
  server = new ScriptedServer();
  clients = [];
});
afterEach(() => {
  for (const client of clients) client.close();
  vi.useRealTimers();
  vi.unstubAllGlobals();
});

describe('page lifecycle', () => {
  test('a page that comes online reconnects immediately', async () => {
    await startStreamingClient();
    server.disconnect();
    await settle();
    expect(server.hasPendingRequest('stream')).toBe(false);
    window.dispatchEvent(new Event('online'));
    await settle();
    expect(server.hasPendingRequest('stream')).toBe(true);
  });

  test('a visible page does not skip the delay that Retry-After requests', async () => {
    await startClient();
    server.respond({ to: 'stream', status: 429, headers: { 'Retry-After': '600' }, text: '' });
    await settle();
    for (const attempt of [1, 2]) {
      document.dispatchEvent(new Event('visibilitychange'));
      await settle();
      expect([attempt, server.hasPendingRequest('me'), server.hasPendingRequest('stream')]).toEqual([
        attempt,
        false,
        false,
      ]);
    }
  });

  test('a visible or online page does not skip the delay after 403', async () => {
    await startClient();
    server.respond({ to: 'stream', status: 403, text: '' });
    await settle();
    window.dispatchEvent(new Event('online'));
    // A jump of the wall clock does not skip the delay either.
    vi.setSystemTime(Date.now() + 3_600_000);
    document.dispatchEvent(new Event('visibilitychange'));
    await settle();
    expect([server.hasPendingRequest('me'), server.hasPendingRequest('stream')]).toEqual([false, false]);
  });

  test('a page that slept expires overrides, is stale and reconnects', async () => {
    const client = await startStreamingClient();
    const [created_at, expires_at] = ['2029-01-01T00:00:00Z', '2030-01-01T00:30:00Z'];
    const override = { created_at, updated_at: created_at, expires_at };
    const then = { value: false, variant: null, source: 'default' };
    const flag = { value: true, flag_type: 'boolean', variant: null, source: 'override', override, then };
    server.send(
      Buffer.from(`event: snapshot\ndata: ${JSON.stringify({ ...snapshot(2, true), flags: { a: flag } })}\n\n`),
    );
    await settle();
    expect([client.getFlag('a'), client.stale]).toEqual([true, false]);
    vi.setSystemTime(Date.now() + 3_600_000);
    document.dispatchEvent(new Event('visibilitychange'));
    await settle();
    expect([client.getFlag('a'), client.stale, server.streamOpen]).toEqual([false, true, false]);
    server.respond({ to: 'stream', status: 200 });
    await settle();
    server.send(snapshotEvent(3, true));
    await settle();
    expect([client.getFlag('a'), client.stale]).toEqual([true, false]);
  });

  test('a page that becomes visible keeps its open stream', async () => {
    await startStreamingClient();
    const before = server.requestCount;
    document.dispatchEvent(new Event('visibilitychange'));
    await settle();
    expect([server.requestCount, server.streamOpen]).toEqual([before, true]);
  });

  test('a page in the back/forward cache closes its stream and reconnects when it is restored', async () => {
    const client = await startStreamingClient();
    window.dispatchEvent(new Event('pagehide'));
    await settle();
    expect([server.streamOpen, client.stale, client.getFlag('a')]).toEqual([false, true, false]);
    window.dispatchEvent(Object.assign(new Event('pageshow'), { persisted: true }));
    await settle();
    server.respond({ to: 'me', status: 200, json: snapshot(5, true) });
    await settle();
    expect([client.stale, client.getFlag('a')]).toEqual([false, true]);
  });

  test('close() removes the event listeners of the page', async () => {
    const client = await startStreamingClient();
    client.close();
    const before = server.requestCount;
    window.dispatchEvent(new Event('online'));
    window.dispatchEvent(Object.assign(new Event('pageshow'), { persisted: true }));
    await settle();
    expect(server.requestCount).toBe(before);
  });
});

/** Minimal Web Locks: exclusive locks that are granted in the order of the requests. */
class FakeLockManager {
  readonly #queues = new Map<string, (() => Promise<void>)[]>();

  request(name: string, { signal }: { signal: AbortSignal }, callback: () => Promise<void>): Promise<void> {
    const queue = this.#queues.get(name) ?? [];
    this.#queues.set(name, queue);
    return new Promise((resolve, reject) => {
      const grant = () =>
        callback()
          .then(resolve)
          .finally(() => {
            queue.shift();
            void queue[0]?.();
          });
      signal.addEventListener('abort', () => {
        const index = queue.indexOf(grant);
        if (index > 0) queue.splice(index, 1);
        reject(signal.reason);
      });
      if (queue.push(grant) === 1) void Promise.resolve().then(grant);
    });
  }
}

/** BroadcastChannel between the clients of this process. */
class FakeBroadcastChannel {
  static readonly openChannels = new Set<FakeBroadcastChannel>();
  onmessage: ((message: { data: unknown }) => void) | null = null;

  constructor(readonly name: string) {
    FakeBroadcastChannel.openChannels.add(this);
  }

  postMessage(data: unknown): void {
    for (const other of FakeBroadcastChannel.openChannels) {
      const message = { data: structuredClone(data) };
      if (other !== this && other.name === this.name) queueMicrotask(() => other.onmessage?.(message));
    }
  }

  close(): void {
    FakeBroadcastChannel.openChannels.delete(this);
  }
}

describe('tabs of one user', () => {
  let locks: FakeLockManager;

  beforeEach(() => {
    locks = new FakeLockManager();
    FakeBroadcastChannel.openChannels.clear();
    vi.stubGlobal('BroadcastChannel', FakeBroadcastChannel);
    Object.defineProperty(navigator, 'locks', { value: locks, configurable: true });
  });
  afterEach(() => Reflect.deleteProperty(navigator, 'locks'));

  test('tabs of one user share one stream and its values', async () => {
    const leader = await startClient(true);
    server.respond({ to: 'stream', status: 200 });
    const follower = await startClient(true);
    expect(server.hasPendingRequest('stream')).toBe(false);
    server.send(snapshotEvent(2, true));
    await settle();
    expect([leader.getFlag('a'), follower.getFlag('a'), follower.stale]).toEqual([true, true, false]);
    server.disconnect();
    await settle();
    expect([leader.stale, follower.stale]).toEqual([true, true]);
  });

  test('a new follower receives the state from the leader', async () => {
    await startClient(true);
    server.respond({ to: 'stream', status: 200 });
    await settle();
    server.send(snapshotEvent(9, true));
    await settle();
    // The snapshot of the second tab has a lower revision than the leader.
    const follower = await startClient(true);
    expect([follower.getFlag('a'), follower.revision]).toEqual([true, `${EPOCH}:9`]);
  });

  test('a follower takes over when the leader closes', async () => {
    const leader = await startClient(true);
    server.respond({ to: 'stream', status: 200 });
    const follower = await startClient(true);
    leader.close();
    await settle();
    server.respond({ to: 'stream', status: 200 });
    await settle();
    server.send(snapshotEvent(3, true));
    await settle();
    expect(follower.getFlag('a')).toBe(true);
  });

  test('a leader that receives 401 gives up the lead', async () => {
    await startClient(true);
    const follower = await startClient(true);
    server.respond({ to: 'stream', status: 401, text: '' });
    await settle();
    server.respond({ to: 'stream', status: 200 });
    await settle();
    server.send(snapshotEvent(3, true));
    await settle();
    expect([follower.getFlag('a'), follower.stale]).toEqual([true, false]);
  });

  test('a follower opens its own stream if the leader does not respond', async () => {
    void locks.request(
      'feature-flags:1:http://localhost:u',
      { signal: new AbortController().signal },
      () => new Promise(() => {}),
    );
    await settle();
    const tab = await startClient(true);
    expect(server.hasPendingRequest('stream')).toBe(false);
    await vi.advanceTimersByTimeAsync(59_000);
    expect(server.hasPendingRequest('stream')).toBe(false);
    await vi.advanceTimersByTimeAsync(1_100);
    await settle();
    expect(server.hasPendingRequest('stream')).toBe(true);
    server.respond({ to: 'stream', status: 200 });
    await settle();
    server.send(snapshotEvent(59, true));
    await settle();
    expect([tab.getFlag('a'), tab.stale]).toEqual([true, false]);
  });

  test('tabs of different users do not share values or streams', async () => {
    await startClient(true);
    server.respond({ to: 'stream', status: 200 });
    await settle();
    const second = new ScriptedServer();
    const other = createFlagClient({ baseUrl: 'http://localhost', token: 'b', fetch: second.fetch });
    clients.push(other);
    await settle();
    second.respond({ to: 'me', status: 200, json: snapshot(1, false, 'b') });
    await settle();
    expect(second.hasPendingRequest('stream')).toBe(true);
    server.send(snapshotEvent(2, true));
    await settle();
    expect(other.getFlag('a')).toBe(false);
  });

  test('a follower that is behind the leader requests the state', async () => {
    const first = await startClient(true);
    // The snapshot of the second tab has a higher revision than those of the other tabs.
    const second = await startClient(true, 2);
    const third = await startClient(true);
    first.close();
    await settle();
    server.respond({ to: 'stream', status: 200 });
    await settle();
    server.send(Buffer.from(`event: heartbeat\nid: ${EPOCH}:2:1893456005000000\ndata: {"stale":false}\n\n`));
    await settle();
    expect([second, third].map((tab) => [tab.getFlag('a'), tab.stale])).toEqual([
      [true, false],
      [true, false],
    ]);
  });

  test('a follower whose refresh() failed accepts updates of the leader', async () => {
    await startClient(true);
    server.respond({ to: 'stream', status: 200 });
    const follower = await startClient(true);
    void follower.refresh();
    await settle();
    server.failRequest('me');
    await settle();
    expect(follower.stale).toBe(true);
    server.send(snapshotEvent(5, true));
    await settle();
    expect([follower.getFlag('a'), follower.stale]).toEqual([true, false]);
  });

  test('a leader whose token function fails gives up the lead', async () => {
    let tokenFails = false;
    const token = async () => {
      if (tokenFails) throw new Error('no token');
      return 't';
    };
    await startClient(true, 1, 'u', token);
    server.respond({ to: 'stream', status: 200 });
    const follower = await startClient(true);
    tokenFails = true;
    server.disconnect();
    await settle();
    await vi.advanceTimersByTimeAsync(1_100);
    await settle();
    server.respond({ to: 'stream', status: 200 });
    await settle();
    server.send(snapshotEvent(3, true));
    await settle();
    expect([follower.getFlag('a'), follower.stale]).toEqual([true, false]);
  });

  test('releases the tab lock if a listener closes the client during the first notification', async () => {
    const client = createFlagClient({ baseUrl: 'http://localhost', token: 't', fetch: server.fetch });
    client.subscribe(() => client.close());
    await settle();
    server.respond({ to: 'me', status: 200, json: snapshot(1, false) });
    await settle();
    await startClient(true);
    expect(server.hasPendingRequest('stream')).toBe(true);
  });

  test('a tab opens its own stream if the browser denies Web Locks', async () => {
    const denyLock = () => Promise.reject(new DOMException('no', 'SecurityError'));
    Object.defineProperty(navigator, 'locks', { value: { request: denyLock }, configurable: true });
    await startClient(true);
    expect(server.hasPendingRequest('stream')).toBe(true);
  });

  test('a tab opens its own stream if the browser denies BroadcastChannel', async () => {
    vi.stubGlobal('BroadcastChannel', function deny() {
      throw new DOMException('no', 'SecurityError');
    });
    await startClient(true);
    expect(server.hasPendingRequest('stream')).toBe(true);
  });
});

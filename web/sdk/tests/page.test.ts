// @vitest-environment jsdom
import { afterEach, beforeEach, describe, expect, test, vi } from 'vitest';
import { createFlagClient, type FlagClient, type Token } from '../src/index.js';
import { ScriptedServer } from './scripted.js';

const EPOCH = '11111111111141118111111111111111';
const settleIo = setImmediate;
let server: ScriptedServer;
let clients: FlagClient[];

/** Lets everything happen that needs no time. */
async function settle(): Promise<void> {
  for (let turn = 0; turn < 6; turn += 1) {
    await new Promise((resolve) => settleIo(resolve));
    await vi.advanceTimersByTimeAsync(0);
  }
}

function snapshot(revision: number, value: boolean, user = 'u') {
  const flag = { value, flag_type: 'boolean', variant: null, source: 'default' };
  const at = `2030-01-01T00:00:${String(revision).padStart(2, '0')}.000000Z`;
  return {
    user_id: user,
    revision: `${EPOCH}:${revision}`,
    evaluated_at: at,
    valid_until: null,
    stale: false,
    flags: { a: flag },
  };
}

function event(revision: number, value: boolean): Uint8Array {
  return Buffer.from(`event: snapshot\ndata: ${JSON.stringify(snapshot(revision, value))}\n\n`);
}

async function started(shareTabs = false, revision = 1, user = 'u', token: Token = 't'): Promise<FlagClient> {
  const client = createFlagClient({ baseUrl: 'http://localhost', token, fetch: server.fetch, shareTabs });
  clients.push(client);
  await settle();
  server.answer({ to: 'me', status: 200, json: snapshot(revision, revision > 1, user) });
  await settle();
  return client;
}

async function streaming(): Promise<FlagClient> {
  const client = await started();
  server.answer({ to: 'stream', status: 200 });
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

describe('a page', () => {
  test('that is back on the network does not wait for the next attempt', async () => {
    await streaming();
    server.cut();
    await settle();
    expect(server.asksFor('stream')).toBe(false);
    window.dispatchEvent(new Event('online'));
    await settle();
    expect(server.asksFor('stream')).toBe(true);
  });

  test('that the service asked to wait waits all the same', async () => {
    await started();
    server.answer({ to: 'stream', status: 429, headers: { 'Retry-After': '600' }, text: '' });
    await settle();
    for (const look of [1, 2]) {
      document.dispatchEvent(new Event('visibilitychange'));
      await settle();
      expect([look, server.asksFor('me'), server.asksFor('stream')]).toEqual([look, false, false]);
    }
  });

  test('that was refused waits all the same', async () => {
    await started();
    server.answer({ to: 'stream', status: 403, text: '' });
    await settle();
    window.dispatchEvent(new Event('online'));
    // Nor does a clock that was set give a reason.
    vi.setSystemTime(Date.now() + 3_600_000);
    document.dispatchEvent(new Event('visibilitychange'));
    await settle();
    expect([server.asksFor('me'), server.asksFor('stream')]).toEqual([false, false]);
  });

  test('that slept connects anew, is stale until it has, and shows no override that ended meanwhile', async () => {
    const client = await streaming();
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
    server.answer({ to: 'stream', status: 200 });
    await settle();
    server.send(event(3, true));
    await settle();
    expect([client.getFlag('a'), client.stale]).toEqual([true, false]);
  });

  test('that is only looked at again leaves a good stream alone', async () => {
    await streaming();
    const before = server.requests;
    document.dispatchEvent(new Event('visibilitychange'));
    await settle();
    expect([server.requests, server.streamOpen]).toEqual([before, true]);
  });

  test('that is put aside lets go of its stream, and begins anew when it is shown again', async () => {
    const client = await streaming();
    window.dispatchEvent(new Event('pagehide'));
    await settle();
    expect([server.streamOpen, client.stale, client.getFlag('a')]).toEqual([false, true, false]);
    window.dispatchEvent(Object.assign(new Event('pageshow'), { persisted: true }));
    await settle();
    server.answer({ to: 'me', status: 200, json: snapshot(5, true) });
    await settle();
    expect([client.stale, client.getFlag('a')]).toEqual([false, true]);
  });

  test('listens no more once its client is closed', async () => {
    const client = await streaming();
    client.close();
    const before = server.requests;
    window.dispatchEvent(new Event('online'));
    window.dispatchEvent(Object.assign(new Event('pageshow'), { persisted: true }));
    await settle();
    expect(server.requests).toBe(before);
  });
});

/** As much of Web Locks as tabs need: whoever asks first holds the lock of this name until their promise is over. */
class Locks {
  readonly #queues = new Map<string, (() => Promise<void>)[]>();

  request(name: string, { signal }: { signal: AbortSignal }, hold: () => Promise<void>): Promise<void> {
    const queue = this.#queues.get(name) ?? [];
    this.#queues.set(name, queue);
    return new Promise((resolve, reject) => {
      const turn = () =>
        hold()
          .then(resolve)
          .finally(() => {
            queue.shift();
            void queue[0]?.();
          });
      signal.addEventListener('abort', () => {
        const place = queue.indexOf(turn);
        if (place > 0) queue.splice(place, 1);
        reject(signal.reason);
      });
      if (queue.push(turn) === 1) void Promise.resolve().then(turn);
    });
  }
}

/** A channel within this process. */
class Channel {
  static readonly all = new Set<Channel>();
  onmessage: ((message: { data: unknown }) => void) | null = null;

  constructor(readonly name: string) {
    Channel.all.add(this);
  }

  postMessage(data: unknown): void {
    for (const other of Channel.all) {
      const message = { data: structuredClone(data) };
      if (other !== this && other.name === this.name) queueMicrotask(() => other.onmessage?.(message));
    }
  }

  close(): void {
    Channel.all.delete(this);
  }
}

describe('tabs of one user', () => {
  let locks: Locks;

  beforeEach(() => {
    locks = new Locks();
    Channel.all.clear();
    vi.stubGlobal('BroadcastChannel', Channel);
    Object.defineProperty(navigator, 'locks', { value: locks, configurable: true });
  });
  afterEach(() => Reflect.deleteProperty(navigator, 'locks'));

  test('have one stream, and see the same', async () => {
    const leader = await started(true);
    server.answer({ to: 'stream', status: 200 });
    const follower = await started(true);
    expect(server.asksFor('stream')).toBe(false);
    server.send(event(2, true));
    await settle();
    expect([leader.getFlag('a'), follower.getFlag('a'), follower.stale]).toEqual([true, true, false]);
    server.cut();
    await settle();
    expect([leader.stale, follower.stale]).toEqual([true, true]);
  });

  test('hear of the leader what happened before they came', async () => {
    await started(true);
    server.answer({ to: 'stream', status: 200 });
    await settle();
    server.send(event(9, true));
    await settle();
    // The server that answers the second tab lags behind.
    const follower = await started(true);
    expect([follower.getFlag('a'), follower.revision]).toEqual([true, `${EPOCH}:9`]);
  });

  test('go on when the leader leaves', async () => {
    const leader = await started(true);
    server.answer({ to: 'stream', status: 200 });
    const follower = await started(true);
    leader.close();
    await settle();
    server.answer({ to: 'stream', status: 200 });
    await settle();
    server.send(event(3, true));
    await settle();
    expect(follower.getFlag('a')).toBe(true);
  });

  test('that are refused let another one lead', async () => {
    await started(true);
    const follower = await started(true);
    server.answer({ to: 'stream', status: 401, text: '' });
    await settle();
    server.answer({ to: 'stream', status: 200 });
    await settle();
    server.send(event(3, true));
    await settle();
    expect([follower.getFlag('a'), follower.stale]).toEqual([true, false]);
  });

  test('help themselves when the leader is silent', async () => {
    void locks.request(
      'feature-flags:1:http://localhost:u',
      { signal: new AbortController().signal },
      () => new Promise(() => {}),
    );
    await settle();
    const tab = await started(true);
    expect(server.asksFor('stream')).toBe(false);
    await vi.advanceTimersByTimeAsync(59_000);
    expect(server.asksFor('stream')).toBe(false);
    await vi.advanceTimersByTimeAsync(1_100);
    await settle();
    expect(server.asksFor('stream')).toBe(true);
    server.answer({ to: 'stream', status: 200 });
    await settle();
    server.send(event(59, true));
    await settle();
    expect([tab.getFlag('a'), tab.stale]).toEqual([true, false]);
  });

  test('of two users share nothing', async () => {
    await started(true);
    server.answer({ to: 'stream', status: 200 });
    await settle();
    const second = new ScriptedServer();
    const other = createFlagClient({ baseUrl: 'http://localhost', token: 'b', fetch: second.fetch });
    clients.push(other);
    await settle();
    second.answer({ to: 'me', status: 200, json: snapshot(1, false, 'b') });
    await settle();
    expect(second.asksFor('stream')).toBe(true);
    server.send(event(2, true));
    await settle();
    expect(other.getFlag('a')).toBe(false);
  });

  test('behind the one that leads ask for what they miss', async () => {
    const first = await started(true);
    // The second is answered by a server that is ahead of the others'.
    const second = await started(true, 2);
    const third = await started(true);
    first.close();
    await settle();
    server.answer({ to: 'stream', status: 200 });
    await settle();
    server.send(Buffer.from(`event: heartbeat\nid: ${EPOCH}:2:1893456005000000\ndata: {"stale":false}\n\n`));
    await settle();
    expect([second, third].map((tab) => [tab.getFlag('a'), tab.stale])).toEqual([
      [true, false],
      [true, false],
    ]);
  });

  test('whose own question failed take what the one that leads tells', async () => {
    await started(true);
    server.answer({ to: 'stream', status: 200 });
    const follower = await started(true);
    void follower.refresh();
    await settle();
    server.fail('me');
    await settle();
    expect(follower.stale).toBe(true);
    server.send(event(5, true));
    await settle();
    expect([follower.getFlag('a'), follower.stale]).toEqual([true, false]);
  });

  test('whose token cannot be had let another one lead', async () => {
    let fails = false;
    const token = async () => {
      if (fails) throw new Error('no token');
      return 't';
    };
    await started(true, 1, 'u', token);
    server.answer({ to: 'stream', status: 200 });
    const follower = await started(true);
    fails = true;
    server.cut();
    await settle();
    await vi.advanceTimersByTimeAsync(1_100);
    await settle();
    server.answer({ to: 'stream', status: 200 });
    await settle();
    server.send(event(3, true));
    await settle();
    expect([follower.getFlag('a'), follower.stale]).toEqual([true, false]);
  });

  test('that are closed by whoever is told of the first values hold no lock', async () => {
    const client = createFlagClient({ baseUrl: 'http://localhost', token: 't', fetch: server.fetch });
    client.subscribe(() => client.close());
    await settle();
    server.answer({ to: 'me', status: 200, json: snapshot(1, false) });
    await settle();
    await started(true);
    expect(server.asksFor('stream')).toBe(true);
  });

  test('that may not share go alone at once', async () => {
    const refuse = () => Promise.reject(new DOMException('no', 'SecurityError'));
    Object.defineProperty(navigator, 'locks', { value: { request: refuse }, configurable: true });
    await started(true);
    expect(server.asksFor('stream')).toBe(true);
  });

  test('that may not even make a channel go alone at once', async () => {
    vi.stubGlobal('BroadcastChannel', function refused() {
      throw new DOMException('no', 'SecurityError');
    });
    await started(true);
    expect(server.asksFor('stream')).toBe(true);
  });
});

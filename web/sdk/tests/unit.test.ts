import { describe, expect, expectTypeOf, test, vi } from 'vitest';
import { Deadlines } from '../src/deadlines.js';
import { valueOrFallback } from '../src/fallback.js';
import { fingerprint } from '../src/fingerprint.js';
import { createFlagClient } from '../src/index.js';
import { decodeState, encodeState } from '../src/persistence.js';
import { formatPosition, isAfter, parseInstant, parsePosition, parseResponsePosition } from '../src/position.js';
import { backoff, parseRetryAfter } from '../src/retry.js';
import type { FlagValue, Json } from '../src/types.js';
import { parseSnapshot } from '../src/wire.js';

describe('positions', () => {
  test('parses equal positions from an event id and a response', () => {
    const position = parsePosition('abc:12:1893456000000001');
    expect(position).toEqual({ epoch: 'abc', revision: 12, instant: 1893456000000001 });
    expect(parseResponsePosition('abc:12', '2030-01-01T00:00:00.000001Z')).toEqual(position);
    expect(position && formatPosition(position)).toBe('abc:12:1893456000000001');
  });

  test('rejects malformed positions and timestamps', () => {
    for (const id of ['', 'a', 'a:1', 'a:b:1', 'a:1:b', ':1:2', 'a:1:2:3', 'a:-1:2', 'a:9007199254740993:2']) {
      expect(parsePosition(id), id).toBeNull();
    }
    for (const instant of [
      '',
      'now',
      '2030-01-01',
      '2030-01-01T00:00:00',
      '2030-13-01T00:00:00Z',
      '2030-01-01T00:00:00+01:00',
    ]) {
      expect(parseInstant(instant), instant).toBeNull();
    }
  });

  test('parses timestamps with microsecond precision', () => {
    expect(parseInstant('1970-01-01T00:00:01.5Z')).toBe(1_500_000);
    expect(parseInstant('1970-01-01T00:00:00.123456789Z')).toBe(123_456);
    expect(parseInstant('1970-01-01T00:00:02Z')).toBe(2_000_000);
  });

  test('orders positions within an epoch only', () => {
    const [a, b] = [
      { epoch: 'x', revision: 2, instant: 1 },
      { epoch: 'x', revision: 1, instant: 9 },
    ];
    expect([isAfter(a, b), isAfter(b, a), isAfter(a, a)]).toEqual([true, false, false]);
    expect(isAfter(a, { ...b, epoch: 'y' }) || isAfter({ ...b, epoch: 'y' }, a)).toBe(false);
  });
});

describe('retry delays', () => {
  test('delays double up to a maximum and are randomly reduced by up to half', () => {
    expect([1, 2, 3, 6, 60].map((failures) => backoff(failures, 1))).toEqual([1000, 2000, 4000, 30000, 30000]);
    expect([backoff(3, 0), backoff(3, 0.5), backoff(1, 1, 500)]).toEqual([2000, 3000, 500]);
    expect([1, 2, 5].map((failures) => backoff(failures, 1, 60_000, 600_000))).toEqual([60_000, 120_000, 600_000]);
  });

  test('parses Retry-After as seconds or a date, up to one hour', () => {
    const now = Date.parse('2030-01-01T00:00:00Z');
    const delay = (header: string | null) => parseRetryAfter(header, now);
    expect([delay(null), delay('7'), delay(' 7 '), delay('soon'), delay('-1')]).toEqual([0, 7000, 7000, 0, 0]);
    expect(delay('Tue, 01 Jan 2030 00:01:00 GMT')).toBe(60_000);
    expect([delay('Mon, 31 Dec 2029 00:00:00 GMT'), delay('999999999')]).toEqual([0, 3_600_000]);
  });
});

test('a deadline beyond the maximum timer delay sets the longest timer', () => {
  const timer = vi.spyOn(globalThis, 'setTimeout');
  const deadlines = new Deadlines(() => expect.unreachable());
  deadlines.set('expiry', 2 ** 40);
  expect(timer.mock.calls.map(([, delay]) => delay)).toEqual([2 ** 31 - 1]);
  deadlines.clear('expiry');
  timer.mockRestore();
});

test('the fallback replaces missing values and values of another type', () => {
  const cases: [FlagValue, Json, Json][] = [
    [true, false, true],
    [undefined, 'a', 'a'],
    ['true', false, false],
    [1, '1', '1'],
    [null, { a: 1 }, { a: 1 }],
    [[1], { a: 1 }, { a: 1 }],
    [{ b: 2 }, { a: 1 }, { b: 2 }],
    [{ b: 2 }, null, { b: 2 }],
    [null, null, null],
    [0, 5, 0],
  ];
  for (const [value, fallback, expected] of cases) expect(valueOrFallback(value, fallback)).toEqual(expected);
});

test('fingerprints of different credentials differ and do not contain them', () => {
  const tokens = ['flg_a', 'flg_b', 'a_glf', '', 'flg_aa', '🚩'];
  const fingerprints = tokens.map(fingerprint);
  expect(new Set(fingerprints).size).toBe(tokens.length);
  for (const text of fingerprints) expect(text).toMatch(/^-?\d+\.-?\d+$/);
});

interface Limits {
  limit: number;
}

const SNAPSHOT = {
  user_id: 'u',
  revision: 'e:5',
  evaluated_at: '2030-01-01T00:00:00.000007Z',
  valid_until: '2030-01-01T00:00:01.500000Z',
  stale: false,
  flags: { a: { value: { deep: [1, { x: 2 }] }, flag_type: 'json', variant: null, source: 'default' } },
};

const ENCODED_STATE = encodeState(parseSnapshot(JSON.stringify(SNAPSHOT)));

test('decodes an encoded state', () => {
  const { userId, position, validUntil, flags } = parseSnapshot(JSON.stringify(SNAPSHOT));
  const state = { userId, position, validUntil, flags };
  expect(decodeState(encodeState(state))).toEqual(state);
});

test('values are deeply frozen', () => {
  const value = parseSnapshot(JSON.stringify(SNAPSHOT)).flags.get('a')?.value as { deep: { x?: number }[] };
  expect(() => value.deep.push({})).toThrow(TypeError);
  expect(() => Object.assign(value.deep[1] ?? {}, { x: 3 })).toThrow(TypeError);
});

describe('createFlagClient', () => {
  const snapshotResponse = () =>
    new Response(JSON.stringify(SNAPSHOT), { headers: { 'Content-Type': 'application/json' } });
  const offlineFetch: typeof fetch = () => Promise.reject(new TypeError('fetch failed'));

  test('throws TypeError for an invalid baseUrl', () => {
    for (const baseUrl of ['', 'flags.example.com', 'ftp://flags.example.com', '/api']) {
      expect(() => createFlagClient({ baseUrl }), baseUrl).toThrow(TypeError);
    }
  });

  test('appends request paths to the path of baseUrl', async () => {
    const urls: string[] = [];
    const client = createFlagClient({
      baseUrl: 'https://example.com/flags//?x#y',
      fetch: (input) => {
        urls.push(String(input));
        return offlineFetch(input);
      },
    });
    await expect.poll(() => urls).toEqual(['https://example.com/flags/api/flags/me']);
    client.close();
  });

  test('reports exceptions of listeners and storage to onError and continues', async () => {
    const errors: string[] = [];
    const throwError = () => {
      throw new Error('broken');
    };
    const client = createFlagClient({
      baseUrl: 'https://example.com',
      token: async () => 't',
      storage: { getItem: throwError, setItem: throwError, removeItem: throwError },
      onError: ({ kind }) => {
        errors.push(kind);
        throwError();
      },
      fetch: async (input) =>
        String(input).endsWith('/me')
          ? new Response(JSON.stringify(SNAPSHOT), { headers: { 'Content-Type': 'application/json' } })
          : offlineFetch(input),
    });
    client.subscribe(throwError);
    expect(await client.ready()).toBe(true);
    expect(client.getFlag('a')).toEqual(SNAPSHOT.flags.a.value);
    await expect.poll(() => [...new Set(errors)].sort()).toEqual(['listener', 'network', 'storage']);
    client.close();
    expect(await client.refresh()).toBe(false);
    client.close();
  });

  test('a listener of one flag receives only changes of that flag', async () => {
    const notified: string[] = [];
    const client = createFlagClient({
      baseUrl: 'https://example.com',
      token: 't',
      fetch: async () => new Response(JSON.stringify(SNAPSHOT), { headers: { 'Content-Type': 'application/json' } }),
    });
    client.subscribe('a', () => notified.push('a'));
    client.subscribe('b', () => notified.push('b'));
    await client.ready();
    expect(notified).toEqual(['a']);
    client.close();
  });

  test('setToken() discards persisted values that are still being read', async () => {
    const entry = { writtenAt: Date.now(), serverAt: 0, state: ENCODED_STATE };
    let resolveRead: (text: string) => void = () => {};
    const pendingRead = new Promise<string>((resolve) => {
      resolveRead = resolve;
    });
    const getItem = vi.fn((key: string) => (key.endsWith(':u') ? pendingRead : '{"userId":"u"}'));
    const storage = { getItem, setItem: () => {}, removeItem: () => {} };
    const client = createFlagClient({
      baseUrl: 'https://example.com',
      token: 'a',
      userId: 'u',
      storage,
      fetch: offlineFetch,
    });
    const seen: unknown[] = [];
    client.subscribe(() => seen.push(client.getUserFlags()));
    await expect.poll(() => getItem.mock.calls.length).toBe(2);
    client.setToken('b');
    resolveRead(JSON.stringify(entry));
    expect(await client.ready(50)).toBe(false);
    expect(seen).toEqual([]);
    client.close();
  });

  test('setToken() discards a response that arrives at the same time', async () => {
    const pending: ((response: Response) => void)[] = [];
    const client = createFlagClient({
      baseUrl: 'https://example.com',
      token: 'a',
      fetch: () => new Promise((resolve) => pending.push(resolve)),
    });
    const seen: unknown[] = [];
    client.subscribe(() => seen.push(client.getUserFlags()));
    await expect.poll(() => pending.length).toBe(1);
    for (let delay = 0; delay < 12; delay += 1) {
      pending.pop()?.(snapshotResponse());
      for (let turn = 0; turn < delay; turn += 1) await Promise.resolve();
      client.setToken(`b${delay}`);
      expect(client.getUserFlags(), `after ${delay} microtasks`).toEqual({});
      await expect.poll(() => pending.length).toBe(1);
    }
    // Depending on the delay, setToken() cancelled the request or discarded its values.
    expect(client.getUserFlags()).toEqual({});
    client.close();
  });

  test('does not restore persisted values of another user', async () => {
    const entry = { writtenAt: Date.now(), serverAt: 0, state: ENCODED_STATE };
    const startClient = (userId: string) => {
      const owner = JSON.stringify({ userId, credential: null });
      const getItem = (key: string) => (key.endsWith(userId) ? JSON.stringify(entry) : owner);
      const storage = { getItem, setItem: () => {}, removeItem: () => {} };
      return createFlagClient({ baseUrl: 'https://example.com', userId, storage, fetch: offlineFetch });
    };
    const [otherUser, sameUser] = [startClient('other'), startClient('u')];
    expect([await sameUser.ready(), await otherUser.ready(50)]).toEqual([true, false]);
    otherUser.close();
    sameUser.close();
  });

  test('error messages contain the detail of the problem document', async () => {
    const messages: string[] = [];
    const problem = JSON.stringify({ status: 403, code: 'no_user', detail: 'the credential does not act as a user' });
    const client = createFlagClient({
      baseUrl: 'https://example.com',
      token: 't',
      onError: ({ message }) => messages.push(message),
      fetch: async () =>
        new Response(problem, { status: 403, headers: { 'Content-Type': 'application/problem+json' } }),
    });
    await expect.poll(() => messages).toEqual(['/api/flags/me returned 403: the credential does not act as a user']);
    client.close();
  });

  test('reports a failed token function', async () => {
    const kinds: string[] = [];
    const client = createFlagClient({
      baseUrl: 'https://example.com',
      token: () => Promise.reject(new Error('no token')),
      onError: (error) => kinds.push(error.kind),
      fetch: offlineFetch,
    });
    await expect.poll(() => kinds).toEqual(['token']);
    client.close();
  });

  test('infers the type of a value from its fallback', () => {
    const client = createFlagClient({ baseUrl: 'https://example.com', fetch: offlineFetch });
    client.close();
    expectTypeOf(client.getFlag('a')).toEqualTypeOf<FlagValue>();
    expectTypeOf(client.getFlag('a', false)).toEqualTypeOf<boolean>();
    expectTypeOf(client.getFlag('a', 'x')).toEqualTypeOf<string>();
    expectTypeOf(client.getFlag('a', 3)).toEqualTypeOf<number>();
    expectTypeOf(client.getFlag('a', { limit: 3 })).toEqualTypeOf<{ limit: number }>();
    expectTypeOf(client.getFlag('a', null)).toEqualTypeOf<Json>();
    expectTypeOf(client.getFlag('a', [])).toEqualTypeOf<readonly Json[]>();
    const limits: Limits = { limit: 3 };
    expectTypeOf(client.getFlag('a', limits)).toEqualTypeOf<Limits>();
    expect(client.getFlag('a', { limit: 3 })).toEqual({ limit: 3 });
  });

  test('a closed client neither sends requests nor notifies listeners', async () => {
    const fetch = vi.fn(offlineFetch);
    const client = createFlagClient({ baseUrl: 'https://example.com', token: 't', fetch });
    await expect.poll(() => fetch.mock.calls.length).toBe(1);
    const listener = vi.fn();
    client.close();
    client.subscribe(listener);
    client.setToken('other');
    client.reset();
    expect(await client.refresh()).toBe(false);
    expect(await client.ready()).toBe(false);
    expect([fetch.mock.calls.length, listener.mock.calls.length]).toEqual([1, 0]);
    expect([client.stale, client.userId, client.revision, client.getFlag('a', 3)]).toEqual([true, null, null, 3]);
  });

  test('setToken() in a listener does not reconnect a closed client', async () => {
    const fetch = vi.fn(async () => snapshotResponse());
    const client = createFlagClient({ baseUrl: 'https://example.com', token: 't', fetch });
    await client.ready();
    client.subscribe(() => client.setToken('other'));
    client.close();
    const before = fetch.mock.calls.length;
    await new Promise((resolve) => setImmediate(resolve));
    expect(fetch.mock.calls.length).toBe(before);
  });

  test('listeners receive changes in order, even if a listener causes a change', async () => {
    const client = createFlagClient({
      baseUrl: 'https://example.com',
      token: 't',
      fetch: async () => snapshotResponse(),
    });
    const notifications: string[] = [];
    let isFirst = true;
    client.subscribe(({ flags, stale }) => {
      notifications.push(`first ${[...flags]} ${stale}`);
      if (isFirst) client.close();
      isFirst = false;
    });
    const unsubscribeSecond = client.subscribe(({ flags, stale }) => {
      notifications.push(`second ${[...flags]} ${stale}`);
      unsubscribeThird();
    });
    const unsubscribeThird = client.subscribe(() => notifications.push('third'));
    await client.ready();
    expect(notifications).toEqual(['first a false', 'second a false', 'first  true', 'second  true']);
    unsubscribeSecond();
  });

  test('calls the token function once per connection and cancels the body of its stream', async () => {
    let tokenCalls = 0;
    const cancelled = vi.fn();
    const client = createFlagClient({
      baseUrl: 'https://example.com',
      token: () => `t${++tokenCalls}`,
      // Like some implementations of fetch, this one ignores the signal.
      fetch: async (input) =>
        String(input).endsWith('/me')
          ? snapshotResponse()
          : new Response(new ReadableStream({ cancel: cancelled }), {
              headers: { 'Content-Type': 'text/event-stream' },
            }),
    });
    await client.ready();
    await new Promise((resolve) => setImmediate(resolve));
    client.close();
    await expect.poll(() => cancelled.mock.calls.length).toBe(1);
    expect(tokenCalls).toBe(1);
  });

  test('sends cookies only without a token', async () => {
    const credentials: (string | undefined)[] = [];
    const fetch: typeof globalThis.fetch = (_input, init) => {
      credentials.push(init?.credentials);
      return offlineFetch('');
    };
    const client = createFlagClient({ baseUrl: 'https://example.com', token: 't', fetch });
    await expect.poll(() => credentials).toEqual(['omit']);
    client.setToken(undefined);
    await expect.poll(() => credentials).toEqual(['omit', 'same-origin']);
    client.close();
  });

  test('keeps persisted values while the token function fails', async () => {
    const entries = new Map<string, string>();
    const storage = {
      getItem: (key: string) => entries.get(key) ?? null,
      setItem: (key: string, value: string) => void entries.set(key, value),
      removeItem: (key: string) => void entries.delete(key),
    };
    const options = { baseUrl: 'https://example.com', storage };
    const first = createFlagClient({ ...options, token: 't', fetch: async () => snapshotResponse() });
    await first.ready();
    await expect.poll(() => entries.size).toBe(2);
    first.close();
    let tokenFails = true;
    const token = async () => {
      if (tokenFails) throw new Error('offline');
      return 't';
    };
    const second = createFlagClient({ ...options, token, fetch: offlineFetch });
    expect(await second.ready(20)).toBe(false);
    expect(entries.size).toBe(2);
    tokenFails = false;
    expect(await second.ready()).toBe(true);
    expect(second.getFlag('a')).toEqual(SNAPSHOT.flags.a.value);
    second.close();
  });

  test('does not wait for a storage that hangs', async () => {
    const hang = () => new Promise<never>(() => {});
    const storage = { getItem: hang, setItem: hang, removeItem: hang };
    const client = createFlagClient({
      baseUrl: 'https://example.com',
      token: 't',
      storage,
      fetch: async () => snapshotResponse(),
    });
    expect(await client.ready(1_000)).toBe(true);
    client.close();
  });

  test('getUserFlags() returns the same frozen object until a value changes', async () => {
    const client = createFlagClient({
      baseUrl: 'https://example.com',
      token: 't',
      fetch: async () => snapshotResponse(),
    });
    await client.ready();
    const flags = client.getUserFlags();
    expect(client.getUserFlags()).toBe(flags);
    expect(Object.isFrozen(flags)).toBe(true);
    client.close();
  });
});

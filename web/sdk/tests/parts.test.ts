import { describe, expect, expectTypeOf, test, vi } from 'vitest';
import { Deadlines } from '../src/deadlines.js';
import { ofType } from '../src/fallback.js';
import { fingerprint } from '../src/fingerprint.js';
import { createFlagClient } from '../src/index.js';
import { decodeState, encodeState } from '../src/persistence.js';
import { formatPosition, isAfter, parseInstant, parsePosition, positionOf } from '../src/position.js';
import { backoff, parseRetryAfter } from '../src/retry.js';
import type { FlagValue, Json } from '../src/types.js';
import { readSnapshot } from '../src/wire.js';

describe('positions', () => {
  test('an id and the answer it belongs to name the same position', () => {
    const position = parsePosition('abc:12:1893456000000001');
    expect(position).toEqual({ epoch: 'abc', revision: 12, at: 1893456000000001 });
    expect(positionOf('abc:12', '2030-01-01T00:00:00.000001Z')).toEqual(position);
    expect(position && formatPosition(position)).toBe('abc:12:1893456000000001');
  });

  test('what is none is none', () => {
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

  test('instants keep their microseconds', () => {
    expect(parseInstant('1970-01-01T00:00:01.5Z')).toBe(1_500_000);
    expect(parseInstant('1970-01-01T00:00:00.123456789Z')).toBe(123_456);
    expect(parseInstant('1970-01-01T00:00:02Z')).toBe(2_000_000);
  });

  test('positions of two epochs have no order', () => {
    const [a, b] = [
      { epoch: 'x', revision: 2, at: 1 },
      { epoch: 'x', revision: 1, at: 9 },
    ];
    expect([isAfter(a, b), isAfter(b, a), isAfter(a, a)]).toEqual([true, false, false]);
    expect(isAfter(a, { ...b, epoch: 'y' }) || isAfter({ ...b, epoch: 'y' }, a)).toBe(false);
  });
});

describe('waits', () => {
  test('double up to a bound, and up to half is taken away by chance', () => {
    expect([1, 2, 3, 6, 60].map((failures) => backoff(failures, 1))).toEqual([1000, 2000, 4000, 30000, 30000]);
    expect([backoff(3, 0), backoff(3, 0.5), backoff(1, 1, 500)]).toEqual([2000, 3000, 500]);
    expect([1, 2, 5].map((failures) => backoff(failures, 1, 60_000, 600_000))).toEqual([60_000, 120_000, 600_000]);
  });

  test('Retry-After is seconds or a date, and an hour at most', () => {
    const now = Date.parse('2030-01-01T00:00:00Z');
    const wait = (header: string | null) => parseRetryAfter(header, now);
    expect([wait(null), wait('7'), wait(' 7 '), wait('soon'), wait('-1')]).toEqual([0, 7000, 7000, 0, 0]);
    expect(wait('Tue, 01 Jan 2030 00:01:00 GMT')).toBe(60_000);
    expect([wait('Mon, 31 Dec 2029 00:00:00 GMT'), wait('999999999')]).toEqual([0, 3_600_000]);
  });
});

test('a deadline further away than a timer can reach is come back to', () => {
  const timer = vi.spyOn(globalThis, 'setTimeout');
  const deadlines = new Deadlines(() => expect.unreachable());
  deadlines.set('boundary', 2 ** 40);
  expect(timer.mock.calls.map(([, wait]) => wait)).toEqual([2 ** 31 - 1]);
  deadlines.clear('boundary');
  timer.mockRestore();
});

test('a fallback stands in for what is missing or of another type', () => {
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
  for (const [value, fallback, expected] of cases) expect(ofType(value, fallback)).toEqual(expected);
});

test('fingerprints differ as credentials do, and hold nothing of them', () => {
  const tokens = ['flg_a', 'flg_b', 'a_glf', '', 'flg_aa', '🚩'];
  const prints = tokens.map(fingerprint);
  expect(new Set(prints).size).toBe(tokens.length);
  for (const print of prints) expect(print).toMatch(/^-?\d+\.-?\d+$/);
});

interface Limits {
  limit: number;
}

const ANSWER = {
  user_id: 'u',
  revision: 'e:5',
  evaluated_at: '2030-01-01T00:00:00.000007Z',
  valid_until: '2030-01-01T00:00:01.500000Z',
  stale: false,
  flags: { a: { value: { deep: [1, { x: 2 }] }, flag_type: 'json', variant: null, source: 'default' } },
};

const KEPT = encodeState(readSnapshot(JSON.stringify(ANSWER)));

test('what is kept is read again as it was', () => {
  const { userId, position, validUntil, flags } = readSnapshot(JSON.stringify(ANSWER));
  const state = { userId, position, validUntil, flags };
  expect(decodeState(encodeState(state))).toEqual(state);
});

test('nobody who reads a value can change it for others', () => {
  const value = readSnapshot(JSON.stringify(ANSWER)).flags.get('a')?.value as { deep: { x?: number }[] };
  expect(() => value.deep.push({})).toThrow(TypeError);
  expect(() => Object.assign(value.deep[1] ?? {}, { x: 3 })).toThrow(TypeError);
});

describe('a client', () => {
  const answered = () => new Response(JSON.stringify(ANSWER), { headers: { 'Content-Type': 'application/json' } });
  const away: typeof fetch = () => Promise.reject(new TypeError('fetch failed'));

  test('is not made for what is no URL', () => {
    for (const baseUrl of ['', 'flags.example.com', 'ftp://flags.example.com', '/api']) {
      expect(() => createFlagClient({ baseUrl }), baseUrl).toThrow(TypeError);
    }
  });

  test('asks below the path of its base URL', async () => {
    const asked: string[] = [];
    const client = createFlagClient({
      baseUrl: 'https://example.com/flags//?x#y',
      fetch: (input) => {
        asked.push(String(input));
        return away(input);
      },
    });
    await expect.poll(() => asked).toEqual(['https://example.com/flags/api/flags/me']);
    client.close();
  });

  test('passes on what listeners and stores throw, and goes on', async () => {
    const errors: string[] = [];
    const broken = () => {
      throw new Error('broken');
    };
    const client = createFlagClient({
      baseUrl: 'https://example.com',
      token: async () => 't',
      storage: { getItem: broken, setItem: broken, removeItem: broken },
      onError: ({ kind }) => {
        errors.push(kind);
        broken();
      },
      fetch: async (input) =>
        String(input).endsWith('/me')
          ? new Response(JSON.stringify(ANSWER), { headers: { 'Content-Type': 'application/json' } })
          : away(input),
    });
    client.subscribe(broken);
    expect(await client.ready()).toBe(true);
    expect(client.getFlag('a')).toEqual(ANSWER.flags.a.value);
    await expect.poll(() => [...new Set(errors)].sort()).toEqual(['listener', 'network', 'storage']);
    client.close();
    expect(await client.refresh()).toBe(false);
    client.close();
  });

  test('tells listeners of one flag of that one alone', async () => {
    const told: string[] = [];
    const client = createFlagClient({
      baseUrl: 'https://example.com',
      token: 't',
      fetch: async () => new Response(JSON.stringify(ANSWER), { headers: { 'Content-Type': 'application/json' } }),
    });
    client.subscribe('a', () => told.push('a'));
    client.subscribe('b', () => told.push('b'));
    await client.ready();
    expect(told).toEqual(['a']);
    client.close();
  });

  test('shows nothing of a user whose credential was replaced while their values were being read', async () => {
    const entry = { writtenAt: Date.now(), serverAt: 0, state: KEPT };
    let give: (text: string) => void = () => {};
    const kept = new Promise<string>((resolve) => {
      give = resolve;
    });
    const getItem = vi.fn((key: string) => (key.endsWith(':u') ? kept : '{"userId":"u"}'));
    const storage = { getItem, setItem: () => {}, removeItem: () => {} };
    const client = createFlagClient({ baseUrl: 'https://example.com', token: 'a', userId: 'u', storage, fetch: away });
    const seen: unknown[] = [];
    client.subscribe(() => seen.push(client.getUserFlags()));
    await expect.poll(() => getItem.mock.calls.length).toBe(2);
    client.setToken('b');
    give(JSON.stringify(entry));
    expect(await client.ready(50)).toBe(false);
    expect(seen).toEqual([]);
    client.close();
  });

  test('shows no answer that came in the moment in which its credential was replaced', async () => {
    const waiting: ((response: Response) => void)[] = [];
    const client = createFlagClient({
      baseUrl: 'https://example.com',
      token: 'a',
      fetch: () => new Promise((resolve) => waiting.push(resolve)),
    });
    const seen: unknown[] = [];
    client.subscribe(() => seen.push(client.getUserFlags()));
    await expect.poll(() => waiting.length).toBe(1);
    for (let moment = 0; moment < 12; moment += 1) {
      waiting.pop()?.(answered());
      for (let turn = 0; turn < moment; turn += 1) await Promise.resolve();
      client.setToken(`b${moment}`);
      expect(client.getUserFlags(), `after ${moment} turns`).toEqual({});
      await expect.poll(() => waiting.length).toBe(1);
    }
    // Some came before their credential was replaced, and were forgotten with it; none came after.
    expect(client.getUserFlags()).toEqual({});
    client.close();
  });

  test('does not take what was kept for somebody else', async () => {
    const entry = { writtenAt: Date.now(), serverAt: 0, state: KEPT };
    const started = (userId: string) => {
      const owner = JSON.stringify({ userId, credential: null });
      const getItem = (key: string) => (key.endsWith(userId) ? JSON.stringify(entry) : owner);
      const storage = { getItem, setItem: () => {}, removeItem: () => {} };
      return createFlagClient({ baseUrl: 'https://example.com', userId, storage, fetch: away });
    };
    const [theirs, ours] = [started('somebody else'), started('u')];
    expect([await ours.ready(), await theirs.ready(50)]).toEqual([true, false]);
    theirs.close();
    ours.close();
  });

  test('says what the service says of an error', async () => {
    const messages: string[] = [];
    const problem = JSON.stringify({ status: 403, code: 'no_user', detail: 'this credential acts as no user' });
    const client = createFlagClient({
      baseUrl: 'https://example.com',
      token: 't',
      onError: ({ message }) => messages.push(message),
      fetch: async () =>
        new Response(problem, { status: 403, headers: { 'Content-Type': 'application/problem+json' } }),
    });
    await expect.poll(() => messages).toEqual(['/api/flags/me answered 403: this credential acts as no user']);
    client.close();
  });

  test('says when the function that gives the token fails', async () => {
    const kinds: string[] = [];
    const client = createFlagClient({
      baseUrl: 'https://example.com',
      token: () => Promise.reject(new Error('no token')),
      onError: (error) => kinds.push(error.kind),
      fetch: away,
    });
    await expect.poll(() => kinds).toEqual(['token']);
    client.close();
  });

  test('gives values of the type of their fallbacks', () => {
    const client = createFlagClient({ baseUrl: 'https://example.com', fetch: away });
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

  test('a closed client asks nothing and tells nobody', async () => {
    const asked = vi.fn(away);
    const client = createFlagClient({ baseUrl: 'https://example.com', token: 't', fetch: asked });
    await expect.poll(() => asked.mock.calls.length).toBe(1);
    const told = vi.fn();
    client.close();
    client.subscribe(told);
    client.setToken('other');
    client.reset();
    expect(await client.refresh()).toBe(false);
    expect(await client.ready()).toBe(false);
    expect([asked.mock.calls.length, told.mock.calls.length]).toEqual([1, 0]);
    expect([client.stale, client.userId, client.revision, client.getFlag('a', 3)]).toEqual([true, null, null, 3]);
  });

  test('a listener that acts when the client is closed does not bring it to life again', async () => {
    const asked = vi.fn(async () => answered());
    const client = createFlagClient({ baseUrl: 'https://example.com', token: 't', fetch: asked });
    await client.ready();
    client.subscribe(() => client.setToken('other'));
    client.close();
    const before = asked.mock.calls.length;
    await new Promise((resolve) => setImmediate(resolve));
    expect(asked.mock.calls.length).toBe(before);
  });

  test('tells listeners of changes one after the other, whatever they do meanwhile', async () => {
    const client = createFlagClient({ baseUrl: 'https://example.com', token: 't', fetch: async () => answered() });
    const told: string[] = [];
    let first = true;
    client.subscribe(({ flags, stale }) => {
      told.push(`one ${[...flags]} ${stale}`);
      if (first) client.close();
      first = false;
    });
    const end = client.subscribe(({ flags, stale }) => {
      told.push(`two ${[...flags]} ${stale}`);
      gone();
    });
    const gone = client.subscribe(() => told.push('gone'));
    await client.ready();
    expect(told).toEqual(['one a false', 'two a false', 'one  true', 'two  true']);
    end();
  });

  test('asks for the token at each connection, and shows a stream that needs no signal', async () => {
    let tokens = 0;
    const cancelled = vi.fn();
    const client = createFlagClient({
      baseUrl: 'https://example.com',
      token: () => `t${++tokens}`,
      // As some implementations do, it does not care for the signal.
      fetch: async (input) =>
        String(input).endsWith('/me')
          ? answered()
          : new Response(new ReadableStream({ cancel: cancelled }), {
              headers: { 'Content-Type': 'text/event-stream' },
            }),
    });
    await client.ready();
    await new Promise((resolve) => setImmediate(resolve));
    client.close();
    await expect.poll(() => cancelled.mock.calls.length).toBe(1);
    expect(tokens).toBe(1);
  });

  test('sends cookies when it has no token, and none when it has one', async () => {
    const sent: (string | undefined)[] = [];
    const fetch: typeof globalThis.fetch = (_input, init) => {
      sent.push(init?.credentials);
      return away('');
    };
    const client = createFlagClient({ baseUrl: 'https://example.com', token: 't', fetch });
    await expect.poll(() => sent).toEqual(['omit']);
    client.setToken(undefined);
    await expect.poll(() => sent).toEqual(['omit', 'same-origin']);
    client.close();
  });

  test('keeps what was kept while the function that gives the token fails', async () => {
    const kept = new Map<string, string>();
    const storage = {
      getItem: (key: string) => kept.get(key) ?? null,
      setItem: (key: string, value: string) => void kept.set(key, value),
      removeItem: (key: string) => void kept.delete(key),
    };
    const options = { baseUrl: 'https://example.com', storage };
    const first = createFlagClient({ ...options, token: 't', fetch: async () => answered() });
    await first.ready();
    await expect.poll(() => kept.size).toBe(2);
    first.close();
    let fails = true;
    const token = async () => {
      if (fails) throw new Error('the network is away');
      return 't';
    };
    const second = createFlagClient({ ...options, token, fetch: away });
    expect(await second.ready(20)).toBe(false);
    expect(kept.size).toBe(2);
    fails = false;
    expect(await second.ready()).toBe(true);
    expect(second.getFlag('a')).toEqual(ANSWER.flags.a.value);
    second.close();
  });

  test('asks without waiting for a storage that hangs', async () => {
    const hanging = () => new Promise<never>(() => {});
    const storage = { getItem: hanging, setItem: hanging, removeItem: hanging };
    const client = createFlagClient({
      baseUrl: 'https://example.com',
      token: 't',
      storage,
      fetch: async () => answered(),
    });
    expect(await client.ready(1_000)).toBe(true);
    client.close();
  });

  test('gives one frozen object of all flags for as long as nothing changes', async () => {
    const client = createFlagClient({ baseUrl: 'https://example.com', token: 't', fetch: async () => answered() });
    await client.ready();
    const flags = client.getUserFlags();
    expect(client.getUserFlags()).toBe(flags);
    expect(Object.isFrozen(flags)).toBe(true);
    client.close();
  });
});

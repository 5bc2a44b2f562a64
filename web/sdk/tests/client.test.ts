import { afterEach, beforeEach, expect, test, vi } from 'vitest';
import { createFlagClient } from '../src/index.js';
import { settle, snapshot } from './parts.js';

beforeEach(() => {
  vi.useFakeTimers({ toFake: ['setTimeout', 'clearTimeout', 'Date', 'performance'] });
  vi.setSystemTime(new Date('2030-01-01T00:00:00Z'));
});
afterEach(() => void vi.useRealTimers());

test('close() leaves no timer, and a second close() does not notify listeners', async () => {
  const [created_at, expires_at] = ['2029-01-01T00:00:00Z', '2030-01-01T00:00:30Z'];
  const override = { created_at, updated_at: created_at, expires_at };
  const then = { value: false, variant: null, source: 'default' };
  const flag = { value: true, flag_type: 'boolean', variant: null, source: 'override', override, then };
  const body = JSON.stringify({ ...snapshot(1, true), valid_until: '2030-01-01T00:00:10Z', flags: { a: flag } });
  const client = createFlagClient({
    baseUrl: 'http://localhost',
    token: 't',
    fetch: async () => new Response(body, { headers: { 'Content-Type': 'application/json' } }),
  });
  await client.ready();
  client.close();
  expect(vi.getTimerCount()).toBe(0);
  const listener = vi.fn();
  client.subscribe(listener);
  await vi.advanceTimersByTimeAsync(60_000);
  client.close();
  expect([client.getFlag('a'), listener.mock.calls]).toEqual([true, []]);
});

test('a token that arrives after close() loads no persisted values', async () => {
  const getItem = vi.fn(() => null);
  let resolveToken: (token: string) => void = () => {};
  const client = createFlagClient({
    baseUrl: 'http://localhost',
    token: () => new Promise((resolve) => (resolveToken = resolve)),
    storage: { getItem, setItem: () => {}, removeItem: () => {} },
    fetch: () => expect.unreachable(),
  });
  client.close();
  resolveToken('t');
  await settle();
  expect(getItem).not.toHaveBeenCalled();
});

test('close() discards persisted values that are still being read', async () => {
  const entry = { writtenAt: Date.now(), serverAt: 1, state: '' };
  let resolveRead: (text: string) => void = () => {};
  const getItem = vi.fn((key: string) =>
    key.endsWith(':u') ? new Promise<string>((resolve) => (resolveRead = resolve)) : '{"userId":"u"}',
  );
  const client = createFlagClient({
    baseUrl: 'http://localhost',
    userId: 'u',
    storage: { getItem, setItem: () => {}, removeItem: () => {} },
    fetch: () => new Promise(() => {}),
  });
  await settle();
  const state = { userId: 'u', position: 'e:1:1', validUntil: null, flags: {} };
  client.close();
  resolveRead(JSON.stringify({ ...entry, state: JSON.stringify(state) }));
  await settle();
  expect([getItem.mock.calls.length, client.userId]).toEqual([2, null]);
});

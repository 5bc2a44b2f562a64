import { afterEach, beforeEach, expect, test, vi } from 'vitest';
import { Failure } from '../src/failure.js';
import { composeParts, settle, snapshot } from './parts.js';

beforeEach(() => {
  vi.useFakeTimers({ toFake: ['setTimeout', 'clearTimeout', 'Date', 'performance'] });
  vi.setSystemTime(new Date('2030-01-01T00:00:00Z'));
});
afterEach(() => void vi.useRealTimers());

/** Returns the composed parts. This tab has an open stream, or follows another tab that has one. */
async function connectParts(joinAs: 'none' | 'follower' = 'none', validUntil: string | null = null) {
  const parts = composeParts();
  parts.tabs.joinAs = joinAs;
  parts.connection.connect();
  await settle();
  parts.server.respond({ to: 'me', status: 200, json: snapshot(1, false, 'u', validUntil) });
  await settle();
  if (joinAs === 'none') parts.server.respond({ to: 'stream', status: 200 });
  await settle();
  return parts;
}

test('concurrent callers share one running request', async () => {
  const { refresher, server, values } = await connectParts();
  const before = server.requestCount;
  const results = Promise.all([refresher.refresh(), refresher.refresh()]);
  await settle();
  expect(server.requestCount).toBe(before + 1);
  server.respond({ to: 'me', status: 200, json: snapshot(2, true) });
  expect(await results).toEqual([true, true]);
  expect(values.state?.flags.get('a')?.value).toBe(true);
  const next = refresher.refresh();
  await settle();
  expect(server.requestCount).toBe(before + 2);
  server.respond({ to: 'me', status: 200, json: snapshot(3, false) });
  expect(await next).toBe(true);
});

test('a refresh that times out returns false and closes the connection until the next attempt', async () => {
  const { refresher, connection, errors } = await connectParts();
  const result = refresher.refresh();
  await vi.advanceTimersByTimeAsync(15_000);
  expect(await result).toBe(false);
  expect([connection.phase, errors]).toEqual(['waiting', ['timeout']]);
});

test('a rejected request does not end the stream, unless the credential was rejected', async () => {
  const { refresher, connection, server, errors } = await connectParts();
  for (const status of [429, 401]) {
    const result = refresher.refresh();
    await settle();
    server.respond({ to: 'me', status, text: '' });
    expect(await result).toBe(false);
  }
  expect([connection.phase, errors]).toEqual(['waiting', ['http', 'http']]);
});

test('a failed token function does not end the stream', async () => {
  const { refresher, connection, token, errors } = await connectParts();
  token.mockRejectedValueOnce(new Failure('token', 'test'));
  expect(await refresher.refresh()).toBe(false);
  expect([connection.phase, errors]).toEqual(['streaming', ['token']]);
});

test('a request that fails does not extend the delay before the next attempt', async () => {
  const { refresher, connection, server, errors } = await connectParts();
  server.disconnect();
  await settle();
  const result = refresher.refresh();
  await settle();
  server.failRequest('me');
  expect(await result).toBe(false);
  await vi.advanceTimersByTimeAsync(1_000);
  await settle();
  expect([connection.phase, errors]).toEqual(['streaming', ['network', 'network']]);
});

test('a new connection attempt supersedes the request', async () => {
  const { refresher, connection, errors } = await connectParts();
  const result = refresher.refresh();
  await settle();
  connection.connect();
  expect(await result).toBe(false);
  expect(errors).toEqual([]);
  connection.stop('closed');
});

test('a successful request skips the delay before the next attempt', async () => {
  const { refresher, connection, server } = await connectParts();
  server.disconnect();
  await settle();
  expect(connection.phase).toBe('waiting');
  void refresher.refresh();
  await settle();
  server.respond({ to: 'me', status: 200, json: snapshot(2, true) });
  await settle();
  expect([connection.phase, server.hasPendingRequest('stream')]).toEqual(['streaming', true]);
});

test('reconnects for the new user if a snapshot belongs to another user', async () => {
  const { refresher, connection, server, values } = await connectParts();
  void refresher.refresh();
  await settle();
  server.respond({ to: 'me', status: 200, json: snapshot(2, true, 'v') });
  await settle();
  expect([values.state?.userId, connection.phase, server.streamOpen]).toEqual(['v', 'connecting', false]);
  expect(server.hasPendingRequest('me')).toBe(true);
});

test('a snapshot does not clear the stale state of a follower while the leader is disconnected', async () => {
  const { refresher, server, values } = await connectParts('follower');
  values.markStale();
  void refresher.refresh();
  await settle();
  server.respond({ to: 'me', status: 200, json: snapshot(2, true) });
  await settle();
  expect([values.state?.position.revision, values.fresh]).toEqual([2, false]);
});

test('requests one snapshot for each validUntil that the stream misses', async () => {
  const validUntil = '2030-01-01T00:00:05Z';
  const { connection, server } = await connectParts('none', validUntil);
  const before = server.requestCount;
  await vi.advanceTimersByTimeAsync(8_100);
  await settle();
  expect(server.requestCount).toBe(before + 1);
  server.respond({ to: 'me', status: 200, json: snapshot(9, true, 'u', validUntil) });
  await settle();
  await vi.advanceTimersByTimeAsync(10_000);
  await settle();
  expect(server.requestCount).toBe(before + 1);
  // After the connection was stopped, a snapshot is requested again for the same `validUntil`.
  connection.stop('idle');
  connection.connect();
  await settle();
  server.respond({ to: 'me', status: 200, json: snapshot(10, true, 'u', validUntil) });
  await settle();
  server.respond({ to: 'stream', status: 200 });
  await vi.advanceTimersByTimeAsync(3_100);
  await settle();
  expect(server.hasPendingRequest('me')).toBe(true);
});

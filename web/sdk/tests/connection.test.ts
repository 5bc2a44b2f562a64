import { afterEach, beforeEach, describe, expect, test, vi } from 'vitest';
import { Failure } from '../src/failure.js';
import { announceEnd, onTimeout, type Phase, streamDuration } from '../src/phase.js';
import { composeParts, settle, snapshot, streamEvent } from './parts.js';

describe('phases', () => {
  const streaming: Phase = { kind: 'streaming', startedAt: 1_000 };

  test('only phases with a stream have a stream duration', () => {
    expect(streamDuration(streaming, 3_500)).toBe(2_500);
    expect(streamDuration({ kind: 'ending', startedAt: 1_000 }, 3_500)).toBe(2_500);
    expect(streamDuration({ kind: 'connecting' }, 3_500)).toBe(0);
  });

  test('a bye event keeps the start time of the stream and is ignored without a stream', () => {
    expect(announceEnd(streaming)).toEqual({ kind: 'ending', startedAt: 1_000 });
    expect(announceEnd({ kind: 'waiting' })).toEqual({ kind: 'waiting' });
  });

  test('a passed deadline starts an attempt, takes over from the leader or ends the stream', () => {
    expect(onTimeout({ kind: 'waiting' })).toBe('connect');
    expect(onTimeout({ kind: 'following' })).toBe('takeOver');
    expect([onTimeout({ kind: 'connecting' }), onTimeout(streaming)]).toEqual(['fail', 'fail']);
  });
});

describe('failures', () => {
  const failure = (kind: Failure['kind'], status?: number) =>
    new Failure(kind, 'test', status === undefined ? {} : { status });

  test('after an error response the stream does not resume', () => {
    const failures = [
      failure('network'),
      failure('timeout'),
      failure('token'),
      failure('http', 503),
      failure('protocol'),
    ];
    expect(failures.map(({ isResumable }) => isResumable)).toEqual([true, true, true, false, false]);
  });

  test('a tab without a valid credential or a working connection leaves its group', () => {
    const failures = [failure('http', 401), failure('http', 403), failure('token'), failure('timeout')];
    expect(failures.map(({ leavesTabs }) => leavesTabs)).toEqual([true, true, true, true]);
    const others = [failure('http', 503), failure('network'), failure('protocol')];
    expect(others.map(({ leavesTabs }) => leavesTabs)).toEqual([false, false, false]);
  });
});

describe('connection', () => {
  beforeEach(() => void vi.useFakeTimers({ toFake: ['setTimeout', 'clearTimeout', 'Date', 'performance'] }));
  afterEach(() => void vi.useRealTimers());

  /** Opens a stream. Returns the connection and its test doubles. */
  async function startStreaming() {
    const parts = composeParts();
    parts.connection.connect();
    await settle();
    parts.server.respond({ to: 'me', status: 200, json: snapshot(1, true) });
    await settle();
    parts.server.respond({ to: 'stream', status: 200 });
    await settle();
    return parts;
  }

  test('the connection changes its phase at each step of an attempt', async () => {
    const { connection, server, values } = composeParts();
    expect(connection.phase).toBe('idle');
    connection.connect();
    expect(connection.phase).toBe('connecting');
    await settle();
    server.respond({ to: 'me', status: 200, json: snapshot(1, true) });
    await settle();
    expect(connection.phase).toBe('streaming');
    server.respond({ to: 'stream', status: 200 });
    await settle();
    server.send(streamEvent('bye', { reason: 'shutdown' }));
    await settle();
    expect(connection.phase).toBe('ending');
    server.endStream();
    await settle();
    expect([connection.phase, values.fresh]).toEqual(['waiting', true]);
    await vi.advanceTimersByTimeAsync(1_000);
    await settle();
    // The stream resumes with the token of the last snapshot.
    expect([connection.phase, server.hasPendingRequest('stream')]).toEqual(['streaming', true]);
    connection.stop('idle');
    expect([connection.phase, values.fresh]).toEqual(['idle', false]);
  });

  test('a stream that ends without bye is a failure', async () => {
    const { connection, server, values, errors } = await startStreaming();
    server.endStream();
    await settle();
    expect([connection.phase, values.fresh, errors]).toEqual(['waiting', false, ['network']]);
  });

  test('an attempt has one timeout for all its responses', async () => {
    const { connection, server, errors } = composeParts();
    connection.connect();
    await vi.advanceTimersByTimeAsync(10_000);
    server.respond({ to: 'me', status: 200, json: snapshot(1, true) });
    await settle();
    await vi.advanceTimersByTimeAsync(4_900);
    expect(connection.phase).toBe('streaming');
    await vi.advanceTimersByTimeAsync(100);
    expect([connection.phase, errors]).toEqual(['waiting', ['timeout']]);
  });

  test('a follower without updates of the leader opens its own stream until that stream ends', async () => {
    const { connection, server, tabs } = composeParts();
    tabs.joinAs = 'follower';
    connection.connect();
    await settle();
    server.respond({ to: 'me', status: 200, json: snapshot(1, true) });
    await settle();
    expect([connection.phase, server.hasPendingRequest('stream')]).toEqual(['following', false]);
    await vi.advanceTimersByTimeAsync(59_000);
    connection.follow();
    await vi.advanceTimersByTimeAsync(59_000);
    expect(connection.phase).toBe('following');
    await vi.advanceTimersByTimeAsync(1_000);
    await settle();
    expect([connection.phase, tabs.role]).toEqual(['streaming', 'none']);
    server.failRequest('stream');
    await settle();
    await vi.advanceTimersByTimeAsync(1_000);
    await settle();
    expect([connection.phase, tabs.role]).toEqual(['following', 'follower']);
  });

  test('a wake-up skips the retry delay, and replaces an open stream only if the machine slept', async () => {
    const { connection, server } = await startStreaming();
    connection.wake(false);
    expect([connection.phase, server.streamOpen]).toEqual(['streaming', true]);
    connection.wake(true);
    expect([connection.phase, server.streamOpen]).toEqual(['connecting', false]);
    connection.end(new Failure('network', 'test'));
    connection.wake(false);
    expect(connection.phase).toBe('connecting');
    connection.end(new Failure('http', 'test', { status: 401 }));
    connection.wake(true);
    expect(connection.phase).toBe('waiting');
    // Failures of the previous credential do not delay the next attempt with another credential.
    connection.reset();
    connection.end(new Failure('network', 'test'));
    connection.wake(false);
    expect(connection.phase).toBe('connecting');
    connection.stop('closed');
  });

  test('an event of the stream resets the count of rejected credentials', async () => {
    const { connection, server } = await startStreaming();
    connection.end(new Failure('http', 'test', { status: 401 }));
    await vi.advanceTimersByTimeAsync(60_000);
    server.respond({ to: 'me', status: 200, json: snapshot(2, true) });
    await settle();
    server.respond({ to: 'stream', status: 200 });
    await settle();
    server.send(streamEvent('snapshot', snapshot(3, false)));
    await settle();
    connection.end(new Failure('network', 'test'));
    connection.wake(false);
    expect(connection.phase).toBe('connecting');
  });

  test('a follower whose own attempt gets no response opens its own stream', async () => {
    const { connection, server, tabs, errors } = composeParts();
    tabs.joinAs = 'follower';
    connection.connect();
    await settle();
    server.respond({ to: 'me', status: 200, json: snapshot(1, true) });
    await settle();
    connection.end(new Failure('protocol', 'test'));
    expect([connection.phase, tabs.role]).toEqual(['waiting', 'follower']);
    await vi.advanceTimersByTimeAsync(1_000);
    expect([connection.phase, server.hasPendingRequest('me')]).toEqual(['following', true]);
    await vi.advanceTimersByTimeAsync(15_000);
    expect([connection.phase, tabs.role, errors]).toEqual(['connecting', 'none', ['protocol']]);
  });

  test('a closed connection stays closed', async () => {
    const { connection, server, errors, values } = await startStreaming();
    connection.stop('closed');
    connection.connect();
    connection.wake(true);
    connection.end(new Failure('network', 'test'));
    connection.stop('idle');
    await settle();
    expect([connection.phase, server.streamOpen, errors, values.fresh]).toEqual(['closed', false, [], false]);
    expect(server.hasPendingRequest('me')).toBe(false);
  });

  test('a snapshot of another user leaves the tab group before it is published', async () => {
    const { connection, server, tabs, values } = composeParts();
    tabs.joinAs = 'leader';
    connection.connect();
    await settle();
    server.respond({ to: 'me', status: 200, json: snapshot(1, true) });
    await settle();
    expect(tabs.role).toBe('leader');
    tabs.broadcast.mockClear();
    server.respond({ to: 'stream', status: 200 });
    await settle();
    server.send(streamEvent('snapshot', snapshot(2, false, 'v')));
    await settle();
    expect([values.state?.userId, tabs.role, tabs.broadcast.mock.calls]).toEqual(['v', 'none', []]);
  });
});

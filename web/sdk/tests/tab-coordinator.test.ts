// @vitest-environment jsdom
import { afterEach, beforeEach, expect, test, vi } from 'vitest';
import { type LeaderUpdate, TabCoordinator } from '../src/tab-coordinator.js';

const UPDATE: LeaderUpdate = { changedAt: 'e:1:1', fresh: true, serverStale: false, serverAt: 1 };

/** Channel whose messages the test reads and sends. */
class FakeChannel {
  static readonly opened: FakeChannel[] = [];
  onmessage: ((event: { data: unknown }) => void) | null = null;
  readonly postMessage = vi.fn();
  readonly close = vi.fn();

  constructor(readonly name: string) {
    FakeChannel.opened.push(this);
  }
}

/** Requests for the lock. The test grants or denies them. */
const lockRequests: { grant: () => Promise<void>; deny: (error: unknown) => void; signal: AbortSignal }[] = [];
const locks = {
  request: (_name: string, { signal }: { signal: AbortSignal }, grant: () => Promise<void>) =>
    new Promise((_, deny) => lockRequests.push({ grant, deny, signal })),
};

function createCoordinator(isEnabled = true) {
  const handler = { onStreamNeeded: vi.fn(), onUpdate: vi.fn(), onStateRequest: vi.fn() };
  return { coordinator: new TabCoordinator('http://localhost', isEnabled, handler), ...handler };
}

beforeEach(() => {
  FakeChannel.opened.length = 0;
  lockRequests.length = 0;
  vi.stubGlobal('BroadcastChannel', FakeChannel);
  Object.defineProperty(navigator, 'locks', { value: locks, configurable: true });
});
afterEach(() => {
  vi.unstubAllGlobals();
  Reflect.deleteProperty(navigator, 'locks');
});

test('a tab is a follower until the browser grants the lock', () => {
  const { coordinator, onStreamNeeded } = createCoordinator();
  expect([coordinator.isLeader, coordinator.isFollower]).toEqual([false, false]);
  expect(coordinator.join('u')).toBe(true);
  expect(coordinator.join('u')).toBe(true);
  expect(FakeChannel.opened.map(({ name }) => name)).toEqual(['feature-flags:1:http://localhost:u']);
  void lockRequests[0]?.grant();
  expect([coordinator.isLeader, coordinator.isFollower, coordinator.join('u')]).toEqual([true, false, false]);
  expect(onStreamNeeded).toHaveBeenCalledOnce();
});

test('a follower receives updates, a leader receives requests for the state', () => {
  const { coordinator, onUpdate, onStateRequest } = createCoordinator();
  coordinator.join('u');
  const [channel] = FakeChannel.opened;
  expect(channel?.postMessage.mock.calls).toEqual([[{ kind: 'request' }]]);
  const send = (data: unknown) => channel?.onmessage?.({ data });
  send({ kind: 'request' });
  send({ kind: 'update', update: UPDATE });
  expect([onStateRequest.mock.calls, onUpdate.mock.calls]).toEqual([[], [[UPDATE]]]);
  void lockRequests[0]?.grant();
  send({ kind: 'update', update: UPDATE });
  send({ kind: 'request' });
  send(null);
  expect([onStateRequest.mock.calls.length, onUpdate.mock.calls.length]).toEqual([1, 1]);
  coordinator.broadcast(UPDATE);
  expect(channel?.postMessage).toHaveBeenLastCalledWith({ kind: 'update', update: UPDATE });
});

test('a tab that leaves releases the lock and can join another group', async () => {
  const { coordinator } = createCoordinator();
  coordinator.join('u');
  const held = lockRequests[0]?.grant();
  coordinator.leave();
  await held;
  expect([coordinator.isLeader, coordinator.isFollower, lockRequests[0]?.signal.aborted]).toEqual([false, false, true]);
  expect(FakeChannel.opened[0]?.close).toHaveBeenCalledOnce();
  expect(coordinator.join('v')).toBe(true);
  expect(FakeChannel.opened[1]?.name).toBe('feature-flags:1:http://localhost:v');
});

test('a tab that is denied the lock opens a stream and joins no other group', async () => {
  const { coordinator, onStreamNeeded } = createCoordinator();
  coordinator.join('u');
  lockRequests[0]?.deny(new DOMException('no', 'SecurityError'));
  await vi.waitFor(() => expect(onStreamNeeded).toHaveBeenCalledOnce());
  expect([coordinator.isFollower, coordinator.join('u')]).toEqual([false, false]);
});

test('the rejection of a cancelled request is ignored', async () => {
  const { coordinator, onStreamNeeded } = createCoordinator();
  coordinator.join('u');
  coordinator.leave();
  lockRequests[0]?.deny(new DOMException('cancelled', 'AbortError'));
  await new Promise((resolve) => setTimeout(resolve));
  expect([onStreamNeeded.mock.calls.length, coordinator.join('u')]).toEqual([0, true]);
});

test('a tab joins no group if sharing is disabled or not supported', () => {
  expect(createCoordinator(false).coordinator.join('u')).toBe(false);
  Reflect.deleteProperty(navigator, 'locks');
  expect(createCoordinator().coordinator.join('u')).toBe(false);
  expect(FakeChannel.opened).toEqual([]);
});

import { afterEach, beforeEach, expect, test, vi } from 'vitest';
import { encodeState } from '../src/persistence.js';
import { parseSnapshot } from '../src/wire.js';
import { composeParts, snapshot } from './parts.js';

beforeEach(() => {
  vi.useFakeTimers({ toFake: ['setTimeout', 'clearTimeout', 'Date', 'performance'] });
  vi.setSystemTime(new Date('2030-01-01T00:00:00Z'));
});
afterEach(() => void vi.useRealTimers());

const parsed = (revision: number, value: boolean) => parseSnapshot(JSON.stringify(snapshot(revision, value)));

/** Update of a leader whose flags last changed at this revision. */
function leaderUpdate(revision: number, withState: boolean, fresh = true) {
  const state = parsed(revision, true);
  const { epoch, instant } = state.position;
  return {
    ...(withState ? { state: encodeState(state) } : {}),
    changedAt: `${epoch}:${revision}:${instant}`,
    fresh,
    serverStale: false,
    serverAt: instant,
  };
}

test('a follower that is behind the leader requests the state and is stale until it arrives', () => {
  const { values, tabs, store } = composeParts();
  values.receive(parsed(1, false), 't');
  expect(values.receiveFromLeader(leaderUpdate(2, false))).toBe(false);
  expect([tabs.requestState.mock.calls.length, store.stale, store.value('a')]).toEqual([1, true, false]);
  expect(values.receiveFromLeader(leaderUpdate(2, true))).toBe(true);
  expect([tabs.requestState.mock.calls.length, store.stale, store.value('a')]).toEqual([1, false, true]);
  expect(values.receiveFromLeader(leaderUpdate(2, false, false))).toBe(false);
  expect(store.stale).toBe(true);
});

test('a follower expires overrides by the clock of the leader', () => {
  const { values, store } = composeParts();
  const [created_at, expires_at] = ['2029-01-01T00:00:00Z', '2030-01-01T00:30:00Z'];
  const override = { created_at, updated_at: created_at, expires_at };
  const then = { value: false, variant: null, source: 'default' };
  const flag = { value: true, flag_type: 'boolean', variant: null, source: 'override', override, then };
  values.receive(parseSnapshot(JSON.stringify({ ...snapshot(1, true), flags: { a: flag } })), 't');
  expect(store.value('a')).toBe(true);
  values.receiveFromLeader({ ...leaderUpdate(1, false), serverAt: Date.parse(expires_at) * 1000 });
  expect([store.value('a'), store.stale]).toEqual([false, false]);
});

test('a follower without values ignores updates', () => {
  const { values, store } = composeParts();
  expect(values.receiveFromLeader(leaderUpdate(2, true))).toBe(false);
  expect(store.state).toBeNull();
});

test('a leader sends its state only if a flag changed', () => {
  const { values, tabs } = composeParts();
  tabs.role = 'leader';
  values.receive(parsed(1, false), 't');
  values.receive(parsed(2, false), 't');
  values.receive(parsed(3, true), 't');
  const updates = tabs.broadcast.mock.calls.map(([update]) => [
    update.state !== undefined,
    update.changedAt.split(':')[1],
  ]);
  expect(updates).toEqual([
    [true, '1'],
    [false, '1'],
    [true, '3'],
  ]);
});

test('an event of another epoch changes nothing', () => {
  const { values, store } = composeParts();
  values.receive(parsed(1, false), 't');
  const position = { epoch: 'other', revision: 9, instant: 9 };
  expect(() => values.receive({ kind: 'heartbeat', position, stale: true }, 't')).toThrow('another epoch');
  expect([store.stale, store.state?.position.revision]).toEqual([false, 1]);
});

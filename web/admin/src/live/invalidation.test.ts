import { expect, test } from 'vitest';
import { affectedKeys, distinctKeys } from './invalidation';

test('a change of an override affects its lists and the values of its user only', () => {
  const change = { entity: 'override', action: 'updated', actor: 'user:1', user_id: 'u', flag_name: 'f' };
  const keys = affectedKeys(change);
  expect(keys).toContainEqual(['overrides']);
  expect(keys).toContainEqual(['user-flags', 'u']);
  expect(keys).not.toContainEqual(['user-flags']);
});

test('an unknown kind of resource affects everything', () => {
  expect(affectedKeys({ entity: 'new_kind', action: 'created', actor: 'user:1' })).toEqual([[]]);
});

test('keys that another key covers are dropped', () => {
  expect(distinctKeys([['a', 'b'], ['a'], ['a'], ['c', 'd']])).toEqual([['a'], ['c', 'd']]);
});

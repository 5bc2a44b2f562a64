import { expect, test } from 'vitest';
import { affectedKeys, distinctKeys } from './invalidation';

test('an override change invalidates override lists and the values of its user only', () => {
  const change = { entity: 'override', action: 'updated', actor: 'user:1', user_id: 'u', flag_name: 'f' };
  const keys = affectedKeys(change);
  expect(keys).toContainEqual(['overrides']);
  expect(keys).toContainEqual(['user-flags', 'u']);
  expect(keys).not.toContainEqual(['user-flags']);
});

test('a change of an unknown resource kind invalidates all responses', () => {
  expect(affectedKeys({ entity: 'new_kind', action: 'created', actor: 'user:1' })).toEqual([[]]);
});

test('distinctKeys drops duplicates and keys with a prefix in the list', () => {
  expect(distinctKeys([['a', 'b'], ['a'], ['a'], ['c', 'd']])).toEqual([['a'], ['c', 'd']]);
});

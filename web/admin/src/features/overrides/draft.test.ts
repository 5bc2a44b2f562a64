import { expect, test } from 'vitest';
import { changedFields, collisions, type Fields } from './draft';
import { mergeRows } from './heldRows';

const BASE: Fields = { override_value: true, expires_at: '2027-02-12T11:00:00Z', reason: 'a', enabled: true };

test('only changed fields are sent; another notation of the same instant is not a change', () => {
  expect(changedFields(BASE, { ...BASE, expires_at: '2027-02-12T11:00:00.000Z', reason: 'b' })).toEqual({
    reason: 'b',
  });
});

test('fields conflict if both editors changed them to different values', () => {
  const theirs = { ...BASE, override_value: false, reason: 'theirs' };
  expect(collisions(BASE, theirs, { ...BASE, reason: 'mine' })).toEqual(['reason']);
  expect(collisions(BASE, theirs, { ...BASE, override_value: false })).toEqual([]);
  expect(collisions(BASE, theirs, { ...BASE, enabled: false })).toEqual([]);
});

test('held rows keep their place, except rows that the user removed', () => {
  const idOf = (row: { id: string }) => row.id;
  const shown = [{ id: 'a' }, { id: 'b' }, { id: 'c' }];
  const fresh = [{ id: 'n' }, { id: 'c' }, { id: 'a' }];
  expect(mergeRows(shown, fresh, idOf, () => false).map(idOf)).toEqual(['a', 'c']);
  expect(mergeRows(shown, fresh, idOf, () => true).map(idOf)).toEqual(['a', 'b', 'c']);
});

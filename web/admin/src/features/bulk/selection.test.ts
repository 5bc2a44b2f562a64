import { expect, test } from 'vitest';
import { isSelected, NOTHING, pageState, type Selection, toggle, togglePage } from './selection';

const PAGE = ['a', 'b', 'c', 'd'];
const idsOf = (selection: Selection) => (selection.kind === 'rows' ? [...selection.ids].sort() : 'matching');

test('a range selects all rows from the last selected one', () => {
  const first = toggle(NOTHING, 'b', PAGE, false);
  expect(idsOf(toggle(first, 'd', PAGE, true))).toEqual(['b', 'c', 'd']);
});

test('the head box selects the page, then nothing, and keeps rows of other pages', () => {
  const other = toggle(NOTHING, 'z', ['z'], false);
  const all = togglePage(other, PAGE);
  expect(idsOf(all)).toEqual(['a', 'b', 'c', 'd', 'z']);
  expect(pageState(all, PAGE)).toBe('all');
  expect(idsOf(togglePage(all, PAGE))).toEqual(['z']);
});

test('removing a row from all that match leaves the rest of the page', () => {
  const matching: Selection = { kind: 'matching', filter: { flag_name: 'x' }, total: 1204, isExact: true };
  expect(isSelected(matching, 'anything')).toBe(true);
  expect(idsOf(toggle(matching, 'b', PAGE, false))).toEqual(['a', 'c', 'd']);
});

test('at most 1,000 rows are selected', () => {
  const page = Array.from({ length: 1001 }, (_, index) => String(index));
  expect(idsOf(togglePage(NOTHING, page))).toHaveLength(1000);
});

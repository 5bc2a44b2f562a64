import { expect, test } from 'vitest';
import { isSelected, NOTHING, pageState, type Selection, toggle, togglePage } from './selection';

const PAGE = ['a', 'b', 'c', 'd'];
const idsOf = (selection: Selection) => (selection.kind === 'rows' ? [...selection.ids].sort() : 'matching');

test('a range selection includes all rows from the previously clicked row to the clicked row', () => {
  const first = toggle(NOTHING, 'b', PAGE, false);
  expect(idsOf(toggle(first, 'd', PAGE, true))).toEqual(['b', 'c', 'd']);
});

test('the header checkbox toggles all rows of the page and keeps the rows of other pages', () => {
  const other = toggle(NOTHING, 'z', ['z'], false);
  const all = togglePage(other, PAGE);
  expect(idsOf(all)).toEqual(['a', 'b', 'c', 'd', 'z']);
  expect(pageState(all, PAGE)).toBe('all');
  expect(idsOf(togglePage(all, PAGE))).toEqual(['z']);
});

test('deselecting one row of all matches keeps only the other rows of the page selected', () => {
  const matching: Selection = { kind: 'matching', filter: { flag_name: 'x' }, total: 1204, isExact: true };
  expect(isSelected(matching, 'anything')).toBe(true);
  expect(idsOf(toggle(matching, 'b', PAGE, false))).toEqual(['a', 'c', 'd']);
});

test('a selection contains at most 1,000 rows', () => {
  const page = Array.from({ length: 1001 }, (_, index) => String(index));
  expect(idsOf(togglePage(NOTHING, page))).toHaveLength(1000);
});

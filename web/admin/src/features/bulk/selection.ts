/** Selection in the override list: individual rows, or all overrides that match the filter. */

import type { BulkFilter } from '../../api/types';

/** Maximum number of ids in one bulk change. */
export const MAX_SELECTED_ROWS = 1000;

export type Selection =
  | { readonly kind: 'rows'; readonly ids: ReadonlySet<string>; readonly last: string | null }
  | { readonly kind: 'matching'; readonly filter: BulkFilter; readonly total: number; readonly isExact: boolean };

export const NOTHING: Selection = { kind: 'rows', ids: new Set(), last: null };

export function isEmpty(selection: Selection): boolean {
  return selection.kind === 'rows' && selection.ids.size === 0;
}

export function isSelected(selection: Selection, id: string): boolean {
  return selection.kind === 'matching' || selection.ids.has(id);
}

/**
 * Selects or deselects a row. With `range`, selects all rows between the previously clicked row and this one.
 * Deselecting a row while all matching overrides are selected keeps only the other rows of the page selected.
 */
export function toggle(selection: Selection, id: string, pageIds: readonly string[], range: boolean): Selection {
  if (selection.kind === 'matching') {
    return { kind: 'rows', ids: new Set(pageIds.filter((other) => other !== id)), last: id };
  }
  const ids = new Set(selection.ids);
  const from = selection.last === null ? -1 : pageIds.indexOf(selection.last);
  const to = pageIds.indexOf(id);
  if (range && from >= 0 && to >= 0) {
    for (const other of pageIds.slice(Math.min(from, to), Math.max(from, to) + 1)) ids.add(other);
  } else if (!ids.delete(id)) ids.add(id);
  return { kind: 'rows', ids: capped(ids), last: id };
}

/** Selects all rows of the page, or deselects them if all are selected. */
export function togglePage(selection: Selection, pageIds: readonly string[]): Selection {
  if (selection.kind === 'matching') return NOTHING;
  const ids = new Set(selection.ids);
  const areAllSelected = pageIds.every((id) => ids.has(id));
  for (const id of pageIds) {
    if (areAllSelected) ids.delete(id);
    else ids.add(id);
  }
  return { kind: 'rows', ids: capped(ids), last: null };
}

function capped(ids: ReadonlySet<string>): ReadonlySet<string> {
  return ids.size <= MAX_SELECTED_ROWS ? ids : new Set([...ids].slice(0, MAX_SELECTED_ROWS));
}

/** Whether all, some or no rows of the page are selected. */
export function pageState(selection: Selection, pageIds: readonly string[]): 'all' | 'some' | 'none' {
  if (selection.kind === 'matching') return 'all';
  const count = pageIds.filter((id) => selection.ids.has(id)).length;
  if (count === 0) return 'none';
  return count === pageIds.length ? 'all' : 'some';
}

/** Keeps the rows of a list in place while the user works in it. */

import { useRef, useState } from 'react';

export interface HeldRows<Row> {
  readonly rows: readonly Row[];
  /** Number of rows that are not shown yet. */
  readonly waiting: number;
  readonly showNew: () => void;
}

/**
 * While `isHeld`, rows keep their places: their contents are updated, new rows are withheld, and rows that others
 * removed stay. Rows that the signed-in user removed disappear at once. `viewKey` identifies the filters and the page;
 * a change of the key shows the current rows at once.
 */
export function useHeldRows<Row>(
  fresh: readonly Row[],
  idOf: (row: Row) => string,
  isHeld: boolean,
  viewKey: string,
  isForeignChange: (row: Row) => boolean,
): HeldRows<Row> {
  const shown = useRef<{ key: string; rows: readonly Row[] }>({ key: viewKey, rows: fresh });
  const [, render] = useState(0);
  const rows = mergeRows(shown.current.rows, fresh, idOf, isForeignChange);
  if (shown.current.key !== viewKey || !isHeld || shown.current.rows.length === 0) {
    shown.current = { key: viewKey, rows: fresh };
    return { rows: fresh, waiting: 0, showNew: () => {} };
  }
  shown.current = { key: viewKey, rows };
  const shownIds = new Set(rows.map(idOf));
  return {
    rows,
    waiting: fresh.filter((row) => !shownIds.has(idOf(row))).length,
    showNew: () => {
      shown.current = { key: viewKey, rows: [] };
      render((count) => count + 1);
    },
  };
}

/** Returns the shown rows with their current contents. Rows that other people removed keep their place. */
export function mergeRows<Row>(
  shown: readonly Row[],
  fresh: readonly Row[],
  idOf: (row: Row) => string,
  isForeignChange: (row: Row) => boolean,
): Row[] {
  const byId = new Map(fresh.map((row) => [idOf(row), row]));
  return shown.filter((row) => byId.has(idOf(row)) || isForeignChange(row)).map((row) => byId.get(idOf(row)) ?? row);
}

/** Recent changes by other people, whose rows are highlighted. */

import { useSyncExternalStore } from 'react';

/** Time for which a changed row is highlighted; milliseconds. */
const MARK_DURATION = 8_000;

export interface ChangeMark {
  readonly actor: string;
  /** Whether the resource no longer exists. */
  readonly isDeleted: boolean;
  /** Value before the change, if it was on the page. */
  readonly previousValue?: unknown;
}

let marks: ReadonlyMap<string, ChangeMark> = new Map();
const listeners = new Set<() => void>();

function replace(next: ReadonlyMap<string, ChangeMark>): void {
  marks = next;
  for (const listener of listeners) listener();
}

/** Highlights the row with this id for a few seconds. */
export function markChanged(id: string, mark: ChangeMark): void {
  replace(new Map(marks).set(id, mark));
  setTimeout(() => {
    if (marks.get(id) !== mark) return;
    const next = new Map(marks);
    next.delete(id);
    replace(next);
  }, MARK_DURATION);
}

function subscribe(listener: () => void): () => void {
  listeners.add(listener);
  return () => listeners.delete(listener);
}

/** Returns the highlighted changes by row id. */
export function useChangeMarks(): ReadonlyMap<string, ChangeMark> {
  return useSyncExternalStore(subscribe, () => marks);
}

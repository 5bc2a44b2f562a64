import { XIcon } from 'lucide-react';
import { useState } from 'react';
import type { BulkAction, BulkFilter } from '../../api/types';
import { Button } from '../../ui/Button';
import styles from '../overrides/overrides.module.css';
import { BulkReview } from './BulkReview';
import { NOTHING, type Selection } from './selection';

interface BulkBarProps {
  readonly selection: Selection;
  readonly visibleIds: readonly string[];
  readonly onSelection: (selection: Selection) => void;
  /** Filter and total of the list, to select all matching overrides. `null` if the filter cannot be used for that. */
  readonly matching: { readonly filter: BulkFilter; readonly total: number; readonly isExact: boolean } | null;
}

/** Bar with the number of selected overrides and the bulk actions. */
export function BulkBar({ selection, visibleIds, onSelection, matching }: BulkBarProps) {
  const [action, setAction] = useState<BulkAction | null>(null);
  return (
    <>
      <section className={styles.bulk} aria-label="Selected overrides">
        <span className={styles.bulkCount} role="status">
          {describe(selection, visibleIds)}
        </span>
        {selection.kind === 'rows' && matching && matching.total > selection.ids.size ? (
          <Button small variant="quiet" onClick={() => onSelection({ kind: 'matching', ...matching })}>
            Select all {formatCount(matching.total, matching.isExact)} that match
          </Button>
        ) : null}
        <span className={`${styles.bulkSeparator} wide-only`} aria-hidden />
        <Button variant="quiet" onClick={() => setAction('enable')}>
          Enable
        </Button>
        <Button variant="quiet" onClick={() => setAction('disable')}>
          Disable
        </Button>
        <Button variant="quiet" onClick={() => setAction('set_expiry')}>
          Change expiry…
        </Button>
        <Button variant="danger" onClick={() => setAction('delete')}>
          Delete
        </Button>
        <span className={`${styles.bulkSeparator} wide-only`} aria-hidden />
        <Button variant="quiet" iconOnly aria-label="Clear selection" onClick={() => onSelection(NOTHING)}>
          <XIcon size={16} aria-hidden />
        </Button>
      </section>
      {action ? (
        <BulkReview
          action={action}
          selection={selection}
          onClose={() => setAction(null)}
          onDone={() => {
            setAction(null);
            onSelection(NOTHING);
          }}
        />
      ) : null}
    </>
  );
}

function formatCount(count: number, isExact: boolean): string {
  return `${count.toLocaleString('en-GB')}${isExact ? '' : '+'}`;
}

function describe(selection: Selection, visibleIds: readonly string[]): string {
  if (selection.kind === 'matching') return `All ${formatCount(selection.total, selection.isExact)} that match`;
  const visible = new Set(visibleIds);
  const elsewhere = [...selection.ids].filter((id) => !visible.has(id)).length;
  const count = `${selection.ids.size} selected`;
  return elsewhere === 0 ? count : `${count}, ${elsewhere} not on this page`;
}

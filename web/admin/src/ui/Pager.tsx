import { ChevronLeftIcon, ChevronRightIcon } from 'lucide-react';
import { Button } from './Button';
import styles from './DataTable.module.css';

interface PagerProps {
  /** Text such as `1,204 overrides match`. */
  readonly summary: string;
  readonly hasPrevious: boolean;
  readonly nextCursor: string | null;
  readonly onFirst: () => void;
  readonly onPrevious: () => void;
  readonly onNext: (cursor: string) => void;
}

export function Pager({ summary, hasPrevious, nextCursor, onFirst, onPrevious, onNext }: PagerProps) {
  return (
    <nav className={styles.pager} aria-label="Pages">
      <span role="status">{summary}</span>
      {hasPrevious || nextCursor ? (
        <span className={styles.pagerButtons}>
          <Button
            variant="quiet"
            hidesLock
            lockedReason={hasPrevious ? null : 'This is the first page.'}
            onClick={onFirst}
          >
            First
          </Button>
          <Button
            variant="quiet"
            hidesLock
            lockedReason={hasPrevious ? null : 'This is the first page.'}
            onClick={onPrevious}
          >
            <ChevronLeftIcon size={14} aria-hidden />
            Previous
          </Button>
          <Button
            variant="quiet"
            hidesLock
            lockedReason={nextCursor ? null : 'This is the last page.'}
            onClick={() => nextCursor && onNext(nextCursor)}
          >
            Next
            <ChevronRightIcon size={14} aria-hidden />
          </Button>
        </span>
      ) : null}
    </nav>
  );
}

/** Formats the total as `1,204`, or as `10,000+` if the server stopped counting. */
export function formatTotal(page: { readonly total: number; readonly total_is_exact: boolean } | undefined): string {
  if (!page) return '';
  return `${page.total.toLocaleString('en-GB')}${page.total_is_exact ? '' : '+'}`;
}

/** Formats a count with its noun in singular or plural. */
export function countOf(count: number, singular: string, plural = `${singular}s`): string {
  return `${count.toLocaleString('en-GB')} ${count === 1 ? singular : plural}`;
}

import { useRef } from 'react';

interface Pages {
  readonly hasPrevious: boolean;
  readonly onFirst: () => void;
  readonly onPrevious: () => void;
  readonly onNext: (cursor: string) => void;
}

/**
 * Pages of a list. The address holds the cursor of the current page. Cursors lead only forward, so the previous ones
 * are remembered; in an address that was copied, the previous page is the first.
 */
export function usePages(cursor: string | undefined, setCursor: (cursor: string | undefined) => void): Pages {
  const previous = useRef<(string | undefined)[]>([]);
  if (cursor === undefined) previous.current = [];
  return {
    hasPrevious: cursor !== undefined,
    onFirst: () => setCursor(undefined),
    onPrevious: () => setCursor(previous.current.pop()),
    onNext: (next) => {
      previous.current.push(cursor);
      setCursor(next);
    },
  };
}

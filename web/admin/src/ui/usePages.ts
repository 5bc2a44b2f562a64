import { useRef } from 'react';

interface Pages {
  readonly hasPrevious: boolean;
  readonly onFirst: () => void;
  readonly onPrevious: () => void;
  readonly onNext: (cursor: string) => void;
}

/**
 * Navigation through the pages of a list. The URL contains the cursor of the current page. Cursors lead only forward,
 * so the hook remembers the previous cursors. A copied URL does not contain them, so its previous page is the first
 * page.
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

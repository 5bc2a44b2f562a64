import { Link } from '@tanstack/react-router';
import { ChevronLeftIcon, SearchIcon } from 'lucide-react';
import { type ReactNode, useEffect } from 'react';
import type { ADDRESSES } from '../addresses';
import { LiveChip } from '../live/LiveChip';
import { useHasPermission } from '../session/session';
import { Button } from '../ui/Button';
import fieldStyles from '../ui/Field.module.css';
import styles from './Shell.module.css';
import { useShortcuts } from './Shortcuts';

const IS_MAC = /Mac|iPhone|iPad/.test(navigator.platform);
/** Label of the modifier key in shortcuts, such as `Ctrl ` in `Ctrl K`. */
export const MODIFIER = IS_MAC ? '⌘' : 'Ctrl ';

interface PageHeadProps {
  /** Title of the browser tab, and heading of the page unless the page has a link back. */
  readonly title: string;
  readonly back?: { readonly to: (typeof ADDRESSES)['flags' | 'users']; readonly label: string };
  readonly actions?: ReactNode;
}

/** Header of a page: title or link back, live label, search button and actions. */
export function PageHead({ title, back, actions }: PageHeadProps) {
  const canRead = useHasPermission('read');
  const { openPalette } = useShortcuts();
  useEffect(() => {
    document.title = title === 'Feature Flags' ? title : `${title} · Feature Flags`;
  }, [title]);
  return (
    <header className={styles.head}>
      {back ? (
        <Link to={back.to} className={styles.crumb}>
          <ChevronLeftIcon size={14} aria-hidden />
          {back.label}
        </Link>
      ) : (
        <h1 className="cut">{title}</h1>
      )}
      <div className={styles.actions}>
        {canRead ? (
          <>
            <LiveChip />
            <Button className="wide-only" onClick={openPalette} aria-keyshortcuts="Meta+K Control+K">
              <SearchIcon size={16} aria-hidden />
              <span className="muted">Search</span>
              <kbd className={fieldStyles.key}>{MODIFIER}K</kbd>
            </Button>
            <Button className="narrow-only" iconOnly variant="quiet" onClick={openPalette} aria-label="Search">
              <SearchIcon size={16} aria-hidden />
            </Button>
          </>
        ) : null}
        {actions}
      </div>
    </header>
  );
}

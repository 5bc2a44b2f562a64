import { createLink } from '@tanstack/react-router';
import type { LucideIcon } from 'lucide-react';
import type { ComponentProps, ReactNode } from 'react';
import styles from './Shell.module.css';

interface TabAnchorProps extends ComponentProps<'a'> {
  readonly Icon: LucideIcon;
  readonly count?: string | undefined;
}

function TabAnchor({ Icon, count, children, ...props }: TabAnchorProps) {
  return (
    <a {...props} className={styles.tab}>
      <Icon size={16} aria-hidden />
      {children}
      {count ? <span className={styles.tabCount}>{count}</span> : null}
    </a>
  );
}

/** Link in a tab bar. The router marks the link of the current page. */
export const Tab = createLink(TabAnchor);

export function Tabs({ label, children }: { readonly label: string; readonly children: ReactNode }) {
  return (
    <nav className={styles.tabs} aria-label={label}>
      {children}
    </nav>
  );
}

/** Bar with filters or actions above a list. With `isScrolling`, it scrolls sideways on phones. */
export function Bar({ children, isScrolling }: { readonly children: ReactNode; readonly isScrolling?: boolean }) {
  return <div className={isScrolling ? `${styles.bar} ${styles.scrolling}` : styles.bar}>{children}</div>;
}

export function BarEnd({ children }: { readonly children: ReactNode }) {
  return <div className={styles.barEnd}>{children}</div>;
}

export function BarSeparator() {
  return <span className={styles.separator} aria-hidden />;
}

/** CSS class of the search field in a bar. */
export const FIND_CLASS = styles.find;

/** Sentence below the tabs. */
export function Subtitle({ children }: { readonly children: ReactNode }) {
  return <p className={styles.subtitle}>{children}</p>;
}

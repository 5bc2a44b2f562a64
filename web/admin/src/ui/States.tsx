import { CircleAlertIcon, InfoIcon, TriangleAlertIcon } from 'lucide-react';
import type { ReactNode } from 'react';
import { sentence, toApiError } from '../api/problem';
import { Button } from './Button';
import { classes } from './classes';
import styles from './States.module.css';

/** Shown instead of an empty list or page: one sentence and the next step. */
export function EmptyState(props: {
  readonly icon?: ReactNode;
  readonly title: string;
  readonly children?: ReactNode;
  readonly actions?: ReactNode;
}) {
  return (
    <div className={styles.state}>
      {props.icon}
      <h2 className={styles.title}>{props.title}</h2>
      {props.children ? <p className={styles.text}>{props.children}</p> : null}
      {props.actions ? <div className={styles.actions}>{props.actions}</div> : null}
    </div>
  );
}

/** Shown when data cannot be loaded: the error and a button to retry. The rest of the page stays usable. */
export function ErrorState(props: { readonly error: unknown; readonly onRetry?: () => void; readonly title?: string }) {
  const error = toApiError(props.error);
  return (
    <div className={styles.state} role="alert">
      <CircleAlertIcon size={24} aria-hidden />
      <h2 className={styles.title}>{props.title ?? 'This could not be loaded'}</h2>
      <p className={styles.text}>{sentence(error.message)}</p>
      {error.requestId ? <p className={styles.request}>Request {error.requestId}</p> : null}
      {props.onRetry ? (
        <div className={styles.actions}>
          <Button onClick={props.onRetry}>Try again</Button>
        </div>
      ) : null}
    </div>
  );
}

const ROWS = ['a', 'b', 'c', 'd', 'e', 'f', 'g', 'h'];

/** Placeholder rows while a list is loading. They appear after 150 ms. */
export function SkeletonRows() {
  return (
    <div className={styles.skeleton} role="status" aria-label="Loading">
      {ROWS.map((row) => (
        <div key={row} className={styles.skeletonRow}>
          {ROWS.slice(0, 5).map((cell) => (
            <span key={cell} className={styles.bar} />
          ))}
        </div>
      ))}
    </div>
  );
}

/** Thin bar, shown while new rows are loading and the old rows are still visible. */
export function ProgressBar() {
  return <div className={styles.progress} aria-hidden />;
}

interface NoticeProps {
  readonly kind?: 'warning' | 'info' | 'error';
  readonly title?: ReactNode;
  readonly children?: ReactNode;
  readonly role?: 'status' | 'alert';
}

export function Notice({ kind = 'warning', title, children, role }: NoticeProps) {
  const Icon = kind === 'warning' ? TriangleAlertIcon : kind === 'error' ? CircleAlertIcon : InfoIcon;
  return (
    <div
      className={classes(styles.notice, kind === 'info' && styles.plain, kind === 'error' && styles.bad)}
      role={role}
    >
      <Icon size={16} aria-hidden />
      {title ? <strong className={styles.noticeTitle}>{title}</strong> : null}
      {children ? <div className={styles.noticeText}>{children}</div> : null}
    </div>
  );
}

/** Error message of a failed action, inside a form. */
export function ErrorNotice({ error, title }: { readonly error: unknown; readonly title?: string }) {
  const { message, requestId } = toApiError(error);
  return (
    <Notice kind="error" role="alert" {...(title ? { title } : {})}>
      {sentence(message)}
      {requestId ? <span className={styles.request}> Request {requestId}</span> : null}
    </Notice>
  );
}

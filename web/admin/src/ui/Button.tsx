import { LockIcon } from 'lucide-react';
import { type ComponentProps, type MouseEvent, useId } from 'react';
import styles from './Button.module.css';
import { classes } from './classes';

export type ButtonVariant = 'primary' | 'line' | 'quiet' | 'danger';

export interface ButtonLook {
  readonly variant?: ButtonVariant;
  readonly small?: boolean;
  readonly iconOnly?: boolean;
}

/** Class names of a button, for links that look like one. */
export function buttonClass({ variant = 'line', small, iconOnly }: ButtonLook = {}): string {
  return classes(styles.button, styles[variant], small && styles.small, iconOnly && styles.iconOnly);
}

interface ButtonProps extends ButtonLook, Omit<ComponentProps<'button'>, 'disabled'> {
  /** Why the button cannot be used. The button stays focusable, and the reason is its accessible description. */
  readonly lockedReason?: string | null | undefined;
  /** Omits the lock icon, for reasons other than a missing permission. */
  readonly hidesLock?: boolean;
  /** Whether the action is in progress. */
  readonly busy?: boolean;
}

function ignore(event: MouseEvent): void {
  event.preventDefault();
  event.stopPropagation();
}

export function Button(props: ButtonProps) {
  const { variant, small, iconOnly, lockedReason, hidesLock, busy, className, children, onClick, ...rest } = props;
  const look: ButtonLook = {
    ...(variant && { variant }),
    ...(small !== undefined && { small }),
    ...(iconOnly !== undefined && { iconOnly }),
  };
  const reasonId = useId();
  const isOff = Boolean(lockedReason) || busy === true;
  return (
    <>
      <button
        type="button"
        {...rest}
        className={classes(buttonClass(look), className)}
        onClick={isOff ? ignore : onClick}
        aria-disabled={isOff || undefined}
        aria-busy={busy || undefined}
        {...(lockedReason ? { 'aria-describedby': reasonId, title: lockedReason } : {})}
      >
        {lockedReason && !iconOnly && !hidesLock ? <LockIcon size={14} aria-hidden /> : null}
        {children}
      </button>
      {lockedReason ? (
        <span id={reasonId} className="visually-hidden">
          {lockedReason}
        </span>
      ) : null}
    </>
  );
}

/** Name of a key, shown in a button or hint. */
export function Key({ children }: { readonly children: string }) {
  return <kbd className={styles.key}>{children}</kbd>;
}

import { Dialog as BaseDialog } from '@base-ui/react/dialog';
import { XIcon } from 'lucide-react';
import { type ReactNode, useRef } from 'react';
import { Button } from './Button';
import { classes } from './classes';
import styles from './Overlay.module.css';

interface OverlayProps {
  readonly isOpen: boolean;
  /** Called when the user tries to close the overlay: with Escape, the close button or a click outside. */
  readonly onClose: () => void;
  readonly title: ReactNode;
  /** Shown before the title. */
  readonly icon?: ReactNode;
  /** Shown beside the close button. */
  readonly actions?: ReactNode;
  readonly footer?: ReactNode;
  readonly children: ReactNode;
}

interface DrawerProps extends OverlayProps {
  /** `wide` has 920 px, `medium` 560 px. */
  readonly size: 'wide' | 'medium';
  /** Whether the body has its own padding and scrolling. */
  readonly bare?: boolean;
}

/** Panel over the right side of the page; full screen on phones. */
export function Drawer({ size, bare, ...props }: DrawerProps) {
  const className = classes(styles.drawer, size === 'medium' && styles.medium);
  return <Overlay {...props} className={className} bare={bare ?? false} isModal />;
}

interface DialogProps extends OverlayProps {
  readonly wide?: boolean;
  /** Whether the dialog appears above other overlays. */
  readonly above?: boolean;
  readonly bare?: boolean;
  /** Whether only the content of the dialog can close it, not Escape or a click outside. */
  readonly isMandatory?: boolean;
}

export function Dialog({ wide, above, bare, isMandatory, ...props }: DialogProps) {
  const className = classes(styles.dialog, wide && styles.wide, above && styles.above);
  return (
    <Overlay
      {...props}
      className={className}
      backdropClassName={above ? styles.above : undefined}
      bare={bare ?? false}
      isModal={!isMandatory}
    />
  );
}

interface PopupProps extends OverlayProps {
  readonly className: string;
  readonly backdropClassName?: string | undefined;
  readonly bare: boolean;
  readonly isModal: boolean;
}

/** Control that receives the focus when an overlay opens. If there is none, the first button does. */
const FIRST_FIELD = 'form input, form textarea, form select, [role="combobox"], fieldset input';

function Overlay(props: PopupProps) {
  const { isOpen, onClose, title, icon, actions, footer, children, className, backdropClassName, bare, isModal } =
    props;
  const popup = useRef<HTMLDivElement>(null);
  return (
    <BaseDialog.Root
      open={isOpen}
      onOpenChange={(open, details) => {
        if (open) return;
        // The parent decides whether to close the overlay. It may ask for confirmation first.
        details.cancel();
        if (isModal) onClose();
      }}
    >
      <BaseDialog.Portal>
        <BaseDialog.Backdrop className={classes(styles.backdrop, backdropClassName)} forceRender />
        <BaseDialog.Popup
          ref={popup}
          className={className}
          initialFocus={() => popup.current?.querySelector<HTMLElement>(FIRST_FIELD) ?? true}
        >
          {title === null ? null : (
            <header className={styles.head}>
              {icon}
              <BaseDialog.Title className={styles.title}>{title}</BaseDialog.Title>
              {actions}
              {isModal ? (
                <Button variant="quiet" iconOnly aria-label="Close" onClick={onClose}>
                  <XIcon size={16} aria-hidden />
                </Button>
              ) : null}
            </header>
          )}
          {bare ? children : <div className={styles.body}>{children}</div>}
          {footer ? <footer className={styles.foot}>{footer}</footer> : null}
        </BaseDialog.Popup>
      </BaseDialog.Portal>
    </BaseDialog.Root>
  );
}

import { Toast } from '@base-ui/react/toast';
import { CheckIcon, CircleAlertIcon, XIcon } from 'lucide-react';
import { sentence, toApiError } from '../api/problem';
import { Button } from './Button';
import styles from './Overlay.module.css';

/** Time for which a message with an Undo button is shown; milliseconds. */
const UNDO_TIMEOUT = 20_000;
const TIMEOUT = 6_000;

const manager = Toast.createToastManager();

/** Shows a message that an action has succeeded, with an Undo button if `undo` is given. */
export function showDone(title: string, undo?: () => Promise<unknown>): void {
  const id = manager.add({
    title,
    timeout: undo ? UNDO_TIMEOUT : TIMEOUT,
    ...(undo && {
      actionProps: {
        children: 'Undo',
        onClick: () => {
          manager.close(id);
          undo().then(() => showDone('Undone'), showError);
        },
      },
    }),
  });
}

/** Shows the error of a failed action with its request id. */
export function showError(error: unknown): void {
  const { message, requestId } = toApiError(error);
  const suffix = requestId ? ` (request ${requestId})` : '';
  manager.add({ type: 'error', title: `${sentence(message)}${suffix}`, timeout: UNDO_TIMEOUT, priority: 'high' });
}

function ToastList() {
  const { toasts } = Toast.useToastManager();
  return toasts.map((toast) => (
    <Toast.Root key={toast.id} toast={toast} className={styles.toast} swipeDirection={[]}>
      <Toast.Content className={styles.toastContent}>
        {toast.type === 'error' ? <CircleAlertIcon size={16} aria-hidden /> : <CheckIcon size={16} aria-hidden />}
        <Toast.Title className={styles.toastTitle} />
        {toast.actionProps ? <Toast.Action render={<Button small />} /> : null}
        <Toast.Close
          aria-label="Dismiss"
          render={
            <Button variant="quiet" small iconOnly>
              <XIcon size={14} aria-hidden />
            </Button>
          }
        />
      </Toast.Content>
    </Toast.Root>
  ));
}

/** Region in which messages appear. Render it once per page. */
export function ToastRegion() {
  return (
    <Toast.Provider toastManager={manager}>
      <Toast.Portal>
        <Toast.Viewport className={styles.viewport}>
          <ToastList />
        </Toast.Viewport>
      </Toast.Portal>
    </Toast.Provider>
  );
}

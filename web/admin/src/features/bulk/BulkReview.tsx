import { useMutation, useQuery, useQueryClient } from '@tanstack/react-query';
import { useState } from 'react';
import { changeOverrides } from '../../api/commands';
import { keys } from '../../api/keys';
import type { BulkAction, BulkOutcome, BulkRequest, BulkResponse } from '../../api/types';
import { useZone } from '../../preferences/preferences';
import { serverNow, useServerTime } from '../../time/clock';
import { ExpiryField } from '../../time/ExpiryField';
import { DEFAULT_PRESET, type ExpiryChoice, expiryOf } from '../../time/expiry';
import { formatInstant } from '../../time/format';
import { Button } from '../../ui/Button';
import { Drawer } from '../../ui/Overlay';
import { countOf } from '../../ui/Pager';
import { ErrorNotice, ErrorState, Notice, SkeletonRows } from '../../ui/States';
import { showDone } from '../../ui/toast';
import styles from './bulk.module.css';
import type { Selection } from './selection';

interface BulkReviewProps {
  readonly action: BulkAction;
  readonly selection: Selection;
  readonly onClose: () => void;
  readonly onDone: () => void;
}

const VERBS: Record<BulkAction, { verb: string; done: string }> = {
  enable: { verb: 'Enable', done: 'enabled' },
  disable: { verb: 'Disable', done: 'disabled' },
  delete: { verb: 'Delete', done: 'deleted' },
  set_expiry: { verb: 'Change the expiry of', done: 'changed' },
};

/** Shows the effect of a bulk change, determined by a dry run, and executes the change after confirmation. */
export function BulkReview({ action, selection, onClose, onDone }: BulkReviewProps) {
  const zone = useZone();
  const minute = useServerTime(60_000);
  const queryClient = useQueryClient();
  const [expiry, setExpiry] = useState<ExpiryChoice>({ preset: DEFAULT_PRESET, local: '', zone, reading: null });
  const [idempotencyKey] = useState(() => crypto.randomUUID());
  const { verb, done } = VERBS[action];
  // An expiry such as "in 7 days" depends on the current time. The dry run and the change must use the same time.
  const [reviewedAt] = useState(() => serverNow());
  const expiresAt = action === 'set_expiry' ? expiryOf(expiry, reviewedAt) : null;
  const isValid = expiresAt === null || expiresAt.kind !== 'invalid';
  const target: Pick<BulkRequest, 'ids' | 'filter'> =
    selection.kind === 'rows' ? { ids: [...selection.ids] } : { filter: selection.filter };
  const request: BulkRequest = {
    action,
    ...target,
    ...(expiresAt?.kind === 'at' && { expires_at: new Date(expiresAt.time).toISOString() }),
    ...(expiresAt?.kind === 'never' && { expires_at: null }),
  };

  const dryRun = useQuery({
    queryKey: ['bulk-dry-run', request],
    queryFn: () => changeOverrides({ ...request, dry_run: true }),
    enabled: isValid,
    gcTime: 0,
    staleTime: 0,
  });
  const change = useMutation({
    mutationFn: () => changeOverrides(request, idempotencyKey),
    // Retries use the same idempotency key, so the server executes the change only once.
    retry: 3,
    onSuccess: (response) => {
      void queryClient.invalidateQueries({ queryKey: keys.overrides });
      void queryClient.invalidateQueries({ queryKey: keys.flags });
      showDone(`${countOf(response.changed, 'override')} ${done}`);
      onDone();
    },
  });
  const counts = dryRun.data ? countOutcomes(dryRun.data) : null;
  const noun = counts ? countOf(counts.changed, 'override') : 'overrides';
  return (
    <Drawer
      isOpen
      onClose={onClose}
      size="medium"
      title={`${verb} ${selection.kind === 'rows' ? countOf(selection.ids.size, 'override') : 'all that match'}`}
      footer={
        <>
          <Button onClick={onClose}>Cancel</Button>
          <Button
            variant={action === 'delete' ? 'danger' : 'primary'}
            busy={change.isPending || dryRun.isFetching || !isValid}
            lockedReason={counts?.changed === 0 ? 'Nothing would change.' : null}
            onClick={() => change.mutate()}
          >
            {verb} {noun}
          </Button>
        </>
      }
    >
      {action === 'set_expiry' ? (
        <ExpiryField choice={expiry} onChange={setExpiry} from={reviewedAt} error={null} />
      ) : null}
      {dryRun.isFetching && !dryRun.data ? <SkeletonRows /> : null}
      {dryRun.isError ? <ErrorState error={dryRun.error} onRetry={() => void dryRun.refetch()} /> : null}
      {counts ? (
        <section aria-label="Effect">
          <ul className={styles.counts} aria-live="polite">
            <CountLine count={counts.changed} text="will change" />
            <CountLine count={counts.unchanged} text={unchangedText(action)} />
            <CountLine count={counts.not_found} text="no longer exist or have expired" />
            {counts.forbidden > 0 ? (
              <CountLine count={counts.forbidden} text="belong to people whose overrides only admins can change" />
            ) : null}
          </ul>
        </section>
      ) : null}
      {action === 'delete' ? (
        <Notice title="The users get the value of the next layer at once">
          Deleted overrides remain in the audit log.
        </Notice>
      ) : null}
      {expiresAt?.kind === 'at' ? (
        <p className="muted">New expiry: {formatInstant(expiresAt.time, minute, expiry.zone)}</p>
      ) : null}
      {change.isError ? <ErrorNotice error={change.error} /> : null}
    </Drawer>
  );
}

function CountLine({ count, text }: { readonly count: number; readonly text: string }) {
  return (
    <li className={count === 0 ? 'muted' : undefined}>
      <span className={styles.number}>{count.toLocaleString('en-GB')}</span>
      <span>{text}</span>
    </li>
  );
}

function unchangedText(action: BulkAction): string {
  if (action === 'set_expiry') return 'have this expiry already';
  return `are ${VERBS[action].done} already`;
}

function countOutcomes({ results }: BulkResponse): Record<BulkOutcome, number> {
  const counts: Record<BulkOutcome, number> = { changed: 0, unchanged: 0, not_found: 0, forbidden: 0 };
  for (const { outcome } of results) counts[outcome] += 1;
  return counts;
}

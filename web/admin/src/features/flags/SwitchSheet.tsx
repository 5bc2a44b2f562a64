import { useMutation, useQuery, useQueryClient } from '@tanstack/react-query';
import { ArrowRightIcon } from 'lucide-react';
import { patchFlag } from '../../api/commands';
import { keys } from '../../api/keys';
import { toApiError } from '../../api/problem';
import { readableFlagQuery, schedulesQuery } from '../../api/queries';
import { useFormatTime } from '../../time/When';
import { Button } from '../../ui/Button';
import { Drawer } from '../../ui/Overlay';
import { countOf } from '../../ui/Pager';
import { ErrorNotice, ErrorState, Notice, SkeletonRows } from '../../ui/States';
import { showDone } from '../../ui/toast';
import { Served } from '../../values/Served';
import styles from './flags.module.css';

/** Asks for confirmation before a flag is switched. Shows the values before and after, and who is not affected. */
export function SwitchSheet({ flagName, onClose }: { readonly flagName: string; readonly onClose: () => void }) {
  const queryClient = useQueryClient();
  const query = useQuery({ ...readableFlagQuery(flagName), staleTime: 0 });
  const pending = useQuery(schedulesQuery(flagName, { status: 'pending', limit: 50 }));
  const formatTime = useFormatTime();
  const mutation = useMutation({
    mutationFn: async ({ enabled, etag }: { enabled: boolean; etag: string }) => patchFlag(flagName, { enabled }, etag),
    onSuccess: (changed, { enabled }) => {
      queryClient.setQueryData(keys.flag(flagName), changed);
      void queryClient.invalidateQueries({ queryKey: keys.flags });
      onClose();
      showDone(`${flagName} is ${enabled ? 'on' : 'off'}`, async () => {
        await patchFlag(flagName, { enabled: !enabled }, changed.etag);
        void queryClient.invalidateQueries({ queryKey: keys.flags });
      });
    },
    onError: () => void query.refetch(),
  });

  const flag = query.data?.resource;
  const isOn = flag?.effective.enabled ?? false;
  const verb = isOn ? 'Switch off' : 'Switch on';
  const switching = (pending.data?.items ?? []).filter((change) => change.enabled !== null);
  const isConflict = mutation.isError && toApiError(mutation.error).status === 412;
  return (
    <Drawer
      isOpen
      onClose={onClose}
      size="medium"
      title={flag ? `${verb} ${flagName}?` : flagName}
      footer={
        <>
          <Button onClick={onClose}>Cancel</Button>
          <Button
            variant="primary"
            busy={mutation.isPending || !flag}
            onClick={() => query.data && mutation.mutate({ enabled: !isOn, etag: query.data.etag })}
          >
            {verb}
          </Button>
        </>
      }
    >
      {query.isPending ? <SkeletonRows /> : null}
      {query.isError ? <ErrorState error={query.error} onRetry={() => void query.refetch()} /> : null}
      {flag ? (
        <>
          <dl className={styles.beforeAfter}>
            <div>
              <dt>All users now</dt>
              <dd>
                <SwitchState flag={flag} isOn={isOn} />
              </dd>
            </div>
            <ArrowRightIcon size={16} aria-hidden />
            <div>
              <dt>After this change</dt>
              <dd>
                <SwitchState flag={flag} isOn={!isOn} />
              </dd>
            </div>
          </dl>
          <ul className={styles.facts}>
            {flag.targeting_rules.length > 0 ? (
              <li>
                {isOn
                  ? `${countOf(flag.targeting_rules.length, 'targeting rule')} will have no effect.`
                  : `${countOf(flag.targeting_rules.length, 'targeting rule')} will apply again.`}
              </li>
            ) : null}
            <li>
              {flag.override_count === 0
                ? 'No user has an override of this flag.'
                : `${countOf(flag.override_count, 'user')} with an override keep${flag.override_count === 1 ? 's' : ''} their value.`}
            </li>
            {switching.map((change) => (
              <li key={change.id}>
                A scheduled change switches the flag {change.enabled ? 'on' : 'off'}: {formatTime(change.scheduled_at)}.
              </li>
            ))}
          </ul>
        </>
      ) : null}
      {isConflict ? (
        <Notice role="alert" title="The flag was changed meanwhile">
          Check what it serves now, then confirm again.
        </Notice>
      ) : null}
      {mutation.isError && !isConflict ? <ErrorNotice error={mutation.error} /> : null}
    </Drawer>
  );
}

type SheetFlag = NonNullable<Awaited<ReturnType<typeof patchFlag>>>['resource'];

function SwitchState({ flag, isOn }: { readonly flag: SheetFlag; readonly isOn: boolean }) {
  const serve = isOn ? flag.effective.default : { variant: flag.off_variant };
  return <Served serve={serve} variants={flag.variants} suffix={isOn ? '' : 'off variant'} isOff={!isOn} />;
}

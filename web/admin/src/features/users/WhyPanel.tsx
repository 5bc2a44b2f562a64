import { useQuery } from '@tanstack/react-query';
import { ArrowRightIcon, ClockIcon, LinkIcon, PencilIcon, XIcon } from 'lucide-react';
import { UnreadableFlagError } from '../../api/problem';
import { explanationQuery, readableFlagQuery } from '../../api/queries';
import type { Explanation, User } from '../../api/types';
import { Ladder } from '../../explain/Ladder';
import { rungsOf } from '../../explain/rungs';
import { ActorName } from '../../people/PersonLabel';
import { personName, personShortName } from '../../people/people';
import { useLock } from '../../session/session';
import { useFormatTime, When } from '../../time/When';
import { Button } from '../../ui/Button';
import { ErrorState, Notice, SkeletonRows } from '../../ui/States';
import { showDone, showError } from '../../ui/toast';
import { findingLabel, LayerChip, Value } from '../../values/parts';
import { useEditorLink } from '../overrides/editorAddress';
import styles from './users.module.css';

interface WhyPanelProps {
  readonly user: User;
  readonly flag: string;
  readonly at: string | null;
  readonly onClose: () => void;
}

/** Explains why a user gets a value: shows each layer and its outcome. */
export function WhyPanel({ user, flag, at, onClose }: WhyPanelProps) {
  const query = useQuery(explanationQuery(user.id, flag, at));
  return (
    <aside
      className={styles.why}
      aria-label={`Why ${personShortName(user)} gets this value of ${flag}`}
      onKeyDown={(event) => {
        if (event.key === 'Escape') onClose();
      }}
    >
      <div className={styles.whyHead}>
        <h2>Why?</h2>
        <code className="muted cut grow">{flag}</code>
        <Button
          variant="quiet"
          iconOnly
          aria-label="Copy link"
          onClick={() => navigator.clipboard.writeText(location.href).then(() => showDone('Link copied'), showError)}
        >
          <LinkIcon size={16} aria-hidden />
        </Button>
        <Button variant="quiet" iconOnly aria-label="Close" onClick={onClose}>
          <XIcon size={16} aria-hidden />
        </Button>
      </div>
      <div className={styles.whyBody}>
        {query.isPending ? <SkeletonRows /> : null}
        {query.isError && !query.data ? <ErrorState error={query.error} onRetry={() => void query.refetch()} /> : null}
        {query.data ? <WhyBody user={user} flag={flag} at={at} explanation={query.data} /> : null}
      </div>
    </aside>
  );
}

interface WhyBodyProps {
  readonly user: User;
  readonly flag: string;
  readonly at: string | null;
  readonly explanation: Explanation;
}

function WhyBody({ user, flag, at, explanation }: WhyBodyProps) {
  const formatTime = useFormatTime();
  const definition = useQuery(readableFlagQuery(flag));
  const lockedReason = useLock('changeOverrides');
  const { openExisting, openNew } = useEditorLink();
  const { resolution, override, next_change, findings } = explanation;
  const unreadableReason = definition.error instanceof UnreadableFlagError ? 'The flag cannot be read.' : null;
  const rungs = rungsOf(explanation, {
    userName: personShortName(user),
    flag: definition.data?.resource,
    formatTime,
  });
  return (
    <>
      <div>
        <p className={styles.answer}>
          {resolution ? (
            <>
              <Value value={resolution.value} className={styles.answerValue} />
              <LayerChip layer={resolution.source} />
            </>
          ) : (
            'No value'
          )}
        </p>
        <p className="muted">
          Evaluated for {personName(user)}, {at ? formatTime(at) : 'now'}
        </p>
      </div>
      <div className={styles.ladder}>
        <Ladder label="Layers" rungs={rungs} />
      </div>
      {findings.map(({ code, detail }) => (
        <Notice key={code} title={findingLabel(code)}>
          {detail}
        </Notice>
      ))}
      {override ? (
        <dl className={styles.meta}>
          <dt>Reason</dt>
          <dd>{override.reason ?? '–'}</dd>
          <dt>Set by</dt>
          <dd>
            <ActorName actor={override.created_by} />, <When instant={override.updated_at} />
          </dd>
        </dl>
      ) : null}
      {next_change ? (
        <div className={styles.next}>
          <ClockIcon size={14} aria-hidden />
          <When instant={next_change.at} />
          <ArrowRightIcon size={14} aria-hidden />
          {'value' in next_change ? <Value value={next_change.value} className="cut" /> : 'no value'}
          {'source' in next_change && next_change.source ? <LayerChip layer={next_change.source} /> : null}
        </div>
      ) : null}
      <div className={styles.whyButtons}>
        <Button
          lockedReason={at ? 'Go back to “Now” to edit.' : (lockedReason ?? unreadableReason)}
          onClick={() => (override ? openExisting(user.id, flag) : openNew({ user: user.id, flag }))}
        >
          <PencilIcon size={14} aria-hidden />
          {override ? 'Edit override' : 'Override this flag'}
        </Button>
      </div>
    </>
  );
}

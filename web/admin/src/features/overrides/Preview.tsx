import { keepPreviousData, useQuery } from '@tanstack/react-query';
import { ArrowRightIcon } from 'lucide-react';
import type { ReactNode } from 'react';
import { explanationQuery, schedulesQuery } from '../../api/queries';
import type { Explanation, Flag, LayerName, ScheduledChange, User } from '../../api/types';
import { Ladder, type Rung } from '../../explain/Ladder';
import { rungsOf } from '../../explain/rungs';
import { personName, personShortName } from '../../people/people';
import { useServerTime } from '../../time/clock';
import type { Expiry } from '../../time/expiry';
import { formatInstant } from '../../time/format';
import { useFormatTime } from '../../time/When';
import { classes } from '../../ui/classes';
import { ErrorState, Notice, SkeletonRows } from '../../ui/States';
import { LayerChip, Value } from '../../values/parts';
import { formatValue } from '../../values/values';
import styles from './editor.module.css';
import { changesUntil, type Finding, findingsOf, withoutOverride } from './outlook';
import { useDebounced } from './UserPicker';

/** Delay between the last change of the form and the request for a preview; milliseconds. */
const PREVIEW_DELAY = 250;
const MINUTE = 60_000;

export interface Outlook {
  readonly isLoading: boolean;
  readonly error: unknown;
  readonly now: Explanation | undefined;
  /** Evaluation at the expiry. `undefined` if the override never expires or the server has not responded. */
  readonly after: Explanation | undefined;
  readonly pending: readonly ScheduledChange[];
}

/** Loads the evaluation of the flag for the user now and at the expiry of the override. */
export function useOutlook(userId: string | undefined, flag: string | undefined, expiry: Expiry): Outlook {
  const isReady = userId !== undefined && flag !== undefined;
  const time = useDebounced(expiry.kind === 'at' ? expiry.time : null, PREVIEW_DELAY);
  const at = time === null ? null : new Date(time).toISOString();
  const now = useQuery({ ...explanationQuery(userId ?? '', flag ?? ''), enabled: isReady });
  const after = useQuery({
    ...explanationQuery(userId ?? '', flag ?? '', at),
    enabled: isReady && at !== null,
    placeholderData: keepPreviousData,
    retry: false,
  });
  const pending = useQuery({ ...schedulesQuery(flag ?? null, { status: 'pending', limit: 50 }), enabled: isReady });
  return {
    isLoading: isReady && now.isPending,
    error: now.error,
    now: isReady ? now.data : undefined,
    after: at === null ? undefined : after.data,
    pending: isReady ? (pending.data?.items ?? []) : [],
  };
}

interface PreviewProps {
  /** Whether the user, the flag or the override cannot be loaded. */
  readonly isUnavailable: boolean;
  readonly user: User | undefined;
  readonly flag: Flag | undefined;
  readonly outlook: Outlook;
  /** Value in the form. `undefined` if no valid value is chosen. */
  readonly value: { readonly value: unknown } | undefined;
  readonly enabled: boolean;
  readonly expiry: Expiry;
  readonly zone: string;
}

/** Shows the user's value now, with the override and after its expiry, and explains why. */
export function Preview(props: PreviewProps) {
  const { isUnavailable, user, flag, outlook, value } = props;
  return (
    <aside className={styles.preview} aria-label="Preview">
      <div className={styles.previewHead}>
        <h2>Preview</h2>
        {user && flag ? (
          <span className="muted cut">
            {flag.name} for {personName(user)}
          </span>
        ) : null}
      </div>
      {isUnavailable || (user && flag) ? null : (
        <p className={styles.previewText}>
          Choose a user and a flag to see what the user gets now, and what the override changes.
        </p>
      )}
      {outlook.isLoading ? <SkeletonRows /> : null}
      {outlook.error ? <ErrorState error={outlook.error} /> : null}
      {user && flag && outlook.now ? <PreviewBody {...props} user={user} flag={flag} now={outlook.now} /> : null}
      {user && flag && outlook.now && !value ? (
        <p className={styles.previewText}>Choose a value to see its effect.</p>
      ) : null}
    </aside>
  );
}

type BodyProps = PreviewProps & { readonly user: User; readonly flag: Flag; readonly now: Explanation };

function PreviewBody({ user, flag, now, outlook, value, enabled, expiry, zone }: BodyProps) {
  const minute = useServerTime(MINUTE);
  const formatTime = useFormatTime();
  const isApplied = value !== undefined && enabled && flag.archived_at === null;
  const lower = withoutOverride(now);
  const after = outlook.after ? withoutOverride(outlook.after) : undefined;
  const expiresAt = expiry.kind === 'at' ? expiry.time : null;
  const findings = isApplied
    ? findingsOf({
        user,
        flag,
        explanation: now,
        value: value.value,
        expiresAt,
        pending: outlook.pending,
        ruleName: (id) => flag.targeting_rules.find((rule) => rule.id === id)?.name ?? id,
        formatTime,
      })
    : [];
  const rungs = rungsOf(now, { userName: personShortName(user), flag, formatTime });
  const until = expiresAt === null ? 'Never expires' : `You, until ${formatInstant(expiresAt, minute, zone)}`;
  return (
    <>
      <dl className={styles.trio}>
        <Step label="Now" value={now.resolution?.value} layer={now.resolution?.source ?? 'archived'} />
        <ArrowRightIcon size={16} aria-hidden />
        {isApplied ? (
          <Step label="With override" value={value.value} layer="override" />
        ) : (
          <Step
            label={value && !enabled ? 'While disabled' : 'With override'}
            value={value ? lower?.value : undefined}
            layer={value && lower ? lower.layer : null}
          />
        )}
        <ArrowRightIcon size={16} aria-hidden />
        {expiresAt === null ? (
          <Step label="Afterwards" value={undefined} layer={null} note="Does not expire" />
        ) : (
          <Step
            label={`From ${formatInstant(expiresAt, minute, zone)}`}
            value={after?.value}
            layer={after?.layer ?? null}
          />
        )}
      </dl>
      {isApplied && expiresAt !== null ? (
        <Strip
          now={minute}
          expiresAt={expiresAt}
          before={now.resolution?.source ?? 'default'}
          after={after?.layer ?? 'default'}
          hidden={changesUntil(outlook.pending, expiresAt)}
          zone={zone}
        />
      ) : null}
      <section className={styles.block}>
        <h2>Why “{formatValue(isApplied ? value.value : now.resolution?.value)}”</h2>
        <div className={styles.ladder}>
          <Ladder label="Layers" rungs={isApplied ? withDraft(rungs, value.value, until) : rungs} />
        </div>
      </section>
      <FindingList findings={findings} />
    </>
  );
}

/** Returns the rungs (rows of the explanation) as they will be after the override is saved. */
function withDraft(rungs: readonly Rung[], value: unknown, why: string): Rung[] {
  return rungs.map((rung) => {
    if (rung.layer === 'override')
      return { ...rung, state: 'decides', end: <Value value={value} className="cut" />, why };
    return { ...rung, state: 'hidden', why: rung.state === 'decides' ? 'Would decide without the override' : rung.why };
  });
}

function Step(props: {
  readonly label: string;
  readonly value: unknown;
  readonly layer: LayerName | null;
  readonly note?: string;
}) {
  const { label, value, layer, note } = props;
  return (
    <div>
      <dt>{label}</dt>
      <dd>
        {layer === null ? (
          <span className="muted">{note ?? '–'}</span>
        ) : (
          <>
            <Value value={value} className={styles.big} />
            <LayerChip layer={layer} />
          </>
        )}
      </dd>
    </div>
  );
}

export function FindingList({ findings }: { readonly findings: readonly Finding[] }): ReactNode {
  return findings.map(({ id, kind, title, text }) => (
    <Notice key={id} kind={kind} title={title}>
      {text}
    </Notice>
  ));
}

interface StripProps {
  readonly now: number;
  readonly expiresAt: number;
  readonly before: LayerName;
  readonly after: LayerName;
  readonly hidden: readonly ScheduledChange[];
  readonly zone: string;
}

/** Positions on the timeline at which the override starts and expires; percent of the width. */
const STRIP_START = 6;
const STRIP_END = 72;

/** Timeline: before the override, while it applies, and after its expiry. */
function Strip({ now, expiresAt, before, after, hidden, zone }: StripProps) {
  const positionOf = (time: number) =>
    STRIP_START + ((STRIP_END - STRIP_START) * Math.max(0, time - now)) / Math.max(1, expiresAt - now);
  const first = hidden[0];
  const text = `Override from now until ${formatInstant(expiresAt, now, zone)}${first ? '; hides a scheduled change' : ''}`;
  return (
    <div className={styles.strip} role="img" aria-label={text}>
      <span className={classes(styles.tick, styles.tickUp)} style={{ left: `${STRIP_START}%` }}>
        Now
      </span>
      <span
        className={classes(styles.segment, `layer-${before}`)}
        style={{ left: 0, width: `${STRIP_START - 0.5}%` }}
      />
      <span
        className={classes(styles.segment, 'layer-override')}
        style={{ left: `${STRIP_START}%`, width: `${STRIP_END - STRIP_START}%` }}
      />
      <span
        className={classes(styles.segment, styles.soft, `layer-${after}`)}
        style={{ left: `${STRIP_END + 0.5}%`, width: `${100 - STRIP_END - 0.5}%` }}
      />
      {hidden.map((change) => (
        <span
          key={change.id}
          className={styles.ring}
          style={{ left: `${positionOf(Date.parse(change.scheduled_at))}%` }}
          title={`Hidden change: ${formatInstant(Date.parse(change.scheduled_at), now, zone)}`}
        />
      ))}
      <span className={classes(styles.tick, styles.tickDown, styles.tickEnd)} style={{ left: `${STRIP_END}%` }}>
        {formatInstant(expiresAt, now, zone)}
      </span>
    </div>
  );
}

import { useQuery } from '@tanstack/react-query';
import { CalendarClockIcon, ChevronRightIcon } from 'lucide-react';
import { ADDRESSES } from '../../addresses';
import { overridesQuery, schedulesQuery } from '../../api/queries';
import type { Flag, ScheduledChange, TargetingRule } from '../../api/types';
import { Ladder, type Rung } from '../../explain/Ladder';
import { conditionValue, operatorText } from '../../explain/operators';
import { useZone } from '../../preferences/preferences';
import { PageLink } from '../../shell/PageLink';
import { serverNow } from '../../time/clock';
import { zoneAbbreviation } from '../../time/format';
import { Ago, DateOnly, useFormatTime, When } from '../../time/When';
import { classes } from '../../ui/classes';
import { countOf, formatTotal } from '../../ui/Pager';
import { Value } from '../../values/parts';
import { EffectiveServe, Served } from '../../values/Served';
import { typeLabel } from '../../values/values';
import { ChangeText } from '../schedules/ScheduledChange';
import styles from './flags.module.css';

/** Maximum number of pending changes on the page. */
const LISTED_CHANGES = 10;

export function FlagOverview({ flag }: { readonly flag: Flag }) {
  const zone = useZone();
  const pending = useQuery(schedulesQuery(flag.name, { status: 'pending', limit: LISTED_CHANGES }));
  const changes = pending.data?.items ?? [];
  return (
    <div className={styles.columns}>
      <div className={styles.flow}>
        <section aria-labelledby="order">
          <div className={styles.sectionHead}>
            <h2 id="order">Evaluation order</h2>
            <span className={styles.hint}>The first layer that applies decides</span>
          </div>
          <Ladder label="Evaluation order" rungs={useOverviewRungs(flag, changes)} onSurface isOverview />
        </section>
        {flag.targeting_rules.length > 0 ? (
          <section aria-labelledby="rules">
            <div className={styles.sectionHead}>
              <h2 id="rules">Rules</h2>
              <span className={styles.hint}>In this order; the first match decides</span>
            </div>
            <ol className={styles.list}>
              {flag.targeting_rules.map((rule, index) => (
                <RuleRow key={rule.id} rule={rule} flag={flag} position={index + 1} />
              ))}
            </ol>
          </section>
        ) : null}
        {changes.length > 0 ? (
          <section aria-labelledby="next-changes">
            <div className={styles.sectionHead}>
              <h2 id="next-changes">Next changes</h2>
              <span className={styles.hint}>
                {zone} ({zoneAbbreviation(serverNow(), zone)})
              </span>
            </div>
            <ul className={styles.list}>
              {changes.map((change) => (
                <ChangeRow key={change.id} change={change} flag={flag} />
              ))}
            </ul>
          </section>
        ) : null}
      </div>
      <Details flag={flag} />
    </div>
  );
}

function useOverviewRungs(flag: Flag, changes: readonly ScheduledChange[]): Rung[] {
  const formatTime = useFormatTime();
  const active = useQuery(overridesQuery({ flag_name: flag.name, status: 'active', limit: 1 }));
  const disabled = useQuery(overridesQuery({ flag_name: flag.name, status: 'disabled', limit: 1 }));
  const ruleNames = flag.targeting_rules.filter(({ enabled }) => enabled !== false).map((rule) => rule.name ?? rule.id);
  const next = changes[0];
  const link = { variant: 'quiet', small: true } as const;
  return [
    {
      id: 'override',
      layer: 'override',
      state: 'passed',
      name: 'Overrides',
      why:
        flag.override_count === 0
          ? 'No user has an override'
          : `${formatTotal(active.data)} active, ${formatTotal(disabled.data)} disabled`,
      end: (
        <>
          {countOf(flag.override_count, 'user')}
          <PageLink {...link} to={ADDRESSES.flagOverrides} params={{ flag: flag.name }}>
            View
            <ChevronRightIcon size={12} aria-hidden />
          </PageLink>
        </>
      ),
    },
    {
      id: 'switch',
      layer: 'disabled',
      state: 'passed',
      name: 'Switch',
      why: (
        <>
          When off, users without an override get{' '}
          <Value value={flag.variants.find(({ id }) => id === flag.off_variant)?.value} />
        </>
      ),
      end: flag.effective.enabled ? 'On' : 'Off',
    },
    {
      id: 'rules',
      layer: 'targeting_rule',
      state: 'passed',
      name: 'Rules',
      why: ruleNames.length === 0 ? 'No rule applies' : ruleNames.join(', then '),
      end: countOf(flag.targeting_rules.length, 'rule'),
    },
    {
      id: 'scheduled',
      layer: 'scheduled_change',
      state: 'passed',
      name: 'Scheduled changes',
      why: next ? (
        <>
          Next: {formatTime(next.scheduled_at)}: <ChangeText change={next} flag={flag} />
        </>
      ) : (
        'No change is scheduled'
      ),
      end: countOf(flag.pending_change_count, 'pending', 'pending'),
    },
    {
      id: 'default',
      layer: 'default',
      state: 'passed',
      name: 'Default',
      why: `Set ${formatTime(flag.default_set_at)}. Split by ${flag.default.bucket_by ?? 'user_id'}, salt ${flag.salt}`,
      end: <Served serve={flag.default} variants={flag.variants} suffix="all users" />,
    },
  ];
}

function RuleRow({
  rule,
  flag,
  position,
}: {
  readonly rule: TargetingRule;
  readonly flag: Flag;
  readonly position: number;
}) {
  const isOff = rule.enabled === false;
  return (
    <li className={classes(styles.row, isOff && styles.isOff)}>
      <span className={styles.position}>{position}</span>
      <span className="strong">
        {rule.name ?? rule.id}
        {isOff ? ' (disabled)' : ''}
      </span>
      <span className={styles.condition}>
        {rule.conditions.length === 0 ? <span className="muted">all users</span> : null}
        {rule.conditions.map((condition, index) => (
          <span key={`${condition.attribute}-${condition.operator}-${condition.values?.join()}`}>
            {index > 0 ? <span className="muted"> and </span> : null}
            <span className={styles.attribute}>{condition.attribute}</span>{' '}
            {operatorText(condition.operator, condition.negate)}{' '}
            {(condition.values ?? []).map((value, valueIndex) => (
              <span key={conditionValue(value)}>
                {valueIndex > 0 ? ' or ' : null}
                <span className={styles.conditionValue}>{conditionValue(value)}</span>
              </span>
            ))}
          </span>
        ))}
      </span>
      <Served serve={rule.serve} variants={flag.variants} withBar={rule.serve.weights !== undefined} />
    </li>
  );
}

function ChangeRow({ change, flag }: { readonly change: ScheduledChange; readonly flag: Flag }) {
  return (
    <li className={classes(styles.row, styles.changeRow)}>
      <CalendarClockIcon size={16} className={styles.scheduledIcon} aria-hidden />
      <When instant={change.scheduled_at} absoluteClassName="strong" />
      <span className="muted">{change.description ?? ''}</span>
      <ChangeText change={change} flag={flag} />
    </li>
  );
}

function Details({ flag }: { readonly flag: Flag }) {
  return (
    <aside className={styles.aside} aria-label="Details">
      <section>
        <h2>Served by default</h2>
        {flag.archived_at ? <span className="muted">No value</span> : <EffectiveServe flag={flag} />}
      </section>
      <section>
        <h2>Details</h2>
        <dl className={styles.properties}>
          <dt>Type</dt>
          <dd>{typeLabel(flag.flag_type)}</dd>
          <dt>Owner</dt>
          <dd>{flag.owner ?? '–'}</dd>
          <dt>Tags</dt>
          <dd>
            {flag.tags.length === 0 ? '–' : null}
            {flag.tags.map((tag) => (
              <span key={tag}>
                <span className={styles.tag}>{tag}</span>{' '}
              </span>
            ))}
          </dd>
          <dt>Visible to</dt>
          <dd>{flag.client_visible ? 'Clients and servers' : 'Servers only'}</dd>
          <dt>Created</dt>
          <dd>
            <DateOnly instant={flag.created_at} />
          </dd>
          <dt>Changed</dt>
          <dd>
            <Ago instant={flag.updated_at} />
          </dd>
        </dl>
      </section>
      <section>
        <h2>Variants</h2>
        <ul className={styles.variants}>
          {flag.variants.map((variant) => (
            <li key={variant.id}>
              <i aria-hidden />
              <span className="cut" title={variant.description ?? undefined}>
                {variant.name ?? variant.id}
              </span>
              <Value value={variant.value} />
            </li>
          ))}
        </ul>
      </section>
    </aside>
  );
}

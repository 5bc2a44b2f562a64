/** Small components that show values, flags, layers and states in the same way on every page. */

import {
  CalendarClockIcon,
  CheckIcon,
  CircleDashedIcon,
  CircleDotIcon,
  ClockIcon,
  ContrastIcon,
  FastForwardIcon,
  GaugeIcon,
  IdCardLanyardIcon,
  type LucideIcon,
  MinusIcon,
  PowerOffIcon,
  TargetIcon,
  TriangleAlertIcon,
  XIcon,
} from 'lucide-react';
import type { ReactNode } from 'react';
import type { FindingCode, FlagType, LayerName, OverrideStatus, ScheduleStatus } from '../api/types';
import { classes } from '../ui/classes';
import { formatValue, typeLabel } from './values';
import styles from './values.module.css';

/** Shows a value. The tooltip contains the full text if the value is long. */
export function Value({
  value,
  isGone,
  className,
}: {
  readonly value: unknown;
  readonly isGone?: boolean;
  readonly className?: string | undefined;
}) {
  const text = formatValue(value);
  const name = classes(styles.value, isGone && styles.gone, value === null && styles.isNull, className);
  return (
    <span className={name} title={text.length > 12 ? text : undefined}>
      {text}
    </span>
  );
}

const TYPE_GLYPHS: Record<FlagType, ReactNode> = {
  boolean: <ContrastIcon size={14} aria-hidden />,
  string: 'Aa',
  number: '#',
  json: '{}',
};

export function TypeGlyph({ type }: { readonly type: FlagType }) {
  return (
    <span className={styles.type} title={typeLabel(type)}>
      <span aria-hidden>{TYPE_GLYPHS[type]}</span>
      <span className="visually-hidden">{typeLabel(type)}</span>
    </span>
  );
}

/** Name of a flag with an icon for its type. */
export function FlagLabel({
  name,
  type,
  children,
}: {
  readonly name: string;
  /** `null` if the server cannot read the type. */
  readonly type?: FlagType | null | undefined;
  /** Replaces the plain name, for example by a link. */
  readonly children?: ReactNode;
}) {
  return (
    <span className={styles.flag}>
      {type ? <TypeGlyph type={type} /> : null}
      <span className={classes(styles.flagName, 'cut')} title={name}>
        {children ?? name}
      </span>
    </span>
  );
}

interface LayerInfo {
  readonly label: string;
  readonly Icon: LucideIcon;
}

const LAYERS: Record<LayerName, LayerInfo> = {
  override: { label: 'Override', Icon: IdCardLanyardIcon },
  targeting_rule: { label: 'Rule', Icon: TargetIcon },
  scheduled_change: { label: 'Scheduled', Icon: CalendarClockIcon },
  default: { label: 'Default', Icon: CircleDotIcon },
  disabled: { label: 'Off', Icon: PowerOffIcon },
  archived: { label: 'Archived', Icon: PowerOffIcon },
  evaluation_too_expensive: { label: 'Too expensive', Icon: GaugeIcon },
  invalid: { label: 'Unreadable', Icon: TriangleAlertIcon },
};

export function layerInfo(layer: LayerName): LayerInfo {
  return LAYERS[layer];
}

/** Label of a layer: colour, icon and word. */
export function LayerChip({ layer, children }: { readonly layer: LayerName; readonly children?: ReactNode }) {
  const { label, Icon } = LAYERS[layer];
  return (
    <span className={classes(styles.chip, `layer-${layer}`)}>
      <Icon size={14} aria-hidden />
      {children ?? label}
    </span>
  );
}

/** Count of rules, overrides or scheduled changes. */
export function CountBadge({
  layer,
  count,
  noun,
}: {
  readonly layer: LayerName;
  readonly count: number;
  readonly noun: string;
}) {
  const { Icon } = LAYERS[layer];
  return (
    <span className={classes(styles.badge, `layer-${layer}`)}>
      <Icon size={14} aria-hidden />
      {count.toLocaleString('en-GB')}
      <span className="visually-hidden"> {noun}</span>
    </span>
  );
}

type AnyStatus = OverrideStatus | ScheduleStatus;

const STATUSES: Record<AnyStatus, { label: string; Icon: LucideIcon | null; className: string | undefined }> = {
  active: { label: 'Active', Icon: null, className: undefined },
  disabled: { label: 'Disabled', Icon: CircleDashedIcon, className: styles.weak },
  expired: { label: 'Expired', Icon: XIcon, className: styles.weak },
  pending: { label: 'Pending', Icon: ClockIcon, className: styles.pending },
  applied: { label: 'Applied', Icon: CheckIcon, className: styles.applied },
  superseded: { label: 'Superseded', Icon: FastForwardIcon, className: styles.weak },
  cancelled: { label: 'Cancelled', Icon: MinusIcon, className: styles.weak },
};

export function statusLabel(status: AnyStatus): string {
  return STATUSES[status].label;
}

export function StatusMark({ status }: { readonly status: AnyStatus }) {
  const { label, Icon, className } = STATUSES[status];
  return (
    <span className={classes(styles.status, className)}>
      {Icon ? <Icon size={12} strokeWidth={2.25} aria-hidden /> : <span className={styles.dot} aria-hidden />}
      {label}
    </span>
  );
}

const FINDINGS: Record<FindingCode, string> = {
  override_redundant: 'Redundant',
  override_shadows_rule: 'Hides a rule',
  override_shadows_schedule: 'Hides a schedule',
  override_on_disabled_flag: 'Flag is off',
  override_expired: 'Expired',
  override_disabled: 'Disabled',
  override_type_mismatch: 'Wrong type',
  evaluation_too_expensive: 'Evaluation too expensive',
};

export function findingLabel(code: FindingCode): string {
  return FINDINGS[code];
}

export function FindingChip({ code }: { readonly code: FindingCode }) {
  return (
    <span className={styles.finding}>
      <TriangleAlertIcon size={12} aria-hidden />
      {FINDINGS[code]}
    </span>
  );
}

/** Short warning in the style of `FindingChip`. */
export function WarningChip({ children }: { readonly children: ReactNode }) {
  return (
    <span className={styles.finding}>
      <TriangleAlertIcon size={12} aria-hidden />
      {children}
    </span>
  );
}

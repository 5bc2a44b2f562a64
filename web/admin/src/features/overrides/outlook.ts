/** Derives warnings about an override from the API's explanation, such as a rule or scheduled change that it hides. */

import type { Explanation, Flag, LayerExplanation, ScheduledChange, User } from '../../api/types';
import { personShortName } from '../../people/people';
import { formatValue, sameValue } from '../../values/values';

/** Returns the first layer below the override that supplies a value. */
export function withoutOverride(explanation: Explanation): LayerExplanation | undefined {
  return explanation.layers.find(({ layer, would_match }) => layer !== 'override' && would_match);
}

export interface Finding {
  readonly id: string;
  readonly kind: 'warning' | 'info';
  readonly title: string;
  readonly text: string;
}

interface FindingInput {
  readonly user: User;
  readonly flag: Flag;
  readonly explanation: Explanation;
  readonly value: unknown;
  /** Expiry in milliseconds; `null` for never. */
  readonly expiresAt: number | null;
  readonly pending: readonly ScheduledChange[];
  readonly ruleName: (id: string) => string;
  readonly formatTime: (instant: string) => string;
}

/** Returns warnings and hints about the override, to be shown before it is saved. */
export function findingsOf(input: FindingInput): Finding[] {
  const { user, flag, explanation, value, expiresAt, formatTime } = input;
  const name = personShortName(user);
  const lower = withoutOverride(explanation);
  const hiddenChanges = changesUntil(input.pending, expiresAt);
  const findings: Finding[] = [];
  const isRedundant = lower !== undefined && sameValue(lower.value, value);
  if (isRedundant) {
    findings.push({
      id: 'redundant',
      kind: 'warning',
      title: 'Changes nothing now',
      text: `Without the override, ${name} gets ${formatValue(value)} as well.`,
    });
  }
  if (lower?.layer === 'disabled') {
    findings.push({
      id: 'disabled',
      kind: 'warning',
      title: 'The flag is off',
      text: `All users without an override get the off variant. ${name} gets the value of the override.`,
    });
  }
  if (lower?.layer === 'targeting_rule' && !isRedundant) {
    findings.push({
      id: 'rule',
      kind: 'warning',
      title: 'Hides a rule',
      text: `The rule “${input.ruleName(lower.rule_id ?? '')}” would give ${name} ${formatValue(lower.value)}.`,
    });
  }
  for (const change of hiddenChanges) {
    findings.push({
      id: change.id,
      kind: 'warning',
      title: 'Hides a scheduled change',
      text: `${formatTime(change.scheduled_at)}: the flag changes for all users. ${name} keeps the value of the override.`,
    });
  }
  if (!user.active) {
    findings.push({
      id: 'inactive',
      kind: 'info',
      title: `${name} is inactive`,
      text: 'Inactive users cannot sign in.',
    });
  }
  if (!flag.client_visible) {
    findings.push({
      id: 'hidden',
      kind: 'info',
      title: 'Only servers read this flag',
      text: 'Client applications do not receive it.',
    });
  }
  return findings;
}

/** Returns the pending changes that take effect while the override applies. */
export function changesUntil(pending: readonly ScheduledChange[], expiresAt: number | null): ScheduledChange[] {
  return pending.filter((change) => expiresAt === null || Date.parse(change.scheduled_at) < expiresAt);
}

/** Explains in a sentence why a layer does not apply. */

import type { NotMatchedReason, OverrideDetail, TargetingRule } from '../api/types';
import { formatValue } from '../values/values';
import { conditionText } from './operators';

export interface ReasonContext {
  /** Name of the user, as used in the sentences. */
  readonly userName: string;
  readonly override: OverrideDetail | null;
  /** Targeting rule of the layer. `undefined` for other layers, or if the flag is not loaded. */
  readonly rule: TargetingRule | undefined;
  readonly formatTime: (instant: string) => string;
}

export function reasonText(reason: NotMatchedReason, context: ReasonContext): string {
  switch (reason.code) {
    case 'no_override':
      return `${context.userName} has no override`;
    case 'override_disabled':
      return 'The override is disabled';
    case 'override_expired': {
      const expiry = context.override?.expires_at;
      return expiry ? `The override expired ${context.formatTime(expiry)}` : 'The override has expired';
    }
    case 'override_type_mismatch':
      return 'The value of the override does not have the type of the flag';
    case 'flag_enabled':
      return 'The flag is on';
    case 'rule_disabled':
      return 'The rule is disabled';
    case 'evaluation_too_expensive':
      return 'The evaluation up to this rule costs more than its budget';
    case 'nothing_due':
      return 'No scheduled change has taken effect since the default was set';
    case 'invalid':
      return `The flag cannot be read: ${reason.detail}`;
    case 'condition':
      return conditionReason(reason, context);
  }
}

type ConditionReason = Extract<NotMatchedReason, { code: 'condition' }>;

function conditionReason(reason: ConditionReason, { userName, rule }: ReasonContext): string {
  const condition = rule?.conditions[reason.condition];
  const needed = condition ? conditionText(condition) : reason.attribute;
  switch (reason.failure) {
    case 'missing':
      return `${userName} has no attribute ${reason.attribute}`;
    case 'type_mismatch':
      return `${reason.attribute} has another type than the condition needs (${formatValue(reason.seen)})`;
    case 'no_match':
      return `Needs ${needed}; ${reason.attribute} is ${formatValue(reason.seen)}`;
    case 'too_long':
      return `${reason.attribute} is longer than 4,096 bytes, so “matches” does not search it`;
    case 'excluded':
      return `Excluded: ${needed}; ${reason.attribute} is ${formatValue(reason.seen)}`;
  }
}

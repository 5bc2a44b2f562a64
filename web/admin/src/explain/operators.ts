/** Describes conditions of targeting rules in words. */

import type { Condition, Operator } from '../api/types';
import { formatValue } from '../values/values';

const OPERATORS: Record<Operator, readonly [plain: string, negated: string]> = {
  equals: ['is', 'is not'],
  contains: ['contains', 'does not contain'],
  starts_with: ['starts with', 'does not start with'],
  ends_with: ['ends with', 'does not end with'],
  matches: ['matches', 'does not match'],
  lt: ['is less than', 'is not less than'],
  lte: ['is at most', 'is not at most'],
  gt: ['is greater than', 'is not greater than'],
  gte: ['is at least', 'is not at least'],
  before: ['is before', 'is not before'],
  after: ['is after', 'is not after'],
  semver_eq: ['is version', 'is not version'],
  semver_lt: ['is below version', 'is not below version'],
  semver_lte: ['is at most version', 'is not at most version'],
  semver_gt: ['is above version', 'is not above version'],
  semver_gte: ['is at least version', 'is not at least version'],
  exists: ['is present', 'is not present'],
};

export function operatorText(operator: Operator, negate = false): string {
  return OPERATORS[operator][negate ? 1 : 0];
}

/** Formats a value of a condition. Strings have no quotes, because the UI shows each value in a box. */
export function conditionValue(value: unknown): string {
  return typeof value === 'string' ? value : formatValue(value);
}

/** Formats a condition, such as `plan is pro or team`. */
export function conditionText({ attribute, operator, negate, values }: Condition): string {
  const list = (values ?? []).map(conditionValue).join(' or ');
  return [attribute, operatorText(operator, negate), list].filter(Boolean).join(' ');
}

/** URL search parameters of all pages. Unknown and invalid parameters are dropped. */

import * as v from 'valibot';
import type { FindingCode, Source } from './api/types';

/** Parses a query string; every value is text. */
export function parseSearch(text: string): Record<string, string> {
  return Object.fromEntries(new URLSearchParams(text));
}

/** Writes a query string without absent values. */
export function stringifySearch(search: Record<string, unknown>): string {
  const present = Object.entries(search).filter(([, value]) => value !== undefined && value !== '' && value !== null);
  const text = new URLSearchParams(present.map(([name, value]) => [name, String(value)])).toString();
  return text === '' ? '' : `?${text}`;
}

function optional<Schema extends v.GenericSchema<string, unknown>>(schema: Schema) {
  return v.fallback(v.optional(schema), undefined);
}

const text = optional(v.pipe(v.string(), v.nonEmpty(), v.maxLength(255)));
const cursor = optional(v.pipe(v.string(), v.nonEmpty(), v.maxLength(2000)));
const id = optional(v.pipe(v.string(), v.uuid()));
const yes = optional(v.picklist(['true', 'false']));

/** Parameters that every page accepts: they open the override editor. */
export const rootSearch = v.object({
  override: optional(v.pipe(v.string(), v.regex(/^(new|[0-9a-f-]{36}\/[^/]+)$/))),
  user: id,
  flag: text,
});

export const flagsSearch = v.object({
  search: text,
  tag: text,
  archived: yes,
  sort: optional(v.picklist(['name', '-updated_at'])),
  cursor,
});

/** Periods of the filter "Expires within …". */
export const EXPIRY_PERIODS = { '24h': 24, '7d': 7 * 24, '30d': 30 * 24 } as const;
export type ExpiryPeriod = keyof typeof EXPIRY_PERIODS;
const PERIODS = Object.keys(EXPIRY_PERIODS) as ExpiryPeriod[];

const FINDINGS: FindingCode[] = [
  'override_redundant',
  'override_shadows_rule',
  'override_shadows_schedule',
  'override_on_disabled_flag',
];

export const overridesSearch = v.object({
  search: text,
  flag_name: text,
  user_id: id,
  status: optional(v.picklist(['active', 'disabled', 'expired'])),
  ends_within: optional(v.picklist(PERIODS)),
  finding: optional(v.picklist(FINDINGS)),
  sort: optional(v.picklist(['-updated_at', 'expires_at'])),
  cursor,
});
export type OverridesSearch = v.InferOutput<typeof overridesSearch>;

export const schedulesSearch = v.object({ status: optional(v.picklist(['pending'])), cursor });

export const usersSearch = v.object({
  search: text,
  has_overrides: yes,
  sort: optional(v.picklist(['email', '-created_at'])),
  cursor,
});

const SOURCES: Source[] = [
  'override',
  'targeting_rule',
  'scheduled_change',
  'default',
  'disabled',
  'evaluation_too_expensive',
];

export const userSearch = v.object({
  search: text,
  source: optional(v.picklist(SOURCES)),
  at: optional(v.pipe(v.string(), v.isoTimestamp())),
  why: text,
});

export const myFlagsSearch = v.object({ search: text });

export const signInSearch = v.object({ next: optional(v.string()) });

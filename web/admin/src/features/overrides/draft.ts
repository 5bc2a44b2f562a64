/** Draft of an override: the contents of the form, their storage, and their comparison with the saved override. */

import type { Flag, Json, PatchOverride, UserOverride } from '../../api/types';
import { type ExpiryChoice, type ExpiryPreset, lastPreset } from '../../time/expiry';
import { parseJson, sameValue } from '../../values/values';

/** Value in the form. `choice` is a variant id, `other` for the value in `text`, or `null` if nothing is chosen. */
export interface ValueDraft {
  readonly choice: string | null;
  readonly text: string;
}

export interface Draft {
  readonly value: ValueDraft;
  readonly expiry: ExpiryChoice;
  readonly reason: string;
  readonly enabled: boolean;
}

export const OTHER = 'other';
export const MAX_REASON = 500;

export function emptyDraft(zone: string, preset: ExpiryPreset = lastPreset()): Draft {
  return {
    value: { choice: null, text: '' },
    expiry: { preset, local: '', zone, reading: null },
    reason: '',
    enabled: true,
  };
}

/** Returns a draft with the contents of an existing override. */
export function draftOf(override: UserOverride, flag: Flag, zone: string): Draft {
  return {
    value: valueDraft(override.override_value as Json, flag),
    expiry: { preset: 'keep', local: '', zone, reading: null },
    reason: override.reason ?? '',
    enabled: override.enabled,
  };
}

export function valueDraft(value: Json, flag: Flag): ValueDraft {
  const variant = flag.variants.find((candidate) => sameValue(candidate.value, value));
  if (flag.flag_type === 'json') return { choice: OTHER, text: JSON.stringify(value, null, 2) };
  const text = typeof value === 'string' ? value : JSON.stringify(value);
  return { choice: variant?.id ?? OTHER, text };
}

export type ResolvedValue =
  | { readonly kind: 'none' }
  | { readonly kind: 'value'; readonly value: Json; readonly warning: string | null }
  | { readonly kind: 'error'; readonly message: string };

/** Returns the value that the draft selects, or why it is not valid. */
export function resolveValue({ choice, text }: ValueDraft, flag: Flag): ResolvedValue {
  if (choice === null) return { kind: 'none' };
  if (choice !== OTHER) {
    const variant = flag.variants.find(({ id }) => id === choice);
    return variant ? { kind: 'value', value: variant.value as Json, warning: null } : { kind: 'none' };
  }
  switch (flag.flag_type) {
    case 'string':
      return { kind: 'value', value: text, warning: text === '' ? 'The text is empty.' : null };
    case 'number':
      return parseNumber(text);
    default:
      return parseJson(text);
  }
}

function parseNumber(text: string): ResolvedValue {
  const trimmed = text.trim();
  if (trimmed === '') return { kind: 'error', message: 'Enter a number.' };
  const value = Number(trimmed);
  return Number.isFinite(value) && /^[-+]?[\d.]/.test(trimmed)
    ? { kind: 'value', value, warning: null }
    : { kind: 'error', message: 'This is not a number. Use a point for decimals, such as 1.5.' };
}

/** Fields of an override that the form edits. */
export interface Fields {
  readonly override_value: Json;
  readonly expires_at: string | null;
  readonly reason: string | null;
  readonly enabled: boolean;
}
export type FieldName = keyof Fields;
export const FIELD_NAMES: readonly FieldName[] = ['override_value', 'expires_at', 'reason', 'enabled'];

export function fieldsOf(override: UserOverride): Fields {
  const { override_value, expires_at, reason, enabled } = override;
  return { override_value: override_value as Json, expires_at, reason, enabled };
}

export function sameField(name: FieldName, a: Fields, b: Fields): boolean {
  if (name === 'expires_at') return timeOf(a.expires_at) === timeOf(b.expires_at);
  return sameValue(a[name], b[name]);
}

function timeOf(instant: string | null): number | null {
  return instant === null ? null : Date.parse(instant);
}

/** Returns only the fields that differ from `base`. */
export function changedFields(base: Fields, mine: Fields): PatchOverride {
  return Object.fromEntries(
    FIELD_NAMES.filter((name) => !sameField(name, base, mine)).map((name) => [name, mine[name]]),
  );
}

/** Returns the fields that differ between `theirs` and `mine` and that both versions changed since `base`. */
export function collisions(base: Fields, theirs: Fields, mine: Fields): FieldName[] {
  return FIELD_NAMES.filter(
    (name) => !sameField(name, base, mine) && !sameField(name, base, theirs) && !sameField(name, theirs, mine),
  );
}

const STORAGE_PREFIX = 'feature-flags:draft:';

function storageKey(user: string | undefined, flag: string | undefined): string {
  return `${STORAGE_PREFIX}${user ?? ''}:${flag ?? ''}`;
}

/** Returns the draft that this tab has stored for the user and flag, or `null`. */
export function loadDraft(user: string | undefined, flag: string | undefined): Draft | null {
  try {
    const stored = sessionStorage.getItem(storageKey(user, flag));
    return stored === null ? null : (JSON.parse(stored) as Draft);
  } catch {
    return null;
  }
}

export function storeDraft(user: string | undefined, flag: string | undefined, draft: Draft | null): void {
  try {
    if (draft) sessionStorage.setItem(storageKey(user, flag), JSON.stringify(draft));
    else sessionStorage.removeItem(storageKey(user, flag));
  } catch {
    // The browser denies storage; the draft lasts until the page is closed.
  }
}

/** Deletes all drafts of this tab. Called at sign-out, because the next user must not see them. */
export function forgetDrafts(): void {
  try {
    for (const key of Object.keys(sessionStorage)) {
      if (key.startsWith(STORAGE_PREFIX)) sessionStorage.removeItem(key);
    }
  } catch {
    // The browser denies storage, so no draft is stored.
  }
}

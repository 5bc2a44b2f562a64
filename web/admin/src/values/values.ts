/** Flag values as text, and comparison of values. */

import type { FlagType, Json } from '../api/types';
import { findJsonIssue, type JsonIssue } from './json';

/** Formats a value as short text: `on`, `"classic"`, `500`, `{"text": "Sale!"}`. */
export function formatValue(value: unknown): string {
  if (value === true) return 'on';
  if (value === false) return 'off';
  if (value === undefined) return '–';
  return (
    JSON.stringify(value, null, 1)
      ?.replace(/\n\s*/g, ' ')
      .replace(/([[{]) /g, '$1')
      .replace(/ ([\]}])/g, '$1') ?? ''
  );
}

/** Whether two JSON values are equal; the order of members does not matter. */
export function sameValue(a: unknown, b: unknown): boolean {
  if (Object.is(a, b)) return true;
  if (typeof a !== 'object' || typeof b !== 'object' || a === null || b === null) return false;
  if (Array.isArray(a) !== Array.isArray(b)) return false;
  const left = a as Record<string, unknown>;
  const right = b as Record<string, unknown>;
  const names = Object.keys(left);
  return names.length === Object.keys(right).length && names.every((name) => sameValue(left[name], right[name]));
}

const TYPE_LABELS: Record<FlagType, string> = {
  boolean: 'Boolean',
  string: 'String',
  number: 'Number',
  json: 'JSON',
};

export function typeLabel(type: FlagType): string {
  return TYPE_LABELS[type];
}

/** Maximum nesting depth of a JSON value that the server accepts. */
const MAX_DEPTH = 32;
/** Maximum size of a JSON value that the server accepts; bytes. */
export const MAX_JSON_BYTES = 64 * 1024;

export type ParsedJson =
  | { readonly kind: 'value'; readonly value: Json; readonly warning: string | null }
  | { readonly kind: 'error'; readonly message: string };

/** Parses the text of a JSON value. Error messages name the line and the column. */
export function parseJson(text: string): ParsedJson {
  if (text.trim() === '') return { kind: 'error', message: 'Enter a JSON value.' };
  if (new TextEncoder().encode(text).length > MAX_JSON_BYTES) {
    return { kind: 'error', message: 'The value is larger than 64 KiB.' };
  }
  const issue = findJsonIssue(text);
  if (issue) return { kind: 'error', message: issueMessage(text, issue) };
  const value: Json = JSON.parse(text);
  if (depthOf(value) > MAX_DEPTH) return { kind: 'error', message: 'The value is nested more than 32 levels deep.' };
  return { kind: 'value', value, warning: precisionWarning(value) };
}

function issueMessage(text: string, { offset, message }: JsonIssue): string {
  const before = text.slice(0, offset).split('\n');
  const column = (before.at(-1)?.length ?? 0) + 1;
  return `Line ${before.length}, column ${column}: ${message}.`;
}

function depthOf(value: Json): number {
  if (typeof value !== 'object' || value === null) return 0;
  return 1 + Math.max(0, ...Object.values(value).map(depthOf));
}

function precisionWarning(value: Json): string | null {
  if (typeof value === 'number') {
    return Number.isInteger(value) && !Number.isSafeInteger(value)
      ? 'Integers beyond ±2^53 are rounded. Use a string instead.'
      : null;
  }
  if (typeof value !== 'object' || value === null) return null;
  return Object.values(value).map(precisionWarning).find(Boolean) ?? null;
}

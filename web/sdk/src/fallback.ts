import type { FlagValue, Json } from './types.js';

/** The value if it is of the fallback's type, else the fallback. */
export function ofType(value: FlagValue, fallback: Json): Json {
  return value !== undefined && (fallback === null || kind(value) === kind(fallback)) ? value : fallback;
}

function kind(value: Json): string {
  return Array.isArray(value) ? 'array' : value === null ? 'null' : typeof value;
}

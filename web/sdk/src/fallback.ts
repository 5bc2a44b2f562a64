import type { FlagValue, Json } from './types.js';

/** The value if it is of the fallback's type, else the fallback. */
export function ofType(value: FlagValue, fallback: Json | object): Json | object {
  return value !== undefined && (fallback === null || kind(value) === kind(fallback)) ? value : fallback;
}

function kind(value: Json | object): string {
  return Array.isArray(value) ? 'array' : value === null ? 'null' : typeof value;
}

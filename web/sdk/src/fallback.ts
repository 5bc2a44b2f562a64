import type { FlagValue, Json } from './types.js';

/**
 * Returns the value if it has the JSON type of the fallback, otherwise the fallback. A `null` fallback accepts any
 * type.
 */
export function valueOrFallback(value: FlagValue, fallback: Json | object): Json | object {
  return value !== undefined && (fallback === null || jsonType(value) === jsonType(fallback)) ? value : fallback;
}

function jsonType(value: Json | object): string {
  return Array.isArray(value) ? 'array' : value === null ? 'null' : typeof value;
}

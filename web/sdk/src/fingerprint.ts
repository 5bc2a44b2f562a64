/**
 * A short text that differs from credential to credential and gives nothing of one away that could be used: FNV-1a, once
 * forwards and once backwards. It tells changes, and protects nothing.
 */
export function fingerprint(text: string): string {
  const codes = [...text].map((character) => character.codePointAt(0) ?? 0);
  return fnv1a(codes) + fnv1a(codes.reverse());
}

function fnv1a(codes: readonly number[]): string {
  let hash = 0x811c9dc5;
  for (const code of codes) hash = Math.imul(hash ^ code, 0x01000193);
  return (hash >>> 0).toString(16).padStart(8, '0');
}

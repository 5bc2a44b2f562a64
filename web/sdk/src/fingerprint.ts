/**
 * Returns a short hash (FNV-1a with two multipliers) that is stored instead of a credential to detect that it changed.
 * The hash is not cryptographic. Do not use it for authentication.
 */
export function fingerprint(text: string): string {
  let [first, second] = [0x811c9dc5, 0x811c9dc5];
  for (let index = 0; index < text.length; index += 1) {
    const code = text.charCodeAt(index);
    first = Math.imul(first ^ code, 0x01000193);
    second = Math.imul(second ^ code, 0x85ebca6b);
  }
  return `${first}.${second}`;
}

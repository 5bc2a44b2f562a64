/**
 * A short text that differs from credential to credential and gives nothing of one away that could be used: FNV-1a with two
 * factors. It tells changes, and protects nothing.
 */
export function fingerprint(text: string): string {
  let [one, other] = [0x811c9dc5, 0x811c9dc5];
  for (let place = 0; place < text.length; place += 1) {
    const code = text.charCodeAt(place);
    one = Math.imul(one ^ code, 0x01000193);
    other = Math.imul(other ^ code, 0x85ebca6b);
  }
  return `${one}.${other}`;
}

/** How people are named. The server decides between display name, e-mail and external id. */

export interface Person {
  readonly user_label?: string | null;
  readonly email?: string | null;
  readonly external_id?: string | null;
}

/** The label of the server: display name, else e-mail, else external id, else id. */
export function personName(person: Person): string {
  return person.user_label || 'Unknown user';
}

/** Second line beside the name: the e-mail or, without one, the external id, unless it is the name. */
export function personDetail(person: Person): string | null {
  const detail = person.email || person.external_id || null;
  return detail === personName(person) ? null : detail;
}

/** Returns the first word of the name, for use in sentences. */
export function personShortName(person: Person): string {
  const name = personName(person);
  return name.includes('@') ? name : (name.split(' ')[0] ?? name);
}

export function initials(person: Person): string {
  const words = personName(person)
    .replace(/\(.*\)|@.*/g, '')
    .split(/[\s._-]+/)
    .filter(Boolean);
  const letters = words.length > 1 ? [words[0], words.at(-1)] : [words[0]];
  return letters.map((word) => word?.charAt(0).toUpperCase() ?? '').join('') || '?';
}

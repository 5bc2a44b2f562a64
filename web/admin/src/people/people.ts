/** Names of people. Only this module decides whether the UI shows the display name or the e-mail. */

export interface Person {
  readonly display_name?: string | null;
  readonly email?: string | null;
}

/** Returns the display name, or the e-mail if there is none. */
export function personName(person: Person): string {
  return person.display_name || person.email || 'Unknown user';
}

/** Returns the text beside the name: the e-mail, unless the name already is the e-mail. */
export function personDetail(person: Person): string | null {
  return person.display_name && person.email ? person.email : null;
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

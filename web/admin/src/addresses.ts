/**
 * Path templates of all pages, in the syntax of TanStack Router. The build writes them to `addresses.json`. The server
 * responds to these paths with the HTML page.
 */
export const ADDRESSES = {
  home: '/',
  signIn: '/sign-in',
  flags: '/flags',
  scheduledChanges: '/flags/scheduled-changes',
  userOverrides: '/flags/user-overrides',
  flag: '/flag/$flag',
  flagOverrides: '/flag/$flag/user-overrides',
  users: '/users',
  user: '/users/$id',
  userOverridesOfUser: '/users/$id/overrides',
  myFlags: '/my-flags',
  profile: '/profile',
} as const;

/** Converts a template to the syntax of the server: `/flag/$flag` becomes `/flag/{flag}`. */
export function serverTemplate(address: string): string {
  return address.replace(/\$(\w+)/g, '{$1}');
}

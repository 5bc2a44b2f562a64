/** Target of the redirect after sign-in. */

/** Returns `next` if it is a path of this site, otherwise `/`. Prevents redirects to other sites. */
export function safeNext(next: string | undefined): string {
  if (!next || !/^\/(?![/\\])/.test(next) || next.includes('\\')) return '/';
  const url = new URL(next, location.origin);
  return url.origin === location.origin && url.pathname !== '/sign-in' ? url.pathname + url.search : '/';
}

/** Address of the override editor: search parameters of any page. */

import { useNavigate, useSearch } from '@tanstack/react-router';
import { useCallback, useMemo } from 'react';

/** What the editor shows. */
export type EditorTarget =
  | { readonly kind: 'new'; readonly user: string | undefined; readonly flag: string | undefined }
  | { readonly kind: 'existing'; readonly user: string; readonly flag: string };

/** Returns what the address says the editor shows, or `null` if it is closed. */
export function useEditorTarget(): EditorTarget | null {
  const { override, user, flag } = useSearch({ strict: false });
  return useMemo(() => {
    if (!override) return null;
    if (override === 'new') return { kind: 'new', user, flag };
    const [userId = '', flagName = ''] = override.split(/\/(.*)/s);
    return { kind: 'existing', user: userId, flag: flagName };
  }, [override, user, flag]);
}

interface EditorLink {
  /** Opens an empty editor, or one with a user or flag. */
  readonly openNew: (target?: { readonly user?: string; readonly flag?: string }) => void;
  readonly openExisting: (userId: string, flagName: string) => void;
  readonly close: () => void;
}

export function useEditorLink(): EditorLink {
  const navigate = useNavigate();
  const set = useCallback(
    (override: string | undefined, user?: string, flag?: string) => {
      void navigate({ to: '.', search: (previous) => ({ ...previous, override, user, flag }), resetScroll: false });
    },
    [navigate],
  );
  return useMemo(
    () => ({
      openNew: (target = {}) => set('new', target.user, target.flag),
      openExisting: (userId, flagName) => set(`${userId}/${flagName}`),
      close: () => set(undefined),
    }),
    [set],
  );
}

/** Address of this page with the editor open, for sharing. */
export function shareableAddress(target: EditorTarget): string {
  const url = new URL(location.href);
  url.search = '';
  if (target.kind === 'existing') url.searchParams.set('override', `${target.user}/${target.flag}`);
  else {
    url.searchParams.set('override', 'new');
    if (target.user) url.searchParams.set('user', target.user);
    if (target.flag) url.searchParams.set('flag', target.flag);
  }
  return url.href;
}

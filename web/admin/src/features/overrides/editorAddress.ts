/** URL parameters of the override editor. Every page accepts them and then shows the editor. */

import { useNavigate, useSearch } from '@tanstack/react-router';
import { useCallback, useMemo } from 'react';

/** Override that the editor creates or changes. */
export type EditorTarget =
  | { readonly kind: 'new'; readonly user: string | undefined; readonly flag: string | undefined }
  | { readonly kind: 'existing'; readonly user: string; readonly flag: string };

/** Returns the override that the URL selects, or `null` if the editor is closed. */
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
  /** Opens the editor for a new override. A user or flag can be preselected. */
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

/** Returns the URL of this page with the editor open, for sharing. */
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

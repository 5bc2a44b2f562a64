/** Keyboard shortcuts and the two overlays that they open. */

import { useLocation, useNavigate } from '@tanstack/react-router';
import { createContext, lazy, type ReactNode, Suspense, useContext, useEffect, useMemo, useRef, useState } from 'react';
import { ADDRESSES } from '../addresses';
import { usePreferences } from '../preferences/preferences';
import { useHasPermission } from '../session/session';
import { ShortcutList } from './ShortcutList';

const Palette = lazy(() => import('../features/palette/Palette'));

interface Shortcuts {
  readonly openPalette: () => void;
  readonly openKeys: () => void;
}

const ShortcutContext = createContext<Shortcuts>({ openPalette: () => {}, openKeys: () => {} });

export function useShortcuts(): Shortcuts {
  return useContext(ShortcutContext);
}

/** Timeout for the second key of a sequence such as `g f`; milliseconds. */
const SEQUENCE_TIMEOUT = 1000;

const GO_TO = {
  f: ADDRESSES.flags,
  s: ADDRESSES.scheduledChanges,
  o: ADDRESSES.userOverrides,
  u: ADDRESSES.users,
  m: ADDRESSES.myFlags,
} as const;

function isTyping(target: EventTarget | null): boolean {
  return (
    target instanceof HTMLElement &&
    (target.isContentEditable ||
      target instanceof HTMLTextAreaElement ||
      target instanceof HTMLSelectElement ||
      (target instanceof HTMLInputElement && !['checkbox', 'radio'].includes(target.type)))
  );
}

export function ShortcutProvider({ children }: { readonly children: ReactNode }) {
  const { letterShortcuts } = usePreferences();
  const canRead = useHasPermission('read');
  const navigate = useNavigate();
  const { pathname } = useLocation();
  const [overlay, setOverlay] = useState<'palette' | 'keys' | null>(null);
  const sequenceStart = useRef(0);
  const shortcuts = useMemo<Shortcuts>(
    () => ({ openPalette: () => setOverlay('palette'), openKeys: () => setOverlay('keys') }),
    [],
  );

  // biome-ignore lint/correctness/useExhaustiveDependencies: closes the overlay when the path changes
  useEffect(() => setOverlay(null), [pathname]);
  useEffect(() => {
    const onKeyDown = (event: KeyboardEvent) => {
      if (event.defaultPrevented) return;
      if ((event.metaKey || event.ctrlKey) && event.key.toLowerCase() === 'k') {
        event.preventDefault();
        if (canRead) setOverlay('palette');
        return;
      }
      const hasModifier = event.metaKey || event.ctrlKey || event.altKey;
      const isInDialog = document.querySelector('[role="dialog"]') !== null;
      if (hasModifier || !letterShortcuts || isTyping(event.target) || isInDialog) return;
      if (event.key === '/') focusSearchField(event);
      else if (event.key === '?') setOverlay('keys');
      else if (event.key === 'c' && canRead) {
        void navigate({ to: '.', search: (previous) => ({ ...previous, override: 'new' }) });
      } else if (event.key === 'g') sequenceStart.current = event.timeStamp;
      else if (event.timeStamp - sequenceStart.current < SEQUENCE_TIMEOUT) {
        sequenceStart.current = 0;
        const to = GO_TO[event.key as keyof typeof GO_TO];
        if (to && (canRead || to === ADDRESSES.myFlags)) void navigate({ to });
      }
    };
    addEventListener('keydown', onKeyDown);
    return () => removeEventListener('keydown', onKeyDown);
  }, [letterShortcuts, canRead, navigate]);

  return (
    <ShortcutContext value={shortcuts}>
      {children}
      {overlay === 'palette' ? (
        <Suspense>
          <Palette onClose={() => setOverlay(null)} onShowKeys={() => setOverlay('keys')} />
        </Suspense>
      ) : null}
      {overlay === 'keys' ? <ShortcutList onClose={() => setOverlay(null)} /> : null}
    </ShortcutContext>
  );
}

function focusSearchField(event: KeyboardEvent): void {
  const field = document.querySelector<HTMLElement>('[data-search-field]');
  if (!field) return;
  event.preventDefault();
  field.focus();
}

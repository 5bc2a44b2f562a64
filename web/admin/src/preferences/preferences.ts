/** Preferences in `localStorage`. `public/theme.js` reads the same item before the first paint. */

import { useSyncExternalStore } from 'react';
import { browserZone } from '../time/zones';

export type Theme = 'system' | 'light' | 'dark';
export type Density = 'comfortable' | 'compact';

export interface Preferences {
  readonly theme: Theme;
  readonly density: Density;
  /** IANA name, or `browser` for the zone of this browser. */
  readonly zone: string;
  /** Whether single-letter shortcuts are enabled. */
  readonly letterShortcuts: boolean;
}

const STORAGE_KEY = 'feature-flags:preferences';
const DEFAULTS: Preferences = { theme: 'system', density: 'comfortable', zone: 'browser', letterShortcuts: true };

function load(): Preferences {
  try {
    const stored: unknown = JSON.parse(localStorage.getItem(STORAGE_KEY) ?? '{}');
    return typeof stored === 'object' && stored !== null ? { ...DEFAULTS, ...stored } : DEFAULTS;
  } catch {
    return DEFAULTS;
  }
}

let current = load();
const listeners = new Set<() => void>();

function apply(): void {
  const { dataset } = document.documentElement;
  if (current.theme === 'system') delete dataset.theme;
  else dataset.theme = current.theme;
  if (current.density === 'compact') dataset.density = 'compact';
  else delete dataset.density;
}

export function setPreferences(change: Partial<Preferences>): void {
  current = { ...current, ...change };
  try {
    localStorage.setItem(STORAGE_KEY, JSON.stringify(current));
  } catch {
    // The browser denies storage; the preference lasts until the page is closed.
  }
  apply();
  for (const listener of listeners) listener();
}

function subscribe(listener: () => void): () => void {
  listeners.add(listener);
  const onStorage = (event: StorageEvent) => {
    if (event.key !== STORAGE_KEY) return;
    current = load();
    apply();
    listener();
  };
  addEventListener('storage', onStorage);
  return () => {
    listeners.delete(listener);
    removeEventListener('storage', onStorage);
  };
}

export function usePreferences(): Preferences {
  return useSyncExternalStore(subscribe, () => current);
}

/** Time zone in which times are shown. */
export function useZone(): string {
  const { zone } = usePreferences();
  return zone === 'browser' ? browserZone() : zone;
}

import { useEffect, useState } from 'react';
import { useZone } from '../preferences/preferences';
import { formatInstant } from '../time/format';
import { classes } from '../ui/classes';
import type { StreamState } from './connection';
import styles from './LiveChip.module.css';
import { useLiveState } from './LiveProvider';

/** Delay before a lost connection is shown; milliseconds. Most connections recover at once. */
const GRACE = 2_000;

function chipText(state: StreamState, isOnline: boolean, formatTime: (time: number) => string): string {
  if (!isOnline) return 'Offline';
  if (state.connection === 'signedOut') return 'Signed out';
  if (state.connection === 'reconnecting') return 'Reconnecting…';
  if (state.connection === 'connecting') return 'Connecting…';
  return state.stale ? `Stale since ${formatTime(state.since)}` : 'Live';
}

/** Label that says whether the page shows current data. */
export function LiveChip() {
  const state = useDelayedState(useLiveState());
  const isOnline = useIsOnline();
  const zone = useZone();
  const text = chipText(state, isOnline, (time) => formatInstant(time, Date.now(), zone));
  const isBroken = text !== 'Live' && text !== 'Connecting…';
  const hint = state.stale
    ? 'The server cannot read its database. Values come from its memory; changes fail.'
    : undefined;
  return (
    <span className={classes(styles.chip, isBroken && styles.broken)} role="status" title={hint} data-live={text}>
      <span className={styles.dot} aria-hidden />
      {text}
    </span>
  );
}

function useDelayedState(state: StreamState): StreamState {
  const [shown, setShown] = useState(state);
  useEffect(() => {
    if (state.connection !== 'reconnecting') {
      setShown(state);
      return;
    }
    const timer = setTimeout(() => setShown(state), GRACE);
    return () => clearTimeout(timer);
  }, [state]);
  return shown;
}

function useIsOnline(): boolean {
  const [isOnline, setIsOnline] = useState(navigator.onLine);
  useEffect(() => {
    const update = () => setIsOnline(navigator.onLine);
    addEventListener('online', update);
    addEventListener('offline', update);
    return () => {
      removeEventListener('online', update);
      removeEventListener('offline', update);
    };
  }, []);
  return isOnline;
}

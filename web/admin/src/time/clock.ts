/** Server time. Expiries are compared with the server's clock, because this machine's clock may be wrong. */

import { useSyncExternalStore } from 'react';

/** Server's clock minus this machine's clock; milliseconds. */
let offset = 0;
/** Maximum difference that is ignored; milliseconds. `Date` headers have a resolution of only one second. */
const TOLERANCE = 1500;

/** Adjusts the estimate of the server's clock to a `Date` header. */
export function observeServerTime(header: string | null): void {
  const time = Date.parse(header ?? '');
  if (Number.isNaN(time)) return;
  const observed = time + 500 - Date.now();
  if (Math.abs(observed - offset) > TOLERANCE) offset = Math.abs(observed) > TOLERANCE ? observed : 0;
}

/** Current time of the server; milliseconds since 1970. */
export function serverNow(): number {
  return Date.now() + offset;
}

/** Absolute difference between the server's clock and this machine's clock; milliseconds. */
export function clockSkew(): number {
  return Math.abs(offset);
}

const listeners = new Set<() => void>();
let second = Math.floor(serverNow() / 1000);
let timer: ReturnType<typeof setInterval> | undefined;

function tick(): void {
  const now = Math.floor(serverNow() / 1000);
  if (now === second) return;
  second = now;
  for (const listener of listeners) listener();
}

function subscribe(listener: () => void): () => void {
  listeners.add(listener);
  timer ??= setInterval(tick, 250);
  return () => {
    listeners.delete(listener);
    if (listeners.size > 0) return;
    clearInterval(timer);
    timer = undefined;
  };
}

/** Server time in milliseconds since 1970, rounded down to a multiple of `resolution`. Re-renders on change. */
export function useServerTime(resolution = 1000): number {
  return useSyncExternalStore(subscribe, () => Math.floor((second * 1000) / resolution) * resolution);
}

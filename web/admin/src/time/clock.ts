/** Server time. Expiries are compared with the server's clock, because this machine's clock may be wrong. */

import { useSyncExternalStore } from 'react';

/** Server's clock minus this machine's clock; milliseconds. */
let offset = 0;
/** Difference that is smaller than this is due to the resolution of the `Date` header; milliseconds. */
const TOLERANCE = 1500;

/** Takes over the time of a `Date` header, which has a resolution of one second. */
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

/** How far the two clocks differ; milliseconds. */
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

/** Server time in milliseconds since 1970, rounded down to multiples of `resolution`. Renders when it changes. */
export function useServerTime(resolution = 1000): number {
  return useSyncExternalStore(subscribe, () => Math.floor((second * 1000) / resolution) * resolution);
}

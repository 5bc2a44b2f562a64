import type { Engine } from './engine.js';

/**
 * In a browser: a page that is looked at again, or back on the network, does not wait; one that is left lets go of its
 * stream. Returns what ends that.
 */
export function watchPage(engine: Engine): () => void {
  if (typeof window === 'undefined' || typeof document === 'undefined') return () => {};
  const listening = new AbortController();
  const options = { signal: listening.signal };
  const wake = () => {
    if (document.visibilityState === 'visible') engine.wake();
  };
  window.addEventListener('online', wake, options);
  document.addEventListener('visibilitychange', wake, options);
  window.addEventListener('pagehide', () => engine.suspend(), options);
  window.addEventListener('pageshow', (event) => event.persisted && engine.connect(), options);
  return () => listening.abort();
}

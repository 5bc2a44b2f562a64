interface PageHandler {
  /** Called when a page is restored from the back/forward cache. */
  connect(): void;
  /** Called when a page is hidden or enters the back/forward cache. */
  suspend(): void;
  /** Called when the page becomes visible or online. */
  wake(): void;
}

/**
 * In a browser, reconnects when the page becomes visible or online, and closes the stream while the page is in the
 * back/forward cache. Does nothing elsewhere. Returns a function that removes the event listeners.
 */
export function followPageLifecycle(handler: PageHandler): () => void {
  if (!globalThis.window?.document) return () => {};
  const listening = new AbortController();
  const options = { signal: listening.signal };
  const wake = () => {
    if (document.visibilityState === 'visible') handler.wake();
  };
  window.addEventListener('online', wake, options);
  document.addEventListener('visibilitychange', wake, options);
  window.addEventListener('pagehide', () => handler.suspend(), options);
  window.addEventListener('pageshow', (event) => event.persisted && handler.connect(), options);
  return () => listening.abort();
}

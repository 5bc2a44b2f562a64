import { Failure } from './failure.js';

/** Abort reason of a request that another one replaced, or that is no longer needed. Never reported. */
export const SUPERSEDED = new Failure('network', 'superseded');

/** Settles like `promise`. Rejects with the signal's reason if the signal is aborted earlier. */
export function abortable<T>(signal: AbortSignal, promise: Promise<T>): Promise<T> {
  return new Promise((resolve, reject) => {
    const abort = () => reject(signal.reason);
    if (signal.aborted) abort();
    else signal.addEventListener('abort', abort, { once: true });
    promise.then(resolve, reject).finally(() => signal.removeEventListener('abort', abort));
  });
}

/** HTTP requests: snapshots, and streams of server-sent events (WHATWG HTML, section 9.2). */

import { createParser } from 'eventsource-parser';
import { Failure } from './failure.js';
import { formatPosition } from './position.js';
import { parseRetryAfter } from './retry.js';
import type { FlagState } from './state.js';
import type { FlagClientOptions } from './types.js';
import { parseEvent, parseSnapshot, type Snapshot, type StreamEvent } from './wire.js';

/** Item that is read from a stream. */
export type StreamItem =
  | StreamEvent
  /** Any data, including comments and the start of the response. */
  | { readonly kind: 'data' }
  /** Reconnection delay that the server requests in `retry:`; milliseconds. */
  | { readonly kind: 'retry'; readonly delay: number };

/** Destination and settings of requests. */
export interface Server {
  readonly baseUrl: string;
  readonly credentials: FlagClientOptions['credentials'];
  readonly fetch: typeof globalThis.fetch;
}

/** Requests the current values of all flags. */
export async function fetchSnapshot(server: Server, token: string | undefined, signal: AbortSignal): Promise<Snapshot> {
  const response = await get(server, '/api/flags/me', 'application/json', token, signal);
  return parseSnapshot(await response.text());
}

/**
 * Opens an event stream and reads it to its end. The server resumes at the position of the state if it can; otherwise
 * the first event is a snapshot.
 */
export async function readStream(
  server: Server,
  token: string | undefined,
  { userId, position }: FlagState,
  onItem: (item: StreamItem) => void,
  signal: AbortSignal,
): Promise<void> {
  const resumeHeaders = { 'Last-Event-ID': formatPosition(position) };
  const response = await get(server, '/api/flags/stream', 'text/event-stream', token, signal, resumeHeaders);
  verifyStreamUser(response, userId, token);
  onItem({ kind: 'data' });
  const parser = createParser({
    onEvent: ({ event, id, data }) => {
      const parsed = parseEvent(event, id, data);
      if (parsed) onItem(parsed);
    },
    onRetry: (delay) => onItem({ kind: 'retry', delay }),
  });
  const reader = response.body?.getReader();
  // Some implementations of `fetch` do not close the body when the signal is aborted.
  const cancel = () => void reader?.cancel().catch(() => {});
  signal.addEventListener('abort', cancel, { once: true });
  const decoder = new TextDecoder();
  try {
    for (let chunk = await reader?.read(); chunk && !chunk.done; chunk = await reader?.read()) {
      onItem({ kind: 'data' });
      parser.feed(decoder.decode(chunk.value, { stream: true }));
    }
  } finally {
    signal.removeEventListener('abort', cancel);
    cancel();
  }
}

/** Throws unless the response has status 200 and the media type `accept`. */
async function get(
  server: Server,
  path: string,
  accept: string,
  token: string | undefined,
  signal: AbortSignal,
  extraHeaders: Record<string, string> = {},
): Promise<Response> {
  const headers: Record<string, string> = { Accept: accept, ...extraHeaders };
  if (token !== undefined) headers.Authorization = `Bearer ${token}`;
  const credentials = server.credentials ?? (token === undefined ? 'same-origin' : 'omit');
  const response = await server.fetch(server.baseUrl + path, { headers, credentials, signal, cache: 'no-cache' });
  const { status } = response;
  if (status !== 200) {
    const retryAfter = parseRetryAfter(response.headers.get('Retry-After'));
    throw new Failure('http', `${path} returned ${status}${await problemDetail(response)}`, { status, retryAfter });
  }
  if (!response.headers.get('Content-Type')?.startsWith(accept)) {
    discardBody(response);
    throw new Failure('protocol', `${path} did not return ${accept}`);
  }
  return response;
}

/**
 * Throws if the stream belongs to another user than the state, because its changes must not be applied to that state. A
 * session cookie may belong to another user since the snapshot. A token always identifies the same user, so with a
 * token the header may be missing.
 */
function verifyStreamUser(response: Response, userId: string, token: string | undefined): void {
  const streamUserId = response.headers.get('Flags-User');
  if (streamUserId === userId || (streamUserId === null && token !== undefined)) return;
  discardBody(response);
  throw new Failure('protocol', 'the stream belongs to another user');
}

/** Cancels an unread body, which would otherwise keep the connection open. */
function discardBody(response: Response): void {
  response.body?.cancel().catch(() => {});
}

/** Returns `: ` and the `detail` of a problem document (RFC 9457), or an empty string. */
async function problemDetail(response: Response): Promise<string> {
  try {
    const { detail } = await response.json();
    return typeof detail === 'string' ? `: ${detail}` : '';
  } catch {
    return '';
  }
}

/** Asks the service: one request for a snapshot, one for a stream of server-sent events (WHATWG HTML, section 9.2). */

import { createParser } from 'eventsource-parser';
import { formatPosition, type Position } from './position.js';
import { parseRetryAfter, type RetryHint } from './retry.js';
import type { FlagClientError, FlagClientOptions } from './types.js';
import { Malformed, readEvent, readSnapshot, type Snapshot, type StreamEvent } from './wire.js';

/** A request came to nothing. */
export class Failure extends Error implements FlagClientError, RetryHint {
  readonly status: number | undefined;
  /** How long the service asks to be left alone; milliseconds. */
  readonly retryAfter: number;

  constructor(
    readonly kind: FlagClientError['kind'],
    message: string,
    more: { status?: number; retryAfter?: number; cause?: unknown } = {},
  ) {
    super(message, { cause: more.cause });
    this.status = more.status;
    this.retryAfter = more.retryAfter ?? 0;
  }

  /** Whether the service knows who asks and says no, or does not know them. */
  get refused(): boolean {
    return this.status === 401 || this.status === 403;
  }

  /** Anything thrown, as a failure. */
  static of(error: unknown): Failure {
    if (error instanceof Failure) return error;
    if (error instanceof Malformed) return new Failure('protocol', error.message, { cause: error });
    return new Failure('network', `no connection: ${error}`, { cause: error });
  }
}

/** Where a stream goes on. */
interface Since {
  readonly token: string | undefined;
  readonly userId: string;
  readonly position: Position;
}

/** What a stream tells. */
interface StreamHandler {
  /** Something came, be it a comment. */
  heard(): void;
  event(event: StreamEvent): void;
  /** How long the service wants a client to wait before it connects again; milliseconds. */
  retry(wait: number): void;
}

export class Transport {
  readonly #baseUrl: string;
  readonly #credentials: FlagClientOptions['credentials'];
  readonly #fetch: typeof globalThis.fetch;

  constructor(baseUrl: string, credentials: FlagClientOptions['credentials'], fetch: typeof globalThis.fetch) {
    this.#baseUrl = baseUrl;
    this.#credentials = credentials;
    this.#fetch = fetch;
  }

  /** All that the user gets now. */
  async snapshot(token: string | undefined, signal: AbortSignal): Promise<Snapshot> {
    const response = await this.#get('/api/flags/me', 'application/json', token, signal);
    return readSnapshot(await response.text());
  }

  /** Reads a stream to its end, from where `since` stands if the service can. */
  async stream(since: Since, handler: StreamHandler, signal: AbortSignal): Promise<void> {
    const { token, userId, position } = since;
    const from = { 'Last-Event-ID': formatPosition(position) };
    const response = await this.#get('/api/flags/stream', 'text/event-stream', token, signal, from);
    checkUser(response, userId, token);
    handler.heard();
    const parser = createParser({
      onEvent: ({ event, id, data }) => {
        const known = readEvent(event, id, data);
        if (known) handler.event(known);
      },
      onRetry: (wait) => handler.retry(wait),
    });
    const reader = response.body?.getReader();
    const cancel = () => void reader?.cancel().catch(() => {});
    signal.addEventListener('abort', cancel, { once: true });
    const decoder = new TextDecoder();
    try {
      for (let part = await reader?.read(); part && !part.done; part = await reader?.read()) {
        handler.heard();
        parser.feed(decoder.decode(part.value, { stream: true }));
      }
    } finally {
      signal.removeEventListener('abort', cancel);
      cancel();
    }
  }

  /** Only a 200 of this media type is an answer. */
  async #get(
    path: string,
    accept: string,
    token: string | undefined,
    signal: AbortSignal,
    more: Record<string, string> = {},
  ): Promise<Response> {
    const headers: Record<string, string> = { Accept: accept, ...more };
    if (token !== undefined) headers.Authorization = `Bearer ${token}`;
    const credentials = this.#credentials ?? (token === undefined ? 'same-origin' : 'omit');
    const response = await this.#fetch(this.#baseUrl + path, { headers, credentials, signal, cache: 'no-cache' });
    if (response.status !== 200) {
      const { status, headers } = response;
      const wait = parseRetryAfter(headers.get('Retry-After'));
      const why = await reason(response);
      throw new Failure('http', `${path} answered ${status}${why}`, { status, retryAfter: wait });
    }
    if (!response.headers.get('Content-Type')?.startsWith(accept)) {
      discard(response);
      throw new Malformed(`${path} did not answer with ${accept}`);
    }
    return response;
  }
}

/**
 * A stream tells what changes, for the user whom the service takes the caller for: whoever holds the state of another one
 * must not put it in. A token says who that is; a cookie may have become somebody else's.
 */
function checkUser(response: Response, userId: string, token: string | undefined): void {
  const user = response.headers.get('Flags-User');
  if (user === userId || (user === null && token !== undefined)) return;
  discard(response);
  throw new Malformed('a stream of another user');
}

/** Nobody reads its body. */
function discard(response: Response): void {
  response.body?.cancel().catch(() => {});
}

/** What the service says of an error (RFC 9457), for whoever reads the message. */
async function reason(response: Response): Promise<string> {
  try {
    const { detail } = await response.json();
    return typeof detail === 'string' ? `: ${detail}` : '';
  } catch {
    return '';
  }
}

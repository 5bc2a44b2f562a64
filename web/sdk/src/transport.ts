/** Asks the service: one request for a snapshot, one for a stream of server-sent events (WHATWG HTML, section 9.2). */

import { createParser } from 'eventsource-parser';
import { retryAfter } from './backoff.js';
import { formatPosition, type Position } from './position.js';
import type { FlagClientError } from './types.js';
import { Malformed, readEvent, readSnapshot, type Snapshot, type StreamEvent } from './wire.js';

/** A request came to nothing. */
export class Failure extends Error implements FlagClientError {
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
    return new Failure('network', 'the service cannot be reached', { cause: error });
  }
}

/** What a stream tells. */
export interface StreamHandler {
  /** Something came, be it a comment. */
  heard(): void;
  event(event: StreamEvent): void;
  /** How long the service wants a client to wait before it connects again; milliseconds. */
  retry(wait: number): void;
}

export class Transport {
  readonly #baseUrl: string;
  readonly #credentials: RequestCredentials;
  readonly #fetch: typeof globalThis.fetch;

  constructor(baseUrl: string, credentials: RequestCredentials, fetch: typeof globalThis.fetch) {
    this.#baseUrl = baseUrl;
    this.#credentials = credentials;
    this.#fetch = fetch;
  }

  /** All that the user gets now. */
  async snapshot(token: string | undefined, signal: AbortSignal): Promise<Snapshot> {
    const response = await this.#get('/api/flags/me', 'application/json', token, signal);
    return readSnapshot(await response.text());
  }

  /** Reads a stream to its end, from `position` on if the service can. */
  async stream(
    token: string | undefined,
    position: Position | null,
    handler: StreamHandler,
    signal: AbortSignal,
  ): Promise<void> {
    const since = position ? { 'Last-Event-ID': formatPosition(position) } : {};
    const response = await this.#get('/api/flags/stream', 'text/event-stream', token, signal, since);
    handler.heard();
    const parser = createParser({
      onEvent: ({ event, id, data }) => {
        const known = readEvent(event, id, data);
        if (known) handler.event(known);
      },
      onRetry: (wait) => handler.retry(wait),
    });
    const reader = response.body?.getReader();
    const decoder = new TextDecoder();
    try {
      for (let part = await reader?.read(); part && !part.done; part = await reader?.read()) {
        handler.heard();
        parser.feed(decoder.decode(part.value, { stream: true }));
      }
    } finally {
      reader?.cancel().catch(() => {});
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
    const credentials = this.#credentials;
    const response = await this.#fetch(this.#baseUrl + path, { headers, credentials, signal, cache: 'no-cache' });
    if (response.status !== 200) {
      response.body?.cancel().catch(() => {});
      const { status } = response;
      const wait = retryAfter(response.headers.get('Retry-After'));
      throw new Failure('http', `the service answered ${status}`, { status, retryAfter: wait });
    }
    const mediaType = response.headers.get('Content-Type')?.split(';')[0]?.trim().toLowerCase();
    if (mediaType !== accept) {
      response.body?.cancel().catch(() => {});
      throw new Malformed(`the service answered ${mediaType ?? 'without a media type'} instead of ${accept}`);
    }
    return response;
  }
}

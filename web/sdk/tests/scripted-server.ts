/** Fake server that responds as a test instructs it. */

import { expect } from 'vitest';
import type { ScriptedResponse } from './scenario.js';

const PATHS = { me: '/api/flags/me', stream: '/api/flags/stream' } as const;

interface PendingRequest {
  to: 'me' | 'stream';
  headers: Headers;
  resolve: (response: Response) => void;
  reject: (error: unknown) => void;
}

export class ScriptedServer {
  private pendingRequests: PendingRequest[] = [];
  private stream: ReadableStreamDefaultController<Uint8Array> | null = null;
  private isOffline = false;
  /** Number of requests received so far. */
  requestCount = 0;

  /** Replacement for the global `fetch` that sends requests to this server. */
  readonly fetch: typeof fetch = (input, init) => {
    const url = new URL(String(input));
    const to = url.pathname === PATHS.me ? 'me' : 'stream';
    expect(url.pathname).toBe(PATHS[to]);
    const signal = init?.signal;
    this.requestCount += 1;
    return new Promise((resolve, reject) => {
      if (this.isOffline) return reject(new TypeError('fetch failed'));
      const request = { to, headers: new Headers(init?.headers), resolve, reject } as const;
      this.pendingRequests.push(request);
      signal?.addEventListener('abort', () => {
        this.pendingRequests = this.pendingRequests.filter((other) => other !== request);
        reject(signal.reason);
        if (to === 'stream') this.disconnect(signal.reason);
      });
    });
  };

  get streamOpen(): boolean {
    return this.stream !== null;
  }

  hasPendingRequest(to: 'me' | 'stream'): boolean {
    return this.pendingRequests.some((request) => request.to === to);
  }

  /** Responds to the pending request. Checks its headers if the response lists them. */
  respond({ to, status, headers, json, text, authorization, last_event_id }: ScriptedResponse): void {
    const request = this.takeRequest(to);
    if (authorization !== undefined) expect(request.headers.get('authorization')).toBe(authorization);
    if (last_event_id !== undefined) expect(request.headers.get('last-event-id')).toBe(last_event_id);
    const mediaType = to === 'stream' ? 'text/event-stream' : 'application/json; charset=utf-8';
    const init = { status, headers: { 'Content-Type': mediaType, ...headers } };
    const body =
      to === 'stream' && status === 200 && text === undefined ? this.openStream() : (text ?? JSON.stringify(json));
    request.resolve(new Response(body, init));
  }

  failRequest(to: 'me' | 'stream'): void {
    this.takeRequest(to).reject(new TypeError('fetch failed'));
  }

  /** Interrupts the stream and fails all later requests. Pending requests remain pending. */
  goOffline(): void {
    this.isOffline = true;
    this.disconnect();
  }

  /** Sends bytes on the open stream as one chunk. */
  send(bytes: Uint8Array): void {
    expect(this.stream, 'the stream is open').not.toBeNull();
    this.stream?.enqueue(bytes);
  }

  /** Interrupts the stream with a network error. */
  disconnect(reason: unknown = new TypeError('terminated')): void {
    this.stream?.error(reason);
    this.stream = null;
  }

  /** Ends the stream like a complete response. */
  endStream(): void {
    this.stream?.close();
    this.stream = null;
  }

  private openStream(): ReadableStream<Uint8Array> {
    expect(this.stream, 'no other stream is open').toBeNull();
    return new ReadableStream({
      start: (controller) => {
        this.stream = controller;
      },
      cancel: () => {
        this.stream = null;
      },
    });
  }

  private takeRequest(to: 'me' | 'stream'): PendingRequest {
    const index = this.pendingRequests.findIndex((request) => request.to === to);
    const [request] = index < 0 ? [] : this.pendingRequests.splice(index, 1);
    if (!request) throw new Error(`no pending request to ${to}`);
    return request;
  }
}

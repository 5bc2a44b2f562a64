/** A server that does what a script says, and nothing else. */

import { expect } from 'vitest';
import type { Answer } from './scenario.js';

const PATHS = { me: '/api/flags/me', stream: '/api/flags/stream' } as const;

interface Waiting {
  to: 'me' | 'stream';
  headers: Headers;
  resolve: (response: Response) => void;
  reject: (error: unknown) => void;
}

export class ScriptedServer {
  /** Requests that have no answer yet. */
  private waiting: Waiting[] = [];
  private stream: ReadableStreamDefaultController<Uint8Array> | null = null;
  private isAway = false;
  requests = 0;

  readonly fetch: typeof fetch = (input, init) => {
    const url = new URL(String(input));
    const to = url.pathname === PATHS.me ? 'me' : 'stream';
    expect(url.pathname).toBe(PATHS[to]);
    const signal = init?.signal;
    this.requests += 1;
    return new Promise((resolve, reject) => {
      if (this.isAway) return reject(new TypeError('fetch failed'));
      const request = { to, headers: new Headers(init?.headers), resolve, reject } as const;
      this.waiting.push(request);
      signal?.addEventListener('abort', () => {
        this.waiting = this.waiting.filter((other) => other !== request);
        reject(signal.reason);
        if (to === 'stream') this.cut(signal.reason);
      });
    });
  };

  get streamOpen(): boolean {
    return this.stream !== null;
  }

  asksFor(to: 'me' | 'stream'): boolean {
    return this.waiting.some((request) => request.to === to);
  }

  answer({ to, status, headers, json, text, authorization, last_event_id }: Answer): void {
    const request = this.take(to);
    if (authorization !== undefined) expect(request.headers.get('authorization')).toBe(authorization);
    if (last_event_id !== undefined) expect(request.headers.get('last-event-id')).toBe(last_event_id);
    const mediaType = to === 'stream' ? 'text/event-stream' : 'application/json; charset=utf-8';
    const init = { status, headers: { 'Content-Type': mediaType, ...headers } };
    const body =
      to === 'stream' && status === 200 && text === undefined ? this.openStream() : (text ?? JSON.stringify(json));
    request.resolve(new Response(body, init));
  }

  fail(to: 'me' | 'stream'): void {
    this.take(to).reject(new TypeError('fetch failed'));
  }

  /** Nobody can reach it any more. */
  goAway(): void {
    this.isAway = true;
    this.cut();
  }

  send(bytes: Uint8Array): void {
    expect(this.stream, 'there is a stream to send to').not.toBeNull();
    this.stream?.enqueue(bytes);
  }

  cut(reason: unknown = new TypeError('terminated')): void {
    this.stream?.error(reason);
    this.stream = null;
  }

  end(): void {
    this.stream?.close();
    this.stream = null;
  }

  private openStream(): ReadableStream<Uint8Array> {
    expect(this.stream, 'one stream at a time').toBeNull();
    return new ReadableStream({
      start: (controller) => {
        this.stream = controller;
      },
      cancel: () => {
        this.stream = null;
      },
    });
  }

  private take(to: 'me' | 'stream'): Waiting {
    const at = this.waiting.findIndex((request) => request.to === to);
    const [request] = at < 0 ? [] : this.waiting.splice(at, 1);
    if (!request) throw new Error(`there is no open request to ${to}`);
    return request;
  }
}

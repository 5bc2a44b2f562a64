/** HTTP client of the API. Tracks the latest revision, the server's clock and rejected credentials. */

import createClient from 'openapi-fetch';
import { observeServerTime } from '../time/clock';
import type { paths } from './generated/openapi';
import { errorOfResponse, toApiError } from './problem';

/** A resource with its entity tag, for `If-Match`. */
export interface Tagged<Resource> {
  readonly resource: Resource;
  readonly etag: string;
}

type SignedOutListener = () => void;
const signedOutListeners = new Set<SignedOutListener>();

/** Calls `listener` whenever the server rejects the credential. Returns a function that removes the listener. */
export function onSignedOut(listener: SignedOutListener): () => void {
  signedOutListeners.add(listener);
  return () => signedOutListeners.delete(listener);
}

export function announceSignedOut(): void {
  for (const listener of signedOutListeners) listener();
}

/** Revision of the most recent response or event. Evaluation requests send it as `Flags-Min-Revision`. */
let lastRevision: string | undefined;

export function rememberRevision(revision: string | null): void {
  if (revision) lastRevision = revision;
}

/** Returns the request header that makes an evaluation include all changes that this tab has seen. */
export function minRevision(): { 'Flags-Min-Revision'?: string } {
  return lastRevision === undefined ? {} : { 'Flags-Min-Revision': lastRevision };
}

export const client = createClient<paths>({
  baseUrl: location.origin,
  // Looks up `fetch` at each call, so that tests can replace it.
  fetch: (request) => globalThis.fetch(request),
});

interface Result<Data> {
  readonly data?: Data;
  readonly error?: unknown;
  readonly response: Response;
}

/** Returns the response and its body. Throws an `ApiError` for every status other than 2xx. */
export async function send<Data>(request: Promise<Result<Data>>): Promise<{ data: Data; response: Response }> {
  let result: Result<Data>;
  try {
    result = await request;
  } catch (error) {
    if (error instanceof DOMException && error.name === 'AbortError') throw error;
    throw toApiError(error);
  }
  const { data, error, response } = result;
  observeServerTime(response.headers.get('Date'));
  if (!response.ok) {
    const problem = await errorOfResponse(response, error);
    // After a failed sign-in or a wrong current password, the form shows the error. The session has not ended.
    if (response.status === 401 && problem.code !== 'sign_in_failed') announceSignedOut();
    throw problem;
  }
  rememberRevision(response.headers.get('Flags-Revision'));
  return { data: data as Data, response };
}

/** Like `send`, but returns only the body. */
export async function body<Data>(request: Promise<Result<Data>>): Promise<Data> {
  return (await send(request)).data;
}

/** Like `send`, but returns the body with its entity tag. */
export async function tagged<Data>(request: Promise<Result<Data>>): Promise<Tagged<Data>> {
  const { data, response } = await send(request);
  return { resource: data, etag: response.headers.get('ETag') ?? '' };
}

/** Sends requests to the API. Only this folder knows its paths. */

import createClient from 'openapi-fetch';
import { observeServerTime } from '../time/clock';
import type { paths } from './generated/openapi';
import { errorOfResponse, toApiError } from './problem';

/** A resource with the entity tag that `If-Match` refers to. */
export interface Tagged<Resource> {
  readonly resource: Resource;
  readonly etag: string;
}

type SignedOutListener = () => void;
const signedOutListeners = new Set<SignedOutListener>();

/** Calls `listener` whenever the server rejects the credential. Returns the function that removes it. */
export function onSignedOut(listener: SignedOutListener): () => void {
  signedOutListeners.add(listener);
  return () => signedOutListeners.delete(listener);
}

export function announceSignedOut(): void {
  for (const listener of signedOutListeners) listener();
}

/** Greatest revision that this tab has seen in a response; sent as `Flags-Min-Revision` with evaluations. */
let lastRevision: string | undefined;

export function rememberRevision(revision: string | null): void {
  if (revision) lastRevision = revision;
}

/** Header that requires evaluations to include all changes which this tab has seen. */
export function minRevision(): { 'Flags-Min-Revision'?: string } {
  return lastRevision === undefined ? {} : { 'Flags-Min-Revision': lastRevision };
}

export const client = createClient<paths>({
  baseUrl: location.origin,
  // Resolved at each call, so that tests can replace it.
  fetch: (request) => globalThis.fetch(request),
});

interface Result<Data> {
  readonly data?: Data;
  readonly error?: unknown;
  readonly response: Response;
}

/** Returns the response and its body. Throws an `ApiError` for every other status than 2xx. */
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
    // A failed sign-in and a wrong current password are answers to the form, not the end of the session.
    if (response.status === 401 && problem.code !== 'sign_in_failed') announceSignedOut();
    throw problem;
  }
  rememberRevision(response.headers.get('Flags-Revision'));
  return { data: data as Data, response };
}

/** Returns the body. */
export async function body<Data>(request: Promise<Result<Data>>): Promise<Data> {
  return (await send(request)).data;
}

/** Returns the body with its entity tag. */
export async function tagged<Data>(request: Promise<Result<Data>>): Promise<Tagged<Data>> {
  const { data, response } = await send(request);
  return { resource: data, etag: response.headers.get('ETag') ?? '' };
}

/** Errors of API requests. */

import type { FieldError, ProblemBody } from './types';

/** Error of a failed request. `status` is 0 if the server sent no response. */
export class ApiError extends Error {
  readonly status: number;
  /** Stable code of the problem document, or `network`. */
  readonly code: string;
  readonly requestId: string | null;
  readonly fieldErrors: readonly FieldError[];
  /** Seconds after which the request may be repeated. `null` if the server sent no `Retry-After`. */
  readonly retryAfter: number | null;

  constructor(status: number, problem: Partial<ProblemBody>, retryAfter: number | null = null) {
    super(problem.detail ?? `The server responded with status ${status}.`);
    this.name = 'ApiError';
    this.status = status;
    this.code = problem.code ?? 'unknown';
    this.requestId = problem.instance ?? null;
    this.fieldErrors = problem.errors ?? [];
    this.retryAfter = retryAfter;
  }

  /** Returns the error message for the field at this JSON pointer, or for a field inside it. */
  fieldError(pointer: string): string | undefined {
    return this.fieldErrors.find((error) => error.pointer === pointer || error.pointer.startsWith(`${pointer}/`))
      ?.detail;
  }

  /** Whether repeating the same request later may succeed. */
  get isTemporary(): boolean {
    return this.status === 0 || this.status === 429 || this.status === 503;
  }
}

/** The flag's definition is needed, but the server cannot read it. Has the status and code of the server's own error. */
export class UnreadableFlagError extends ApiError {
  constructor(reason: string) {
    super(409, { code: 'flag_unreadable', detail: `its definition cannot be read: ${reason}` });
    this.name = 'UnreadableFlagError';
  }
}

/** Converts any exception of a request. An exception other than `ApiError` counts as a network error. */
export function toApiError(error: unknown): ApiError {
  if (error instanceof ApiError) return error;
  return new ApiError(0, { code: 'network', detail: 'The server cannot be reached. Check your connection.' });
}

export async function errorOfResponse(response: Response, body: unknown): Promise<ApiError> {
  const retryAfter = Number.parseInt(response.headers.get('Retry-After') ?? '', 10);
  const problem = typeof body === 'object' && body !== null ? body : {};
  return new ApiError(response.status, problem, Number.isNaN(retryAfter) ? null : retryAfter);
}

/** Returns the message as a sentence: the API's messages are in lower case and have no full stop. */
export function sentence(text: string): string {
  const capitalized = text.charAt(0).toUpperCase() + text.slice(1);
  return /[.!?]$/.test(capitalized) ? capitalized : `${capitalized}.`;
}

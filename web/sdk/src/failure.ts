import type { RetryHint } from './retry.js';
import type { FlagClientError } from './types.js';

/** Error that is reported to `onError` and, for requests, determines the delay before the next attempt. */
export class Failure extends Error implements FlagClientError, RetryHint {
  declare readonly status: number | undefined;
  /** Delay that the server requested; milliseconds. */
  declare readonly retryAfter: number;

  constructor(
    readonly kind: FlagClientError['kind'],
    message: string,
    { status, retryAfter = 0, cause }: { status?: number; retryAfter?: number; cause?: unknown } = {},
  ) {
    super(message, { cause });
    this.status = status;
    this.retryAfter = retryAfter;
  }

  get rejected(): boolean {
    return this.status === 401 || this.status === 403;
  }

  /**
   * Whether the next stream may resume from the last position. After an error response or unexpected data, the client
   * loads a new snapshot instead.
   */
  get isResumable(): boolean {
    return this.kind !== 'http' && this.kind !== 'protocol';
  }

  /** Whether this tab should leave its group. Another tab may have a valid token or a better connection. */
  get leavesTabs(): boolean {
    return this.rejected || this.kind === 'token' || this.kind === 'timeout';
  }

  /** Converts an exception to a `Failure`. Unknown errors get kind `network`, because `fetch` throws various types. */
  static from(error: unknown): Failure {
    return error instanceof Failure ? error : new Failure('network', `network error: ${error}`, { cause: error });
  }
}

/** Error for a request or a stream that exceeds its timeout. */
export function timeoutFailure(): Failure {
  return new Failure('timeout', 'the server does not respond');
}

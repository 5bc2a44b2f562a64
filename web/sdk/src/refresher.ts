import { abortable, SUPERSEDED } from './abortable.js';
import { type Connection, type ConnectionDependencies, RESPONSE_TIMEOUT } from './connection.js';
import { Failure } from './failure.js';
import { fetchSnapshot } from './transport.js';

/** Why a snapshot was not applied, or `null` if it was. */
type Result = Failure | typeof SUPERSEDED | null;

/** Requests snapshots beside the stream, one at a time. */
export class Refresher {
  readonly #deps: ConnectionDependencies;
  readonly #connection: Connection;
  /** The running request, which later callers join. */
  #request: { readonly controller: AbortController; readonly result: Promise<Result> } | null = null;
  /** The `validUntil` for which a snapshot was already requested. */
  #refreshedValidUntil: number | null = null;

  constructor(deps: ConnectionDependencies, connection: Connection) {
    this.#deps = deps;
    this.#connection = connection;
  }

  /** Requests a snapshot for the application. Resolves to whether it was applied. Never rejects. */
  async refresh(): Promise<boolean> {
    const result = await this.#start();
    if (result instanceof Failure) {
      // A server that rejects one request, for example with 429, may still serve the stream.
      const affectsStream = result.kind !== 'token' && (result.kind !== 'http' || result.rejected);
      if (affectsStream && this.#connection.phase !== 'waiting') this.#connection.end(result);
      else this.#deps.report(result);
    }
    return result === null;
  }

  /** Requests a snapshot once because the stream did not send the change at `validUntil`. */
  async refreshOverdue(): Promise<void> {
    const validUntil = this.#deps.values.state?.validUntil ?? null;
    if (validUntil === this.#refreshedValidUntil) return;
    this.#refreshedValidUntil = validUntil;
    const result = await this.#start();
    // Stream and request both failed to deliver the change, so the connection is replaced.
    if (result instanceof Failure && this.#connection.phase !== 'waiting') this.#connection.end(result);
  }

  /** Aborts the running request, if there is one. `SUPERSEDED`: because the connection was interrupted. */
  abort(reason: Failure | typeof SUPERSEDED): void {
    this.#request?.controller.abort(reason);
    this.#end();
    // The values at `validUntil` may be requested again after a suspension.
    if (reason === SUPERSEDED && this.#connection.phase === 'idle') this.#refreshedValidUntil = null;
  }

  #end(): void {
    this.#request = null;
    this.#deps.deadlines.clear('refreshTimeout');
  }

  /** Starts a request or joins the running one. Never rejects. */
  #start(): Promise<Result> {
    if (this.#request) return this.#request.result;
    const controller = new AbortController();
    const result = this.#run(controller.signal)
      .catch((error: unknown) => (error === SUPERSEDED ? SUPERSEDED : Failure.from(error)))
      .finally(() => {
        if (this.#request?.controller === controller) this.#end();
      });
    this.#request = { controller, result };
    this.#deps.deadlines.set('refreshTimeout', RESPONSE_TIMEOUT);
    return result;
  }

  async #run(signal: AbortSignal): Promise<null> {
    const { server, values, tabs } = this.#deps;
    const token = await abortable(signal, this.#deps.token());
    const snapshot = await abortable(signal, fetchSnapshot(server, token, signal));
    signal.throwIfAborted();
    const { state, fresh } = values;
    this.#connection.receive(snapshot, token);
    signal.throwIfAborted();
    // An open stream belongs to the previous user.
    if ((state && state.userId !== snapshot.userId) || this.#connection.phase === 'waiting') this.#connection.connect();
    else if (tabs.isFollower && !fresh) {
      // The leader is not connected, so the next change would be missed.
      values.markStale();
      values.publish();
    }
    return null;
  }
}

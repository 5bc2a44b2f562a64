import { abortable, SUPERSEDED } from './abortable.js';
import { type Connection, type ConnectionDependencies, RESPONSE_TIMEOUT } from './connection.js';
import { Failure } from './failure.js';
import { fetchSnapshot } from './transport.js';

/** Requests snapshots beside the stream, one at a time. */
export class Refresher {
  readonly #deps: ConnectionDependencies;
  readonly #connection: Connection;
  /** The running request, which later callers join. */
  #request: { readonly controller: AbortController; readonly result: Promise<Failure | null> } | null = null;

  constructor(deps: ConnectionDependencies, connection: Connection) {
    this.#deps = deps;
    this.#connection = connection;
  }

  /** Requests a snapshot for the application. Resolves to whether it was applied. Never rejects. */
  async refresh(): Promise<boolean> {
    const result = await this.#start();
    if (result && result !== SUPERSEDED) {
      // A server that rejects one request, for example with 429, may still serve the stream.
      const affectsStream = result.kind !== 'token' && (result.kind !== 'http' || result.rejected);
      if (affectsStream && this.#connection.phase !== 'waiting') this.#connection.end(result);
      else this.#deps.report(result);
    }
    return result === null;
  }

  /** Requests a snapshot because the stream did not send the change at `validUntil`. */
  async refreshOverdue(): Promise<void> {
    this.#deps.values.markRefreshed();
    const result = await this.#start();
    // Stream and request both failed to deliver the change, so the connection is replaced.
    if (result && result !== SUPERSEDED && this.#connection.phase !== 'waiting') this.#connection.end(result);
  }

  /** Ends the running request, if there is one. */
  abort(reason: Failure): void {
    this.#request?.controller.abort(reason);
    this.#request = null;
    this.#deps.deadlines.clear('refreshTimeout');
  }

  /** Starts a request or joins the running one. Never rejects. */
  #start(): Promise<Failure | null> {
    if (this.#request) return this.#request.result;
    const controller = new AbortController();
    const result = this.#run(controller.signal)
      .catch(Failure.from)
      .finally(() => {
        if (this.#request?.controller === controller) this.abort(SUPERSEDED);
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
    const { fresh } = values;
    const userChanged = this.#connection.receive(snapshot, token);
    signal.throwIfAborted();
    // If another user's values arrived, an open stream belongs to the previous user.
    if (userChanged || this.#connection.phase === 'waiting') this.#connection.connect();
    else if (tabs.isFollower && !fresh) {
      // The leader is not connected, so this tab would miss the next change.
      values.markStale();
      values.publish();
    }
    return null;
  }
}

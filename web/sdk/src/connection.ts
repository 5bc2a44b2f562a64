import { abortable, SUPERSEDED } from './abortable.js';
import { type Deadlines, NEVER } from './deadlines.js';
import { Failure, timeoutFailure } from './failure.js';
import { announceEnd, onTimeout, type Phase, streamDuration } from './phase.js';
import { Retry } from './retry.js';
import type { TabCoordinator } from './tab-coordinator.js';
import { fetchSnapshot, readStream, type Server, type StreamItem } from './transport.js';
import type { FlagClientError } from './types.js';
import type { Values } from './values.js';
import type { StateEvent } from './wire.js';

/** Timeout for a response; milliseconds. */
export const RESPONSE_TIMEOUT = 15_000;
/** Timeout for data of an open stream: three heartbeat intervals; milliseconds. */
const STREAM_TIMEOUT = 45_000;
/** Timeout for updates of the leader; milliseconds. The leader sends an update with every heartbeat. */
const LEADER_TIMEOUT = STREAM_TIMEOUT + RESPONSE_TIMEOUT;

/** Parts of the client that the connection uses. */
export interface ConnectionDependencies {
  readonly server: Server;
  readonly deadlines: Deadlines;
  readonly values: Values;
  readonly tabs: Pick<TabCoordinator, 'isFollower' | 'join' | 'leave'>;
  /** Returns the token for the next request. Rejects with a `Failure`. */
  readonly token: () => Promise<string | undefined>;
  readonly report: (error: FlagClientError) => void;
}

/**
 * Connection to the server: one attempt after another, each with at most one event stream. It is always in one phase,
 * and each phase has one deadline.
 */
export class Connection {
  readonly #deps: ConnectionDependencies;
  readonly #onInterrupt: () => void;
  readonly #retry = new Retry();
  #phase: Phase = { kind: 'idle' };
  /** Aborts the current attempt, including its stream. */
  #attempt = new AbortController();
  /** Token of the last snapshot. A stream with this token can resume. `null`: a snapshot must be requested first. */
  #resumeToken: string | undefined | null = null;
  /** Whether this tab opens its own stream because the leader does not respond. */
  #leaderUnresponsive = false;

  /** `onInterrupt` is called when the attempt is aborted, to abort the requests beside its stream as well. */
  constructor(deps: ConnectionDependencies, onInterrupt: () => void) {
    this.#deps = deps;
    this.#onInterrupt = onInterrupt;
  }

  get phase(): Phase['kind'] {
    return this.#phase.kind;
  }

  /** Starts an attempt immediately. Aborts the current one. */
  connect(): void {
    const kind = this.#deps.tabs.isFollower ? 'following' : 'connecting';
    if (!this.#interrupt({ kind }, RESPONSE_TIMEOUT)) return;
    this.#attempt = new AbortController();
    const { signal } = this.#attempt;
    this.#run(signal).catch((error) => signal.aborted || this.end(Failure.from(error)));
  }

  /**
   * Waits for values from the leader, for a limited time. Called when this tab becomes a follower, and when the leader
   * sends values.
   */
  follow(): void {
    this.#phase = { kind: 'following' };
    this.#deps.deadlines.set('connection', LEADER_TIMEOUT);
  }

  /**
   * Call it when the page becomes visible or online. If the machine `slept`, an open stream is probably interrupted.
   */
  wake(slept: boolean): void {
    if (this.phase === 'waiting' ? this.#retry.canSkipDelay : slept) this.connect();
  }

  /** Call it when the deadline of the phase passes. */
  timeOut(): void {
    const next = onTimeout(this.#phase);
    if (next === 'takeOver') {
      this.#deps.tabs.leave();
      this.#leaderUnresponsive = true;
    }
    if (next === 'fail') this.end(timeoutFailure());
    else this.connect();
  }

  /** Ends the attempt and waits for the next one. `failure` is `null` if the server announced the end of the stream. */
  end(failure: Failure | null): void {
    const { tabs, values, report } = this.#deps;
    const delay = this.#retry.delayAfter(failure, streamDuration(this.#phase, performance.now()));
    if (!this.#interrupt({ kind: 'waiting' }, delay)) return;
    this.#leaderUnresponsive = false;
    if (failure) {
      if (!failure.isResumable) this.#resumeToken = null;
      if (failure.leavesTabs) tabs.leave();
      values.markStale();
    }
    values.announce(null);
    if (failure) report(failure);
  }

  /** Ends the attempt. In the phase `idle`, `connect` can start another attempt; the phase `closed` is final. */
  stop(kind: 'idle' | 'closed'): void {
    if (!this.#interrupt({ kind }, NEVER)) return;
    this.#resumeToken = null;
    this.#deps.tabs.leave();
    this.#deps.values.suspend();
  }

  /** Stops and forgets failures, because they do not apply to another credential. */
  reset(): void {
    this.stop('idle');
    this.#retry.reset();
  }

  /** Applies an event that was requested with `token`. Returns whether it replaced the values of another user. */
  receive(event: StateEvent, token: string | undefined): boolean {
    const userChanged = this.#deps.values.receive(event, token);
    if (userChanged) this.#resumeToken = null;
    return userChanged;
  }

  /** Aborts the attempt and enters a phase. Returns false if the connection is closed. */
  #interrupt(phase: Phase, timeout: number): boolean {
    if (this.phase === 'closed') return false;
    this.#phase = phase;
    this.#attempt.abort(SUPERSEDED);
    this.#onInterrupt();
    this.#deps.deadlines.set('connection', timeout);
    return true;
  }

  /**
   * Requests a snapshot if necessary, then opens the stream unless another tab has one. Resolves when the stream ends.
   */
  async #run(signal: AbortSignal): Promise<void> {
    const { server, tabs, values } = this.#deps;
    const token = await abortable(signal, this.#deps.token()).catch((error: unknown) => {
      if (!signal.aborted) values.loadPersisted(null);
      throw error;
    });
    signal.throwIfAborted();
    values.loadPersisted(token);
    if (this.#resumeToken !== token || !values.state) {
      const snapshot = await abortable(signal, fetchSnapshot(server, token, signal));
      // The attempt may have been aborted after the response arrived, or by a listener of the snapshot.
      signal.throwIfAborted();
      this.receive(snapshot, token);
      signal.throwIfAborted();
      this.#resumeToken = token;
    }
    const { state } = values;
    if (!state) return;
    if (!this.#leaderUnresponsive && tabs.join(state.userId)) return this.follow();
    // The deadline of the phase `connecting` also applies to the response to this request.
    this.#phase = { kind: 'streaming', startedAt: performance.now() };
    const onItem = (item: StreamItem) => signal.aborted || this.#handleItem(item, token);
    await abortable(signal, readStream(server, token, state, onItem, signal));
    if (signal.aborted) return;
    if (this.phase !== 'ending') throw new Failure('network', 'the stream was interrupted');
    this.end(null);
  }

  #handleItem(item: StreamItem, token: string | undefined): void {
    if (item.kind === 'data') this.#deps.deadlines.set('connection', STREAM_TIMEOUT);
    else if (item.kind === 'retry') this.#retry.setInitialDelay(item.delay);
    else if (item.kind === 'bye') {
      if (item.reason === 'revoked') this.#resumeToken = null;
      else this.#phase = announceEnd(this.#phase);
    } else {
      this.#retry.accepted();
      this.receive(item, token);
    }
  }
}

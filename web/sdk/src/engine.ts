/** Keeps the store up to date: asks, follows, waits and tries again. */

import { backoff, backoffRefused, FIRST } from './backoff.js';
import { ServerClock } from './clock.js';
import { type Deadline, Deadlines } from './deadlines.js';
import { fingerprint } from './fingerprint.js';
import { decodeState, encodeState, type Persistence } from './persistence.js';
import type { Position } from './position.js';
import { applyChange, applySnapshot, endOverrides, type FlagState, moveTo, nextEnd } from './state.js';
import type { Store } from './store.js';
import { type TabNews, Tabs } from './tabs.js';
import { Failure, type Transport } from './transport.js';
import type { FlagClientError, Token } from './types.js';
import { Malformed, type Snapshot, type StreamEvent } from './wire.js';

/** Longest that an answer may take; milliseconds. */
const ANSWER_WITHIN = 15_000;
/** Longest that a stream may be silent: three heartbeats; milliseconds. */
const SILENT_FOR = 45_000;
/** A stream that lasted so long was a good one; milliseconds. */
const GOOD_AFTER = 10_000;
/** How long an open stream has to tell what an instant has changed, before it is asked for; milliseconds. */
const PUSHED_WITHIN = 2_000;
/** How long a cookie is taken to be of the user whose snapshot has just come; milliseconds. */
const SURE_FOR = 5_000;

/** Why an attempt is given up without being a failure. */
const SUPERSEDED = new Failure('network', 'another attempt takes its place');

export interface EngineParts {
  readonly baseUrl: string;
  readonly store: Store;
  readonly transport: Transport;
  readonly persistence: Persistence | null;
  readonly shareTabs: boolean;
  readonly report: (error: FlagClientError) => void;
}

export class Engine {
  readonly #clock = new ServerClock();
  readonly #deadlines = new Deadlines((deadline) => this.#ring(deadline));
  #attempt: AbortController | null = null;
  #tabs: Tabs | null = null;
  /** Whether this tab has a stream of its own, as the one that leads is silent. */
  #alone = false;
  /** Whether what was last heard of the service was good. */
  #fresh = false;
  #serverStale = false;
  #failures = 0;
  #refusals = 0;
  #firstWait = FIRST;
  /** When the stream began, by the steady clock; `null` while there is none. */
  #streamSince: number | null = null;
  /** Whether the stream said goodbye. */
  #parted = false;
  /** With which token a snapshot was last asked for, and when; `null` if one must be asked for. */
  #sure: { token: string | undefined; at: number } | null = null;
  /** Tells the present credential from others, in what is kept. */
  #credential: string | null = null;
  #loaded = false;
  /** The question beside the stream, while it is open. */
  #question: Promise<boolean> | null = null;
  #asking: AbortController | null = null;
  /** The `validUntil` that was asked about. */
  #askedAbout: number | null = null;
  #closed = false;

  readonly #parts: EngineParts;
  #token: Token | undefined;

  constructor(parts: EngineParts, token: Token | undefined) {
    this.#parts = parts;
    this.#token = token;
  }

  get #state(): FlagState | null {
    return this.#parts.store.state;
  }

  /** Begins, or begins anew at once. */
  connect(): void {
    if (this.#closed) return;
    this.#giveUp();
    const attempt = new AbortController();
    this.#attempt = attempt;
    this.#run(attempt.signal).then(
      () => attempt === this.#attempt && this.#ended(),
      (error) => attempt === this.#attempt && this.#failed(Failure.of(error)),
    );
  }

  /** Forgets everything and begins anew with this credential. */
  restart(token: Token | undefined): void {
    if (this.#closed) return;
    this.suspend();
    this.#token = token;
    this.#parts.persistence?.clear();
    this.#loaded = true;
    this.#failures = 0;
    this.#refusals = 0;
    this.#parts.store.update(null, true);
    this.connect();
  }

  /** Asks for a snapshot beside whatever goes on. Resolves to whether it came. */
  refresh(): Promise<boolean> {
    this.#question ??= this.#ask().finally(() => {
      this.#question = null;
    });
    return this.#question;
  }

  async #ask(): Promise<boolean> {
    if (this.#closed || !this.#attempt) return false;
    this.#asking = new AbortController();
    const { signal } = this.#asking;
    this.#deadlines.set('answer', ANSWER_WITHIN);
    try {
      const token = await unless(signal, this.#currentToken());
      const snapshot = await unless(signal, this.#parts.transport.snapshot(token, signal));
      signal.throwIfAborted();
      const isOther = this.#state !== null && this.#state.userId !== snapshot.userId;
      this.#adopt(snapshot);
      // The stream tells what changes for the user before.
      if (isOther) this.connect();
      return true;
    } catch (error) {
      const failure = Failure.of(error);
      if (failure === SUPERSEDED) return false;
      // A service that does not answer is in doubt, whatever the stream seems to be.
      if (failure.kind === 'token' || this.#deadlines.has('retry')) this.#parts.report(failure);
      else this.#failed(failure);
      return false;
    } finally {
      this.#deadlines.clear('answer');
    }
  }

  /** Somebody looks again, or the network is back: there may be no reason to wait any longer. */
  wake(): void {
    if (this.#closed) return;
    const slept = this.#clock.jumped();
    if (slept) this.#fresh = false;
    this.#settle();
    if (slept || (this.#deadlines.has('retry') && this.#refusals === 0)) this.connect();
  }

  /** Lets go of stream and lock; `connect` goes on. */
  suspend(): void {
    this.#leaveTabs();
    this.#giveUp();
    this.#attempt = null;
    this.#sure = null;
    this.#askedAbout = null;
    this.#fresh = false;
    this.#settle();
  }

  close(): void {
    this.suspend();
    this.#closed = true;
    this.#deadlines.clear('boundary', 'refresh');
  }

  async #run(signal: AbortSignal): Promise<void> {
    this.#deadlines.set('silence', ANSWER_WITHIN);
    const token = await unless(signal, this.#tokenAndKept(signal));
    signal.throwIfAborted();
    if (!this.#isSureOf(token)) {
      const snapshot = await unless(signal, this.#parts.transport.snapshot(token, signal));
      // It may have been given up in the very moment that the answer came.
      signal.throwIfAborted();
      this.#adopt(snapshot);
      this.#sure = { token, at: performance.now() };
    }
    if (this.#joinTabs()) return;
    this.#streamSince = performance.now();
    await unless(
      signal,
      this.#parts.transport.stream(token, this.#state?.position ?? null, this.#handler(signal), signal),
    );
  }

  /** Whether the state is surely of this token's user: a stream tells what has changed, and not for whom. */
  #isSureOf(token: string | undefined): boolean {
    if (!this.#sure || this.#state === null || this.#sure.token !== token) return false;
    return token !== undefined || performance.now() - this.#sure.at < SURE_FOR;
  }

  #handler(signal: AbortSignal) {
    return {
      heard: () => {
        if (!signal.aborted) this.#deadlines.set('silence', SILENT_FOR);
      },
      event: (event: StreamEvent) => {
        if (!signal.aborted) this.#event(event);
      },
      retry: (wait: number) => {
        this.#firstWait = Math.max(100, wait);
      },
    };
  }

  #event(event: StreamEvent): void {
    if (event.kind === 'bye') {
      this.#parted = event.reason !== 'revoked';
      if (!this.#parted) this.#sure = null;
    } else if (event.kind === 'snapshot') this.#adopt(event.snapshot);
    else if (event.kind === 'change')
      this.#hear(applyChange(this.#known(event.change), event.change), this.#serverStale);
    else this.#hear(moveTo(this.#known(event), event.position), event.stale);
  }

  /** The state, if what comes at this position can go on from it. */
  #known({ position }: { position: Position }): FlagState {
    if (this.#state?.position.epoch !== position.epoch) {
      throw new Malformed('the stream does not go on where this client stands');
    }
    return this.#state;
  }

  #adopt(snapshot: Snapshot): void {
    const before = this.#state;
    const state = applySnapshot(before, snapshot);
    if (before && before.userId !== state.userId) {
      this.#parts.persistence?.clear();
      this.#leaveTabs();
      this.#sure = null;
    }
    this.#hear(state, snapshot.stale);
  }

  /** The service is there, and this is the state now. */
  #hear(state: FlagState, serverStale: boolean): void {
    const before = this.#state;
    if (state !== before) this.#clock.sync(state.position.at);
    this.#fresh = true;
    this.#refusals = 0;
    this.#serverStale = serverStale;
    this.#settle(state);
    const now = this.#state;
    const changed = now && now.flags !== before?.flags;
    if (changed) this.#parts.persistence?.save(now, this.#clock.now(true), this.#credential);
    this.#tell(changed ? now : null);
  }

  /** Puts a state in force as of now, and waits for the next instant at which time changes it. */
  #settle(state = this.#state): void {
    const now = this.#clock.now(this.#fresh);
    const settled = state && endOverrides(state, now);
    const until = settled?.validUntil ?? Number.POSITIVE_INFINITY;
    const end = (settled && nextEnd(settled)) ?? Number.POSITIVE_INFINITY;
    this.#deadlines.set('boundary', (Math.min(end, until > now ? until : end) - now) / 1000);
    if (!this.#fresh || until > now || until === this.#askedAbout) this.#deadlines.clear('refresh');
    else if (!this.#deadlines.has('refresh')) {
      // An open stream tells it by itself; otherwise all clients ask, and not at the same instant.
      this.#deadlines.set('refresh', PUSHED_WITHIN * (1 + Math.random() / 2));
    }
    this.#parts.store.update(settled, !this.#fresh || this.#serverStale);
  }

  #ring(deadline: Deadline): void {
    if (deadline === 'silence') this.#silent();
    else if (deadline === 'retry') this.connect();
    else if (deadline === 'boundary') this.#settle();
    else if (deadline === 'answer') this.#asking?.abort(silence());
    else {
      this.#askedAbout = this.#state?.validUntil ?? null;
      void this.refresh();
    }
  }

  #silent(): void {
    if (this.#follows) {
      // The tab that leads is frozen or gone: this one helps itself.
      this.#leaveTabs();
      this.#alone = true;
      this.connect();
    } else this.#failed(silence());
  }

  /** The attempt came to its end without an error. */
  #ended(): void {
    if (this.#follows) return;
    if (this.#parted) this.#tryAgainIn(backoff(1, Math.random(), this.#firstWait));
    else this.#failed(new Failure('network', 'the stream broke off'));
  }

  #failed(failure: Failure): void {
    const lasted = this.#streamSince === null ? 0 : performance.now() - this.#streamSince;
    if (lasted >= GOOD_AFTER) this.#failures = 0;
    // What broke off can be gone on with; after an answer of another kind a snapshot says more.
    if (failure.kind === 'http' || failure.kind === 'protocol') this.#sure = null;
    if (failure.refused) this.#leaveTabs();
    this.#fresh = false;
    this.#tryAgainIn(this.#waitAfter(failure));
    this.#parts.report(failure);
  }

  #waitAfter(failure: Failure): number {
    const random = Math.random();
    const wait = failure.refused
      ? backoffRefused(++this.#refusals, random)
      : backoff(++this.#failures, random, this.#firstWait);
    return Math.max(failure.retryAfter, wait);
  }

  #tryAgainIn(wait: number): void {
    this.#alone = false;
    this.#giveUp();
    this.#deadlines.set('retry', wait);
    this.#settle();
    this.#tell(null);
  }

  /** Ends the present attempt, whatever it is doing. */
  #giveUp(): void {
    this.#attempt?.abort(SUPERSEDED);
    this.#attempt = new AbortController();
    this.#asking?.abort(SUPERSEDED);
    this.#streamSince = null;
    this.#parted = false;
    this.#deadlines.clear('silence', 'retry');
  }

  /** Whether another tab has the stream. */
  get #follows(): boolean {
    return this.#tabs !== null && !this.#tabs.leads && this.#streamSince === null;
  }

  /** Joins the tabs of this user; returns whether another one has the stream, or may have. */
  #joinTabs(): boolean {
    if (!this.#parts.shareTabs || this.#alone || !this.#state) return false;
    this.#tabs ??= Tabs.join(this.#parts.baseUrl, this.#state.userId, {
      lead: () => this.connect(),
      told: (news) => this.#told(news),
      asked: () => this.#tell(this.#state),
    });
    if (!this.#follows) return false;
    // The tab that leads gives a sign of life with every heartbeat.
    this.#deadlines.set('silence', SILENT_FOR + ANSWER_WITHIN);
    return true;
  }

  #leaveTabs(): void {
    this.#tabs?.leave();
    this.#tabs = null;
  }

  #tell(state: FlagState | null): void {
    const [fresh, serverStale] = [this.#fresh, this.#serverStale];
    const serverAt = this.#clock.now(fresh);
    this.#tabs?.tell({ ...(state ? { state: encodeState(state) } : {}), fresh, serverStale, serverAt });
  }

  #told(news: TabNews): void {
    // A stream of its own goes on until it ends.
    if (!this.#follows || this.#deadlines.has('retry')) return;
    this.#deadlines.set('silence', SILENT_FOR + ANSWER_WITHIN);
    this.#fresh = news.fresh;
    this.#serverStale = news.serverStale;
    if (news.fresh) this.#clock.sync(news.serverAt);
    this.#settle(news.state ? applySnapshot(this.#state, { ...decodeState(news.state), stale: false }) : this.#state);
  }

  /** The token; before the first one is used, what was kept for it is put in force. */
  async #tokenAndKept(signal: AbortSignal): Promise<string | undefined> {
    const token = await this.#currentToken().catch((error: Failure) => error);
    signal.throwIfAborted();
    this.#credential = typeof token === 'string' ? fingerprint(token) : null;
    if (!this.#loaded) {
      this.#loaded = true;
      const kept = await this.#parts.persistence?.load(this.#credential);
      signal.throwIfAborted();
      if (kept && this.#state === null) {
        this.#clock.sync(kept.serverAt, kept.writtenAt);
        this.#settle(kept.state);
      }
    }
    if (token instanceof Failure) throw token;
    return token;
  }

  async #currentToken(): Promise<string | undefined> {
    try {
      return typeof this.#token === 'function' ? await this.#token() : this.#token;
    } catch (cause) {
      throw new Failure('token', 'the function that gives the token failed', { cause });
    }
  }
}

function silence(): Failure {
  return new Failure('timeout', 'the service gives no sign of life');
}

/** The promise's outcome, unless the signal comes first: then its reason. */
function unless<T>(signal: AbortSignal, promise: Promise<T>): Promise<T> {
  return new Promise((resolve, reject) => {
    const abort = () => reject(signal.reason);
    if (signal.aborted) abort();
    else signal.addEventListener('abort', abort, { once: true });
    promise.then(resolve, reject).finally(() => signal.removeEventListener('abort', abort));
  });
}

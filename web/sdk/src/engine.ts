/** Keeps the store up to date: asks, follows, waits and tries again. */

import { ServerClock } from './clock.js';
import { type Deadline, Deadlines, NEVER } from './deadlines.js';
import { fingerprint } from './fingerprint.js';
import { decodeState, encodeState, type Persistence } from './persistence.js';
import { formatPosition, isAfter, type Position, parsePosition } from './position.js';
import { Retry } from './retry.js';
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

/** Why an attempt is given up without being a failure. */
const SUPERSEDED = new Error('superseded');

interface EngineParts {
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
  readonly #retry = new Retry();
  readonly #parts: EngineParts;
  #token: Token | undefined;
  #closed = false;

  /** What the service last said. The store has the same, as it looks at the present instant. */
  #state: FlagState | null = null;
  /** Where the flags last changed. */
  #changedAt: Position | null = null;
  /** Whether what was last heard of the service was good. */
  #fresh = false;
  #serverStale = false;

  #attempt = new AbortController();
  /** When the stream began, by the steady clock; `null` while there is none. */
  #streamSince: number | null = null;
  /** Whether the stream said goodbye. */
  #parted = false;
  /** The token that a snapshot was last asked for with; `null` if one must be asked for. */
  #sure: { token: string | undefined } | null = null;
  /** Tells the credential that the state was given for from others, in what is kept. */
  #credential: string | null = null;
  #loaded = false;
  /** How often everything was forgotten. */
  #beginnings = 0;

  /** The question beside the stream, while it is open. */
  #question: Promise<Failure | typeof SUPERSEDED | null> | null = null;
  #asking = new AbortController();
  /** The `validUntil` that was asked about. */
  #askedAbout: number | null = null;

  #tabs: Tabs | null = null;
  /** Whether this tab has a stream of its own, as the one that leads is silent. */
  #alone = false;
  #sharesTabs: boolean;

  constructor(parts: EngineParts, token: Token | undefined) {
    this.#parts = parts;
    this.#token = token;
    this.#sharesTabs = parts.shareTabs;
  }

  /** Begins, or begins anew at once. */
  connect(): void {
    if (this.#closed) return;
    const attempt = this.#giveUp();
    this.#run(attempt.signal).then(
      () => attempt === this.#attempt && this.#ended(),
      (error) => attempt === this.#attempt && this.#failed(Failure.of(error)),
    );
  }

  /** Forgets everything and begins anew with this credential. */
  restart(token: Token | undefined): void {
    if (this.#closed) return;
    this.#letGo();
    this.#token = token;
    this.#parts.persistence?.clear(this.#state?.userId);
    this.#loaded = true;
    this.#beginnings += 1;
    this.#retry.reset();
    this.#state = null;
    this.#changedAt = null;
    this.#settle();
    // A listener may have thought of something else.
    if (this.#token === token && this.#state === null) this.connect();
  }

  /** Asks for a snapshot beside whatever goes on. Resolves to whether it came. */
  async refresh(): Promise<boolean> {
    if (this.#closed) return false;
    const failure = await this.#ask();
    if (failure instanceof Failure) {
      // A service that is there may say no to a question, and the stream be good all the same.
      const isDoubtful = failure.kind !== 'token' && (failure.kind !== 'http' || failure.refused);
      if (isDoubtful && !this.#deadlines.has('retry')) this.#failed(failure);
      else this.#parts.report(failure);
    }
    return failure === null;
  }

  /** Somebody looks again, or the network is back: there may be no reason to wait any longer. */
  wake(): void {
    if (this.#closed) return;
    const slept = this.#clock.jumped();
    if (slept) {
      this.#fresh = false;
      this.#clock.accept();
    }
    this.#settle();
    const waits = this.#deadlines.has('retry');
    if (waits ? this.#retry.mayHurry : slept) this.connect();
  }

  /** Lets go of stream and lock; `connect` goes on. */
  suspend(): void {
    this.#letGo();
    this.#settle();
  }

  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    this.suspend();
    this.#deadlines.clear('boundary', 'refresh');
  }

  #letGo(): void {
    this.#leaveTabs();
    this.#giveUp();
    this.#sure = null;
    this.#askedAbout = null;
    this.#fresh = false;
  }

  async #run(signal: AbortSignal): Promise<void> {
    this.#deadlines.set('silence', ANSWER_WITHIN);
    const token = await unless(signal, this.#currentToken()).catch((error: unknown) => {
      // Without the token nobody knows for whom something was kept, unless the application says so.
      if (!signal.aborted && this.#parts.persistence?.knowsUser) this.#load(null);
      throw error;
    });
    signal.throwIfAborted();
    this.#load(credentialOf(token));
    if (!this.#sure || this.#sure.token !== token || this.#state === null) {
      const snapshot = await unless(signal, this.#parts.transport.snapshot(token, signal));
      // It may have been given up in the very moment that the answer came, and by whoever is told of it.
      signal.throwIfAborted();
      this.#adopt(snapshot, token);
      signal.throwIfAborted();
      this.#sure = { token };
    }
    if (this.#joinTabs() || !this.#state) return;
    this.#streamSince = performance.now();
    const { userId, position } = this.#state;
    const since = { token, userId, position };
    await unless(signal, this.#parts.transport.stream(since, this.#handler(signal, token), signal));
  }

  /** Puts what was kept in force, unless the service is faster. */
  #load(credential: string | null): void {
    if (this.#loaded) return;
    this.#loaded = true;
    const beginnings = this.#beginnings;
    void this.#parts.persistence?.load(credential).then((kept) => {
      if (!kept || this.#state !== null || this.#closed || beginnings !== this.#beginnings) return;
      this.#credential = credential;
      this.#state = kept.state;
      this.#changedAt = kept.state.position;
      this.#clock.resume(kept.serverAt, kept.writtenAt);
      this.#settle();
    });
  }

  #handler(signal: AbortSignal, token: string | undefined) {
    return {
      heard: () => {
        if (!signal.aborted) this.#deadlines.set('silence', SILENT_FOR);
      },
      event: (event: StreamEvent) => {
        if (!signal.aborted) this.#event(event, token);
      },
      retry: (wait: number) => {
        if (!signal.aborted) this.#retry.startFrom(wait);
      },
    };
  }

  #event(event: StreamEvent, token: string | undefined): void {
    if (event.kind === 'bye') {
      this.#parted = event.reason !== 'revoked';
      if (!this.#parted) this.#sure = null;
      return;
    }
    this.#retry.answered();
    if (event.kind === 'snapshot') this.#adopt(event.snapshot, token);
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

  #adopt(snapshot: Snapshot, token: string | undefined): void {
    const before = this.#state;
    if (before && before.userId !== snapshot.userId) {
      this.#parts.persistence?.clear(before.userId);
      this.#leaveTabs();
      this.#sure = null;
    }
    this.#credential = credentialOf(token);
    this.#hear(applySnapshot(before, snapshot), snapshot.stale);
  }

  /** The service is there, and this is what it says. */
  #hear(state: FlagState, serverStale: boolean): void {
    const changed = state.flags !== this.#state?.flags;
    if (state !== this.#state) this.#clock.sync(state.position.at);
    this.#state = state;
    if (changed) this.#changedAt = state.position;
    this.#fresh = true;
    this.#serverStale = serverStale;
    if (changed) this.#parts.persistence?.save(state, this.#clock.steadyNow(), this.#credential);
    this.#tell(changed ? state : null);
    this.#settle();
  }

  /** Shows the state as it looks now, and waits for the next instant at which time changes it. */
  #settle(): void {
    const now = this.#fresh ? this.#clock.steadyNow() : this.#clock.wallNow();
    const view = this.#state && endOverrides(this.#state, now);
    const until = view?.validUntil ?? NEVER;
    const end = (view && nextEnd(view)) ?? NEVER;
    this.#deadlines.set('boundary', (Math.min(end, until > now ? until : end) - now) / 1000);
    if (!this.#fresh || until > now || until === this.#askedAbout) this.#deadlines.clear('refresh');
    else if (!this.#deadlines.has('refresh')) {
      // An open stream tells it by itself; otherwise all clients ask, and not at the same instant.
      this.#deadlines.set('refresh', PUSHED_WITHIN * (1 + Math.random() / 2));
    }
    this.#parts.store.update(view, !this.#fresh || this.#serverStale);
  }

  #ring(deadline: Deadline): void {
    if (this.#closed) return;
    if (deadline === 'silence') this.#silent();
    else if (deadline === 'retry') this.connect();
    else if (deadline === 'boundary') this.#settle();
    else if (deadline === 'answer') this.#asking.abort(silence());
    else void this.#askAbout(this.#state?.validUntil ?? null);
  }

  /** Asks what an instant has changed. */
  async #askAbout(validUntil: number | null): Promise<void> {
    this.#askedAbout = validUntil;
    const failure = await this.#ask();
    // What the stream should have told cannot be asked for either.
    if (failure instanceof Failure && !this.#deadlines.has('retry')) this.#failed(failure);
  }

  /** What came of the question, one at a time: `null` if the answer is in force. */
  #ask(): Promise<Failure | typeof SUPERSEDED | null> {
    if (this.#question) return this.#question;
    const asking = new AbortController();
    this.#asking = asking;
    this.#deadlines.set('answer', ANSWER_WITHIN);
    const question = this.#answer(asking.signal)
      .catch((error: unknown) => (error === SUPERSEDED ? SUPERSEDED : Failure.of(error)))
      .finally(() => {
        if (asking !== this.#asking) return;
        this.#question = null;
        this.#deadlines.clear('answer');
      });
    this.#question = question;
    return question;
  }

  async #answer(signal: AbortSignal): Promise<null> {
    const token = await unless(signal, this.#currentToken());
    const snapshot = await unless(signal, this.#parts.transport.snapshot(token, signal));
    signal.throwIfAborted();
    const isOther = this.#state !== null && this.#state.userId !== snapshot.userId;
    const [follows, wasFresh] = [this.#follows, this.#fresh];
    this.#adopt(snapshot, token);
    signal.throwIfAborted();
    // The stream, if there is one, tells what changes for the user before.
    if (isOther || this.#deadlines.has('retry')) this.connect();
    else if (follows && !wasFresh) {
      // The tab that leads does not hear the service.
      this.#fresh = false;
      this.#settle();
    }
    return null;
  }

  #silent(): void {
    if (this.#follows) {
      // The tab that leads is frozen, gone or cut off: this one helps itself.
      this.#leaveTabs();
      this.#alone = true;
      this.connect();
    } else this.#failed(silence());
  }

  /** The attempt came to its end without an error. */
  #ended(): void {
    if (this.#follows) return;
    if (!this.#parted) this.#failed(new Failure('network', 'the stream broke off'));
    else this.#tryAgainIn(this.#retry.afterGoodbye(this.#judgeStream()));
  }

  #failed(failure: Failure): void {
    this.#judgeStream();
    // What broke off can be gone on with; after an answer of another kind a snapshot says more.
    if (failure.kind === 'http' || failure.kind === 'protocol') this.#sure = null;
    // Another tab may have a better credential.
    if (failure.refused || failure.kind === 'token' || failure.kind === 'timeout') this.#leaveTabs();
    this.#fresh = false;
    this.#tryAgainIn(this.#retry.after(failure));
    this.#parts.report(failure);
  }

  /** Whether the stream that is over was a good one. */
  #judgeStream(): boolean {
    const good = this.#streamSince !== null && performance.now() - this.#streamSince >= GOOD_AFTER;
    if (good) this.#retry.wasGood();
    return good;
  }

  #tryAgainIn(wait: number): void {
    this.#alone = false;
    this.#giveUp();
    this.#deadlines.set('retry', wait);
    this.#tell(null);
    this.#settle();
  }

  /** Ends the present attempt and the question beside it; returns the next attempt, which nothing is done for yet. */
  #giveUp(): AbortController {
    this.#attempt.abort(SUPERSEDED);
    this.#asking.abort(SUPERSEDED);
    this.#question = null;
    this.#streamSince = null;
    this.#parted = false;
    this.#deadlines.clear('silence', 'retry', 'answer');
    this.#attempt = new AbortController();
    return this.#attempt;
  }

  /** Whether another tab has the stream, or is about to. */
  get #follows(): boolean {
    return this.#tabs !== null && !this.#tabs.leads && this.#streamSince === null;
  }

  /** Joins the tabs of this user; returns whether another one has the stream, or may have. */
  #joinTabs(): boolean {
    if (!this.#sharesTabs || this.#alone || !this.#state || this.#closed) return false;
    this.#tabs ??= Tabs.join(this.#parts.baseUrl, this.#state.userId, {
      lead: () => this.connect(),
      refused: () => {
        this.#sharesTabs = false;
        this.#leaveTabs();
        this.connect();
      },
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
    if (!this.#tabs?.leads || !this.#changedAt) return;
    this.#tabs.tell({
      ...(state ? { state: encodeState(state) } : {}),
      changedAt: formatPosition(this.#changedAt),
      fresh: this.#fresh,
      serverStale: this.#serverStale,
      serverAt: this.#clock.steadyNow(),
    });
  }

  #told(news: TabNews): void {
    // A stream of its own goes on until it ends.
    if (!this.#follows || !this.#state) return;
    if (news.state) {
      const state = applySnapshot(this.#state, { ...decodeState(news.state), stale: false });
      if (state.flags !== this.#state.flags) this.#changedAt = state.position;
      this.#state = state;
    }
    const changedAt = parsePosition(news.changedAt);
    const { position } = this.#state;
    const isBehind = !changedAt || changedAt.epoch !== position.epoch || isAfter(changedAt, position);
    if (isBehind) this.#tabs?.ask();
    this.#fresh = news.fresh && !isBehind;
    this.#serverStale = news.serverStale;
    if (this.#fresh) {
      this.#clock.sync(news.serverAt);
      this.#deadlines.clear('retry');
      this.#deadlines.set('silence', SILENT_FOR + ANSWER_WITHIN);
    }
    this.#settle();
  }

  async #currentToken(): Promise<string | undefined> {
    try {
      return typeof this.#token === 'function' ? await this.#token() : this.#token;
    } catch (cause) {
      throw new Failure('token', 'the function that gives the token failed', { cause });
    }
  }
}

function credentialOf(token: string | undefined): string | null {
  return token === undefined ? null : fingerprint(token);
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

import { ServerClock } from './clock.js';
import { type Deadlines, NEVER } from './deadlines.js';
import { Failure } from './failure.js';
import { fingerprint } from './fingerprint.js';
import { decodeState, encodeState, type Persistence } from './persistence.js';
import { formatPosition, isAfter, type Position, parsePosition } from './position.js';
import { advanceTo, applyChange, applySnapshot, expireOverrides, type FlagState, nextChange } from './state.js';
import type { Store } from './store.js';
import type { LeaderUpdate, TabCoordinator } from './tab-coordinator.js';
import type { StateEvent } from './wire.js';

/**
 * Minimum delay in milliseconds from `validUntil` to the snapshot request, because the stream usually sends the change
 * first.
 */
const REFRESH_DELAY = 2_000;

type TabGroup = Pick<TabCoordinator, 'isLeader' | 'broadcast' | 'leave' | 'requestState'>;

/**
 * State as the server sent it, and whether it is up to date. Publishes it to the storage, the other tabs and the store.
 * Only the store has the values that apply at the current instant.
 */
export class Values {
  readonly #clock = new ServerClock();
  readonly #store: Store;
  readonly #persistence: Persistence | null;
  readonly #deadlines: Deadlines;
  readonly #tabs: TabGroup;
  #state: FlagState | null = null;
  /** Position at which a flag last changed. */
  #changedAt: Position | null = null;
  /** See `fresh`. */
  #fresh = false;
  /** Whether the server reports that its own data is stale. */
  #serverStale = false;
  /** Fingerprint of the token of the last snapshot. `null`: cookie. Stored with persisted values. */
  #credential: string | null = null;
  /** The `validUntil` for which a snapshot was already requested. */
  #refreshedValidUntil: number | null = null;
  /** Loading of persisted values: not started, waiting for the storage, or not allowed. */
  #loading: 'idle' | 'waiting' | 'closed' = 'idle';

  constructor(store: Store, persistence: Persistence | null, deadlines: Deadlines, tabs: TabGroup) {
    this.#store = store;
    this.#persistence = persistence;
    this.#deadlines = deadlines;
    this.#tabs = tabs;
  }

  get state(): FlagState | null {
    return this.#state;
  }

  /** Whether the last contact with the server was successful. */
  get fresh(): boolean {
    return this.#fresh;
  }

  /** Returns whether the machine slept or its clock was set. If so, the values are stale. */
  detectSleep(): boolean {
    const slept = this.#clock.hasJumped();
    if (slept) {
      this.markStale();
      this.#clock.acceptJump();
    }
    this.publish();
    return slept;
  }

  markStale(): void {
    this.#fresh = false;
  }

  /** Called when a snapshot is requested because the stream did not send the change at `validUntil`. */
  markRefreshed(): void {
    this.#refreshedValidUntil = this.#state?.validUntil ?? null;
  }

  /** Called when the connection stops. Afterwards, a snapshot for the same `validUntil` may be requested again. */
  suspend(): void {
    this.#fresh = false;
    this.#refreshedValidUntil = null;
  }

  /** Discards the state, including the persisted one. */
  clear(): void {
    this.#persistence?.clear(this.state?.userId);
    this.cancelLoading();
    this.#state = null;
    this.#changedAt = null;
    this.publish();
  }

  /** Discards persisted values that are still being loaded, and prevents loading. */
  cancelLoading(): void {
    this.#loading = 'closed';
  }

  /**
   * Loads the values that were persisted with this token, at most once. `null`: the token is unknown, so only `userId`
   * can identify the owner. The result is discarded if the server responds earlier.
   */
  loadPersisted(token: string | undefined | null): void {
    if (this.#loading !== 'idle' || (token === null && !this.#persistence?.hasUserId)) return;
    this.#loading = 'waiting';
    void this.#persistence?.load(fingerprintOf(token)).then((persisted) => {
      if (!persisted || this.#state !== null || this.#loading === 'closed') return;
      this.#clock.restore(persisted.serverAt, persisted.writtenAt);
      this.#set(persisted.state);
      this.publish();
    });
  }

  /**
   * Applies an event that was requested with `token`. Throws if it belongs to another epoch. Returns whether it replaced
   * the values of another user.
   */
  receive(event: StateEvent, token: string | undefined): boolean {
    const before = this.#state;
    const state = this.#apply(event);
    const userChanged = before !== null && before.userId !== state.userId;
    if (userChanged) {
      this.#persistence?.clear(before.userId);
      // Leaves the tab group of the previous user, whose tabs must not receive the values of the new user.
      this.#tabs.leave();
    }
    if (event.kind !== 'change') this.#serverStale = event.stale;
    if (event.kind === 'snapshot') this.#credential = fingerprintOf(token);
    if (state !== before) this.#clock.sync(state.position.instant);
    this.#fresh = true;
    const flagsChanged = this.#set(state);
    if (flagsChanged) this.#persistence?.save(state, this.#clock.monotonicNow(), this.#credential);
    this.announce(flagsChanged ? state : null);
    return userChanged;
  }

  #apply(event: StateEvent): FlagState {
    if (event.kind === 'snapshot') return applySnapshot(this.#state, event);
    if (this.#state?.position.epoch !== event.position.epoch) {
      throw new Failure('protocol', 'the event belongs to another epoch');
    }
    return event.kind === 'change' ? applyChange(this.#state, event) : advanceTo(this.#state, event.position);
  }

  /** Replaces the state. Returns whether a flag differs from the previous state. */
  #set(state: FlagState): boolean {
    const changed = state.flags !== this.#state?.flags;
    if (changed) this.#changedAt = state.position;
    this.#state = state;
    return changed;
  }

  /** In the leader, sends the status and optionally the state to the followers. Publishes the state. */
  announce(state: FlagState | null): void {
    if (this.#tabs.isLeader && this.#changedAt)
      this.#tabs.broadcast({
        ...(state ? { state: encodeState(state) } : {}),
        changedAt: formatPosition(this.#changedAt),
        fresh: this.#fresh,
        serverStale: this.#serverStale,
        serverAt: this.#clock.monotonicNow(),
      });
    this.publish();
  }

  /** Applies an update of the leader. Returns whether the values are up to date. */
  receiveFromLeader(update: LeaderUpdate): boolean {
    if (!this.#state) return false;
    if (update.state) this.#set(applySnapshot(this.#state, decodeState(update.state)));
    const changedAt = parsePosition(update.changedAt);
    const { position } = this.#state;
    const isBehind = !changedAt || changedAt.epoch !== position.epoch || isAfter(changedAt, position);
    if (isBehind) this.#tabs.requestState();
    this.#fresh = update.fresh && !isBehind;
    this.#serverStale = update.serverStale;
    if (this.#fresh) this.#clock.sync(update.serverAt);
    this.publish();
    return this.#fresh;
  }

  /** Updates the store to the current instant, and sets the deadlines for the next instant at which values change. */
  publish(): void {
    const state = this.#state;
    const now = this.#fresh ? this.#clock.monotonicNow() : this.#clock.wallNow();
    const view = state && expireOverrides(state, now);
    const validUntil = view?.validUntil ?? NEVER;
    this.#deadlines.set('expiry', ((view ? nextChange(view, now) : NEVER) - now) / 1000);
    if (!this.#fresh || validUntil > now || validUntil === this.#refreshedValidUntil) this.#deadlines.clear('refresh');
    else if (!this.#deadlines.has('refresh')) {
      // An open stream usually sends the change. The random delay spreads out the requests of all clients.
      this.#deadlines.set('refresh', REFRESH_DELAY * (1 + Math.random() / 2));
    }
    this.#store.update(view, !this.#fresh || this.#serverStale);
  }
}

function fingerprintOf(token: string | undefined | null): string | null {
  return token === undefined || token === null ? null : fingerprint(token);
}

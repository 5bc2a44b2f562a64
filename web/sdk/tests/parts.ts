/** Composes the parts of a client with a scripted server and a fake tab group, so that tests can check single parts. */

import { vi } from 'vitest';
import { SUPERSEDED } from '../src/abortable.js';
import { Connection } from '../src/connection.js';
import { type Deadline, Deadlines } from '../src/deadlines.js';
import { timeoutFailure } from '../src/failure.js';
import { Refresher } from '../src/refresher.js';
import { Store } from '../src/store.js';
import { Values } from '../src/values.js';
import { ScriptedServer } from './scripted-server.js';

const EPOCH = '11111111111141118111111111111111';
const realSetImmediate = setImmediate;

/** Runs pending promises and timers that are already due. */
export async function settle(): Promise<void> {
  for (let turn = 0; turn < 4; turn += 1) {
    await new Promise((resolve) => realSetImmediate(resolve));
    await vi.advanceTimersByTimeAsync(0);
  }
}

/** Body of `/api/flags/me` at a revision, with the flag `a`. */
export function snapshot(revision: number, value: boolean, user = 'u', validUntil: string | null = null) {
  return {
    user_id: user,
    revision: `${EPOCH}:${revision}`,
    evaluated_at: `2030-01-01T00:00:${String(revision).padStart(2, '0')}.000000Z`,
    valid_until: validUntil,
    stale: false,
    flags: { a: { value, flag_type: 'boolean', variant: null, source: 'default' } },
  };
}

/** Text of a stream event. */
export function streamEvent(event: string, data: unknown, id?: string): Uint8Array {
  return Buffer.from(`event: ${event}\n${id ? `id: ${id}\n` : ''}data: ${JSON.stringify(data)}\n\n`);
}

/** Tab group whose role the test sets. */
export class FakeTabs {
  role: 'none' | 'leader' | 'follower' = 'none';
  /** Role after `join`. */
  joinAs: 'none' | 'leader' | 'follower' = 'none';
  readonly broadcast = vi.fn();
  readonly requestState = vi.fn();

  get isLeader(): boolean {
    return this.role === 'leader';
  }

  get isFollower(): boolean {
    return this.role === 'follower';
  }

  join(): boolean {
    this.role = this.joinAs;
    return this.isFollower;
  }

  leave(): void {
    this.role = 'none';
  }
}

/** Composes the parts as a client does. Requires fake timers. */
export function composeParts() {
  const server = new ScriptedServer();
  const tabs = new FakeTabs();
  const errors: string[] = [];
  const token = vi.fn(async (): Promise<string | undefined> => 't');
  const deadlines = new Deadlines((deadline: Deadline) => {
    if (deadline === 'connection') connection.timeOut();
    else if (deadline === 'expiry') values.publish();
    else if (deadline === 'refresh') void refresher.refreshOverdue();
    else refresher.abort(timeoutFailure());
  });
  const store = new Store(() => {});
  const values = new Values(store, null, deadlines, tabs);
  const deps = {
    server: { baseUrl: 'http://localhost', credentials: undefined, fetch: server.fetch },
    deadlines,
    values,
    tabs,
    token,
    report: ({ kind }: { kind: string }) => void errors.push(kind),
  };
  const connection = new Connection(deps, () => refresher.abort(SUPERSEDED));
  const refresher = new Refresher(deps, connection);
  return { server, tabs, errors, token, store, values, connection, refresher };
}

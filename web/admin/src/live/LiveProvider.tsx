/** Keeps the cached responses of this tab up to date. */

import { type QueryClient, useQueryClient } from '@tanstack/react-query';
import { createContext, type ReactNode, useContext, useEffect, useState } from 'react';
import { userNameQuery } from '../api/queries';
import type { ChangedResource, Page, UserOverride } from '../api/types';
import { personName } from '../people/people';
import { useIdentity } from '../session/session';
import { countOf } from '../ui/Pager';
import { followChanges, INITIAL_STATE, type StreamState } from './connection';
import { affectedKeys, distinctKeys } from './invalidation';
import { markChanged } from './marks';

/** Time for which changes are collected before the affected responses are reloaded; milliseconds. */
const COLLECT_TIME = 250;
/** Minimum time between two reloads; milliseconds. */
const READ_INTERVAL = 1000;
/** Maximum number of simultaneous changes whose rows are highlighted. */
const MAX_MARKS = 200;

const LiveContext = createContext<StreamState>(INITIAL_STATE);

export function useLiveState(): StreamState {
  return useContext(LiveContext);
}

export function LiveProvider({ children }: { readonly children: ReactNode }) {
  const queryClient = useQueryClient();
  const identity = useIdentity();
  const [state, setState] = useState(INITIAL_STATE);
  const [announcement, setAnnouncement] = useState('');
  const actor = identity.id === null ? null : `user:${identity.id}`;

  useEffect(() => {
    const controller = new AbortController();
    const collector = new ChangeCollector((changes) => {
      apply(queryClient, changes, actor);
      void describe(queryClient, changes, actor).then((text) => text && setAnnouncement(text));
    });
    followChanges(
      identity.id ?? 'token',
      (message) => {
        if (message.kind === 'state') setState(message.state);
        else if (message.kind === 'changes') collector.add(message.changes);
        else void queryClient.invalidateQueries({ predicate: ({ queryKey }) => queryKey[0] !== 'me' });
      },
      controller.signal,
    );
    return () => {
      controller.abort();
      collector.stop();
    };
  }, [queryClient, identity.id, actor]);

  return (
    <LiveContext value={state}>
      {children}
      <div className="visually-hidden" aria-live="polite">
        {announcement}
      </div>
    </LiveContext>
  );
}

/** Collects changes, so that many simultaneous changes cause only one reload. */
class ChangeCollector {
  readonly #flush: (changes: readonly ChangedResource[]) => void;
  #changes: ChangedResource[] = [];
  #timer: ReturnType<typeof setTimeout> | undefined;
  #lastFlush = 0;

  constructor(flush: (changes: readonly ChangedResource[]) => void) {
    this.#flush = flush;
  }

  add(changes: readonly ChangedResource[]): void {
    this.#changes.push(...changes);
    const delay = Math.max(COLLECT_TIME, this.#lastFlush + READ_INTERVAL - Date.now());
    this.#timer ??= setTimeout(() => {
      this.#timer = undefined;
      this.#lastFlush = Date.now();
      this.#flush(this.#changes.splice(0));
    }, delay);
  }

  stop(): void {
    clearTimeout(this.#timer);
  }
}

function apply(queryClient: QueryClient, changes: readonly ChangedResource[], ownActor: string | null): void {
  const foreign = changes.filter((change) => change.actor !== ownActor);
  if (foreign.length <= MAX_MARKS) {
    for (const change of foreign) mark(queryClient, change);
  }
  for (const queryKey of distinctKeys(changes.flatMap(affectedKeys))) {
    void queryClient.invalidateQueries({ queryKey });
  }
}

/** Highlights the row of a changed resource. The row id is the name of a flag, or the id of another resource. */
function mark(queryClient: QueryClient, change: ChangedResource): void {
  const id = change.entity === 'flag' ? change.flag_name : change.id;
  if (!id) return;
  const previous = change.entity === 'override' ? cachedOverride(queryClient, id) : undefined;
  const isDeleted = ['deleted', 'expired', 'erased'].includes(change.action);
  markChanged(id, {
    actor: change.actor,
    isDeleted,
    ...(previous && { previousValue: previous.override_value }),
  });
}

function cachedOverride(queryClient: QueryClient, id: string): UserOverride | undefined {
  const lists = queryClient.getQueriesData<Page<UserOverride>>({ queryKey: ['overrides', 'list'] });
  for (const [, page] of lists) {
    const found = page?.items.find((item) => item.id === id);
    if (found) return found;
  }
  return undefined;
}

const NOUNS: Record<string, string> = {
  override: 'override',
  flag: 'flag',
  user: 'user',
  scheduled_change: 'scheduled change',
  api_token: 'API token',
};

/** Returns a text such as `Vera changed 3 overrides`. It is empty if the signed-in user made all changes. */
async function describe(
  queryClient: QueryClient,
  changes: readonly ChangedResource[],
  ownActor: string | null,
): Promise<string> {
  const foreign = changes.filter((change) => change.actor !== ownActor);
  const [first] = foreign;
  if (!first) return '';
  const actors = new Set(foreign.map(({ actor }) => actor));
  const entities = new Set(foreign.map(({ entity }) => entity));
  const name = actors.size === 1 ? await actorName(queryClient, first.actor) : `${actors.size} people`;
  const noun = entities.size === 1 ? (NOUNS[first.entity] ?? 'resource') : 'resource';
  return `${name} changed ${countOf(foreign.length, noun)}`;
}

async function actorName(queryClient: QueryClient, actor: string): Promise<string> {
  if (!actor.startsWith('user:')) return actor.startsWith('token:') ? 'An API token' : 'The system';
  try {
    const { resource } = await queryClient.fetchQuery(userNameQuery(actor.slice('user:'.length)));
    return personName(resource);
  } catch {
    return 'A user';
  }
}

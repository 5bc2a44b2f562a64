/** Options for `useQuery`: one function for each GET request that the UI sends. */

import { keepPreviousData, queryOptions } from '@tanstack/react-query';
import { body, client, minRevision, type Tagged, tagged } from './client';
import { keys } from './keys';
import { UnreadableFlagError } from './problem';
import { type AnyFlag, type Flag, isReadable, type QueryOf } from './types';

/** Time for which the UI reuses the name of a user or token without another request; milliseconds. */
const NAME_STALE_TIME = 5 * 60_000;

export function meQuery() {
  return queryOptions({
    queryKey: keys.me,
    queryFn: ({ signal }) => body(client.GET('/api/auth/me', { signal })),
    retry: false,
    staleTime: Number.POSITIVE_INFINITY,
  });
}

export function flagsQuery(query: QueryOf<'list_flags'>) {
  return queryOptions({
    queryKey: keys.flagList(query),
    queryFn: ({ signal }) => body(client.GET('/api/admin/feature-flags', { params: { query }, signal })),
    placeholderData: keepPreviousData,
  });
}

export function flagQuery(flag_name: string) {
  return queryOptions({
    queryKey: keys.flag(flag_name),
    queryFn: ({ signal }) =>
      tagged(client.GET('/api/admin/feature-flags/{flag_name}', { params: { path: { flag_name } }, signal })),
  });
}

/** Like `flagQuery`, but fails with `UnreadableFlagError` if the server cannot read the flag's definition. */
export function readableFlagQuery(flag_name: string) {
  return queryOptions({ ...flagQuery(flag_name), select: requireReadable });
}

function requireReadable({ resource, etag }: Tagged<AnyFlag>): Tagged<Flag> {
  if (!isReadable(resource)) throw new UnreadableFlagError(resource.unreadable);
  return { resource, etag };
}

export function overridesQuery(query: QueryOf<'list_overrides'>) {
  return queryOptions({
    queryKey: keys.overrideList(query),
    queryFn: ({ signal }) => body(client.GET('/api/admin/flag-overrides', { params: { query }, signal })),
    placeholderData: keepPreviousData,
  });
}

export function overrideQuery(user_id: string, flag_name: string) {
  return queryOptions({
    queryKey: keys.override(user_id, flag_name),
    queryFn: ({ signal }) =>
      tagged(
        client.GET('/api/admin/users/{user_id}/flag-overrides/{flag_name}', {
          params: { path: { user_id, flag_name } },
          signal,
        }),
      ),
  });
}

export function usersQuery(query: QueryOf<'list_users'>) {
  return queryOptions({
    queryKey: keys.userList(query),
    queryFn: ({ signal }) => body(client.GET('/api/admin/users', { params: { query }, signal })),
    placeholderData: keepPreviousData,
  });
}

export function userQuery(user_id: string) {
  return queryOptions({
    queryKey: keys.user(user_id),
    queryFn: ({ signal }) =>
      tagged(client.GET('/api/admin/users/{user_id}', { params: { path: { user_id } }, signal })),
  });
}

/** Like `userQuery`, but cached longer and without retries. Used to show the author of a change. */
export function userNameQuery(user_id: string) {
  return queryOptions({ ...userQuery(user_id), staleTime: NAME_STALE_TIME, retry: false });
}

export function tokenNameQuery(id: string) {
  return queryOptions({
    queryKey: keys.token(id),
    queryFn: ({ signal }) => body(client.GET('/api/admin/api-tokens/{id}', { params: { path: { id } }, signal })),
    staleTime: NAME_STALE_TIME,
    retry: false,
  });
}

/** Scheduled changes of one flag, or of all flags if `flag_name` is `null`. */
export function schedulesQuery(flag_name: string | null, query: QueryOf<'list_scheduled_changes'>) {
  return queryOptions({
    queryKey: keys.scheduleList(flag_name, query),
    queryFn: ({ signal }) =>
      flag_name === null
        ? body(client.GET('/api/admin/scheduled-changes', { params: { query }, signal }))
        : body(
            client.GET('/api/admin/feature-flags/{flag_name}/scheduled-changes', {
              params: { path: { flag_name }, query },
              signal,
            }),
          ),
    placeholderData: keepPreviousData,
  });
}

/** Values of all flags for a user, now or at a future time. */
export function userFlagsQuery(user_id: string, at: string | null = null) {
  return queryOptions({
    queryKey: keys.userFlags(user_id, at),
    queryFn: ({ signal }) =>
      body(
        client.GET('/api/admin/users/{user_id}/flags', {
          params: { path: { user_id }, query: at === null ? {} : { at }, header: minRevision() },
          signal,
        }),
      ),
  });
}

export function explanationQuery(user_id: string, flag_name: string, at: string | null = null) {
  return queryOptions({
    queryKey: keys.explanation(user_id, flag_name, at),
    queryFn: ({ signal }) =>
      body(
        client.GET('/api/admin/users/{user_id}/flags/{flag_name}/explanation', {
          params: { path: { user_id, flag_name }, query: at === null ? {} : { at }, header: minRevision() },
          signal,
        }),
      ),
  });
}

export function auditQuery(query: QueryOf<'list_audit_log'>) {
  return queryOptions({
    queryKey: keys.audit(query),
    queryFn: ({ signal }) => body(client.GET('/api/admin/audit-log', { params: { query }, signal })),
  });
}

export function ownOverridesQuery() {
  return queryOptions({
    queryKey: keys.ownOverrides,
    queryFn: ({ signal }) => body(client.GET('/api/flags/me/overrides', { signal })),
  });
}

/** Values of the caller's own flags. */
export function ownFlagsQuery() {
  return queryOptions({
    queryKey: keys.ownFlags,
    queryFn: ({ signal }) => body(client.GET('/api/flags/me', { params: { header: minRevision() }, signal })),
  });
}

/** Converts the filters of the override list to API parameters. */

import type { BulkFilter, OverrideStatus, QueryOf, UserOverride } from '../../api/types';
import { EXPIRY_PERIODS, type OverridesSearch } from '../../searchParams';

const HOUR = 3_600_000;
const MINUTE = 60_000;

/** Overrides that a list contains before filtering. */
export type Scope =
  | { readonly kind: 'all' }
  | { readonly kind: 'flag'; readonly flag: string }
  | { readonly kind: 'user'; readonly userId: string };

/** End of the period "Expires within …". Rounded to minutes, so that the query does not change every second. */
function expiresBefore(search: OverridesSearch, now: number): string | undefined {
  if (!search.ends_within) return undefined;
  const minute = Math.ceil(now / MINUTE) * MINUTE;
  return new Date(minute + EXPIRY_PERIODS[search.ends_within] * HOUR).toISOString();
}

/** Returns the filter for the list, and for a bulk change of everything that matches. */
export function filterOf(search: OverridesSearch, scope: Scope, now: number): BulkFilter {
  const expires_before = expiresBefore(search, now);
  const flag_name = scope.kind === 'flag' ? scope.flag : search.flag_name;
  const user_id = scope.kind === 'user' ? scope.userId : search.user_id;
  return {
    ...(search.search && !search.finding && { search: search.search }),
    ...(flag_name && { flag_name }),
    ...(user_id && { user_id }),
    ...(search.status && { status: search.status }),
    ...(expires_before && { expires_before }),
  };
}

export function listQuery(search: OverridesSearch, scope: Scope, now: number): QueryOf<'list_overrides'> {
  return {
    ...filterOf(search, scope, now),
    ...(search.finding ? { finding: search.finding } : search.sort && { sort: search.sort }),
    ...(search.cursor && { cursor: search.cursor }),
  };
}

/** Whether a filter or search is set. */
export function isFiltered(search: OverridesSearch): boolean {
  const { sort, cursor, ...filters } = search;
  return Object.entries(filters).some(
    ([name, value]) => value !== undefined && !['override', 'user', 'flag'].includes(name),
  );
}

/** Returns the status at `now`. An override may expire after the server has sent it. */
export function statusAt(override: UserOverride, now: number): OverrideStatus {
  if (override.expires_at !== null && Date.parse(override.expires_at) <= now) return 'expired';
  return override.enabled ? 'active' : 'disabled';
}

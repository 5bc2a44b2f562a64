/** Determines which cached responses a change affects. */

import { keys } from '../api/keys';
import type { ChangedResource } from '../api/types';

type Key = readonly unknown[];

/** Returns the cache keys, or key prefixes, of responses that a change may have made outdated. */
export function affectedKeys(change: ChangedResource): Key[] {
  const { flag_name, user_id } = change;
  switch (change.entity) {
    case 'override':
      return [
        keys.overrides,
        keys.flags,
        keys.users,
        keys.allAudit,
        ...(user_id
          ? [
              ['user-flags', user_id],
              ['explanation', user_id],
            ]
          : [keys.allUserFlags, keys.allExplanations]),
      ];
    case 'flag':
      return [
        ['flags', 'list'],
        flag_name ? keys.flag(flag_name) : keys.flags,
        keys.schedules,
        keys.allUserFlags,
        keys.allExplanations,
        keys.allAudit,
      ];
    case 'scheduled_change':
      return [keys.schedules, keys.flags, keys.allUserFlags, keys.allExplanations, keys.allAudit];
    case 'user':
      return [
        keys.users,
        keys.overrides,
        keys.allAudit,
        ...(user_id
          ? [
              ['user-flags', user_id],
              ['explanation', user_id],
            ]
          : []),
      ];
    case 'api_token':
      return [['tokens'], keys.allAudit];
    default:
      return [[]];
  }
}

/** Removes duplicates, and keys that start with another key of the list. */
export function distinctKeys(all: readonly Key[]): Key[] {
  const unique = new Map(all.map((key) => [JSON.stringify(key), key]));
  const candidates = [...unique.values()];
  return candidates.filter((key) => !candidates.some((other) => other !== key && isPrefix(other, key)));
}

function isPrefix(prefix: Key, key: Key): boolean {
  return prefix.length < key.length && prefix.every((part, index) => part === key[index]);
}

import * as v from 'valibot';
import { expect, test } from 'vitest';
import { ADDRESSES, serverTemplate } from './addresses';
import { overridesSearch, parseSearch, rootSearch, stringifySearch } from './searchParams';

test('invalid and unknown search parameters are dropped without an error', () => {
  const search = parseSearch('?status=nonsense&flag_name=x&foo=1&user_id=1&ends_within=24h');
  expect(v.parse(overridesSearch, search)).toEqual({ flag_name: 'x', ends_within: '24h' });
  expect(v.parse(rootSearch, { override: 'new/../x', user: 'no-uuid' })).toEqual({});
});

test('search parameters that look like numbers or booleans remain text', () => {
  const search = { search: '5', tag: 'true', cursor: undefined };
  expect(stringifySearch(search)).toBe('?search=5&tag=true');
  expect(parseSearch('?search=5&tag=true')).toEqual({ search: '5', tag: 'true' });
});

test('path templates are converted to the syntax of the server', () => {
  expect(serverTemplate(ADDRESSES.flagOverrides)).toBe('/flag/{flag}/user-overrides');
});

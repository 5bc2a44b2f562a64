import * as v from 'valibot';
import { expect, test } from 'vitest';
import { ADDRESSES, serverTemplate } from './addresses';
import { overridesSearch, parseSearch, rootSearch, stringifySearch } from './searchParams';

test('invalid and unknown parameters are dropped, never an error', () => {
  const search = parseSearch('?status=nonsense&flag_name=x&foo=1&user_id=1&ends_within=24h');
  expect(v.parse(overridesSearch, search)).toEqual({ flag_name: 'x', ends_within: '24h' });
  expect(v.parse(rootSearch, { override: 'new/../x', user: 'nobody' })).toEqual({});
});

test('texts stay texts in the address', () => {
  const search = { search: '5', tag: 'true', cursor: undefined };
  expect(stringifySearch(search)).toBe('?search=5&tag=true');
  expect(parseSearch('?search=5&tag=true')).toEqual({ search: '5', tag: 'true' });
});

test('the addresses for the server have the syntax of its router', () => {
  expect(serverTemplate(ADDRESSES.flagOverrides)).toBe('/flag/{flag}/user-overrides');
});

// @vitest-environment jsdom
import { expect, test } from 'vitest';
import { safeNext } from './nextAddress';

test('only paths of this site are accepted as redirect targets', () => {
  expect(safeNext('/users?search=ann')).toBe('/users?search=ann');
  for (const next of [
    undefined,
    '',
    'users',
    '//evil.example',
    '/\\evil.example',
    'https://evil.example',
    '/sign-in',
  ]) {
    expect(safeNext(next), next).toBe('/');
  }
});

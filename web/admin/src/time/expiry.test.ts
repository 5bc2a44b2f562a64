import { expect, test } from 'vitest';
import { type ExpiryChoice, expiryOf } from './expiry';

const NOW = Date.parse('2027-02-09T10:42:30Z');
const choice = (fields: Partial<ExpiryChoice>): ExpiryChoice => ({
  preset: 'pick',
  local: '',
  zone: 'Europe/Berlin',
  reading: null,
  ...fields,
});

test('the end of a period is rounded up to a whole minute', () => {
  expect(expiryOf(choice({ preset: '1h' }), NOW)).toEqual({ kind: 'at', time: Date.parse('2027-02-09T11:43Z') });
});

test('the preset for today means 18:00 in the time zone and is invalid afterwards', () => {
  const today = choice({ preset: 'today' });
  expect(expiryOf(today, NOW)).toEqual({ kind: 'at', time: Date.parse('2027-02-09T17:00Z') });
  expect(expiryOf(today, Date.parse('2027-02-09T17:00Z')).kind).toBe('invalid');
});

test('a picked time in the past is invalid', () => {
  expect(expiryOf(choice({ local: '2027-02-09T11:42' }), NOW).kind).toBe('invalid');
});

test('a local time that occurs twice is invalid until one of its instants is chosen', () => {
  const doubled = choice({ local: '2027-10-31T02:30' });
  expect(expiryOf(doubled, NOW).kind).toBe('invalid');
  expect(expiryOf({ ...doubled, reading: 1 }, NOW)).toEqual({ kind: 'at', time: Date.parse('2027-10-31T01:30Z') });
});

test('an override that never expires can keep that expiry', () => {
  expect(expiryOf(choice({ preset: 'keep' }), NOW, null)).toEqual({ kind: 'never' });
});

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

test('a period ends on a whole minute', () => {
  expect(expiryOf(choice({ preset: '1h' }), NOW)).toEqual({ kind: 'at', time: Date.parse('2027-02-09T11:43Z') });
});

test('today 18:00 is that time in the zone, and invalid afterwards', () => {
  const today = choice({ preset: 'today' });
  expect(expiryOf(today, NOW)).toEqual({ kind: 'at', time: Date.parse('2027-02-09T17:00Z') });
  expect(expiryOf(today, Date.parse('2027-02-09T17:00Z')).kind).toBe('invalid');
});

test('a picked time in the past is invalid', () => {
  expect(expiryOf(choice({ local: '2027-02-09T11:42' }), NOW).kind).toBe('invalid');
});

test('a doubled time is invalid until a reading is chosen', () => {
  const doubled = choice({ local: '2027-10-31T02:30' });
  expect(expiryOf(doubled, NOW).kind).toBe('invalid');
  expect(expiryOf({ ...doubled, reading: 1 }, NOW)).toEqual({ kind: 'at', time: Date.parse('2027-10-31T01:30Z') });
});

test('the kept expiry may be never', () => {
  expect(expiryOf(choice({ preset: 'keep' }), NOW, null)).toEqual({ kind: 'never' });
});

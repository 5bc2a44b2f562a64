import { describe, expect, test } from 'vitest';
import { formatOffset, readLocalTime, toLocalTime } from './zones';

const BERLIN = 'Europe/Berlin';

describe('readLocalTime', () => {
  test('returns one instant for an unambiguous local time', () => {
    const expected = [Date.parse('2027-02-12T11:00Z')];
    expect(readLocalTime('2027-02-12T12:00', BERLIN)).toEqual({ kind: 'exact', instants: expected });
  });

  test('returns both instants of a local time that occurs twice, earlier first', () => {
    const expected = [Date.parse('2027-10-31T00:30Z'), Date.parse('2027-10-31T01:30Z')];
    expect(readLocalTime('2027-10-31T02:30', BERLIN)).toEqual({ kind: 'doubled', instants: expected });
  });

  test('returns the instants before and after the gap for a local time that a clock change skips', () => {
    const readings = readLocalTime('2027-03-28T02:30', BERLIN);
    expect(readings?.kind).toBe('skipped');
    expect(readings?.instants).toEqual([Date.parse('2027-03-28T00:30Z'), Date.parse('2027-03-28T01:30Z')]);
  });

  test('rejects text that is not a local time', () => {
    for (const text of ['', '2027-02-12', 'tomorrow', '2027-13-01T00:00'])
      expect(readLocalTime(text, BERLIN)).toBeNull();
  });

  test('is the inverse of toLocalTime', () => {
    const time = Date.parse('2027-06-01T22:15Z');
    for (const zone of [BERLIN, 'UTC', 'Asia/Kolkata', 'America/St_Johns', 'Pacific/Auckland']) {
      expect(readLocalTime(toLocalTime(time, zone), zone)?.instants).toEqual([time]);
    }
  });
});

test('formatOffset writes hours and minutes with a sign', () => {
  const time = Date.parse('2027-01-01T00:00Z');
  expect(formatOffset(time, 'Asia/Kolkata')).toBe('+05:30');
  expect(formatOffset(time, 'America/St_Johns')).toBe('-03:30');
});

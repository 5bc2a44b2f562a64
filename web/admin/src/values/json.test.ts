import { expect, test } from 'vitest';
import { findJsonIssue } from './json';
import { formatValue, parseJson, sameValue } from './values';

test('findJsonIssue accepts what JSON.parse accepts', () => {
  for (const text of ['null', ' {"a": [1, -2.5e3, "x\\u00e9", true]} ', '[]', '{}', '"\\""']) {
    expect(() => JSON.parse(text)).not.toThrow();
    expect(findJsonIssue(text)).toBeNull();
  }
});

test('finds the position of a JSON syntax error', () => {
  const cases: readonly (readonly [text: string, offset: number])[] = [
    ['{"a": oops}', 6],
    ['[1,]', 3],
    ['{"a" 1}', 5],
    ['"abc', 4],
    ['01', 1],
    ['{"a": 1', 7],
    ['', 0],
  ];
  for (const [text, offset] of cases) {
    expect(() => JSON.parse(text)).toThrow();
    expect(findJsonIssue(text)?.offset, text).toBe(offset);
  }
});

test('finds duplicate keys in a JSON object', () => {
  expect(findJsonIssue('{"a": 1, "a": 2}')).toEqual({ offset: 9, message: 'the key "a" occurs twice' });
});

test('JSON errors name the line and the column', () => {
  expect(parseJson('{\n  "a": x\n}')).toEqual({ kind: 'error', message: 'Line 2, column 8: unexpected "x".' });
});

test('JSON values that are nested too deeply or lose precision are reported', () => {
  expect(parseJson('['.repeat(33) + ']'.repeat(33)).kind).toBe('error');
  expect(parseJson('9007199254740993')).toMatchObject({ kind: 'value', warning: expect.stringContaining('2^53') });
});

test('JSON values are equal regardless of the order of their members', () => {
  expect(sameValue({ a: 1, b: [1] }, { b: [1], a: 1 })).toBe(true);
  expect(sameValue({ a: 1 }, { a: 1, b: null })).toBe(false);
  expect(sameValue([], {})).toBe(false);
});

test('values are formatted as short text', () => {
  expect([true, 'x', null, { a: [1, 2] }].map(formatValue)).toEqual(['on', '"x"', 'null', '{"a": [1, 2]}']);
});

import { readFileSync } from 'node:fs';
import { expect, test } from 'vitest';

/**
 * Required properties of the schemas that the client parses. If this test fails after a change of the API, adapt
 * `src/wire.ts` to it.
 */
const REQUIRED_PROPERTIES = {
  OwnFlagsResponse: ['evaluated_at', 'flags', 'revision', 'stale', 'user_id', 'valid_until'],
  OwnFlagsChange: ['evaluated_at', 'revision', 'set', 'unset', 'valid_until'],
  StreamHeartbeat: ['revision', 'stale'],
  StreamBye: ['reason'],
  OwnFlagResult: ['flag_type', 'source', 'value', 'variant'],
  AppliedOverride: ['created_at', 'expires_at', 'updated_at'],
  ResultAfterExpiry: ['source', 'value', 'variant'],
};

test('the OpenAPI document requires the properties that the client parses', () => {
  const document = JSON.parse(readFileSync(new URL('../../../docs/openapi.json', import.meta.url), 'utf8'));
  const required = Object.keys(REQUIRED_PROPERTIES).map((name) => [
    name,
    document.components.schemas[name]?.required.toSorted(),
  ]);
  expect(Object.fromEntries(required)).toEqual(REQUIRED_PROPERTIES);
});

test('the OpenAPI document lists exactly the stream events that the client handles', () => {
  const document = JSON.parse(readFileSync(new URL('../../../docs/openapi.json', import.meta.url), 'utf8'));
  const names = document.components.schemas.OwnFlagsEvent.oneOf.map(({ $ref }: { $ref: string }) =>
    $ref.split('/').at(-1),
  );
  expect(names).toEqual(['OwnFlagsResponse', 'OwnFlagsChange', 'StreamHeartbeat', 'StreamBye']);
});

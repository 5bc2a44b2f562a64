import { readFileSync } from 'node:fs';
import { expect, test } from 'vitest';

/** What the client reads of each shape. Whoever changes the server's document sees here what the client makes of it. */
const READ = {
  OwnFlagsResponse: ['evaluated_at', 'flags', 'revision', 'stale', 'user_id', 'valid_until'],
  OwnFlagsChange: ['evaluated_at', 'revision', 'set', 'unset', 'valid_until'],
  StreamHeartbeat: ['revision', 'stale'],
  StreamBye: ['reason'],
  OwnFlagResult: ['flag_type', 'source', 'value', 'variant'],
  AppliedOverride: ['created_at', 'expires_at', 'updated_at'],
  ResultAfterExpiry: ['source', 'value', 'variant'],
};

test('the OpenAPI document requires what the client reads', () => {
  const document = JSON.parse(readFileSync(new URL('../../../docs/openapi.json', import.meta.url), 'utf8'));
  const required = Object.keys(READ).map((name) => [name, document.components.schemas[name]?.required.toSorted()]);
  expect(Object.fromEntries(required)).toEqual(READ);
});

test('the stream has the events that the client knows', () => {
  const document = JSON.parse(readFileSync(new URL('../../../docs/openapi.json', import.meta.url), 'utf8'));
  const names = document.components.schemas.OwnFlagsEvent.oneOf.map(({ $ref }: { $ref: string }) =>
    $ref.split('/').at(-1),
  );
  expect(names).toEqual(['OwnFlagsResponse', 'OwnFlagsChange', 'StreamHeartbeat', 'StreamBye']);
});

import { readFileSync } from 'node:fs';
import openapiTS, { astToString } from 'openapi-typescript';
import { expect, test } from 'vitest';

test('the types of the wire are those of the committed OpenAPI document', async () => {
  const document = new URL('../../../docs/openapi.json', import.meta.url);
  const generated = readFileSync(new URL('../src/generated/openapi.ts', import.meta.url), 'utf8');
  const types = astToString(await openapiTS(document));
  expect(generated.includes(types), 'run `npm run generate`').toBe(true);
});

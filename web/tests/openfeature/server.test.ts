import { OFREPProvider } from '@openfeature/ofrep-provider';
import { type Client, ErrorCode, type JsonValue, OpenFeature } from '@openfeature/server-sdk';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { createFixtures, type Fixtures } from '../src/fixtures.js';
import { Server } from '../src/server.js';

let server: Server;
let fixtures: Fixtures;

beforeAll(async () => {
  server = await Server.start();
  fixtures = await createFixtures(server);
});
afterAll(async () => {
  await OpenFeature.close();
  await server.dispose();
});

/** Creates a client of the official provider with this credential. */
async function createClient(token: string): Promise<Client> {
  const headers: [string, string][] = [['Authorization', `Bearer ${token}`]];
  await OpenFeature.setProviderAndWait(token, new OFREPProvider({ baseUrl: server.baseUrl, headers }));
  return OpenFeature.getClient(token);
}

describe('official server-side JavaScript provider', () => {
  test('evaluates flags of every type', async () => {
    const flags = await createClient(fixtures.evaluatorToken);
    const context = { targetingKey: fixtures.ben.id };
    expect(await flags.getBooleanDetails('type.boolean', true, context)).toMatchObject({
      value: false,
      reason: 'STATIC',
      variant: 'off',
    });
    expect(await flags.getStringDetails('type.string', '', context)).toMatchObject({
      value: 'one',
      reason: 'STATIC',
      variant: 'v0',
    });
    expect(await flags.getNumberDetails('type.integer', 0, context)).toMatchObject({
      value: 3,
      reason: 'STATIC',
      variant: 'v0',
    });
    expect(await flags.getNumberDetails('type.float', 0, context)).toMatchObject({
      value: 1,
      reason: 'STATIC',
      variant: 'v0',
    });
    const object: JsonValue = { a: [1, null], b: { c: 'd' } };
    expect(await flags.getObjectDetails('type.object', {}, context)).toMatchObject({
      value: object,
      reason: 'STATIC',
      variant: 'v0',
    });
  });

  test('evaluates an override of one user only', async () => {
    const flags = await createClient(fixtures.evaluatorToken);
    const details = await flags.getStringDetails('overridden.string', '', { targetingKey: fixtures.ann.id });
    expect(details).toMatchObject({
      value: 'own',
      reason: 'TARGETING_MATCH',
      variant: 'override',
      flagMetadata: { source: 'override', flag_type: 'string', override_expires_at: '2099-01-01T00:00:00Z' },
    });
    expect(await flags.getStringValue('overridden.string', '', { targetingKey: fixtures.ben.id })).toBe('default');
  });

  test('evaluates targeting rules with stored attributes and attributes of the context', async () => {
    const flags = await createClient(fixtures.evaluatorToken);
    const details = (targetingKey: string, attributes = {}) =>
      flags.getStringDetails('targeted.string', '', { targetingKey, ...attributes });
    expect(await details(fixtures.ann.id)).toMatchObject({ value: 'paying', reason: 'TARGETING_MATCH' });
    expect(await details(fixtures.ben.id)).toMatchObject({ value: 'free', reason: 'STATIC' });
    expect(await details(fixtures.ann.id, { plan: 'free' })).toMatchObject({ value: 'free' });
    expect(await details('anonymous', { plan: 'pro' })).toMatchObject({ value: 'paying' });
  });

  test('evaluates a percentage split with the same result as the HTTP API', async () => {
    const flags = await createClient(fixtures.evaluatorToken);
    for (const user of [fixtures.ann, fixtures.ben]) {
      const headers = { Authorization: `Bearer ${user.token}` };
      const apiResult = await (await fetch(`${server.baseUrl}/api/flags/me/split.string`, { headers })).json();
      const details = await flags.getStringDetails('split.string', '', { targetingKey: user.id });
      expect(details).toMatchObject({ value: apiResult.value, variant: apiResult.variant, reason: 'SPLIT' });
    }
  });

  test('distinguishes disabled, unknown and archived flags', async () => {
    const flags = await createClient(fixtures.evaluatorToken);
    const context = { targetingKey: fixtures.ben.id };
    expect(await flags.getStringDetails('disabled.string', '', context)).toMatchObject({
      value: 'off',
      reason: 'DISABLED',
    });
    const missing = { value: 'fallback', errorCode: ErrorCode.FLAG_NOT_FOUND };
    expect(await flags.getStringDetails('no.such', 'fallback', context)).toMatchObject(missing);
    expect(await flags.getStringDetails('archived.string', 'fallback', context)).toMatchObject(missing);
  });

  test('returns the default and TYPE_MISMATCH for a value of another type', async () => {
    const flags = await createClient(fixtures.evaluatorToken);
    const details = await flags.getNumberDetails('type.string', 5, { targetingKey: fixtures.ben.id });
    expect(details).toMatchObject({ value: 5, errorCode: ErrorCode.TYPE_MISMATCH });
  });

  test('evaluates targeting rules without a targeting key', async () => {
    const flags = await createClient(fixtures.evaluatorToken);
    const details = await flags.getStringDetails('targeted.string', 'fallback', { plan: 'pro' });
    expect(details).toMatchObject({ value: 'paying', reason: 'TARGETING_MATCH' });
  });

  test('evaluates flags that are hidden from clients only with scope evaluate', async () => {
    const context = { targetingKey: fixtures.ann.id };
    expect(await (await createClient(fixtures.evaluatorToken)).getStringValue('hidden.string', '', context)).toBe(
      'secret',
    );
    const userDetails = await (await createClient(fixtures.ann.token)).getStringDetails(
      'hidden.string',
      'fallback',
      context,
    );
    expect(userDetails).toMatchObject({ value: 'fallback', errorCode: ErrorCode.FLAG_NOT_FOUND });
  });

  test('a user token evaluates only for its own user, and an invalid token for no user', async () => {
    const userClient = await createClient(fixtures.ann.token);
    expect(await userClient.getStringValue('overridden.string', '', { targetingKey: fixtures.ann.id })).toBe('own');
    expect(
      await userClient.getStringDetails('overridden.string', 'fallback', { targetingKey: fixtures.ben.id }),
    ).toMatchObject({
      value: 'fallback',
      errorCode: ErrorCode.GENERAL,
    });
    const unauthorized = await createClient('flg_invalid');
    expect(
      await unauthorized.getStringDetails('type.string', 'fallback', { targetingKey: fixtures.ann.id }),
    ).toMatchObject({
      value: 'fallback',
      errorCode: ErrorCode.GENERAL,
    });
  });
});

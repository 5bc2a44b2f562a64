import { OFREPProvider } from '@openfeature/ofrep-provider';
import { type Client, ErrorCode, type JsonValue, OpenFeature } from '@openfeature/server-sdk';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { makeScene, type Scene } from '../src/flags.js';
import { Server } from '../src/server.js';

let server: Server;
let scene: Scene;

beforeAll(async () => {
  server = await Server.start();
  scene = await makeScene(server);
});
afterAll(async () => {
  await OpenFeature.close();
  await server.stop();
});

/** A client of the official provider with this credential. */
async function client(token: string): Promise<Client> {
  const headers: [string, string][] = [['Authorization', `Bearer ${token}`]];
  await OpenFeature.setProviderAndWait(token, new OFREPProvider({ baseUrl: server.base, headers }));
  return OpenFeature.getClient(token);
}

describe('the official provider for servers', () => {
  test('every type', async () => {
    const flags = await client(scene.evaluator);
    const of = { targetingKey: scene.ben.id };
    expect(await flags.getBooleanDetails('type.boolean', true, of)).toMatchObject({
      value: false,
      reason: 'STATIC',
      variant: 'off',
    });
    expect(await flags.getStringDetails('type.string', '', of)).toMatchObject({
      value: 'one',
      reason: 'STATIC',
      variant: 'v0',
    });
    expect(await flags.getNumberDetails('type.integer', 0, of)).toMatchObject({
      value: 3,
      reason: 'STATIC',
      variant: 'v0',
    });
    expect(await flags.getNumberDetails('type.float', 0, of)).toMatchObject({
      value: 1,
      reason: 'STATIC',
      variant: 'v0',
    });
    const object: JsonValue = { a: [1, null], b: { c: 'd' } };
    expect(await flags.getObjectDetails('type.object', {}, of)).toMatchObject({
      value: object,
      reason: 'STATIC',
      variant: 'v0',
    });
  });

  test('an override of one user', async () => {
    const flags = await client(scene.evaluator);
    const details = await flags.getStringDetails('overridden.string', '', { targetingKey: scene.ann.id });
    expect(details).toMatchObject({
      value: 'own',
      reason: 'TARGETING_MATCH',
      variant: 'override',
      flagMetadata: { source: 'override', flag_type: 'string', override_expires_at: '2099-01-01T00:00:00Z' },
    });
    expect(await flags.getStringValue('overridden.string', '', { targetingKey: scene.ben.id })).toBe('default');
  });

  test('a rule, by what is stored of a user and by what the application says', async () => {
    const flags = await client(scene.evaluator);
    const details = (targetingKey: string, more = {}) =>
      flags.getStringDetails('ruled.string', '', { targetingKey, ...more });
    expect(await details(scene.ann.id)).toMatchObject({ value: 'paying', reason: 'TARGETING_MATCH' });
    expect(await details(scene.ben.id)).toMatchObject({ value: 'everybody', reason: 'STATIC' });
    expect(await details(scene.ann.id, { plan: 'free' })).toMatchObject({ value: 'everybody' });
    expect(await details('somebody', { plan: 'pro' })).toMatchObject({ value: 'paying' });
  });

  test('a split gives everybody the same as their own stream does', async () => {
    const flags = await client(scene.evaluator);
    for (const user of [scene.ann, scene.ben]) {
      const headers = { Authorization: `Bearer ${user.token}` };
      const own = await (await fetch(`${server.base}/api/flags/me/split.string`, { headers })).json();
      const details = await flags.getStringDetails('split.string', '', { targetingKey: user.id });
      expect(details).toMatchObject({ value: own.value, variant: own.variant, reason: 'SPLIT' });
    }
  });

  test('a flag that is off, one that is not there, one that is archived', async () => {
    const flags = await client(scene.evaluator);
    const of = { targetingKey: scene.ben.id };
    expect(await flags.getStringDetails('disabled.string', '', of)).toMatchObject({ value: 'off', reason: 'DISABLED' });
    const missing = { value: 'mine', errorCode: ErrorCode.FLAG_NOT_FOUND };
    expect(await flags.getStringDetails('no.such', 'mine', of)).toMatchObject(missing);
    expect(await flags.getStringDetails('archived.string', 'mine', of)).toMatchObject(missing);
  });

  test('another type than the application expects', async () => {
    const flags = await client(scene.evaluator);
    const details = await flags.getNumberDetails('type.string', 5, { targetingKey: scene.ben.id });
    expect(details).toMatchObject({ value: 5, errorCode: ErrorCode.TYPE_MISMATCH });
  });

  test('nobody is named', async () => {
    const flags = await client(scene.evaluator);
    const details = await flags.getStringDetails('type.string', 'mine', { plan: 'pro' });
    expect(details).toMatchObject({ value: 'mine', errorCode: ErrorCode.TARGETING_KEY_MISSING });
  });

  test('hidden flags are for servers', async () => {
    const of = { targetingKey: scene.ann.id };
    expect(await (await client(scene.evaluator)).getStringValue('hidden.string', '', of)).toBe('secret');
    const own = await (await client(scene.ann.token)).getStringDetails('hidden.string', 'mine', of);
    expect(own).toMatchObject({ value: 'mine', errorCode: ErrorCode.FLAG_NOT_FOUND });
  });

  test('a user may ask for their own values only, and a stranger for none', async () => {
    const own = await client(scene.ann.token);
    expect(await own.getStringValue('overridden.string', '', { targetingKey: scene.ann.id })).toBe('own');
    expect(await own.getStringDetails('overridden.string', 'mine', { targetingKey: scene.ben.id })).toMatchObject({
      value: 'mine',
      errorCode: ErrorCode.GENERAL,
    });
    const stranger = await client('flg_nobody');
    expect(await stranger.getStringDetails('type.string', 'mine', { targetingKey: scene.ann.id })).toMatchObject({
      value: 'mine',
      errorCode: ErrorCode.GENERAL,
    });
  });
});

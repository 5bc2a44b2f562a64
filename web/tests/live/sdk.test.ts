import { spawnSync } from 'node:child_process';
import { createFlagClient, type FlagClient, type FlagClientError, type FlagClientOptions } from '@feature-flags/sdk';
import { afterAll, afterEach, beforeAll, expect, test } from 'vitest';
import { Server, type User } from '../src/server.js';

let server: Server;
let ann: User;
const clients: FlagClient[] = [];

function startClient(options: Partial<FlagClientOptions> = {}): FlagClient {
  const client = createFlagClient({ baseUrl: server.baseUrl, token: ann.token, ...options });
  clients.push(client);
  return client;
}

/** Repeats an assertion until it holds, for up to 20 seconds. */
const eventually = <T>(read: () => T) => expect.poll(read, { timeout: 20_000, interval: 20 });

beforeAll(async () => {
  server = await Server.start('--show-reasons-to-users');
  ann = await server.createUser('ann', { plan: 'pro' });
  await server.createFlag('ui.dark_mode');
  await server.createFlag('ui.theme', ['light', 'dark']);
  await server.createFlag('limits.upload', [10, 2.5]);
  await server.createFlag('checkout.config', [{ steps: ['cart', 'pay'], express: null }]);
  await server.createFlag('internal.only', ['secret'], { client_visible: false });
});
afterEach(() => {
  for (const client of clients.splice(0)) client.close();
});
afterAll(() => server.dispose());

test('the client has values of every type and no flags that are hidden from clients', async () => {
  const flags = startClient();
  expect(await flags.ready()).toBe(true);
  expect(flags.getUserFlags()).toEqual({
    'ui.dark_mode': false,
    'ui.theme': 'light',
    'limits.upload': 10,
    'checkout.config': { steps: ['cart', 'pay'], express: null },
  });
  expect(flags.userId).toBe(ann.id);
  expect(flags.stale).toBe(false);
});

test('receives a created, changed and removed override', async () => {
  const flags = startClient();
  await flags.ready();
  expect([flags.hasOverride('ui.theme'), flags.getOverrideInfo('ui.theme')]).toEqual([false, null]);
  const notifications: string[][] = [];
  flags.subscribe('ui.theme', (change) => notifications.push([...change.flags]));

  const expires_at = '2099-01-01T00:00:00Z';
  await server.setOverride(ann, 'ui.theme', 'dark', { reason: 'beta test', expires_at });
  await eventually(() => flags.getFlag('ui.theme', 'none')).toBe('dark');
  const info = flags.getOverrideInfo('ui.theme');
  expect(info).toMatchObject({ flagName: 'ui.theme', value: 'dark', expiresAt: expires_at, reason: 'beta test' });
  expect(Date.parse(info?.createdAt ?? '')).toBeLessThanOrEqual(Date.parse(info?.updatedAt ?? ''));

  await server.setOverride(ann, 'ui.theme', 'own', { enabled: true });
  await eventually(() => flags.getFlag('ui.theme', 'none')).toBe('own');
  await server.removeOverride(ann, 'ui.theme');
  await eventually(() => flags.hasOverride('ui.theme')).toBe(false);
  expect(flags.getFlag('ui.theme')).toBe('light');
  expect(notifications).toEqual([['ui.theme'], ['ui.theme'], ['ui.theme']]);
});

test('an override expires at its expiry time', async () => {
  const flags = startClient();
  await flags.ready();
  const values: unknown[] = [];
  flags.subscribe('ui.dark_mode', () => values.push(flags.getFlag('ui.dark_mode')));
  const expiry = Date.now() + 3_000;
  await server.setOverride(ann, 'ui.dark_mode', true, { expires_at: new Date(expiry).toISOString() });
  await eventually(() => values).toEqual([true, false]);
  expect(Date.now()).toBeGreaterThanOrEqual(expiry);
});

test('recovers after the server is killed and restarted with other values', async () => {
  const flags = startClient();
  await flags.ready();
  await server.stopProcess('SIGKILL');
  await eventually(() => flags.stale).toBe(true);
  expect(flags.getFlag('limits.upload', 0)).toBe(10);
  await server.startProcess();
  await server.setOverride(ann, 'limits.upload', 99);
  await eventually(() => flags.getFlag('limits.upload', 0)).toBe(99);
  await eventually(() => flags.stale).toBe(false);
  await server.removeOverride(ann, 'limits.upload');
});

test('recovers after a graceful restart of the server', async () => {
  const flags = startClient();
  await flags.ready();
  await server.stopProcess('SIGTERM');
  await server.startProcess();
  await server.setOverride(ann, 'limits.upload', 5);
  await eventually(() => flags.getFlag('limits.upload', 0)).toBe(5);
  await server.removeOverride(ann, 'limits.upload');
  await eventually(() => flags.getFlag('limits.upload', 0)).toBe(10);
});

test('keeps values after its token is revoked, and connects immediately with another token', async () => {
  const created = await server.requestAsAdmin('POST', '/api/admin/api-tokens', {
    name: 'revoked',
    role: 'user',
    user_id: ann.id,
  });
  const errors: FlagClientError[] = [];
  const flags = startClient({ token: String(created.token), onError: (error) => errors.push(error) });
  await flags.ready();
  await server.requestAsAdmin('DELETE', `/api/admin/api-tokens/${created.id}`);
  await eventually(() => errors.map(({ status }) => status)).toContain(401);
  expect([flags.stale, flags.getFlag('limits.upload')]).toEqual([true, 10]);

  const ben = await server.createUser('ben');
  await server.setOverride(ben, 'ui.theme', 'dark');
  flags.setToken(async () => ben.token);
  expect([flags.userId, flags.getUserFlags()]).toEqual([null, {}]);
  await eventually(() => flags.getFlag('ui.theme')).toBe('dark');
  expect([flags.userId, flags.stale]).toEqual([ben.id, false]);
});

test('reset() after a sign-in by cookie loads the values of the new user', async () => {
  let cookie = await server.createUserAndSignIn('cara');
  // Browsers send the cookie themselves.
  const fetchWithCookie: typeof fetch = (input, init) =>
    fetch(input, { ...init, headers: { ...init?.headers, Cookie: cookie } });
  const flags = startClient({ token: undefined, fetch: fetchWithCookie });
  await flags.ready();
  await eventually(() => flags.stale).toBe(false);
  const cara = flags.userId;
  cookie = await server.createUserAndSignIn('dora');
  flags.reset();
  await flags.ready();
  await eventually(() => flags.stale).toBe(false);
  expect(flags.userId).not.toBe(cara);
});

test('the package can be loaded as CommonJS and as ES module', () => {
  const load = (...code: string[]) => spawnSync(process.execPath, code, { encoding: 'utf8' }).stdout.trim();
  const printTypes = 'console.log(typeof client.createFlagClient, typeof react.useFlag)';
  const commonJs = `const client = require('@feature-flags/sdk'), react = require('@feature-flags/sdk/react'); ${printTypes}`;
  expect(load('--eval', commonJs)).toBe('function function');
  const esModule = `import * as client from '@feature-flags/sdk'; import * as react from '@feature-flags/sdk/react'; ${printTypes}`;
  expect(load('--input-type=module', '--eval', esModule)).toBe('function function');
});

test('refresh() returns a change that was made before it', async () => {
  const flags = startClient();
  await flags.ready();
  await server.setOverride(ann, 'limits.upload', 1);
  expect(await flags.refresh()).toBe(true);
  expect(flags.getFlag('limits.upload')).toBe(1);
  await server.removeOverride(ann, 'limits.upload');
});

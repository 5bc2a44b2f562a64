import { spawnSync } from 'node:child_process';
import { createFlagClient, type FlagClient, type FlagClientError, type FlagClientOptions } from '@feature-flags/sdk';
import { afterAll, afterEach, beforeAll, expect, test } from 'vitest';
import { Server, type User } from '../src/server.js';

let server: Server;
let ann: User;
const clients: FlagClient[] = [];

function client(options: Partial<FlagClientOptions> = {}): FlagClient {
  const made = createFlagClient({ baseUrl: server.base, token: ann.token, ...options });
  clients.push(made);
  return made;
}

/** Waits for what must come; a test that waits in vain fails by its timeout. */
const eventually = <T>(look: () => T) => expect.poll(look, { timeout: 20_000, interval: 20 });

beforeAll(async () => {
  server = await Server.start('--show-reasons-to-users');
  ann = await server.user('ann', { plan: 'pro' });
  await server.flag('ui.dark_mode');
  await server.flag('ui.theme', ['light', 'dark']);
  await server.flag('limits.upload', [10, 2.5]);
  await server.flag('checkout.config', [{ steps: ['cart', 'pay'], express: null }]);
  await server.flag('internal.only', ['secret'], { client_visible: false });
});
afterEach(() => {
  for (const made of clients.splice(0)) made.close();
});
afterAll(() => server.stop());

test('every type is there as the server gives it, and nothing that is hidden', async () => {
  const flags = client();
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

test('an admin sets, changes and removes an override, and the client shows it', async () => {
  const flags = client();
  await flags.ready();
  expect([flags.hasOverride('ui.theme'), flags.getOverrideInfo('ui.theme')]).toEqual([false, null]);
  const told: string[][] = [];
  flags.subscribe('ui.theme', (change) => told.push([...change.flags]));

  const expires_at = '2099-01-01T00:00:00Z';
  await server.override(ann, 'ui.theme', 'dark', { reason: 'beta test', expires_at });
  await eventually(() => flags.getFlag('ui.theme', 'none')).toBe('dark');
  const info = flags.getOverrideInfo('ui.theme');
  expect(info).toMatchObject({ flagName: 'ui.theme', value: 'dark', expiresAt: expires_at, reason: 'beta test' });
  expect(Date.parse(info?.createdAt ?? '')).toBeLessThanOrEqual(Date.parse(info?.updatedAt ?? ''));

  await server.override(ann, 'ui.theme', 'own', { enabled: true });
  await eventually(() => flags.getFlag('ui.theme', 'none')).toBe('own');
  await server.removeOverride(ann, 'ui.theme');
  await eventually(() => flags.hasOverride('ui.theme')).toBe(false);
  expect(flags.getFlag('ui.theme')).toBe('light');
  expect(told).toEqual([['ui.theme'], ['ui.theme'], ['ui.theme']]);
});

test('an override ends at its instant', async () => {
  const flags = client();
  await flags.ready();
  const seen: unknown[] = [];
  flags.subscribe('ui.dark_mode', () => seen.push(flags.getFlag('ui.dark_mode')));
  const end = Date.now() + 3_000;
  await server.override(ann, 'ui.dark_mode', true, { expires_at: new Date(end).toISOString() });
  await eventually(() => seen).toEqual([true, false]);
  expect(Date.now()).toBeGreaterThanOrEqual(end);
});

test('the server is killed and comes back with other values', async () => {
  const flags = client();
  await flags.ready();
  await server.end('SIGKILL');
  await eventually(() => flags.stale).toBe(true);
  expect(flags.getFlag('limits.upload', 0)).toBe(10);
  await server.restart();
  await server.override(ann, 'limits.upload', 99);
  await eventually(() => flags.getFlag('limits.upload', 0)).toBe(99);
  await eventually(() => flags.stale).toBe(false);
  await server.removeOverride(ann, 'limits.upload');
});

test('the server stops as its operator wants it, and another one starts', async () => {
  const flags = client();
  await flags.ready();
  await server.end('SIGTERM');
  await server.restart();
  await server.override(ann, 'limits.upload', 5);
  await eventually(() => flags.getFlag('limits.upload', 0)).toBe(5);
  await server.removeOverride(ann, 'limits.upload');
  await eventually(() => flags.getFlag('limits.upload', 0)).toBe(10);
});

test('a revoked token changes no value, and another one goes on at once', async () => {
  const created = await server.call('POST', '/api/admin/api-tokens', { name: 'gone', role: 'user', user_id: ann.id });
  const errors: FlagClientError[] = [];
  const flags = client({ token: String(created.token), onError: (error) => errors.push(error) });
  await flags.ready();
  await server.call('DELETE', `/api/admin/api-tokens/${created.id}`);
  await eventually(() => errors.map(({ status }) => status)).toContain(401);
  expect([flags.stale, flags.getFlag('limits.upload')]).toEqual([true, 10]);

  const ben = await server.user('ben');
  await server.override(ben, 'ui.theme', 'dark');
  flags.setToken(async () => ben.token);
  expect([flags.userId, flags.getUserFlags()]).toEqual([null, {}]);
  await eventually(() => flags.getFlag('ui.theme')).toBe('dark');
  expect([flags.userId, flags.stale]).toEqual([ben.id, false]);
});

test('by cookie, whoever is signed in sees their own', async () => {
  let cookie = await server.signIn('cara');
  // The cookie jar that browsers have.
  const jar: typeof fetch = (input, init) => fetch(input, { ...init, headers: { ...init?.headers, Cookie: cookie } });
  const flags = client({ token: undefined, fetch: jar });
  await flags.ready();
  await eventually(() => flags.stale).toBe(false);
  const cara = flags.userId;
  cookie = await server.signIn('dora');
  flags.reset();
  await flags.ready();
  await eventually(() => flags.stale).toBe(false);
  expect(flags.userId).not.toBe(cara);
});

test('both forms of the package can be loaded', () => {
  const load = (...code: string[]) => spawnSync(process.execPath, code, { encoding: 'utf8' }).stdout.trim();
  const print = 'console.log(typeof client.createFlagClient, typeof react.useFlag)';
  const common = `const client = require('@feature-flags/sdk'), react = require('@feature-flags/sdk/react'); ${print}`;
  expect(load('--eval', common)).toBe('function function');
  const modern = `import * as client from '@feature-flags/sdk'; import * as react from '@feature-flags/sdk/react'; ${print}`;
  expect(load('--input-type=module', '--eval', modern)).toBe('function function');
});

test('asked to, it has what was so when it asked', async () => {
  const flags = client();
  await flags.ready();
  await server.override(ann, 'limits.upload', 1);
  expect(await flags.refresh()).toBe(true);
  expect(flags.getFlag('limits.upload')).toBe(1);
  await server.removeOverride(ann, 'limits.upload');
});

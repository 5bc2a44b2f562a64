import type { Browser, BrowserContext, Page } from 'playwright-core';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from 'vitest';
import { createFixtures, type Fixtures } from '../src/fixtures.js';
import { PageServer, startBrowser } from '../src/page-server.js';
import { Server } from '../src/server.js';
import type { StartOptions } from './web-page.js';

let browser: Browser;
let pageServer: PageServer;
let server: Server;
let fixtures: Fixtures;
let context: BrowserContext;
let page: Page;
/** Status codes of bulk evaluation responses, in order. */
let statuses: number[];

beforeAll(async () => {
  pageServer = await PageServer.start('openfeature/web-page.ts');
  [browser, server] = await Promise.all([startBrowser(), Server.start('--cors-origins', pageServer.origin)]);
  fixtures = await createFixtures(server);
});
afterAll(async () => {
  await browser?.close();
  await Promise.all([server?.dispose(), pageServer?.stop()]);
});
beforeEach(async () => {
  context = await browser.newContext();
  page = await context.newPage();
  statuses = [];
  page.on('response', (response) => {
    if (response.url().includes('/ofrep/v1/evaluate/flags') && response.request().method() === 'POST') {
      statuses.push(response.status());
    }
  });
  await page.goto(pageServer.origin);
});
afterEach(() => context.close());

const startProvider = (overrides: Partial<StartOptions> = {}) => {
  const options: StartOptions = {
    baseUrl: server.baseUrl,
    token: fixtures.ann.token,
    targetingKey: fixtures.ann.id,
    ...overrides,
  };
  return page.evaluate((options) => window.provider.start(options), options);
};
const getDetails = (flag: string, fallback: boolean | string | number | object) =>
  page.evaluate(([flag, fallback]) => window.provider.details(flag, fallback), [flag, fallback] as const);
const getValue = async (flag: string, fallback: boolean | string | number | object) =>
  (await getDetails(flag, fallback)).value;
/** Repeats an assertion until it holds, for up to 20 seconds. */
const eventually = <T>(read: () => T) => expect.poll(read, { timeout: 20_000, interval: 50 });

describe('official web provider', () => {
  test('evaluates flags of every type and layer', async () => {
    expect(await startProvider()).toBeNull();
    expect(await getDetails('type.boolean', true)).toMatchObject({ value: false, reason: 'STATIC', variant: 'off' });
    expect(await getDetails('type.string', '')).toMatchObject({ value: 'one', reason: 'STATIC' });
    expect(await getDetails('type.integer', 0)).toMatchObject({ value: 3 });
    expect(await getDetails('type.float', 0)).toMatchObject({ value: 1 });
    expect(await getDetails('type.object', {})).toMatchObject({ value: { a: [1, null], b: { c: 'd' } } });
    const source = { flagMetadata: { source: 'override' } };
    expect(await getDetails('overridden.string', '')).toMatchObject({
      value: 'own',
      reason: 'TARGETING_MATCH',
      ...source,
    });
    expect(await getDetails('targeted.string', '')).toMatchObject({ value: 'paying', reason: 'TARGETING_MATCH' });
    expect(await getDetails('split.string', '')).toMatchObject({ reason: 'SPLIT' });
    expect(await getDetails('disabled.string', '')).toMatchObject({ value: 'off', reason: 'DISABLED' });
    for (const flag of ['no.such', 'archived.string', 'hidden.string']) {
      expect(await getDetails(flag, 'fallback')).toMatchObject({ value: 'fallback', errorCode: 'FLAG_NOT_FOUND' });
    }
    expect(await getDetails('type.string', 5)).toMatchObject({ value: 5, errorCode: 'TYPE_MISMATCH' });
  });

  test('receives a change over the event stream', async () => {
    expect(await startProvider()).toBeNull();
    expect(await getValue('type.string', '')).toBe('one');
    await server.setOverride(fixtures.ann, 'type.string', 'changed');
    await eventually(() => getValue('type.string', '')).toBe('changed');
    expect(await page.evaluate(() => window.provider.events)).toContain('PROVIDER_CONFIGURATION_CHANGED');
    await server.removeOverride(fixtures.ann, 'type.string');
    await eventually(() => getValue('type.string', '')).toBe('one');
  });

  test('the page applies the expiry of an override without a reload', async () => {
    expect(await startProvider()).toBeNull();
    await server.setOverride(fixtures.ann, 'type.string', 'temporary', {
      expires_at: new Date(Date.now() + 4_000).toISOString(),
    });
    await eventually(() => getValue('type.string', '')).toBe('temporary');
    await eventually(() => getValue('type.string', '')).toBe('one');
  });

  test('keeps values while the server restarts, and receives later changes', async () => {
    expect(await startProvider()).toBeNull();
    await server.stopProcess('SIGKILL');
    expect(await getValue('type.string', '')).toBe('one');
    await server.startProcess();
    await server.setOverride(fixtures.ann, 'type.string', 'after');
    await eventually(() => getValue('type.string', '')).toBe('after');
    await server.removeOverride(fixtures.ann, 'type.string');
  });

  test('the server responds with 304 if no value changed', async () => {
    expect(await startProvider({ providerOptions: { pollInterval: 200, changeDetection: 'polling' } })).toBeNull();
    await eventually(() => statuses).toContain(304);
    await server.setOverride(fixtures.ann, 'type.string', 'changed');
    await eventually(() => getValue('type.string', '')).toBe('changed');
    expect(statuses.filter((status) => status === 200)).toHaveLength(2);
    await server.removeOverride(fixtures.ann, 'type.string');
  });

  test('a changed context changes the values', async () => {
    expect(await startProvider({ token: fixtures.evaluatorToken })).toBeNull();
    expect(await getValue('overridden.string', '')).toBe('own');
    await page.evaluate((targetingKey) => window.provider.setContext({ targetingKey }), fixtures.ben.id);
    expect(await getValue('overridden.string', '')).toBe('default');
    await page.evaluate(() => window.provider.setContext({ targetingKey: 'anonymous', plan: 'pro' }));
    expect(await getValue('targeted.string', '')).toBe('paying');
  });

  test('the provider fails to start with an invalid token or another user, and needs no targeting key', async () => {
    expect(await startProvider({ token: 'flg_invalid' })).not.toBeNull();
    expect(await getValue('type.string', 'fallback')).toBe('fallback');
    expect(await startProvider({ targetingKey: fixtures.ben.id })).not.toBeNull();
    expect(statuses).toEqual([401, 403]);
    expect(await startProvider({ targetingKey: '' })).toBeNull();
    expect(await getValue('type.string', 'fallback')).toBe('one');
  });
});

import type { Browser, BrowserContext, Page } from 'playwright-core';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from 'vitest';
import { makeScene, type Scene } from '../src/flags.js';
import { PageServer, startBrowser } from '../src/pages.js';
import { Server } from '../src/server.js';
import type { Start } from './web-page.js';

let browser: Browser;
let pages: PageServer;
let server: Server;
let scene: Scene;
let context: BrowserContext;
let page: Page;
/** The statuses of bulk evaluations, in order. */
let statuses: number[];

beforeAll(async () => {
  pages = await PageServer.start('openfeature/web-page.ts');
  [browser, server] = await Promise.all([startBrowser(), Server.start('--cors-origins', pages.origin)]);
  scene = await makeScene(server);
});
afterAll(async () => {
  await browser?.close();
  await Promise.all([server?.stop(), pages?.stop()]);
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
  await page.goto(pages.origin);
});
afterEach(() => context.close());

const start = (more: Partial<Start> = {}) => {
  const options: Start = { baseUrl: server.base, token: scene.ann.token, targetingKey: scene.ann.id, ...more };
  return page.evaluate((options) => window.provider.start(options), options);
};
const details = (flag: string, fallback: boolean | string | number | object) =>
  page.evaluate(([flag, fallback]) => window.provider.details(flag, fallback), [flag, fallback] as const);
const value = async (flag: string, fallback: boolean | string | number | object) =>
  (await details(flag, fallback)).value;
const eventually = <T>(look: () => T) => expect.poll(look, { timeout: 20_000, interval: 50 });

describe('the official provider for browsers', () => {
  test('every type, override, rule, split and switch', async () => {
    expect(await start()).toBeNull();
    expect(await details('type.boolean', true)).toMatchObject({ value: false, reason: 'STATIC', variant: 'off' });
    expect(await details('type.string', '')).toMatchObject({ value: 'one', reason: 'STATIC' });
    expect(await details('type.integer', 0)).toMatchObject({ value: 3 });
    expect(await details('type.float', 0)).toMatchObject({ value: 1 });
    expect(await details('type.object', {})).toMatchObject({ value: { a: [1, null], b: { c: 'd' } } });
    const source = { flagMetadata: { source: 'override' } };
    expect(await details('overridden.string', '')).toMatchObject({
      value: 'own',
      reason: 'TARGETING_MATCH',
      ...source,
    });
    expect(await details('ruled.string', '')).toMatchObject({ value: 'paying', reason: 'TARGETING_MATCH' });
    expect(await details('split.string', '')).toMatchObject({ reason: 'SPLIT' });
    expect(await details('disabled.string', '')).toMatchObject({ value: 'off', reason: 'DISABLED' });
    for (const flag of ['no.such', 'archived.string', 'hidden.string']) {
      expect(await details(flag, 'mine')).toMatchObject({ value: 'mine', errorCode: 'FLAG_NOT_FOUND' });
    }
    expect(await details('type.string', 5)).toMatchObject({ value: 5, errorCode: 'TYPE_MISMATCH' });
  });

  test('a change reaches the page, by the stream of events alone', async () => {
    expect(await start()).toBeNull();
    expect(await value('type.string', '')).toBe('one');
    await server.override(scene.ann, 'type.string', 'now');
    await eventually(() => value('type.string', '')).toBe('now');
    expect(await page.evaluate(() => window.provider.events)).toContain('PROVIDER_CONFIGURATION_CHANGED');
    await server.removeOverride(scene.ann, 'type.string');
    await eventually(() => value('type.string', '')).toBe('one');
  });

  test('an override that ends leaves the page at its instant', async () => {
    expect(await start()).toBeNull();
    await server.override(scene.ann, 'type.string', 'briefly', {
      expires_at: new Date(Date.now() + 4_000).toISOString(),
    });
    await eventually(() => value('type.string', '')).toBe('briefly');
    await eventually(() => value('type.string', '')).toBe('one');
  });

  test('the server is killed and started again, and the page goes on', async () => {
    expect(await start()).toBeNull();
    await server.end('SIGKILL');
    expect(await value('type.string', '')).toBe('one');
    await server.restart();
    await server.override(scene.ann, 'type.string', 'after');
    await eventually(() => value('type.string', '')).toBe('after');
    await server.removeOverride(scene.ann, 'type.string');
  });

  test('what has not changed is not sent again', async () => {
    expect(await start({ more: { pollInterval: 200, changeDetection: 'polling' } })).toBeNull();
    await eventually(() => statuses).toContain(304);
    await server.override(scene.ann, 'type.string', 'now');
    await eventually(() => value('type.string', '')).toBe('now');
    expect(statuses.filter((status) => status === 200)).toHaveLength(2);
    await server.removeOverride(scene.ann, 'type.string');
  });

  test('another context gets other values', async () => {
    expect(await start({ token: scene.evaluator })).toBeNull();
    expect(await value('overridden.string', '')).toBe('own');
    await page.evaluate((targetingKey) => window.provider.setContext({ targetingKey }), scene.ben.id);
    expect(await value('overridden.string', '')).toBe('default');
    await page.evaluate(() => window.provider.setContext({ targetingKey: 'a stranger', plan: 'pro' }));
    expect(await value('ruled.string', '')).toBe('paying');
  });

  test('who may not is told so', async () => {
    expect(await start({ token: 'flg_nobody' })).not.toBeNull();
    expect(await value('type.string', 'mine')).toBe('mine');
    expect(await start({ targetingKey: scene.ben.id })).not.toBeNull();
    expect(await start({ targetingKey: '' })).not.toBeNull();
    expect(statuses).toEqual([401, 403, 400]);
  });
});

import type { Browser, BrowserContext, Page } from 'playwright-core';
import { afterAll, afterEach, beforeAll, beforeEach, expect, test } from 'vitest';
import { PageServer, startBrowser } from '../src/pages.js';
import { Server, type User } from '../src/server.js';

let browser: Browser;
let pages: PageServer;
let server: Server;
let ann: User;
let context: BrowserContext;
let troubles: string[];

beforeAll(async () => {
  pages = await PageServer.start('browser/flags-page.tsx');
  [browser, server] = await Promise.all([startBrowser(), Server.start('--cors-origins', pages.origin)]);
  ann = await server.user('ann');
  await server.flag('ui.theme', ['light', 'dark', 'blue']);
});
afterAll(async () => {
  await browser?.close();
  await Promise.all([server?.stop(), pages?.stop()]);
});
beforeEach(async () => {
  context = await browser.newContext();
  troubles = [];
});
afterEach(async () => {
  await context.close();
  await server.override(ann, 'ui.theme', 'light');
  await server.removeOverride(ann, 'ui.theme');
  expect(troubles).toEqual([]);
});

async function open(more = ''): Promise<Page> {
  const page = await context.newPage();
  page.on('pageerror', (error) => troubles.push(String(error)));
  await page.goto(`${pages.origin}/?base=${encodeURIComponent(server.base)}&token=${ann.token}${more}`);
  return page;
}

/** Waits until the page shows this theme, without loading it again. */
const shows = (page: Page, theme: string, id = 'theme') =>
  page.waitForFunction(([id, text]) => document.getElementById(id)?.textContent === text, [id, theme] as const, {
    timeout: 20_000,
  });
const isStale = (page: Page, stale: boolean) => shows(page, String(stale), 'stale');

/** How many streams the server has open. */
async function streams(): Promise<number> {
  const metrics = await (await fetch(`${server.base}/metrics`)).text();
  return Number(/streams_open\{kind="user"\} (\d+)/.exec(metrics)?.[1] ?? -1);
}

test('an admin changes what a user sees, and two open tabs show it over one stream', async () => {
  const [first, second] = [await open(), await open()];
  await Promise.all([shows(first, 'light'), shows(second, 'light'), isStale(first, false), isStale(second, false)]);
  await server.override(ann, 'ui.theme', 'dark');
  await Promise.all([shows(first, 'dark'), shows(second, 'dark')]);
  expect(await second.textContent('#override')).toMatch(/^since 20/);
  await expect.poll(streams, { timeout: 20_000 }).toBe(1);
  await server.removeOverride(ann, 'ui.theme');
  await Promise.all([shows(first, 'light'), shows(second, 'none', 'override')]);
});

test('the tab that has the stream is closed, and another goes on', async () => {
  const [first, second] = [await open(), await open()];
  await Promise.all([isStale(first, false), isStale(second, false)]);
  await first.close();
  await server.override(ann, 'ui.theme', 'blue');
  await shows(second, 'blue');
  await isStale(second, false);
});

test('tabs that share nothing have a stream each', async () => {
  const [first, second] = [await open('&alone'), await open('&alone')];
  await Promise.all([isStale(first, false), isStale(second, false)]);
  await expect.poll(streams, { timeout: 20_000 }).toBe(2);
  await server.override(ann, 'ui.theme', 'dark');
  await Promise.all([shows(first, 'dark'), shows(second, 'dark')]);
});

test('the server is killed and started again: tabs keep their values, say so, and go on', async () => {
  const [first, second] = [await open(), await open()];
  await Promise.all([isStale(first, false), isStale(second, false)]);
  await server.end('SIGKILL');
  await Promise.all([isStale(first, true), isStale(second, true)]);
  expect([await first.textContent('#theme'), await second.textContent('#theme')]).toEqual(['light', 'light']);
  await server.restart();
  await server.override(ann, 'ui.theme', 'dark');
  await Promise.all([shows(first, 'dark'), shows(second, 'dark')]);
  await Promise.all([isStale(first, false), isStale(second, false)]);
});

test('a page that is loaded while the server is away has the values it kept', async () => {
  await server.override(ann, 'ui.theme', 'blue');
  const before = await open('&keep');
  await shows(before, 'blue');
  await before.close();
  await server.end('SIGTERM');
  const after = await open('&keep');
  await shows(after, 'blue');
  await isStale(after, true);
  await server.restart();
  await isStale(after, false);
});

test('a page that is left lets go of its stream, and begins anew when it is opened again', async () => {
  const page = await open();
  await isStale(page, false);
  await page.goto('about:blank');
  await expect.poll(streams, { timeout: 20_000 }).toBe(0);
  await server.override(ann, 'ui.theme', 'dark');
  await page.goBack();
  await shows(page, 'dark');
  await isStale(page, false);
});

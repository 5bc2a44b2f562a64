import type { Browser, BrowserContext, Page } from 'playwright-core';
import { afterAll, afterEach, beforeAll, beforeEach, expect, test } from 'vitest';
import { PageServer, startBrowser } from '../src/page-server.js';
import { Server, type User } from '../src/server.js';

let browser: Browser;
let pageServer: PageServer;
let server: Server;
let ann: User;
let context: BrowserContext;
let pageErrors: string[];

beforeAll(async () => {
  pageServer = await PageServer.start('browser/flags-page.tsx');
  [browser, server] = await Promise.all([startBrowser(), Server.start('--cors-origins', pageServer.origin)]);
  ann = await server.createUser('ann');
  await server.createFlag('ui.theme', ['light', 'dark', 'blue']);
});
afterAll(async () => {
  await browser?.close();
  await Promise.all([server?.dispose(), pageServer?.stop()]);
});
beforeEach(async () => {
  context = await browser.newContext();
  pageErrors = [];
});
afterEach(async () => {
  await context.close();
  await server.setOverride(ann, 'ui.theme', 'light');
  await server.removeOverride(ann, 'ui.theme');
  expect(pageErrors).toEqual([]);
});

async function openPage(extraQuery = ''): Promise<Page> {
  const page = await context.newPage();
  page.on('pageerror', (error) => pageErrors.push(String(error)));
  await page.goto(`${pageServer.origin}/?base=${encodeURIComponent(server.baseUrl)}&token=${ann.token}${extraQuery}`);
  return page;
}

/** Waits until the element with this id has this text. */
const waitForText = (page: Page, id: string, expected: string) =>
  page.waitForFunction(([id, text]) => document.getElementById(id)?.textContent === text, [id, expected] as const, {
    timeout: 20_000,
  });
const waitForTheme = (page: Page, theme: string) => waitForText(page, 'theme', theme);
const waitForStale = (page: Page, stale: boolean) => waitForText(page, 'stale', String(stale));

/** Returns the number of open streams from the server's metrics, or -1 if the metric is missing. */
async function openStreams(): Promise<number> {
  const metrics = await (await fetch(`${server.baseUrl}/metrics`)).text();
  return Number(/streams_open\{kind="user"\} (\d+)/.exec(metrics)?.[1] ?? -1);
}

test('two tabs receive changes of an override over one stream', async () => {
  const [first, second] = [await openPage(), await openPage()];
  await Promise.all([
    waitForTheme(first, 'light'),
    waitForTheme(second, 'light'),
    waitForStale(first, false),
    waitForStale(second, false),
  ]);
  await server.setOverride(ann, 'ui.theme', 'dark');
  await Promise.all([waitForTheme(first, 'dark'), waitForTheme(second, 'dark')]);
  expect(await second.textContent('#override')).toMatch(/^since 20/);
  await expect.poll(openStreams, { timeout: 20_000 }).toBe(1);
  await server.removeOverride(ann, 'ui.theme');
  await Promise.all([waitForTheme(first, 'light'), waitForText(second, 'override', 'none')]);
});

test('another tab takes over the stream when the leader closes', async () => {
  const [first, second] = [await openPage(), await openPage()];
  await Promise.all([waitForStale(first, false), waitForStale(second, false)]);
  await first.close();
  await server.setOverride(ann, 'ui.theme', 'blue');
  await waitForTheme(second, 'blue');
  await waitForStale(second, false);
});

test('each tab has its own stream if shareTabs is false', async () => {
  const [first, second] = [await openPage('&no-sharing'), await openPage('&no-sharing')];
  await Promise.all([waitForStale(first, false), waitForStale(second, false)]);
  await expect.poll(openStreams, { timeout: 20_000 }).toBe(2);
  await server.setOverride(ann, 'ui.theme', 'dark');
  await Promise.all([waitForTheme(first, 'dark'), waitForTheme(second, 'dark')]);
});

test('tabs keep their values and report them as stale while the server restarts', async () => {
  const [first, second] = [await openPage(), await openPage()];
  await Promise.all([waitForStale(first, false), waitForStale(second, false)]);
  await server.stopProcess('SIGKILL');
  await Promise.all([waitForStale(first, true), waitForStale(second, true)]);
  expect([await first.textContent('#theme'), await second.textContent('#theme')]).toEqual(['light', 'light']);
  await server.startProcess();
  await server.setOverride(ann, 'ui.theme', 'dark');
  await Promise.all([waitForTheme(first, 'dark'), waitForTheme(second, 'dark')]);
  await Promise.all([waitForStale(first, false), waitForStale(second, false)]);
});

test('a page restores persisted values while the server is down', async () => {
  await server.setOverride(ann, 'ui.theme', 'blue');
  const before = await openPage('&persist');
  await waitForTheme(before, 'blue');
  await before.close();
  await server.stopProcess('SIGTERM');
  const after = await openPage('&persist');
  await waitForTheme(after, 'blue');
  await waitForStale(after, true);
  await server.startProcess();
  await waitForStale(after, false);
});

test('a page closes its stream on navigation and reconnects on return', async () => {
  const page = await openPage();
  await waitForStale(page, false);
  await page.goto('about:blank');
  await expect.poll(openStreams, { timeout: 20_000 }).toBe(0);
  await server.setOverride(ann, 'ui.theme', 'dark');
  await page.goBack();
  await waitForTheme(page, 'dark');
  await waitForStale(page, false);
});

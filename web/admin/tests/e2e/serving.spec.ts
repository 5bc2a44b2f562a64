import { ADDRESSES } from '../../src/addresses.ts';
import { expect, test } from './fixtures.ts';

test('the server sends the HTML page for every path of the router', async ({ request }) => {
  for (const address of Object.values(ADDRESSES)) {
    const path = address.replace('$flag', 'ui.dark_mode').replace('$id', '0');
    const response = await request.get(path);
    expect(response.status(), path).toBe(200);
    expect(response.headers()['content-type'], path).toBe('text/html; charset=utf-8');
    expect(response.headers()['cache-control'], path).toBe('no-cache');
  }
});

test('unknown paths and missing files yield 404 problem documents', async ({ request }) => {
  for (const path of ['/nope', '/flags/', '/assets/nope.js', '/index.html', '/addresses.json', '/.gitkeep']) {
    const response = await request.get(path);
    expect(response.status(), path).toBe(404);
    expect(response.headers()['content-type'], path).toBe('application/problem+json');
  }
});

test('the content security policy permits no inline code and requires trusted types', async ({ request }) => {
  const policy = (await request.get('/flags')).headers()['content-security-policy'] ?? '';
  expect(policy).toContain("script-src 'self';");
  expect(policy).toContain("style-src 'self';");
  expect(policy).toContain("require-trusted-types-for 'script'");
  expect(policy).not.toContain('unsafe-inline');
});

test('files with hashed names are immutable, compressed and have entity tags', async ({ request }) => {
  const html = await (await request.get('/')).text();
  const script = /src="(\/assets\/index-[^"]+\.js)"/.exec(html)?.[1] ?? '';
  const compressed = await request.get(script, { headers: { 'Accept-Encoding': 'gzip' } });
  expect(compressed.headers()['content-encoding']).toBe('gzip');
  expect(compressed.headers()['cache-control']).toBe('public, max-age=31536000, immutable');
  const plain = await request.get(script, { headers: { 'Accept-Encoding': 'identity' } });
  expect(plain.headers()['content-encoding']).toBeUndefined();
  expect(await plain.text()).toBe(await compressed.text());
  const etag = plain.headers().etag ?? '';
  expect(etag).not.toBe(compressed.headers().etag);
  const headers = { 'If-None-Match': etag, 'Accept-Encoding': 'identity' };
  expect((await request.get(script, { headers })).status()).toBe(304);
});

test('the first load of the flags page stays below 250 KiB', async ({ adminPage: page }) => {
  const sizes: Promise<number>[] = [];
  page.on('requestfinished', (request) => {
    if (/\/assets\/.*\.(js|css)$/.test(request.url())) {
      sizes.push(request.sizes().then(({ responseBodySize }) => responseBodySize));
    }
  });
  await page.goto('/flags');
  await expect(page.getByRole('table', { name: 'Flags' })).toBeVisible();
  await page.waitForLoadState('load');
  const total = (await Promise.all(sizes)).reduce((sum, size) => sum + size, 0);
  expect(total).toBeGreaterThan(50 * 1024);
  expect(total).toBeLessThan(250 * 1024);
});

import { expect, test } from './fixtures.ts';

test('a change by another admin appears in place, with its author', async ({ adminPage: page, world }) => {
  const person = await world.createPerson('Live Lara');
  await world.server.setOverride({ ...person, token: '' }, 'search.max_results', 250);
  await page.goto('/flags/user-overrides?search=lara');
  const row = page.getByRole('row', { name: /Live Lara/ });
  await expect(row).toContainText('250');
  await expect(page.getByText('Live', { exact: true })).toBeVisible();
  await world.server.setOverride({ ...person, token: '' }, 'search.max_results', 500);
  await expect(row).toContainText('500');
  await expect(row).toContainText('Changed just now by');
});

test('new rows are withheld while the pointer is over the list', async ({ adminPage: page, world }) => {
  await world.server.createFlag('wait.test');
  const [first, second] = [await world.createPerson('Wait One'), await world.createPerson('Wait Two')];
  await world.server.setOverride({ ...first, token: '' }, 'wait.test', true);
  await page.goto('/flag/wait.test/user-overrides');
  await page.getByRole('row', { name: /Wait One/ }).hover();
  await world.server.setOverride({ ...second, token: '' }, 'wait.test', true);
  const show = page.getByRole('button', { name: '1 new · Show' });
  await expect(show).toBeVisible();
  await expect(page.getByRole('row', { name: /Wait Two/ })).toHaveCount(0);
  // A click would move the pointer off the list.
  await show.press('Enter');
  await expect(page.getByRole('row', { name: /Wait Two/ })).toBeVisible();
});

test('the status of a displayed override changes to Expired on time', async ({ adminPage: page, world }) => {
  const person = await world.createPerson('Expiring Egon');
  const expires_at = new Date(Date.now() + 4_000).toISOString();
  await world.server.setOverride({ ...person, token: '' }, 'ui.dark_mode', true, { expires_at });
  await page.goto('/flags/user-overrides?search=egon');
  const row = page.getByRole('row', { name: /Expiring Egon/ });
  await expect(row).toContainText('Active');
  await expect(row).toContainText('Expired');
});

test('the live label says Reconnecting while the server is down, and no change is missed', async ({
  adminPage: page,
  world,
}) => {
  const person = await world.createPerson('Restart Rosa');
  await world.server.setOverride({ ...person, token: '' }, 'search.max_results', 1);
  await page.goto('/flags/user-overrides?search=rosa');
  const chip = page.locator('[data-live]');
  await expect(chip).toHaveText('Live');
  await world.server.stopProcess('SIGKILL');
  await expect(chip).toHaveText('Reconnecting…');
  await world.server.startProcess();
  await world.server.setOverride({ ...person, token: '' }, 'search.max_results', 2);
  await expect(chip).toHaveText('Live');
  await expect(page.getByRole('row', { name: /Restart Rosa/ })).toContainText('2');
});

test('several tabs share one event stream', async ({ adminPage: page, context }) => {
  const streams = new Set<string>();
  context.on('request', (request) => {
    if (request.url().endsWith('/api/admin/stream')) streams.add(request.url() + streams.size);
  });
  await page.goto('/flags');
  await expect(page.locator('[data-live]')).toHaveText('Live');
  for (let tab = 0; tab < 3; tab += 1) {
    const other = await context.newPage();
    await other.goto('/users');
    await expect(other.locator('[data-live]')).toHaveText('Live');
  }
  expect(streams.size).toBe(1);
});

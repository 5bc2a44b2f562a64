import { expect, test } from './fixtures.ts';

test('each flag row shows the served value and links to overrides and changes', async ({ adminPage: page }) => {
  await page.goto('/flags');
  const row = page.getByRole('row', { name: /ui\.dark_mode/ });
  await expect(row).toContainText('off');
  await expect(row).toContainText('all users');
  await row.getByRole('link', { name: /changes of ui\.dark_mode/ }).click();
  await expect(page.getByRole('heading', { name: 'Next changes' })).toBeVisible();
  await page.goto('/flags');
  await page
    .getByRole('row', { name: /search\.max_results/ })
    .getByRole('link', { name: /overrides of/ })
    .click();
  await expect(page).toHaveURL(/\/flag\/search\.max_results\/user-overrides$/);
  await expect(page.getByRole('table', { name: 'User overrides' })).toContainText('Ann Lee');
});

test('the URL contains the search, tag and archive filters', async ({ adminPage: page, context }) => {
  await page.goto('/flags');
  await page.getByRole('searchbox').fill('CHECKOUT');
  await expect(page).toHaveURL(/\?search=CHECKOUT$/);
  await expect(page.getByRole('row')).toHaveCount(2);
  await page.getByLabel('Tag').selectOption('checkout');
  await expect(page).toHaveURL(/tag=checkout/);
  const copy = await context.newPage();
  await copy.goto(page.url());
  await expect(copy.getByRole('row')).toHaveCount(2);
  await copy.getByLabel('Archive state').selectOption('true');
  await expect(copy.getByText('No flag matches these filters')).toBeVisible();
  await copy.getByRole('button', { name: 'Clear filters' }).click();
  await expect(copy.getByRole('row', { name: /ui\.dark_mode/ })).toBeVisible();
});

test('switching a flag shows its effect, requires confirmation and can be undone', async ({
  adminPage: page,
  world,
}) => {
  await world.server.createFlag('switch.test');
  const person = await world.createPerson('Switch Person');
  await world.server.setOverride({ ...person, token: '' }, 'switch.test', true);
  const isOn = async () => (await world.server.requestAsAdmin('GET', '/api/admin/feature-flags/switch.test')).enabled;
  await page.goto('/flags?search=switch.test');
  await page.getByRole('switch').click();
  const sheet = page.getByRole('dialog', { name: 'Switch off switch.test?' });
  await expect(sheet).toContainText('1 user with an override keeps their value.');
  expect(await isOn()).toBe(true);
  await sheet.getByRole('button', { name: 'Switch off' }).click();
  await expect(page.getByRole('switch')).toHaveAttribute('aria-checked', 'false');
  expect(await isOn()).toBe(false);
  await page.getByRole('button', { name: 'Undo' }).click();
  await expect(page.getByRole('switch')).toHaveAttribute('aria-checked', 'true');
  expect(await isOn()).toBe(true);
});

test('the flag page shows the evaluation order, rules in words, and variants', async ({ adminPage: page }) => {
  await page.goto('/flag/checkout.flow');
  const order = page.getByRole('list', { name: 'Evaluation order' });
  await expect(order.getByRole('listitem')).toHaveCount(5);
  await expect(page.getByText('plan is pro')).toBeVisible();
  await expect(page.getByRole('complementary', { name: 'Details' })).toContainText('"one-page"');
});

test('the page of an archived flag says that no user gets a value', async ({ adminPage: page, world }) => {
  await world.server.createFlag('archive.test');
  await page.goto('/flag/archive.test');
  await page.getByRole('button', { name: 'Archive' }).click();
  await page.getByRole('dialog').getByRole('button', { name: 'Archive' }).click();
  await expect(page.getByText(/No user gets a value/)).toBeVisible();
  await page.getByRole('button', { name: 'Restore' }).click();
  await expect(page.getByRole('button', { name: 'Archive' })).toBeVisible();
});

test('the page of an unknown flag offers a search', async ({ adminPage: page }) => {
  await page.goto('/flag/no.such_flag');
  await expect(page.getByText('There is no flag no.such_flag')).toBeVisible();
  await expect(page.getByRole('link', { name: 'Search for it' })).toBeVisible();
});

test('the tab Scheduled Changes lists changes with their effect and time zone', async ({ adminPage: page }) => {
  await page.goto('/flags/scheduled-changes');
  await expect(page.getByText('Changes for all users at a future time, for gradual rollout')).toBeVisible();
  const row = page.getByRole('row', { name: /ui\.dark_mode/ });
  await expect(row).toContainText('Pending');
  await expect(row).toContainText('off');
  await expect(page.getByRole('columnheader', { name: /When \((CET|CEST|GMT\+[12])\)/ })).toBeVisible();
});

test('the list shows an unreadable flag with its reason and without a switch', async ({ adminPage: page, world }) => {
  await world.createUnreadableFlag('newer.list');
  await page.goto('/flags');
  const row = page.getByRole('row', { name: /newer\.list/ });
  await expect(row).toContainText('Unreadable');
  await expect(row).toContainText('unknown variant `resembles`');
  await expect(row.getByRole('switch')).toHaveCount(0);
  await expect(page.getByRole('row', { name: /ui\.dark_mode/ }).getByRole('switch')).toBeVisible();
  await page.keyboard.press('Control+k');
  await page.getByRole('combobox', { name: 'Search flags, users and actions' }).fill('newer.list');
  await expect(page.getByRole('option', { name: /newer\.list/ })).toContainText('Unreadable');
  await page.getByRole('option', { name: /newer\.list/ }).click();
  await expect(page).toHaveURL(/\/flag\/newer\.list$/);
});

test('the page of an unreadable flag shows the reason, its overrides, and Archive as the only action', async ({
  adminPage: page,
  world,
}) => {
  const person = await world.createPerson('Newer Nina');
  await world.server.createFlag('newer.page');
  await world.server.setOverride({ ...person, token: '' }, 'newer.page', true);
  world.server.executeSql("UPDATE feature_flags SET variants = '7' WHERE name = 'newer.page'");
  await page.goto('/flag/newer.page');
  await expect(page.getByText('The server cannot read the definition of this flag')).toBeVisible();
  await expect(page.getByText(/^variants: invalid type: integer `7`/)).toBeVisible();
  await expect(page.getByRole('switch')).toHaveCount(0);
  await expect(page.getByRole('button', { name: 'Add override' })).toHaveCount(0);
  await expect(page.getByRole('link', { name: 'Overview' })).toHaveCount(0);
  await page.goto(`/flag/newer.page?override=${person.id}/newer.page`);
  const editor = page.getByRole('dialog', { name: 'Edit override' });
  await expect(editor.getByRole('alert')).toContainText('Its definition cannot be read: variants: invalid type');
  await editor.getByRole('button', { name: 'Cancel' }).click();
  await page.getByRole('link', { name: /^User Overrides ?1$/ }).click();
  await expect(page.getByRole('table', { name: 'User overrides' })).toContainText('Newer Nina');
  await page.getByRole('button', { name: 'Archive' }).click();
  const question = page.getByRole('dialog', { name: 'Archive newer.page?' });
  await expect(question).toContainText('This includes 1 user with an override.');
  await question.getByRole('button', { name: 'Archive' }).click();
  await expect(page.getByText(/^The flag was archived/)).toBeVisible();
  await expect(page.getByRole('button', { name: /Undo|Restore/ })).toHaveCount(0);
});

test.describe('as a viewer', () => {
  test.use({ role: 'viewer' });

  test('an unreadable flag cannot be archived', async ({ adminPage: page, world }) => {
    await world.createUnreadableFlag('newer.viewer');
    await page.goto('/flag/newer.viewer');
    await expect(page.getByRole('button', { name: 'Archive' })).toHaveAttribute('aria-disabled', 'true');
  });
});

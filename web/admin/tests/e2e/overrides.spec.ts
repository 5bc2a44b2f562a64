import type { Page } from '@playwright/test';
import { type Account, expect, test, type World } from './fixtures.ts';

function overridePath(person: Account, flag: string): string {
  return `/api/admin/users/${person.id}/flag-overrides/${flag}`;
}

async function setOverride(world: World, person: Account, flag: string, value: unknown, fields = {}): Promise<void> {
  await world.server.setOverride({ ...person, token: '' }, flag, value, fields);
}

function drawer(page: Page) {
  return page.getByRole('dialog', { name: /Override a flag for one user|Edit override/ });
}

test('the search finds part of an e-mail or flag name, ignoring case', async ({ adminPage: page, world }) => {
  const person = await world.createPerson('Findable Fiona');
  await setOverride(world, person, 'ui.dark_mode', true);
  await page.goto('/flags/user-overrides');
  await page.getByRole('searchbox').fill('FIONA');
  await expect(page.getByRole('row', { name: /Findable Fiona/ })).toBeVisible();
  await expect(page).toHaveURL(/search=FIONA/);
  await page.getByRole('searchbox').fill('MAX_RES');
  await expect(page.getByRole('row', { name: /Ann Lee/ })).toBeVisible();
  await expect(page.getByRole('row', { name: /Fiona/ })).toHaveCount(0);
});

test('filters by status, expiry and finding are stored in the URL', async ({ adminPage: page, world }) => {
  const person = await world.createPerson('Filter Felix');
  await setOverride(world, person, 'ui.dark_mode', true, { enabled: false });
  await setOverride(world, person, 'checkout.flow', 'classic', {
    expires_at: new Date(Date.now() + 3_600_000).toISOString(),
  });
  const rows = page.getByRole('row', { name: /Filter Felix/ });
  await page.goto('/flags/user-overrides?search=felix');
  await expect(rows).toHaveCount(2);
  await page.getByRole('button', { name: 'Disabled' }).click();
  await expect(rows).toHaveCount(1);
  await expect(page).toHaveURL(/status=disabled/);
  await page.getByRole('button', { name: 'Disabled' }).click();
  await page.getByRole('button', { name: 'Expires in 24 h' }).click();
  await expect(rows).toHaveCount(1);
  await expect(rows).toContainText('checkout.flow');
  await page.goto(`/flags/user-overrides?finding=override_redundant&user_id=${person.id}`);
  await expect(rows).toHaveCount(1);
  await expect(page.getByRole('searchbox')).toHaveAttribute('aria-disabled', 'true');
});

test('a bulk change shows how many overrides it will affect before it is executed', async ({
  adminPage: page,
  world,
}) => {
  await world.server.createFlag('bulk.test');
  for (const name of ['Bulk One', 'Bulk Two', 'Bulk Three']) {
    await setOverride(world, await world.createPerson(name), 'bulk.test', true, { enabled: name !== 'Bulk Three' });
  }
  const statuses = async () => {
    const list = await world.server.requestAsAdmin('GET', '/api/admin/flag-overrides?flag_name=bulk.test');
    return (list.items as { enabled: boolean }[]).filter(({ enabled }) => enabled).length;
  };
  await page.goto('/flag/bulk.test/user-overrides');
  await page.getByRole('checkbox', { name: 'Select all on this page' }).check();
  await expect(page.getByText('3 selected')).toBeVisible();
  await page.getByRole('button', { name: 'Disable', exact: true }).click();
  const review = page.getByRole('dialog', { name: 'Disable 3 overrides' });
  await expect(review.getByRole('listitem').nth(0)).toHaveText('2will change');
  await expect(review.getByRole('listitem').nth(1)).toHaveText('1are disabled already');
  expect(await statuses()).toBe(2);
  await review.getByRole('button', { name: 'Disable 2 overrides' }).click();
  await expect(page.getByText('2 overrides disabled')).toBeVisible();
  expect(await statuses()).toBe(0);
});

test('the expiry of selected overrides can be changed after a review', async ({ adminPage: page, world }) => {
  const person = await world.createPerson('Extend Eva');
  await setOverride(world, person, 'ui.dark_mode', true);
  await page.goto(`/users/${person.id}/overrides`);
  await page.getByRole('row', { name: /ui\.dark_mode/ }).focus();
  await page.keyboard.press('x');
  await page.getByRole('button', { name: 'Change expiry…' }).click();
  await page.getByRole('radio', { name: '30 d' }).check({ force: true });
  await page.getByRole('button', { name: /Change the expiry of 1 override$/ }).click();
  await expect(page.getByText('1 override changed')).toBeVisible();
  const { expires_at } = await world.server.requestAsAdmin('GET', overridePath(person, 'ui.dark_mode'));
  expect(Date.parse(String(expires_at))).toBeGreaterThan(Date.now() + 29 * 86_400_000);
});

test('an override can be created in the editor, previewed, and undone', async ({ adminPage: page, world }) => {
  const person = await world.createPerson('Editor Emil', { attributes: { plan: 'pro' } });
  await page.goto('/flags/user-overrides');
  await page.getByRole('button', { name: 'Add override' }).first().click();
  await page.getByRole('combobox', { name: 'User' }).fill('itor emi');
  await page.getByRole('option', { name: /Editor Emil/ }).click();
  await page.getByRole('combobox', { name: 'Flag' }).fill('checkout');
  const option = page.getByRole('option', { name: /checkout\.flow/ });
  await expect(option).toContainText('"one-page"');
  await expect(option).toContainText('Rule');
  await option.click();
  await expect(page.getByRole('radio', { name: '"classic"' })).not.toBeChecked();
  await expect(page.getByRole('radio', { name: '7 d' })).toBeChecked();
  await page.getByRole('radio', { name: '"classic"' }).check({ force: true });
  const preview = page.getByRole('complementary', { name: 'Preview' });
  await expect(preview).toContainText('With override"classic"Override');
  await expect(preview).toContainText('Hides a rule');
  await expect(preview).toContainText('Paying users');
  await page.getByRole('button', { name: /^Set checkout\.flow to "classic" for Editor until/ }).click();
  await expect(page.getByText('checkout.flow set for Editor Emil')).toBeVisible();
  await expect(drawer(page)).toBeHidden();
  const saved = await world.server.requestAsAdmin('GET', overridePath(person, 'checkout.flow'));
  expect(saved.override_value).toBe('classic');
  await page.getByRole('button', { name: 'Undo' }).click();
  await expect(page.getByText('Undone')).toBeVisible();
  const list = await world.server.requestAsAdmin('GET', `/api/admin/users/${person.id}/flag-overrides`);
  expect(list.total).toBe(0);
});

test('saving requires a value, and a reason if the expiry is never', async ({ adminPage: page, world }) => {
  const person = await world.createPerson('Strict Stella');
  await page.goto(`/flags?override=new&user=${person.id}&flag=ui.dark_mode`);
  await page.getByRole('button', { name: 'Set override' }).click();
  await expect(page.getByText('Choose a value.')).toBeVisible();
  await page.getByRole('radio', { name: 'on' }).check({ force: true });
  await page.getByRole('radio', { name: 'Never' }).check({ force: true });
  await page.getByRole('button', { name: /^Set ui\.dark_mode/ }).click();
  await expect(page.getByText('Enter why the override never expires.')).toBeVisible();
  await page.getByLabel('Reason').fill('Pilot customer');
  await page.keyboard.press('Control+Enter');
  await expect(drawer(page)).toBeHidden();
  const saved = await world.server.requestAsAdmin('GET', overridePath(person, 'ui.dark_mode'));
  expect(saved).toMatchObject({ override_value: true, expires_at: null, reason: 'Pilot customer' });
});

test('the editor warns about a redundant override before it is saved', async ({ adminPage: page, world }) => {
  const person = await world.createPerson('Redundant Rita');
  await page.goto(`/flags?override=new&user=${person.id}&flag=ui.dark_mode`);
  await page.getByRole('radio', { name: 'off' }).check({ force: true });
  await expect(page.getByText('Changes nothing now')).toBeVisible();
  await expect(page.getByRole('button', { name: 'Save anyway' })).toBeVisible();
  await expect(page.getByText('Hides a scheduled change')).toBeVisible();
});

test('invalid JSON is not saved, and the error names line and column', async ({ adminPage: page, world }) => {
  const person = await world.createPerson('Json Jo');
  await page.goto(`/flags?override=new&user=${person.id}&flag=banner.content`);
  await page.getByLabel('JSON value').fill('{\n  "text": oops\n}');
  await expect(page.getByText('Line 2, column 11: unexpected "o".')).toBeVisible();
  await page.getByRole('button', { name: 'Set override' }).click();
  await expect(drawer(page)).toBeVisible();
  await page.getByLabel('JSON value').fill('{"text": "Hi"}');
  await page.getByRole('button', { name: /^Set banner\.content/ }).click();
  await expect(drawer(page)).toBeHidden();
  const saved = await world.server.requestAsAdmin('GET', overridePath(person, 'banner.content'));
  expect(saved.override_value).toEqual({ text: 'Hi' });
});

test('a picked expiry shows zone, UTC and remaining time; a time skipped by daylight saving offers two instants; a past time is reported', async ({
  adminPage: page,
  world,
}) => {
  await page.goto(`/flags?override=new&user=${world.ann.id}&flag=ui.dark_mode`);
  await page.getByRole('radio', { name: 'Pick' }).check({ force: true });
  await page.getByLabel('Date and time').fill('2030-02-12T12:00');
  await expect(page.getByText('Tue 12 Feb 2030, 12:00', { exact: true })).toBeVisible();
  await expect(page.getByText(/Europe\/Berlin · 11:00 UTC · in \d/)).toBeVisible();
  await page.getByLabel('Date and time').fill('2030-03-31T02:30');
  await expect(page.getByText(/does not exist on this day/)).toBeVisible();
  await expect(page.getByRole('radiogroup', { name: 'Which time' }).getByRole('radio')).toHaveCount(2);
  await page.getByLabel('Date and time').fill('2020-01-01T00:00');
  await expect(page.getByText('This time has passed on the server.')).toBeVisible();
});

test('an override that another admin created meanwhile can be replaced', async ({ adminPage: page, world }) => {
  const person = await world.createPerson('Conflict Carl');
  await page.goto(`/flags?override=new&user=${person.id}&flag=search.max_results`);
  await page.getByRole('radio', { name: '100' }).check({ force: true });
  await page.route('**/api/admin/users/*/flags', (route) => route.abort());
  await setOverride(world, person, 'search.max_results', 7);
  await page.getByRole('button', { name: /^Set search\.max_results/ }).click();
  await expect(page.getByText('There is an override of this flag for this user already')).toBeVisible();
  await page.getByRole('button', { name: 'Replace it' }).click();
  await expect(drawer(page)).toBeHidden();
  const saved = await world.server.requestAsAdmin('GET', overridePath(person, 'search.max_results'));
  expect(saved.override_value).toBe(100);
});

test('changes to different fields are merged; a conflict offers a choice', async ({ adminPage: page, world }) => {
  const person = await world.createPerson('Merge Mia');
  await setOverride(world, person, 'search.max_results', 1, { reason: 'first' });
  await page.goto(`/flags?override=${person.id}/search.max_results`);
  await page.getByLabel('Reason').fill('mine');
  await world.server.requestAsAdmin('PATCH', overridePath(person, 'search.max_results'), { override_value: 2 });
  await expect(page.getByText('Changes by another person were taken over')).toBeVisible();
  await expect(page.getByLabel('Number', { exact: true })).toHaveValue('2');
  await expect(page.getByLabel('Reason')).toHaveValue('mine');
  await world.server.requestAsAdmin('PATCH', overridePath(person, 'search.max_results'), { reason: 'theirs' });
  await expect(page.getByText('The override was changed meanwhile')).toBeVisible();
  await page.getByRole('button', { name: 'Use theirs' }).click();
  await expect(page.getByLabel('Reason')).toHaveValue('theirs');
});

test('an override that was deleted meanwhile can be created again', async ({ adminPage: page, world }) => {
  const person = await world.createPerson('Gone Gustav');
  await setOverride(world, person, 'search.max_results', 3);
  await page.goto(`/flags?override=${person.id}/search.max_results`);
  await page.getByLabel('Reason').fill('still needed');
  await world.server.requestAsAdmin('DELETE', overridePath(person, 'search.max_results'));
  await expect(page.getByText('The override no longer exists')).toBeVisible();
  await page.getByRole('button', { name: 'Create again with these values' }).click();
  await expect(drawer(page)).toBeHidden();
  const saved = await world.server.requestAsAdmin('GET', overridePath(person, 'search.max_results'));
  expect(saved).toMatchObject({ override_value: 3, reason: 'still needed' });
});

test('a draft survives a reload, and closing asks for confirmation', async ({ adminPage: page, world }) => {
  const person = await world.createPerson('Draft Dora');
  await page.goto(`/flags?override=new&user=${person.id}&flag=ui.dark_mode`);
  await page.getByRole('radio', { name: 'on' }).check({ force: true });
  await page.getByLabel('Reason').fill('half a sentence');
  page.on('dialog', (dialog) => void dialog.accept());
  await page.reload();
  await expect(page.getByText('Your draft was restored')).toBeVisible();
  await expect(page.getByLabel('Reason')).toHaveValue('half a sentence');
  await expect(page.getByRole('radio', { name: 'on' })).toBeChecked();
  await page.keyboard.press('Escape');
  const question = page.getByRole('dialog', { name: 'Close without saving?' });
  await question.getByRole('button', { name: 'Discard' }).click();
  await expect(drawer(page)).toBeHidden();
});

test('a double click on the submit button creates one override', async ({ adminPage: page, world }) => {
  const person = await world.createPerson('Double Dan');
  const created: string[] = [];
  page.on('request', (request) => {
    if (request.method() === 'POST' && request.url().includes('flag-overrides')) created.push(request.url());
  });
  await page.goto(`/flags?override=new&user=${person.id}&flag=ui.dark_mode`);
  await page.getByRole('radio', { name: 'on' }).check({ force: true });
  await page.getByRole('button', { name: /^Set ui\.dark_mode/ }).dblclick();
  await expect(drawer(page)).toBeHidden();
  expect(created).toHaveLength(1);
});

test('an override can be deleted from its row and restored by Undo', async ({ adminPage: page, world }) => {
  const person = await world.createPerson('Row Robin');
  await setOverride(world, person, 'ui.dark_mode', true, { reason: 'keep me' });
  await page.goto(`/users/${person.id}/overrides`);
  await page.getByRole('button', { name: /^Actions for Row Robin/ }).click({ force: true });
  await page.getByRole('menuitem', { name: 'Delete' }).click();
  await expect(page.getByText('There are no overrides')).toBeVisible();
  await page.getByRole('button', { name: 'Undo' }).click();
  await expect(page.getByRole('row', { name: /keep me/ })).toBeVisible();
});

test('the editor offers no unreadable flag, and reports one in its URL', async ({ adminPage: page, world }) => {
  const person = await world.createPerson('Reader Rosa');
  await world.createUnreadableFlag('newer.editor');
  await page.goto('/flags?override=new');
  await page.getByRole('combobox', { name: 'Flag' }).fill('newer.editor');
  await expect(page.getByText('No flag matches “newer.editor”.')).toBeVisible();
  await page.goto(`/flags?override=new&user=${person.id}&flag=newer.editor`);
  await expect(drawer(page).getByRole('alert')).toContainText('The flag cannot be read');
  await expect(drawer(page).getByRole('alert')).toContainText('resembles');
  await expect(page.getByRole('button', { name: 'Set override' })).toHaveAttribute('aria-disabled', 'true');
});

test('the override of a user without e-mail shows the name of the user everywhere', async ({
  adminPage: page,
  world,
}) => {
  const body = { external_id: 'crm-4711' };
  const { id } = await world.server.requestAsAdmin('POST', '/api/admin/users', body);
  const person: Account = { id: String(id), email: '' };
  await page.goto('/flags?override=new&flag=ui.dark_mode');
  await page.getByRole('combobox', { name: 'User' }).fill('crm-47');
  await page.getByRole('option', { name: /crm-4711/ }).click();
  await page.getByRole('radio', { name: 'on' }).check({ force: true });
  await page.getByRole('button', { name: /^Set ui\.dark_mode to on for crm-4711/ }).click();
  await expect(page.getByText('ui.dark_mode set for crm-4711')).toBeVisible();
  const saved = await world.server.requestAsAdmin('GET', overridePath(person, 'ui.dark_mode'));
  expect(saved).toMatchObject({ override_value: true, user_label: 'crm-4711', user_email: null });
  await page.goto('/flags/user-overrides?search=crm-4711');
  const row = page.getByRole('row', { name: /crm-4711/ });
  await expect(row.getByRole('checkbox', { name: 'Select crm-4711, ui.dark_mode' })).toBeVisible();
  await expect(row.getByRole('link', { name: 'crm-4711' })).toBeVisible();
  await expect(row.getByRole('button', { name: 'Actions for crm-4711, ui.dark_mode' })).toHaveCount(1);
});

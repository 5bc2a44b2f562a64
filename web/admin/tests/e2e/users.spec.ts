import { expect, test } from './fixtures.ts';

test('the user list shows the number of overrides and filters by it', async ({ adminPage: page }) => {
  await page.goto('/users?search=ann+lee');
  await expect(page.getByRole('link', { name: /1\s*overrides of Ann Lee/ })).toBeVisible();
  await page.goto('/users');
  await page.getByRole('button', { name: /With overrides/ }).click();
  await expect(page).toHaveURL(/has_overrides=true/);
  await expect(page.getByRole('row', { name: /Ann Lee/ })).toBeVisible();
  await expect(page.getByRole('row', { name: /viewer person/ })).toHaveCount(0);
});

test('the user page shows each value with its source, and Why? explains every layer', async ({
  adminPage: page,
  world,
}) => {
  await page.goto(`/users/${world.ann.id}`);
  const row = page.getByRole('row', { name: /search\.max_results/ });
  await expect(row).toContainText('500');
  await expect(row).toContainText('Override');
  await expect(page.getByRole('row', { name: /checkout\.flow/ })).toContainText('Rule');
  await row.getByRole('button', { name: /Why\?/ }).click();
  await expect(page).toHaveURL(/why=search\.max_results/);
  const layers = page.getByRole('list', { name: 'Layers' }).getByRole('listitem');
  await expect(layers.first()).toContainText('Decides');
  await expect(layers.last()).toContainText('Would decide without the override');
  await page.goto(`/users/${world.accounts.viewer.id}?why=checkout.flow`);
  await expect(page.getByText('viewer has no attribute plan')).toBeVisible();
});

test('a future time shows a forecast and disables editing', async ({ adminPage: page, world }) => {
  const at = new Date(Date.now() + 2 * 86_400_000).toISOString();
  await page.goto(`/users/${world.ann.id}?at=${encodeURIComponent(at)}`);
  await expect(page.getByText(/^Forecast for/)).toBeVisible();
  const row = page.getByRole('row', { name: /ui\.dark_mode/ });
  await expect(row).toContainText('on');
  await expect(row).toContainText('Scheduled');
  await expect(row.getByRole('button', { name: 'Override ui.dark_mode' })).toHaveAttribute('aria-disabled', 'true');
});

test('a user can be created, edited, deactivated and erased', async ({ adminPage: page, world }) => {
  await page.goto('/users');
  await page.getByRole('button', { name: 'New user' }).first().click();
  await page.getByRole('textbox', { name: 'E-mail' }).fill('new.nora@example.com');
  await page.getByRole('textbox', { name: 'Name' }).fill('New Nora');
  await page.getByLabel('Attributes').fill('{"plan": "pro"}');
  await page.getByRole('button', { name: 'Create user' }).click();
  await expect(page.getByRole('heading', { name: 'New Nora', exact: true })).toBeVisible();
  const id = new URL(page.url()).pathname.split('/').at(-1);
  const actions = page.getByRole('button', { name: 'Actions for this user' });
  await actions.click();
  await page.getByRole('menuitem', { name: 'Edit' }).click();
  await page.getByRole('textbox', { name: 'Name' }).fill('Nora Newman');
  await page.getByRole('button', { name: 'Save' }).click();
  await expect(page.getByRole('heading', { name: 'Nora Newman', exact: true })).toBeVisible();
  await actions.click();
  await page.getByRole('menuitem', { name: 'Deactivate' }).click();
  await expect(page.getByText(/inactive/).first()).toBeVisible();
  const saved = await world.server.requestAsAdmin('GET', `/api/admin/users/${id}`);
  expect(saved).toMatchObject({ display_name: 'Nora Newman', active: false, attributes: { plan: 'pro' } });
  await actions.click();
  await page.getByRole('menuitem', { name: 'Delete or erase' }).click();
  await page.getByLabel('Also erase personal data from the audit log').check();
  const erase = page.getByRole('button', { name: 'Erase user' });
  await expect(erase).toHaveAttribute('aria-disabled', 'true');
  await page.getByLabel(/to confirm/).fill('new.nora@example.com');
  await erase.click();
  await expect(page).toHaveURL(/\/users$/);
});

test('a user sees a new override in My flags within two seconds', async ({ browser, world, signIn, baseURL }) => {
  const context = await browser.newContext({ ...(baseURL && { baseURL }) });
  await signIn(context, 'user');
  const page = await context.newPage();
  await page.goto('/my-flags');
  const row = page.getByRole('row', { name: /ui\.dark_mode/ });
  await expect(row).toContainText('Default');
  await world.server.setOverride({ ...world.accounts.user, token: '' }, 'ui.dark_mode', true);
  await expect(row).toContainText('Override', { timeout: 2_000 });
  await expect(row).toContainText('on');
  await context.close();
});

test('a user can be created with an external id only, and gets an e-mail later', async ({ adminPage: page, world }) => {
  await page.goto('/users');
  await page.getByRole('button', { name: 'New user' }).first().click();
  const email = page.getByRole('textbox', { name: 'E-mail' });
  const externalId = page.getByRole('textbox', { name: 'External ID' });
  const create = page.getByRole('button', { name: 'Create user' });
  await create.click();
  await expect(page.getByText('Enter an e-mail address or an external id.', { exact: true })).toBeVisible();
  await externalId.fill('a@b');
  await expect(page.getByText('An external id must not contain @.')).toBeVisible();
  await externalId.fill('crm-1000');
  await page.getByRole('textbox', { name: 'Password' }).fill('correct horse battery');
  await expect(page.getByText('A password needs an e-mail address.', { exact: true })).toBeVisible();
  await page.getByRole('textbox', { name: 'Password' }).fill('');
  await create.click();
  await expect(page.getByRole('heading', { name: 'crm-1000', exact: true })).toBeVisible();
  const id = new URL(page.url()).pathname.split('/').at(-1);
  const actions = page.getByRole('button', { name: 'Actions for this user' });
  await actions.click();
  await expect(page.getByRole('menuitem', { name: 'Set password' })).toHaveAttribute('aria-disabled', 'true');
  await page.getByRole('menuitem', { name: 'Edit' }).click();
  await expect(externalId).toHaveCount(0);
  await page.getByRole('textbox', { name: 'Name' }).fill('Cora Mint');
  await page.getByRole('button', { name: 'Save' }).click();
  await expect(page.getByText('crm-1000 · User · active')).toBeVisible();
  await actions.click();
  await page.getByRole('menuitem', { name: 'Delete or erase' }).click();
  await page.getByLabel('Enter Cora Mint to confirm').fill('Cora Mint');
  await expect(page.getByRole('button', { name: 'Delete user' })).not.toHaveAttribute('aria-disabled', 'true');
  await page.getByRole('button', { name: 'Cancel' }).click();
  await actions.click();
  await page.getByRole('menuitem', { name: 'Edit' }).click();
  await email.fill('cora@example.com');
  await page.getByRole('button', { name: 'Save' }).click();
  await expect(page.getByText('cora@example.com · External ID crm-1000 · User · active')).toBeVisible();
  const saved = await world.server.requestAsAdmin('GET', `/api/admin/users/${id}`);
  expect(saved).toMatchObject({ email: 'cora@example.com', external_id: 'crm-1000', display_name: 'Cora Mint' });
});

test('an external id can be added to a user that has none', async ({ adminPage: page, world }) => {
  const person = await world.createPerson('Adda Link');
  await page.goto(`/users/${person.id}`);
  await page.getByRole('button', { name: 'Actions for this user' }).click();
  await page.getByRole('menuitem', { name: 'Edit' }).click();
  await page.getByRole('textbox', { name: 'External ID' }).fill('crm-2000');
  await page.getByRole('button', { name: 'Save' }).click();
  await expect(page.getByText(/External ID crm-2000/)).toBeVisible();
});

import { expect, PASSWORD, test } from './fixtures.ts';

test('after sign-in, the user returns to the requested page', async ({ page, world }) => {
  await page.goto('/users?search=ann');
  await expect(page).toHaveURL(/\/sign-in\?next=/);
  await page.getByLabel('E-mail').fill(world.accounts.admin.email);
  await page.getByLabel('Password', { exact: true }).fill(PASSWORD);
  await page.getByRole('button', { name: 'Sign in' }).click();
  await expect(page).toHaveURL(/\/users\?search=ann$/);
  await expect(page.getByRole('row', { name: /Ann Lee/ })).toBeVisible();
});

test('a redirect to another site after sign-in is ignored', async ({ page, context, signIn }) => {
  await signIn(context, 'admin');
  for (const next of ['https://example.com/', '//example.com', '/\\example.com', 'javascript:alert(1)']) {
    await page.goto(`/sign-in?next=${encodeURIComponent(next)}`);
    await expect(page).toHaveURL(/\/flags$/);
  }
});

test('a wrong password is reported and the form stays usable', async ({ page, world }) => {
  await page.goto('/sign-in');
  await page.getByLabel('E-mail').fill(world.accounts.admin.email);
  await page.getByLabel('Password', { exact: true }).fill('wrong password 123');
  await page.getByRole('button', { name: 'Sign in' }).click();
  await expect(page.getByRole('alert')).toHaveText('E-mail or password is wrong.');
  await page.getByLabel('Password', { exact: true }).fill(PASSWORD);
  await page.getByRole('button', { name: 'Sign in' }).click();
  await expect(page).toHaveURL(/\/flags$/);
});

test('the sign-in form shows a countdown after too many attempts', async ({ page }) => {
  await page.route('**/api/auth/login', (route) =>
    route.fulfill({
      status: 429,
      headers: { 'Retry-After': '2', 'Content-Type': 'application/problem+json' },
      body: JSON.stringify({ code: 'too_many_attempts', detail: 'too many attempts' }),
    }),
  );
  await page.goto('/sign-in');
  await page.getByLabel('E-mail').fill('x@example.com');
  await page.getByLabel('Password', { exact: true }).fill('x');
  await page.getByRole('button', { name: 'Sign in' }).click();
  await expect(page.getByRole('button', { name: /Try again in \d s/ })).toBeVisible();
  await expect(page.getByRole('button', { name: 'Sign in' })).toBeEnabled();
});

test('after the session ends, the user signs in again in a dialog and the form keeps its contents', async ({
  adminPage: page,
  context,
  world,
}) => {
  await page.goto(`/flags?override=new&user=${world.ann.id}&flag=ui.dark_mode`);
  await page.getByLabel('Reason').fill('typed before the session ended');
  await page.getByText('on', { exact: true }).first().click();
  await context.clearCookies();
  await page.getByRole('button', { name: /^Set ui.dark_mode/ }).click();
  const dialog = page.getByRole('dialog', { name: 'Sign in again' });
  await expect(dialog).toBeVisible();
  await dialog.getByLabel('E-mail').fill(world.accounts.admin.email);
  await dialog.getByLabel('Password', { exact: true }).fill(PASSWORD);
  await dialog.getByRole('button', { name: 'Sign in' }).click();
  await expect(dialog).toBeHidden();
  await expect(page.getByLabel('Reason')).toHaveValue('typed before the session ended');
});

test.describe('as viewer', () => {
  test.use({ role: 'viewer' });

  test('controls that require role admin are disabled but focusable and say why', async ({ adminPage: page }) => {
    const changes: string[] = [];
    page.on('request', (request) => {
      if (request.method() !== 'GET') changes.push(request.url());
    });
    await page.goto('/flags');
    const add = page.getByRole('button', { name: 'Add override' });
    await expect(add).toHaveAttribute('aria-disabled', 'true');
    await expect(add).toHaveAccessibleDescription('Only admins and support can change overrides.');
    await add.focus();
    await expect(add).toBeFocused();
    await add.press('Enter');
    const flagSwitch = page.getByRole('switch').first();
    await expect(flagSwitch).toHaveAttribute('aria-disabled', 'true');
    await flagSwitch.click({ force: true });
    await expect(page.getByRole('dialog')).toHaveCount(0);
    await page.goto('/flags/user-overrides');
    await expect(page.getByRole('table', { name: 'User overrides' })).toBeVisible();
    await expect(page.getByRole('checkbox')).toHaveCount(0);
    expect(changes).toEqual([]);
  });
});

test.describe('as user', () => {
  test.use({ role: 'user' });

  test('role user sees only My flags and Profile; other pages say who may see them', async ({ adminPage: page }) => {
    await page.goto('/');
    await expect(page).toHaveURL(/\/my-flags$/);
    await expect(page.getByRole('table', { name: 'My flags' })).toBeVisible();
    await expect(page.getByRole('navigation', { name: 'Main' }).first().getByRole('link')).toHaveCount(2);
    await page.goto('/flags/user-overrides');
    await expect(page.getByText('Only admins, support and viewers can see this page.')).toBeVisible();
  });
});

test('the command palette finds flags and users and opens the override editor', async ({ adminPage: page }) => {
  await page.goto('/flags');
  await expect(page.getByRole('table', { name: 'Flags' })).toBeVisible();
  await page.keyboard.press('Control+k');
  const search = page.getByRole('combobox', { name: 'Search flags, users and actions' });
  await search.fill('dark');
  await expect(page.getByRole('option', { name: /ui\.dark_mode/ })).toBeVisible();
  await search.fill('ann lee');
  await page.getByRole('option', { name: /Ann Lee/ }).click();
  await expect(page.getByRole('heading', { name: 'Ann Lee' })).toBeVisible();
  await page.keyboard.press('Control+k');
  await expect(page.getByRole('option').first()).toContainText('Override a flag for a user');
  await page.keyboard.press('Enter');
  await expect(page.getByRole('dialog', { name: 'Override a flag for one user' })).toBeVisible();
});

test('the key ? lists the shortcuts, and single-letter shortcuts can be disabled', async ({ adminPage: page }) => {
  await page.goto('/profile');
  await expect(page.getByRole('heading', { name: 'Profile' })).toBeVisible();
  await page.keyboard.press('?');
  await expect(page.getByRole('dialog', { name: 'Keyboard shortcuts' })).toBeVisible();
  await page.keyboard.press('Escape');
  await page.getByLabel('Single letters are shortcuts').uncheck();
  await page.getByRole('heading', { name: 'Profile' }).click();
  await page.keyboard.press('?');
  await expect(page.getByRole('dialog')).toHaveCount(0);
});

test('the theme follows the system, can be set, and is applied before the page renders', async ({
  adminPage: page,
}) => {
  const background = () => page.evaluate(() => getComputedStyle(document.body).backgroundColor);
  await page.emulateMedia({ colorScheme: 'dark' });
  await page.goto('/profile');
  await expect.poll(background).toBe('rgb(15, 16, 20)');
  await page.getByRole('radio', { name: 'Light' }).check({ force: true });
  await expect.poll(background).toBe('rgb(249, 250, 251)');
  await page.route('**/assets/index-*.js', (route) => route.abort());
  await page.reload({ waitUntil: 'commit' });
  await expect(page.locator('html')).toHaveAttribute('data-theme', 'light');
});

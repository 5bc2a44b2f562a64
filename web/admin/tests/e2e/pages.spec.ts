/** Accessibility, horizontal overflow and screenshots of every page and drawer. */

import { fileURLToPath } from 'node:url';
import { AxeBuilder } from '@axe-core/playwright';
import type { World } from './fixtures.ts';
import { expect, test } from './fixtures.ts';

const PICTURES = fileURLToPath(new URL('../../screenshots/', import.meta.url));

const PAGES: Readonly<Record<string, (world: World) => string>> = {
  flags: () => '/flags',
  'scheduled-changes': () => '/flags/scheduled-changes',
  'user-overrides': () => '/flags/user-overrides',
  flag: () => '/flag/checkout.flow',
  'flag-overrides': () => '/flag/search.max_results/user-overrides',
  users: () => '/users',
  user: ({ ann }) => `/users/${ann.id}`,
  why: ({ ann }) => `/users/${ann.id}?why=search.max_results`,
  editor: ({ ann }) => `/flags/user-overrides?override=new&user=${ann.id}&flag=ui.dark_mode`,
  'editor-json': ({ ann }) => `/flags/user-overrides?override=new&user=${ann.id}&flag=banner.content`,
  'editor-empty': () => '/flags/user-overrides?override=new',
  'editor-existing': ({ ann }) => `/flags/user-overrides?override=${ann.id}/search.max_results`,
  'my-flags': () => '/my-flags',
  profile: () => '/profile',
};

for (const colorScheme of ['light', 'dark'] as const) {
  for (const width of [1280, 375]) {
    test(`pages are accessible and fit the width, ${colorScheme}, ${width} px`, async ({ adminPage: page, world }) => {
      test.setTimeout(120_000);
      await page.emulateMedia({ colorScheme, reducedMotion: 'reduce' });
      await page.setViewportSize({ width, height: width === 375 ? 780 : 860 });
      for (const [name, address] of Object.entries(PAGES)) {
        await page.goto(address(world));
        await expect(page.getByRole('status', { name: 'Loading' })).toHaveCount(0);
        await expect(page.getByText('Loading…')).toHaveCount(0);
        await expect(page.locator('main :is(h1, h2), [role="dialog"] h2').first()).toBeVisible();
        const overflow = await page.evaluate(() => document.documentElement.scrollWidth - innerWidth);
        expect(overflow, `${name} scrolls sideways`).toBeLessThanOrEqual(0);
        await page.screenshot({ path: `${PICTURES}${name}-${colorScheme}-${width}.png` });
        // Colours and accessible names do not depend on the width, so one analysis is sufficient.
        if (width === 375) continue;
        const { violations } = await new AxeBuilder({ page }).analyze();
        const serious = violations.filter(({ impact }) => impact === 'serious' || impact === 'critical');
        expect(serious.map(({ id, nodes }) => `${name}: ${id}: ${nodes.map(({ html }) => html).join('\n')}`)).toEqual(
          [],
        );
      }
    });
  }
}

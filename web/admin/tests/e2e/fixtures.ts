/** Playwright fixtures: the real server with test data, and a signed-in user of each role. */

import { type BrowserContext, test as base, expect, type Page } from '@playwright/test';
import { Server } from '../../../tests/src/server.ts';
import type { Role } from '../../src/api/types.ts';

export const PASSWORD = 'correct horse battery';

export interface Account {
  readonly id: string;
  readonly email: string;
}

/** Server with flags and users that the tests share. Tests that change data create their own users and flags. */
export interface World {
  readonly server: Server;
  readonly accounts: Readonly<Record<Role, Account>>;
  readonly ann: Account;
  /** Creates a user with a unique e-mail. */
  createPerson(name: string, fields?: object): Promise<Account>;
  /** Creates a boolean flag whose definition the server cannot read, as if a newer version had written it. */
  createUnreadableFlag(name: string): Promise<void>;
}

/** Browser errors about failed responses and connections, which the tests cause intentionally. */
const EXPECTED_RESPONSE_ERROR =
  /Failed to load resource: (the server responded with a status of (401|403|404|409|412|429)|net::ERR_)/;

let counter = 0;

async function createWorld(): Promise<World> {
  const server = await Server.start();
  const createPerson = async (name: string, fields: object = {}): Promise<Account> => {
    counter += 1;
    const email = `${name.toLowerCase().replace(/\W+/g, '.')}.${counter}@example.com`;
    const body = { email, display_name: name, ...fields };
    const { id } = await server.requestAsAdmin('POST', '/api/admin/users', body);
    return { id: String(id), email };
  };
  const createUnreadableFlag = async (name: string): Promise<void> => {
    await server.createFlag(name);
    const rules = JSON.stringify([
      {
        id: 'r',
        serve: { variant: 'on' },
        conditions: [{ attribute: 'plan', operator: 'resembles', values: ['pro'] }],
      },
    ]);
    server.executeSql(`UPDATE feature_flags SET targeting_rules = '${rules}' WHERE name = '${name}'`);
  };
  await server.createFlag('ui.dark_mode');
  await server.createFlag('checkout.flow', ['classic', 'one-page'], {
    description: 'Which checkout a customer sees',
    tags: ['checkout'],
    targeting_rules: [
      {
        id: 'pro',
        name: 'Paying users',
        serve: { variant: 'v1' },
        conditions: [{ attribute: 'plan', operator: 'equals', values: ['pro'] }],
      },
    ],
  });
  await server.createFlag('search.max_results', [20, 100]);
  await server.createFlag('banner.content', [null, { text: 'Sale!' }]);
  const tomorrow = new Date(Date.now() + 86_400_000).toISOString();
  await server.requestAsAdmin('POST', '/api/admin/feature-flags/ui.dark_mode/scheduled-changes', {
    scheduled_at: tomorrow,
    serve: { variant: 'on' },
    description: 'Dark mode for all users',
  });
  const account = (role: Role) => createPerson(`${role} person`, { role, password: PASSWORD });
  const accounts = {
    admin: await account('admin'),
    support: await account('support'),
    viewer: await account('viewer'),
    user: await account('user'),
  };
  const ann = await createPerson('Ann Lee', { attributes: { plan: 'pro' } });
  await server.setOverride({ ...ann, token: '' }, 'search.max_results', 500, { reason: 'SUP-4411' });
  return { server, accounts, ann, createPerson, createUnreadableFlag };
}

interface TestFixtures {
  /** Signs the browser context in as the user with this role. */
  readonly signIn: (context: BrowserContext, role: Role) => Promise<void>;
  /** Page of a signed-in admin. Use `test.use({ role })` for another role. */
  readonly adminPage: Page;
  readonly role: Role;
}

export const test = base.extend<TestFixtures, { world: World }>({
  world: [
    // biome-ignore lint/correctness/noEmptyPattern: Playwright requires an object pattern
    async ({}, use) => {
      const world = await createWorld();
      await use(world);
      await world.server.dispose();
    },
    { scope: 'worker' },
  ],
  baseURL: async ({ world }, use) => use(world.server.baseUrl),
  role: ['admin', { option: true }],
  signIn: async ({ world }, use) => {
    await use(async (context, role) => {
      const { email } = world.accounts[role];
      const response = await context.request.post(`${world.server.baseUrl}/api/auth/login`, {
        data: { email, password: PASSWORD },
      });
      expect(response.status()).toBe(200);
    });
  },
  /** Fails the test if the page logs console errors or violates the content security policy. */
  page: async ({ page }, use) => {
    const errors = watchErrors(page);
    await use(page);
    expect(errors).toEqual([]);
  },
  adminPage: async ({ page, context, signIn, role }, use) => {
    await signIn(context, role);
    await use(page);
  },
});

/** Collects console errors, exceptions and violations of the content security policy. */
export function watchErrors(page: Page): string[] {
  const errors: string[] = [];
  page.on('pageerror', (error) => errors.push(error.message));
  page.on('console', (message) => {
    if (message.type() === 'error' && !EXPECTED_RESPONSE_ERROR.test(message.text())) errors.push(message.text());
  });
  void page.addInitScript(() => {
    addEventListener('securitypolicyviolation', ({ violatedDirective, blockedURI }) => {
      console.error(`content security policy: ${violatedDirective} ${blockedURI}`);
    });
  });
  return errors;
}

export { expect } from '@playwright/test';

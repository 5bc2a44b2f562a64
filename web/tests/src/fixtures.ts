/** Users, and flags that cover every value type and every evaluation layer, for the tests of OpenFeature providers. */

import type { Server, User } from './server.js';

export interface Fixtures {
  /** User with overrides and the attribute `plan: pro`. */
  ann: User;
  /** User without overrides and attributes. */
  ben: User;
  /** API token with scope `evaluate`, which may evaluate flags for any user. */
  evaluatorToken: string;
}

export async function createFixtures(server: Server): Promise<Fixtures> {
  const [ann, ben] = [await server.createUser('ann', { plan: 'pro' }), await server.createUser('ben')];
  const evaluatorToken = await server.createEvaluatorToken();
  await server.createFlag('type.boolean');
  await server.createFlag('type.string', ['one', 'two']);
  await server.createFlag('type.integer', [3, 7]);
  await server.createFlag('type.float', [1, 2.5]);
  await server.createFlag('type.object', [{ a: [1, null], b: { c: 'd' } }, {}]);
  await server.createFlag('overridden.string', ['default', 'other']);
  await server.setOverride(ann, 'overridden.string', 'own', { expires_at: '2099-01-01T00:00:00Z' });
  await server.createFlag('overridden.float', [0.5, 1.5]);
  await server.setOverride(ann, 'overridden.float', 2);
  await server.createFlag('targeted.string', ['free', 'paying'], {
    targeting_rules: [
      {
        id: 'pro',
        name: 'Paying users',
        enabled: true,
        conditions: [{ attribute: 'plan', operator: 'equals', values: ['pro'] }],
        serve: { variant: 'v1' },
      },
    ],
  });
  await server.createFlag('split.string', ['left', 'right'], { default: { weights: { v0: 50, v1: 50 } } });
  await server.createFlag('disabled.string', ['off', 'on'], { enabled: false, default: { variant: 'v1' } });
  await server.createFlag('archived.string', ['archived']);
  await server.requestAsAdmin('POST', '/api/admin/feature-flags/archived.string/archive');
  await server.createFlag('hidden.string', ['secret'], { client_visible: false });
  return { ann, ben, evaluatorToken };
}

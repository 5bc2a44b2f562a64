/** Flags of every type and layer, for the providers of OpenFeature. */

import type { Server, User } from './server.js';

export interface Scene {
  /** Has overrides, and the attribute `plan: pro`. */
  ann: User;
  /** Has nothing of his own. */
  ben: User;
  /** May evaluate for anybody. */
  evaluator: string;
}

/** Makes them. */
export async function makeScene(server: Server): Promise<Scene> {
  const [ann, ben] = [await server.user('ann', { plan: 'pro' }), await server.user('ben')];
  const evaluator = await server.evaluator();
  await server.flag('type.boolean');
  await server.flag('type.string', ['one', 'two']);
  await server.flag('type.integer', [3, 7]);
  await server.flag('type.float', [1, 2.5]);
  await server.flag('type.object', [{ a: [1, null], b: { c: 'd' } }, {}]);
  await server.flag('overridden.string', ['default', 'other']);
  await server.override(ann, 'overridden.string', 'own', { expires_at: '2099-01-01T00:00:00Z' });
  await server.flag('overridden.float', [0.5, 1.5]);
  await server.override(ann, 'overridden.float', 2);
  await server.flag('ruled.string', ['everybody', 'paying'], {
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
  await server.flag('split.string', ['left', 'right'], { default: { weights: { v0: 50, v1: 50 } } });
  await server.flag('disabled.string', ['off', 'on'], { enabled: false, default: { variant: 'v1' } });
  await server.flag('archived.string', ['gone']);
  await server.call('POST', '/api/admin/feature-flags/archived.string/archive');
  await server.flag('hidden.string', ['secret'], { client_visible: false });
  return { ann, ben, evaluator };
}

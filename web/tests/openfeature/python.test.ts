import { type ChildProcessWithoutNullStreams, spawn } from 'node:child_process';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { createFixtures, type Fixtures } from '../src/fixtures.js';
import { Server, TARGET_DIR } from '../src/server.js';

interface EvaluationRequest {
  type: 'boolean' | 'string' | 'integer' | 'float' | 'object';
  flag: string;
  default: unknown;
  token?: string;
  key?: string | null;
  attributes?: Record<string, unknown>;
}

const PYTHON = join(TARGET_DIR, 'openfeature-venv', 'bin', 'python');
const SCRIPT = fileURLToPath(new URL('provider.py', import.meta.url));

let server: Server;
let fixtures: Fixtures;
let python: ChildProcessWithoutNullStreams;
let outputLines: AsyncIterator<string>;

beforeAll(async () => {
  server = await Server.start();
  fixtures = await createFixtures(server);
  python = spawn(PYTHON, [SCRIPT, server.baseUrl]);
  python.stderr.pipe(process.stderr);
  outputLines = createInterface({ input: python.stdout })[Symbol.asyncIterator]();
});
afterAll(async () => {
  python?.stdin.end();
  await server?.dispose();
});

/** Evaluates a flag in the Python process. Default: for user ben, with a token of scope `evaluate`. */
async function evaluate(request: EvaluationRequest): Promise<unknown> {
  const line = { token: fixtures.evaluatorToken, key: fixtures.ben.id, attributes: {}, ...request };
  python.stdin.write(`${JSON.stringify(line)}\n`);
  const { value, done } = await outputLines.next();
  if (done) throw new Error('the Python process exited');
  return JSON.parse(value);
}

describe('official Python provider', () => {
  test('evaluates flags of every type, including whole numbers of a floating-point flag', async () => {
    const cases: [EvaluationRequest['type'], unknown, unknown, string][] = [
      ['boolean', true, false, 'bool'],
      ['string', '', 'one', 'str'],
      ['integer', 0, 3, 'int'],
      ['float', 0.5, 1, 'float'],
      ['object', {}, { a: [1, null], b: { c: 'd' } }, 'dict'],
    ];
    for (const [type, fallback, value, kind] of cases) {
      const details = await evaluate({ type, flag: `type.${type}`, default: fallback });
      expect(details).toMatchObject({ value, kind, reason: 'STATIC', error: null, source: 'default' });
    }
  });

  test('evaluates overrides, including a whole number for a floating-point flag', async () => {
    const expected = { value: 'own', reason: 'TARGETING_MATCH', variant: 'override', source: 'override' };
    expect(
      await evaluate({ type: 'string', flag: 'overridden.string', default: '', key: fixtures.ann.id }),
    ).toMatchObject(expected);
    const float = await evaluate({ type: 'float', flag: 'overridden.float', default: 0.1, key: fixtures.ann.id });
    expect(float).toMatchObject({ value: 2, kind: 'float', error: null });
  });

  test('evaluates a targeting rule, a percentage split and a disabled flag', async () => {
    const paying = { value: 'paying', reason: 'TARGETING_MATCH', source: 'targeting_rule' };
    const attributes = { plan: 'pro' };
    expect(await evaluate({ type: 'string', flag: 'targeted.string', default: '', attributes })).toMatchObject(paying);
    expect(await evaluate({ type: 'string', flag: 'split.string', default: '' })).toMatchObject({ reason: 'SPLIT' });
    const off = { value: 'off', reason: 'DISABLED', source: 'disabled' };
    expect(await evaluate({ type: 'string', flag: 'disabled.string', default: '' })).toMatchObject(off);
  });

  test('evaluates without a targeting key', async () => {
    const request = { type: 'string', default: 'fallback', flag: 'type.string', key: null } as const;
    expect(await evaluate(request)).toMatchObject({ value: 'one', error: null });
  });

  test('returns the default and the error code if evaluation fails', async () => {
    const defaults = { type: 'string', default: 'fallback', flag: 'type.string' } as const;
    const expectError = async (request: Partial<EvaluationRequest>, error: string) =>
      expect(await evaluate({ ...defaults, ...request })).toMatchObject({ value: 'fallback', reason: 'ERROR', error });
    await expectError({ flag: 'no.such' }, 'FLAG_NOT_FOUND');
    await expectError({ flag: 'archived.string' }, 'FLAG_NOT_FOUND');
    await expectError({ flag: 'type.boolean' }, 'TYPE_MISMATCH');
    await expectError({ token: fixtures.ann.token }, 'GENERAL');
    await expectError({ token: 'flg_invalid' }, 'GENERAL');
  });
});

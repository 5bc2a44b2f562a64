import { type ChildProcessWithoutNullStreams, spawn } from 'node:child_process';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { makeScene, type Scene } from '../src/flags.js';
import { Server, TARGET } from '../src/server.js';

interface Question {
  type: 'boolean' | 'string' | 'integer' | 'float' | 'object';
  flag: string;
  default: unknown;
  token?: string;
  key?: string | null;
  attributes?: Record<string, unknown>;
}

const PYTHON = join(TARGET, 'openfeature-venv', 'bin', 'python');
const PROGRAM = fileURLToPath(new URL('provider.py', import.meta.url));

let server: Server;
let scene: Scene;
let python: ChildProcessWithoutNullStreams;
let answers: AsyncIterator<string>;

beforeAll(async () => {
  server = await Server.start();
  scene = await makeScene(server);
  python = spawn(PYTHON, [PROGRAM, server.base]);
  python.stderr.pipe(process.stderr);
  answers = createInterface({ input: python.stdout })[Symbol.asyncIterator]();
});
afterAll(async () => {
  python?.stdin.end();
  await server?.stop();
});

async function ask(question: Question): Promise<unknown> {
  const whole = { token: scene.evaluator, key: scene.ben.id, attributes: {}, ...question };
  python.stdin.write(`${JSON.stringify(whole)}\n`);
  const { value, done } = await answers.next();
  if (done) throw new Error('the program has ended');
  return JSON.parse(value);
}

describe('the official provider for Python', () => {
  test('every type, whole numbers of a floating flag included', async () => {
    const cases: [Question['type'], unknown, unknown, string][] = [
      ['boolean', true, false, 'bool'],
      ['string', '', 'one', 'str'],
      ['integer', 0, 3, 'int'],
      ['float', 0.5, 1, 'float'],
      ['object', {}, { a: [1, null], b: { c: 'd' } }, 'dict'],
    ];
    for (const [type, fallback, value, kind] of cases) {
      const answer = await ask({ type, flag: `type.${type}`, default: fallback });
      expect(answer).toMatchObject({ value, kind, reason: 'STATIC', error: null, source: 'default' });
    }
  });

  test('an override, a whole one of a floating flag too', async () => {
    const own = { value: 'own', reason: 'TARGETING_MATCH', variant: 'override', source: 'override' };
    expect(await ask({ type: 'string', flag: 'overridden.string', default: '', key: scene.ann.id })).toMatchObject(own);
    const float = await ask({ type: 'float', flag: 'overridden.float', default: 0.1, key: scene.ann.id });
    expect(float).toMatchObject({ value: 2, kind: 'float', error: null });
  });

  test('a rule, a split, a flag that is off', async () => {
    const paying = { value: 'paying', reason: 'TARGETING_MATCH', source: 'targeting_rule' };
    const attributes = { plan: 'pro' };
    expect(await ask({ type: 'string', flag: 'ruled.string', default: '', attributes })).toMatchObject(paying);
    expect(await ask({ type: 'string', flag: 'split.string', default: '' })).toMatchObject({ reason: 'SPLIT' });
    const off = { value: 'off', reason: 'DISABLED', source: 'disabled' };
    expect(await ask({ type: 'string', flag: 'disabled.string', default: '' })).toMatchObject(off);
  });

  test('what cannot be evaluated gives the default, and says why', async () => {
    const mine = { type: 'string', default: 'mine', flag: 'type.string' } as const;
    const fails = async (question: Partial<Question>, error: string) =>
      expect(await ask({ ...mine, ...question })).toMatchObject({ value: 'mine', reason: 'ERROR', error });
    await fails({ flag: 'no.such' }, 'FLAG_NOT_FOUND');
    await fails({ flag: 'archived.string' }, 'FLAG_NOT_FOUND');
    await fails({ flag: 'type.boolean' }, 'TYPE_MISMATCH');
    await fails({ key: null }, 'TARGETING_KEY_MISSING');
    await fails({ token: scene.ann.token }, 'GENERAL');
    await fails({ token: 'flg_nobody' }, 'GENERAL');
  });
});

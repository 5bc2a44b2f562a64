import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { build } from 'esbuild';
import ts from 'typescript';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { PageServer, startBrowser } from '../src/pages.js';
import { Server } from '../src/server.js';

interface Example {
  place: string;
  language: 'ts' | 'tsx';
  code: string;
  /** What it prints, or shows on a page. */
  output: string;
}

function textOf(page: string): string {
  return readFileSync(new URL(`../../../docs/${page}`, import.meta.url), 'utf8');
}

/** The examples of a page of documentation, each with the output that the page says it has. */
function examplesOf(page: string): Example[] {
  const fences = textOf(page).matchAll(/```(tsx?)\n(.*?)```\n\n```text\n(.*?)```/gs);
  return [...fences].map(([, language, code, output], place) => ({
    place: `${page}, example ${place + 1}`,
    language: language as 'ts' | 'tsx',
    code: code ?? '',
    output: output ?? '',
  }));
}

const FOLDER = fileURLToPath(new URL('./generated/', import.meta.url));
const EXAMPLES = examplesOf('sdk.md');
let server: Server;
let token: string;

beforeAll(async () => {
  server = await Server.start('--cors-origins', '*');
  const ann = await server.user('ann');
  await server.flag('ui.dark_mode');
  await server.flag('text.greeting', ['Welcome']);
  await server.override(ann, 'ui.dark_mode', true, { expires_at: '2099-01-01T00:00:00Z' });
  token = ann.token;
  rmSync(FOLDER, { recursive: true, force: true });
  mkdirSync(FOLDER);
});
afterAll(async () => {
  await server?.stop();
  rmSync(FOLDER, { recursive: true, force: true });
});

/** Writes an example to a file, with the server and the token of this run in it. */
function written({ code, language }: Example, place: number): string {
  const file = join(FOLDER, `example-${place}.${language}`);
  const real = code.replaceAll('https://flags.example.com', server.base).replaceAll('flg_…', token);
  writeFileSync(file, `${real}export {};\n`);
  return file;
}

describe('docs/sdk.md', () => {
  test('has examples, each with what comes of it', () => {
    expect(EXAMPLES.length).toBeGreaterThanOrEqual(5);
    expect(EXAMPLES).toHaveLength([...textOf('sdk.md').matchAll(/^```tsx?$/gm)].length);
  });

  test.each(EXAMPLES.map((example, place) => ({ ...example, at: place })))('$place compiles', (example) => {
    const config = ts.readConfigFile(fileURLToPath(new URL('../tsconfig.json', import.meta.url)), ts.sys.readFile);
    const base = fileURLToPath(new URL('..', import.meta.url));
    const { options } = ts.parseJsonConfigFileContent(config.config, ts.sys, base);
    const program = ts.createProgram([written(example, example.at)], options);
    const errors = ts
      .getPreEmitDiagnostics(program)
      .map(({ messageText }) => ts.flattenDiagnosticMessageText(messageText, '\n'));
    expect(errors).toEqual([]);
  });

  test.each(EXAMPLES.map((example, place) => ({ ...example, at: place })))(
    '$place does what it says',
    async (example) => {
      const file = written(example, example.at);
      const seen =
        example.language === 'ts'
          ? await printed(file)
          : await shown(`docs/generated/example-${example.at}.tsx`, example.output);
      expect(seen).toBe(example.output);
    },
  );
});

/** What the example prints when Node runs it. */
async function printed(file: string): Promise<string> {
  const outfile = file.replace(/ts$/, 'mjs');
  await build({ entryPoints: [file], outfile, bundle: true, platform: 'node', format: 'esm' });
  const child = spawn(process.execPath, [outfile], { stdio: ['ignore', 'pipe', 'inherit'] });
  let output = '';
  const ended = once(child, 'exit');
  for await (const part of child.stdout) output += part;
  expect((await ended)[0]).toBe(0);
  return output;
}

/** What the example shows on a page, once it shows what is expected. */
async function shown(script: string, expected: string): Promise<string> {
  const [pages, browser] = await Promise.all([PageServer.start(script), startBrowser()]);
  try {
    const page = await browser.newPage();
    await page.goto(pages.origin);
    await page.getByText(expected.trim()).waitFor();
    return `${await page.innerText('body')}\n`;
  } finally {
    await browser.close();
    await pages.stop();
  }
}

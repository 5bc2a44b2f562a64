import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { build } from 'esbuild';
import ts from 'typescript';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { PageServer, startBrowser } from '../src/page-server.js';
import { Server } from '../src/server.js';

interface Example {
  /** Page and number of the example, for test names. */
  label: string;
  language: 'ts' | 'tsx';
  code: string;
  /** Expected standard output, or expected text of the page. */
  output: string;
}

function readDocsPage(page: string): string {
  return readFileSync(new URL(`../../../docs/${page}`, import.meta.url), 'utf8');
}

/** Returns the code blocks of a documentation page that are followed by a block with their output. */
function readExamples(page: string): Example[] {
  const fences = readDocsPage(page).matchAll(/```(tsx?)\n(.*?)```\n\n```text\n(.*?)```/gs);
  return [...fences].map(([, language, code, output], index) => ({
    label: `${page}, example ${index + 1}`,
    language: language as 'ts' | 'tsx',
    code: code ?? '',
    output: output ?? '',
  }));
}

const FOLDER = fileURLToPath(new URL('./generated/', import.meta.url));
const EXAMPLES = readExamples('sdk.md');
let server: Server;
let token: string;

beforeAll(async () => {
  server = await Server.start('--cors-origins', '*');
  const ann = await server.createUser('ann');
  await server.createFlag('ui.dark_mode');
  await server.createFlag('text.greeting', ['Welcome']);
  await server.setOverride(ann, 'ui.dark_mode', true, { expires_at: '2099-01-01T00:00:00Z' });
  token = ann.token;
  rmSync(FOLDER, { recursive: true, force: true });
  mkdirSync(FOLDER);
});
afterAll(async () => {
  await server?.dispose();
  rmSync(FOLDER, { recursive: true, force: true });
});

/** Writes an example to a file and inserts the URL and token of this run. Returns the path. */
function writeExample({ code, language }: Example, index: number): string {
  const file = join(FOLDER, `example-${index}.${language}`);
  const runnable = code.replaceAll('https://flags.example.com', server.baseUrl).replaceAll('flg_…', token);
  writeFileSync(file, `${runnable}export {};\n`);
  return file;
}

describe('docs/sdk.md', () => {
  test('each example in the documentation has an expected output', () => {
    expect(EXAMPLES.length).toBeGreaterThanOrEqual(5);
    expect(EXAMPLES).toHaveLength([...readDocsPage('sdk.md').matchAll(/^```tsx?$/gm)].length);
  });

  test.each(EXAMPLES.map((example, index) => ({ ...example, index })))('$label compiles', (example) => {
    const config = ts.readConfigFile(fileURLToPath(new URL('../tsconfig.json', import.meta.url)), ts.sys.readFile);
    const base = fileURLToPath(new URL('..', import.meta.url));
    const { options } = ts.parseJsonConfigFileContent(config.config, ts.sys, base);
    const program = ts.createProgram([writeExample(example, example.index)], options);
    const errors = ts
      .getPreEmitDiagnostics(program)
      .map(({ messageText }) => ts.flattenDiagnosticMessageText(messageText, '\n'));
    expect(errors).toEqual([]);
  });

  test.each(EXAMPLES.map((example, index) => ({ ...example, index })))(
    '$label produces its output',
    async (example) => {
      const file = writeExample(example, example.index);
      const actual =
        example.language === 'ts'
          ? await runInNode(file)
          : await runInBrowser(`docs/generated/example-${example.index}.tsx`, example.output);
      expect(actual).toBe(example.output);
    },
  );
});

/** Runs the example in Node and returns its standard output. */
async function runInNode(file: string): Promise<string> {
  const outfile = file.replace(/ts$/, 'mjs');
  await build({ entryPoints: [file], outfile, bundle: true, platform: 'node', format: 'esm' });
  const child = spawn(process.execPath, [outfile], { stdio: ['ignore', 'pipe', 'inherit'] });
  let output = '';
  const exited = once(child, 'exit');
  for await (const chunk of child.stdout) output += chunk;
  expect((await exited)[0]).toBe(0);
  return output;
}

/** Runs the example in a browser, waits for the expected text and returns the text of the page. */
async function runInBrowser(script: string, expected: string): Promise<string> {
  const [pageServer, browser] = await Promise.all([PageServer.start(script), startBrowser()]);
  try {
    const page = await browser.newPage();
    await page.goto(pageServer.origin);
    await page.getByText(expected.trim()).waitFor();
    return `${await page.innerText('body')}\n`;
  } finally {
    await browser.close();
    await pageServer.stop();
  }
}

/** Bundles test pages and serves them on a separate origin, for tests in a real browser. */

import { createServer, type Server as HttpServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { fileURLToPath } from 'node:url';
import { build } from 'esbuild';
import { type Browser, chromium } from 'playwright-core';

/** Starts headless Chromium. */
export function startBrowser(): Promise<Browser> {
  return chromium.launch({
    executablePath: process.env.CHROMIUM ?? '/usr/bin/chromium',
    args: [
      '--no-sandbox',
      '--disable-gpu',
      '--disable-quic',
      '--no-first-run',
      '--disable-background-networking',
      '--disable-component-update',
      '--disable-sync',
    ],
  });
}

/** HTTP server for one page. */
export class PageServer {
  readonly #server: HttpServer;
  /** Origin of the page, for example `http://127.0.0.1:40001`. */
  readonly origin: string;

  private constructor(server: HttpServer) {
    this.#server = server;
    this.origin = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
  }

  /** Bundles a module and starts the server. `script` is the path of the module, relative to `web/tests`. */
  static async start(script: string): Promise<PageServer> {
    const entry = fileURLToPath(new URL(`../${script}`, import.meta.url));
    const bundle = await build({
      entryPoints: [entry],
      bundle: true,
      write: false,
      format: 'esm',
      jsx: 'automatic',
      define: { 'process.env.NODE_ENV': '"production"' },
    });
    const code = bundle.outputFiles[0]?.text ?? '';
    const page =
      '<!doctype html><html lang="en"><title>Flags</title><main></main><script type="module" src="/page.js"></script>';
    const server = createServer((request, response) => {
      const isScript = request.url === '/page.js';
      response.setHeader('Content-Type', isScript ? 'text/javascript' : 'text/html; charset=utf-8');
      response.end(isScript ? code : page);
    });
    await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
    return new PageServer(server);
  }

  async stop(): Promise<void> {
    this.#server.closeAllConnections();
    await new Promise((resolve) => this.#server.close(resolve));
  }
}

import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { gzipSync } from 'node:zlib';
import react from '@vitejs/plugin-react';
import { defineConfig, type Plugin } from 'vite';
import { ADDRESSES, serverTemplate } from './src/addresses.ts';

/** Files below this size are not compressed; bytes. */
const COMPRESSION_THRESHOLD = 512;
const API_PATHS = ['/api', '/ofrep', '/docs', '/openapi.json', '/healthz', '/readyz'];
const API_SERVER = process.env.FLAGS_SERVER ?? 'http://127.0.0.1:8080';

/** Order of cascade layers. Each chunk has its own style sheet, and any of them may be loaded first. */
const LAYERS = '@layer reset, tokens, base, ui, feature, utilities;\n';

/** Declares the order of cascade layers in every style sheet. */
function cascadeLayers(): Plugin {
  return {
    name: 'cascade-layers',
    enforce: 'pre',
    transform: {
      filter: { id: /\/src\/.*\.css$/ },
      handler: (code) => ({ code: LAYERS + code, map: null }),
    },
  };
}

/** Writes the files that the server needs besides the bundle: the page paths, and compressed copies of text files. */
function serverFiles(): Plugin {
  return {
    name: 'server-files',
    apply: 'build',
    generateBundle() {
      const addresses = JSON.stringify(Object.values(ADDRESSES).map(serverTemplate));
      this.emitFile({ type: 'asset', fileName: 'addresses.json', source: addresses });
    },
    // Vite can still change the files in `generateBundle`, so they are compressed after they have been written.
    writeBundle({ dir = '' }, bundle) {
      for (const name of Object.keys(bundle).filter((file) => /\.(js|css|html)$/.test(file))) {
        const content = readFileSync(join(dir, name));
        if (content.length < COMPRESSION_THRESHOLD) continue;
        writeFileSync(join(dir, `${name}.gz`), gzipSync(content, { level: 9 }));
      }
    },
  };
}

export default defineConfig({
  plugins: [cascadeLayers(), react(), serverFiles()],
  build: {
    // Data URLs in styles would need an exception in the content security policy.
    assetsInlineLimit: 0,
    modulePreload: { polyfill: false },
    license: false,
  },
  server: {
    port: 5173,
    // The server compares `Origin` with `Host`, so `Host` must remain that of the page.
    proxy: Object.fromEntries(API_PATHS.map((path) => [path, { target: API_SERVER, changeOrigin: false }])),
  },
});

import { defineConfig } from 'tsdown';

export default defineConfig({
  entry: { index: 'src/index.ts', react: 'src/react/index.ts' },
  format: ['esm', 'cjs'],
  platform: 'neutral',
  target: 'es2022',
  // Simplifies expressions but keeps names and comments, so that the code remains readable in a debugger.
  minify: { compress: true, mangle: false, codegen: false },
  dts: true,
  sourcemap: false,
  clean: true,
});

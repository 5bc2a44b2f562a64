import { defineConfig } from 'vitest/config';

export default defineConfig({
  test: {
    include: ['{live,browser,openfeature,docs}/**/*.test.ts'],
    // Each file starts servers, and some start a browser.
    fileParallelism: false,
    testTimeout: 60_000,
    hookTimeout: 60_000,
  },
});

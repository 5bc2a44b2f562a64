import { defineConfig } from 'vitest/config';

export default defineConfig({
  test: {
    include: ['{live,browser,openfeature,docs}/**/*.test.ts'],
    // Each starts servers, some a browser.
    fileParallelism: false,
    testTimeout: 60_000,
    hookTimeout: 60_000,
  },
});

import { defineConfig } from 'vitest/config';

export default defineConfig({
  test: {
    include: ['tests/**/*.test.{ts,tsx}'],
    coverage: { include: ['src/**'], exclude: ['src/generated/**'], thresholds: { lines: 90 } },
  },
});

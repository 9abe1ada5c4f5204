import { defineConfig } from 'vitest/config'

export default defineConfig({
  test: {
    globalSetup: ['tests/support/global-setup.ts'],
    env: { NODE_ENV: 'test' },
    pool: 'forks',
    // One more than the cores that these tests are made for: many of them wait, for a time-out or a page.
    maxWorkers: 3,
    testTimeout: 60_000,
    hookTimeout: 120_000,
    reporters: ['default', ['json', { outputFile: 'test-results/vitest.json' }]],
    projects: [
      { extends: true, test: { name: 'unit', include: ['tests/unit/**/*.test.ts'] } },
      {
        extends: true,
        test: {
          name: 'integration',
          include: [
            'tests/{admin,api,self-service,property,integration,contract,conformance,security,races,faults,mail,deliveries,registration,resource-server,device,integrators}/**/*.test.ts',
          ],
        },
      },
      { extends: true, test: { name: 'e2e', include: ['tests/e2e/**/*.test.ts'] } },
    ],
  },
})

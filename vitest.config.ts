import { defineConfig } from 'vitest/config'
import { BaseSequencer, type TestSpecification } from 'vitest/node'

/** What takes longest, so that no core waits for it at the end. */
const first = [
  'faults/crash-loop',
  'faults/crash',
  'e2e/account',
  'e2e/ways-in',
  'e2e/ways-back',
  'security/edge',
  'security/attack-organizations',
  'e2e/sign-in',
]

class LongestFirst extends BaseSequencer {
  override async sort(files: TestSpecification[]): Promise<TestSpecification[]> {
    const placeOf = ({ moduleId }: TestSpecification) => {
      const place = first.findIndex((name) => moduleId.endsWith(`/${name}.test.ts`))
      return place < 0 ? first.length : place
    }
    return (await super.sort(files)).toSorted((a, b) => placeOf(a) - placeOf(b))
  }
}

export default defineConfig({
  test: {
    globalSetup: ['tests/support/global-setup.ts'],
    env: { NODE_ENV: 'test' },
    pool: 'forks',
    // Files of one worker share what is loaded and compiled: it was a third of the time. What a test changes for all, it mends.
    isolate: false,
    // One more than the cores that these tests are made for: many of them wait, for a time-out or a page.
    maxWorkers: 3,
    sequence: { sequencer: LongestFirst },
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

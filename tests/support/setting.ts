// How every server of the tests is set; apart, so that one in a process of its own starts without the test runner.
export const testSecret = 'a secret of the tests, long enough for anybody'
/** As cheap as argon2id gets: the tests are about what is compared, not about how slowly. */
export const cheapHash = { memoryKib: 1_024, passes: 2 } as const
/** The tests are about what is answered, not about how evenly. */
export const quickAnswerMs = 5

// The table of endings: every cause has its row, and what the contract says of them stands in it.
import { describe, expect, it } from 'vitest'
import { endingCauses, endingRule } from '../../src/sessions/causes.ts'

const sparing = ['sign_out', 'signed_in_anew', 'idle', 'absolute', 'max_concurrent', 'network']

describe('the table of endings', () => {
  it.each(endingCauses.map((cause) => [cause]))('%s is whole', (cause) => {
    const rule = endingRule(cause)
    expect(rule.boundTokens, 'no token outlives its session without offline_access').toBe(true)
    expect(rule.offlineTokens).toBe(!sparing.includes(cause))
    if (rule.offlineTokens) expect(rule.grants, 'a grant would give new tokens').toBe(true)
    expect(rule.consents).toBe(cause === 'consent_withdrawn')
    if (rule.sessions === 'account') expect(rule).toMatchObject({ signIns: true, links: true })
  })
})

// The one place that decides: over every state, and over random orders of proofs, a sign-in is over only when all that
// the policy, the app and the account ask for is proven (C5, F66).
import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import {
  type Acr,
  acrOf,
  authenticationContext,
  type Factor,
  type Flow,
  factors,
  nextStep,
  provedBefore,
  type Requirements,
} from '../../src/login/flow.ts'

const requirements: fc.Arbitrary<Requirements> = fc.record({
  organization: fc.constantFrom('in' as const, 'choose' as const, 'foreign' as const),
  isNetworkAllowed: fc.boolean(),
  loginMethods: fc.subarray(['password' as const, 'magic_link' as const]),
  mfa: fc.constantFrom('off' as const, 'optional' as const, 'required' as const),
  acr: fc.constantFrom<Acr | undefined>(undefined, 'link', 'password', 'mfa'),
  hasPassword: fc.boolean(),
  hasSecondFactor: fc.boolean(),
  maySetUp: fc.boolean(),
  passwordExpired: fc.boolean(),
  factorReset: fc.constantFrom('none' as const, 'open' as const, 'lapsed' as const),
})
const flow: fc.Arbitrary<Flow> = fc.record({
  accountId: fc.constantFrom(undefined, 'acc_x'),
  proved: fc.subarray([...factors]),
  codesPending: fc.boolean(),
})
const hasSecond = ({ proved }: Flow) => proved.includes('otp') || proved.includes('backup')
const order: readonly (Acr | undefined)[] = [undefined, 'link', 'password', 'mfa']

describe('nextStep', () => {
  it('is done only when every factor that is due was proven', () => {
    fc.assert(
      fc.property(flow, requirements, (state, asked) => {
        if (nextStep(state, asked) !== 'done') return
        expect(state.accountId).toBeDefined()
        expect(state.proved.some((factor) => factor === 'pwd' || factor === 'link')).toBe(true)
        const due =
          asked.hasSecondFactor || asked.mfa === 'required' || asked.acr === 'mfa' || asked.factorReset !== 'none'
        if (due) expect(hasSecond(state)).toBe(true)
        expect(state.codesPending).toBe(false)
        expect(asked.organization).toBe('in')
        expect(asked.isNetworkAllowed).toBe(true)
        const ways = asked.loginMethods.map((method) => (method === 'password' ? 'pwd' : 'link'))
        expect(ways.some((way) => state.proved.includes(way))).toBe(true)
        if (state.proved.includes('pwd')) expect(asked.passwordExpired).toBe(false)
      }),
      { numRuns: 5_000 },
    )
  })

  it('reaches the acr that the app asked for', () => {
    fc.assert(
      fc.property(flow, requirements, (state, asked) => {
        if (nextStep(state, asked) !== 'done' || asked.acr === undefined) return
        const reached = acrOf(authenticationContext(state.proved).acr)
        expect(order.indexOf(reached)).toBeGreaterThanOrEqual(order.indexOf(asked.acr))
      }),
      { numRuns: 5_000 },
    )
  })

  it('asks for less once more is proven, never for the same step again', () => {
    const gives: Partial<Record<string, Factor>> = {
      password: 'pwd',
      second_factor: 'otp',
      set_up_second_factor: 'otp',
    }
    const ends = ['done', 'impossible', 'change_password', 'wrong_organization', 'wrong_network', 'wrong_method']
    fc.assert(
      fc.property(flow, requirements, (state, given) => {
        let asked = given
        let current = { ...state, accountId: 'acc_x' }
        for (let taken = 0; taken < 8; taken += 1) {
          const step = nextStep(current, asked)
          if (ends.includes(step)) return
          if (step === 'choose_organization') asked = { ...asked, organization: 'in' }
          else if (step === 'save_backup_codes') current = { ...current, codesPending: false }
          else {
            const factor = gives[step] ?? 'pwd'
            expect(current.proved, `${step} asks for what was given`).not.toContain(factor)
            current = { ...current, proved: [...current.proved, factor] }
          }
        }
        throw new Error('a sign-in that never ends')
      }),
    )
  })

  it('does not bind a new authenticator to an account with a password by a link alone', () => {
    fc.assert(
      fc.property(flow, requirements, (state, asked) => {
        if (nextStep(state, asked) !== 'set_up_second_factor') return
        expect(state.proved.includes('pwd') || !asked.hasPassword).toBe(true)
      }),
    )
  })
})

describe('authenticationContext', () => {
  it('never calls a link multi-factor, whatever stands beside it', () => {
    expect(authenticationContext(['link', 'otp'])).toEqual({ amr: ['magic_link', 'otp'], acr: 'urn:mlpipes:acr:link' })
    expect(authenticationContext(['pwd', 'otp'])).toEqual({ amr: ['pwd', 'otp', 'mfa'], acr: 'urn:mlpipes:acr:mfa' })
    expect(authenticationContext(['pwd', 'backup'])).toEqual({
      amr: ['pwd', 'backup_code', 'mfa'],
      acr: 'urn:mlpipes:acr:mfa',
    })
  })

  it('is read back from a session as it was written', () => {
    fc.assert(
      fc.property(fc.subarray([...factors], { minLength: 1 }), (proved) => {
        expect(provedBefore(authenticationContext(proved).amr)).toEqual(
          factors.filter((factor) => proved.includes(factor)),
        )
      }),
    )
  })
})

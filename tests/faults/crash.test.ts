// F83: the process is killed before each statement of a sign-in and of a code, and before every other one of what else
// people and apps do: each costs a start of the server. It happened with its audit row, or not at all.
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { authorizationUrl, Browser, obtainCode, obtainTokens, post, redeem } from '../support/client.ts'
import { type Doomed, startDoomed } from '../support/doomed.ts'
import { violations } from '../support/invariants.ts'
import { password } from '../support/server.ts'

const maxStatements = 60
/** Each statement costs a start of the server. */
const actTimeoutMs = 180_000

let doomed: Doomed
beforeAll(async () => {
  doomed = await startDoomed()
})
afterAll(() => doomed.close())

interface Act {
  /** 1: before each statement. */
  readonly every: 1 | 2
  /** Brings the server to just before the act, and returns the act. */
  prepare(): Promise<() => Promise<{ readonly status: number }>>
}

const acts: Readonly<Record<string, Act>> = {
  'a sign-in': {
    every: 1,
    async prepare() {
      const browser = new Browser(doomed)
      const page = await browser.follow(await browser.request(authorizationUrl(doomed, 'first').url))
      return () => browser.submit(page, '/password', { email: 'lee@mercy.example', password })
    },
  },
  'a consent': {
    every: 2,
    async prepare() {
      await doomed.database.kysely.deleteFrom('consents').execute()
      const browser = new Browser(doomed)
      const page = await browser.follow(await browser.request(authorizationUrl(doomed, 'ehr').url))
      const asked = await browser.submit(page, '/password', { email: 'lee@mercy.example', password })
      return () => browser.submit(asked, '/consent', { decision: 'allow' })
    },
  },
  'a code': {
    every: 1,
    async prepare() {
      const { code, verifier } = await obtainCode(doomed, 'first')
      return () => redeem(doomed, 'first', code, verifier)
    },
  },
  'a refresh': {
    every: 2,
    async prepare() {
      const tokens = await obtainTokens(doomed, 'first')
      const form = { grant_type: 'refresh_token', refresh_token: tokens.refresh_token ?? '' }
      return () => post(doomed, '/oauth/token', 'first', form)
    },
  },
  'a revocation': {
    every: 2,
    async prepare() {
      const tokens = await obtainTokens(doomed, 'first')
      return () => post(doomed, '/oauth/revoke', 'first', { token: tokens.refresh_token ?? '' })
    },
  },
  'a sign-out': {
    every: 2,
    async prepare() {
      const { browser } = await obtainTokens(doomed, 'first')
      const page = await browser.follow(await browser.request('/oauth/logout'))
      return () => browser.submit(page, '/oauth/logout/confirm', { logout: 'yes' })
    },
  },
}

describe('F83: killed before statements', () => {
  it.each(Object.entries(acts))(
    '%s happens whole or not at all',
    async (_name, act) => {
      let survived = false
      let statement = 1
      for (; !survived && statement <= maxStatements; statement += act.every) {
        // A try whose process died stays counted, which is right; here it would only make the next one wait.
        await doomed.database.kysely.deleteFrom('sign_in_attempts').execute()
        const run = await act.prepare()
        await doomed.dieAt(statement)
        const answer = await run().catch(() => undefined)
        survived = answer !== undefined
        if (survived) {
          expect(answer?.status).toBeLessThan(400)
          await doomed.dieAt(null)
        } else {
          await doomed.revive()
        }
        expect(await violations(doomed.database), `killed before statement ${statement}`).toEqual([])
      }
      expect(survived, 'the act ends').toBe(true)
      expect(statement, 'it was killed at least twice').toBeGreaterThan(3)
    },
    actTimeoutMs,
  )
})

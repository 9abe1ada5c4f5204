// C10: a code that was tried without what belongs to it stayed good for as long as it lived, however often. Now a few such
// tries end it, and they count one by one when they come at once.
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { maxCodeFailures } from '../../src/oidc/code-failures.ts'
import { introspect, obtainCode, post, redeem, redirectUri } from '../support/client.ts'
import { startServer, type TestServer } from '../support/server.ts'

let server: TestServer
beforeAll(async () => {
  server = await startServer('postgres')
})
afterAll(() => server.close())

type Code = Awaited<ReturnType<typeof obtainCode>>
const wrong = 'w'.repeat(43)
const elsewhere = ({ code, verifier = '' }: Code) =>
  post(server, '/oauth/token', 'first', {
    grant_type: 'authorization_code',
    code,
    redirect_uri: 'http://localhost:9/other',
    code_verifier: verifier,
  })
const tries: Readonly<Record<string, (code: Code) => ReturnType<typeof redeem>>> = {
  'another redirect_uri': elsewhere,
  'a wrong verifier': ({ code }) => redeem(server, 'first', code, wrong),
  'no verifier': ({ code }) => redeem(server, 'first', code, undefined),
  'another client': ({ code, verifier }) => redeem(server, 'certification', code, verifier),
}
const refusals = () => server.audit('code.refused')

describe('a code tried without what belongs to it', () => {
  it.each(Object.entries(tries))(
    'as by %s is good for one less than the limit, and dead at it',
    async (_name, attempt) => {
      for (const failures of [maxCodeFailures - 1, maxCodeFailures]) {
        const code = await obtainCode(server, 'first')
        const before = (await refusals()).length
        for (let index = 0; index < failures; index += 1)
          expect((await attempt(code)).body['error']).toBe('invalid_grant')
        const right = await redeem(server, 'first', code.code, code.verifier)
        const isDead = failures === maxCodeFailures
        expect(right.status, `after ${failures}`).toBe(isDead ? 400 : 200)
        const events = await refusals()
        expect(events.length - before).toBe(failures)
        expect(events[0]).toMatchObject({ accountId: expect.any(String), details: { failures, isDead } })
      }
    },
  )

  it('is dead after 20 such tries at once, which are counted up to the limit and no further', async () => {
    const code = await obtainCode(server, 'first')
    const before = (await refusals()).length
    const answers = await Promise.all(Array.from({ length: 20 }, () => redeem(server, 'first', code.code, wrong)))
    for (const { status, body } of answers)
      expect({ status, error: body['error'] }).toEqual({ status: 400, error: 'invalid_grant' })
    expect((await refusals()).length - before).toBe(maxCodeFailures)
    expect((await redeem(server, 'first', code.code, code.verifier)).body['error']).toBe('invalid_grant')
  })

  it('ends nothing that was issued: not by a request without what every request needs, nor once the code is spent', async () => {
    const code = await obtainCode(server, 'first')
    const before = (await refusals()).length
    for (let index = 0; index < maxCodeFailures; index += 1) {
      const form = { grant_type: 'authorization_code', code: code.code, code_verifier: code.verifier ?? '' }
      expect((await post(server, '/oauth/token', 'first', form)).body['error']).toBe('invalid_request')
      const unknown = { ...form, redirect_uri: redirectUri }
      expect((await post(server, '/oauth/token', 'nobody', unknown)).status).toBe(401)
    }
    const { body } = await redeem(server, 'first', code.code, code.verifier)
    for (let index = 0; index < maxCodeFailures; index += 1) await elsewhere(code)
    expect((await refusals()).length).toBe(before)
    expect(await introspect(server, String(body['access_token']))).toMatchObject({ active: true })
  })
})

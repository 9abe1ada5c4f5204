// An apply file that sets another password or a second factor ended nothing: whoever was signed in with what the operator
// replaced stayed, with their tokens, while the same change by anybody else ends both.
import argon2 from 'argon2'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { authorizationUrl, Browser, introspect, obtainTokens, post, signIn } from '../support/client.ts'
import { databaseKinds, password, startServer, type TestServer } from '../support/server.ts'
import { seededSecret } from '../support/totp.ts'

const another = 'Willow-Tractor-52-Fern'

describe.each(databaseKinds)('what an applied credential ends on %s', (kind) => {
  let server: TestServer
  beforeAll(async () => {
    server = await startServer(kind)
  })
  afterAll(() => server.close())

  let count = 0
  /** Somebody who is signed in, with an app that keeps its tokens while they are away. */
  async function somebody(extra: object = {}) {
    count += 1
    const person = {
      email: `person${count}@mercy.example`,
      name: `Person ${count}`,
      organization: 'mercy',
      emailVerified: true,
      password,
      ...extra,
    }
    await server.apply({ accounts: [person] })
    const browser = new Browser(server)
    await signIn(browser, authorizationUrl(server, 'first'), person.email)
    const bound = await obtainTokens(server, 'first', {}, browser)
    const scope = { scope: 'openid offline_access', prompt: 'consent' }
    const offline = await obtainTokens(server, 'first', scope, browser)
    const access = await server.database.run('select id from mlpipes_auth.accounts where email = $1', [person.email])
    const refresh = async (token = '') =>
      (await post(server, '/oauth/token', 'first', { grant_type: 'refresh_token', refresh_token: token })).status
    const endings = async () => {
      const events = await server.audit('access.ended')
      return events.filter(({ accountId }) => accountId === access[0]?.['id'])
    }
    return {
      endings,
      apply: (change: object) => server.apply({ accounts: [{ ...person, ...change }] }),
      /** Each of these spends what it asks with, so it is asked once. */
      async uses() {
        return {
          accessToken: (await introspect(server, bound.access_token, 'api'))['active'],
          refreshToken: await refresh(bound.refresh_token),
          offlineToken: await refresh(offline.refresh_token),
          session: (await browser.request('/account')).status,
        }
      },
    }
  }
  const alive = { accessToken: true, refreshToken: 200, offlineToken: 200, session: 200 }
  const dead = { accessToken: false, refreshToken: 400, offlineToken: 400, session: 303 }
  const hashOf = (text: string) => argon2.hash(text, { memoryCost: 1_024, timeCost: 2, parallelism: 1 })

  it.each<readonly [string, () => Promise<object>, string]>([
    ['another password', async () => ({ password: another }), 'password_changed'],
    ['another hash', async () => ({ password: await hashOf(another) }), 'password_changed'],
    ['an authenticator', async () => ({ totpSecret: seededSecret }), 'factor_changed'],
    [
      'a password and an authenticator',
      async () => ({ password: another, totpSecret: seededSecret }),
      'password_changed',
    ],
    ['a password of somebody who is switched off', async () => ({ password: another, disabled: true }), 'disabled'],
  ])('%s ends everything, once', async (_name, change, cause) => {
    const person = await somebody()
    const changed = await change()
    await person.apply(changed)
    expect(await person.uses()).toEqual(dead)
    const ended = { actorType: 'operator', outcome: 'success', details: { cause, sessions: 1 } }
    expect(await person.endings()).toMatchObject([ended])
    await person.apply(changed)
    expect(await person.endings()).toHaveLength(1)
  })

  it.each<readonly [string, object, object]>([
    ['the same again', {}, {}],
    ['another name', {}, { name: 'Another Name' }],
    ['no password at all', {}, { password: undefined }],
  ])('%s ends nothing', async (_name, extra, change) => {
    const person = await somebody(extra)
    await person.apply(change)
    await person.apply(change)
    expect(await person.endings()).toEqual([])
    expect(await person.uses()).toEqual(alive)
  })

  it('the same hash again ends nothing, also when a sign-in made it stronger meanwhile', async () => {
    const weak = await argon2.hash(password, { memoryCost: 1_024, timeCost: 1, parallelism: 1 })
    const person = await somebody({ password: weak })
    await person.apply({})
    expect(await person.endings()).toEqual([])
    expect(await person.uses()).toEqual(alive)
    await person.apply({ password: await hashOf(another) })
    expect(await person.endings()).toHaveLength(1)
    // Which is another one than that which stands there now.
    await person.apply({})
    expect(await person.endings()).toHaveLength(2)
  })

  it('a new account ends nothing', async () => {
    const before = (await server.audit('access.ended')).length
    const made = {
      email: 'made@mercy.example',
      name: 'Made',
      organization: 'mercy',
      password,
      totpSecret: seededSecret,
    }
    await server.apply({ accounts: [made] })
    expect((await server.audit('access.ended')).length).toBe(before)
  })
})

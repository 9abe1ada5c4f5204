// F25: a session that ended is ended on every replica at the next request, with its tokens, whatever ended it. F33: what a
// right password shows before the second factor is recorded as what it is.
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { endAccess } from '../../src/sessions/ending.ts'
import { authorizationUrl, Browser, introspect, obtainTokens, post, signIn } from '../support/client.ts'
import { password, people, startServer, type TestServer } from '../support/server.ts'

let here: TestServer
let there: TestServer
beforeAll(async () => {
  here = await startServer('postgres')
  there = await startServer('postgres', { share: here })
})
afterAll(async () => {
  await there.close()
  await here.close()
})

const email = 'lee@mercy.example'
async function accountOf() {
  return here.database.kysely
    .selectFrom('accounts')
    .select(['id', 'organization_id'])
    .where('email_normalized', '=', email)
    .executeTakeFirstOrThrow()
}

const causes: Readonly<Record<string, () => Promise<unknown>>> = {
  'the account is disabled': () => here.apply({ accounts: [{ ...person(), disabled: true }] }),
  'all access is ended': async () => {
    const { id, organization_id } = await accountOf()
    return here.database.kysely.transaction().execute((tx) =>
      endAccess(tx, {
        accountId: id,
        organizationId: organization_id,
        cause: 'ended_by_owner',
        actor: { type: 'account', id },
        origin: {},
      }),
    )
  },
}
const person = () => {
  const found = people.accounts?.find((account) => account.email === email)
  if (!found) throw new Error('nobody')
  return found
}

describe('F25: on the other replica, at the next request', () => {
  it.each(Object.entries(causes))('nothing works any more once %s', async (_name, end) => {
    await here.apply({ accounts: [{ ...person(), disabled: false }] })
    const browser = new Browser(here)
    await signIn(browser, authorizationUrl(here, 'first'), email)
    const tokens = await obtainTokens(here, 'first', {}, browser)
    // The issuer is one address, so the other replica is asked under it by its port.
    const other = (path: string, init: RequestInit) =>
      there.server.app.inject({
        method: init.method === 'POST' ? 'POST' : 'GET',
        url: path,
        headers: { host: new URL(here.issuer).host, ...Object.fromEntries(new Headers(init.headers)) },
        ...(typeof init.body === 'string' ? { payload: init.body } : {}),
      })
    const userinfo = () =>
      other('/oauth/userinfo', { headers: { authorization: `Bearer ${tokens.access_token}` } }).then(
        (answer) => answer.statusCode,
      )
    expect(await userinfo(), 'it works there before').toBe(200)
    await end()
    expect(await userinfo()).toBe(401)
    expect(await introspect(here, tokens.access_token)).toEqual({ active: false })
    const refreshed = await post(here, '/oauth/token', 'first', {
      grant_type: 'refresh_token',
      refresh_token: tokens.refresh_token ?? '',
    })
    expect(refreshed.body['error']).toBe('invalid_grant')
    const silent = await browser.request(authorizationUrl(here, 'first', { prompt: 'none' }).url)
    expect(silent.headers.get('location')).toContain('error=login_required')
    await here.apply({ accounts: [{ ...person(), disabled: false }] })
    expect(await introspect(here, tokens.access_token), 'and nothing comes back').toEqual({ active: false })
  })
})

describe('F33: a right password before the second factor', () => {
  it('is in the audit log as a first factor that succeeded, and as no sign-in', async () => {
    const browser = new Browser(here)
    const page = await browser.follow(await browser.request(authorizationUrl(here, 'first').url))
    const step = await browser.submit(page, '/password', { email: 'totp@mercy.example', password })
    expect(step.text).toContain('Authentication code')
    const { id } = await here.database.kysely
      .selectFrom('accounts')
      .select('id')
      .where('email_normalized', '=', 'totp@mercy.example')
      .executeTakeFirstOrThrow()
    const events = (await here.audit())
      .filter((event) => event.accountId === id)
      .map(({ name, details }) => ({ name, details }))
    expect(events).toContainEqual({ name: 'login.factor_succeeded', details: { method: 'password' } })
    expect(events.map(({ name }) => name)).not.toContain('login.succeeded')
  })
})

// Attacks on the ways back in: what a person who holds a part of somebody's access can make of it while the owner recovers.
import { decodeJwt } from 'jose'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { invitePerson } from '../../src/cli/people.ts'
import { throttleLimits } from '../../src/credentials/throttle.ts'
import { createSecrets } from '../../src/crypto/secrets.ts'
import { authorizationUrl, Browser, redeem, signIn } from '../support/client.ts'
import { linkIn, mailsTo, mailTo } from '../support/mails.ts'
import { mainDatabase, password, people, startServer, type TestServer, testSecret } from '../support/server.ts'
import { codeFor, seededSecret } from '../support/totp.ts'

const newPassword = 'Willow-Tractor-52-Fern'
const mfa = 'urn:mlpipes:acr:mfa'
const seed = {
  ...people,
  organizations: [
    { slug: 'mercy', name: 'Mercy Hospital', policy: { loginMethods: ['password' as const, 'magic_link' as const] } },
    { slug: 'hope', name: 'Hope Clinic' },
  ],
}

describe.each(mainDatabase)('attacks on recovery on %s', (kind) => {
  let server: TestServer
  beforeAll(async () => {
    server = await startServer(kind, { environment: { ENABLE_MAGIC_LINKS: 'true' }, seed })
  })
  afterAll(() => server.close())

  async function person(more: Record<string, unknown> = {}) {
    const email = `p${crypto.randomUUID()}@mercy.example`
    await server.apply({
      accounts: [{ email, name: 'Pat', organization: 'mercy', password, emailVerified: true, ...more }],
    })
    const row = await server.database.kysely
      .selectFrom('accounts')
      .select('id')
      .where('email_normalized', '=', email)
      .executeTakeFirstOrThrow()
    return { email, id: row.id }
  }
  const arrive = async (browser = new Browser(server), extra = {}, client = 'first') => ({
    browser,
    page: await browser.follow(await browser.request(authorizationUrl(server, client, extra).url)),
  })
  const pathOf = (page: { url: string }) => new URL(page.url).pathname
  async function openReset(email: string) {
    const { browser: asking, page } = await arrive()
    const before = mailsTo(server, email).length
    await asking.submit(await asking.request(`${pathOf(page)}/forgot`), '/forgot', { email })
    const browser = new Browser(server)
    const link = linkIn(await mailTo(server, email, before + 1))
    return { browser, page: await browser.follow(await browser.request(link)) }
  }
  async function reset(email: string, code = '') {
    const { browser, page } = await openReset(email)
    const before = mailsTo(server, email).length
    const done = await browser.submit(page, '/recover', { password: newPassword, ...(code === '' ? {} : { code }) })
    expect(done.text).toContain('Your password is changed')
    return linkIn(await mailTo(server, email, before + 1))
  }

  it('a sign-in that was finished and not resumed opens nothing after the reset', async () => {
    const { email } = await person()
    const { browser, page } = await arrive()
    const csrf = /name="csrf" value="([^"]+)"/.exec(page.text)?.[1] ?? ''
    const finished = await browser.request(`${pathOf(page)}/password`, { form: { csrf, email, password } })
    expect(finished.headers.get('location')).toContain('/oauth/authorize/')
    await reset(email)
    const resumed = await browser.follow(finished)
    expect(resumed.url).not.toContain('code=')
    expect(resumed.status).toBeLessThan(500)
  })

  it('a password proven before the reset does not go on to the second factor after it', async () => {
    const { email } = await person({ totpSecret: seededSecret })
    const { browser, page } = await arrive()
    const second = await browser.submit(page, '/password', { email, password })
    expect(second.text).toContain('Authentication code')
    await reset(email, await codeFor(server))
    await server.database.kysely.updateTable('sign_in_attempts').set({ not_before: null }).execute()
    const answer = await browser.submit(second, '/totp', { code: await codeFor(server, seededSecret, 30) })
    expect(answer.url).not.toContain('code=')
    expect(answer.status).toBe(409)
  })

  it('F62: a password that breaks the rules does not give back tries with a code', async () => {
    const { email } = await person({ totpSecret: seededSecret })
    const { browser, page } = await openReset(email)
    const csrf = /name="csrf" value="([^"]+)"/.exec(page.text)?.[1] ?? ''
    const statuses: number[] = []
    for (let round = 0; round < 8; round += 1) {
      for (let guess = 0; guess < 2; guess += 1)
        statuses.push(
          (await browser.request('/recover', { form: { csrf, password: newPassword, code: '000000' } })).status,
        )
      await browser.request('/recover', { form: { csrf, password: 'short', code: '000000' } })
    }
    expect(statuses.filter((status) => status === 401).length).toBeLessThanOrEqual(throttleLimits.codesPerAccount.tries)
    expect(statuses).toContain(429)
  })

  it('F52: a sign-in link from before the reset is dead after it', async () => {
    const { email } = await person()
    const { browser, page } = await arrive()
    const before = mailsTo(server, email).length
    const csrf = /name="csrf" value="([^"]+)"/.exec(page.text)?.[1] ?? ''
    await browser.request(`${pathOf(page)}/link`, { form: { csrf, email, password: '' } })
    const link = linkIn(await mailTo(server, email, before + 1))
    await reset(email)
    expect((await browser.follow(await browser.request(link))).status).toBe(410)
  })

  it('after "this was not me" whoever knows the password cannot choose the next one', async () => {
    const { email } = await person()
    const notMe = await reset(email)
    const owner = new Browser(server)
    await owner.submit(await owner.follow(await owner.request(notMe)), '/not-me', {})
    const thief = await arrive()
    const refused = await thief.browser.submit(thief.page, '/password', { email, password: newPassword })
    expect(refused.text.includes('Choose a new password')).toBe(false)
    expect(refused.status).toBe(401)
    const { browser, page } = await openReset(email)
    const mended = 'Marble-Canoe-71-Thistle'
    await browser.submit(page, '/recover', { password: mended })
    const landing = await signIn(new Browser(server), authorizationUrl(server, 'first'), email, mended)
    expect(landing.url).toContain('code=')
  })

  it('F63: a session alone binds no new authenticator', async () => {
    const { email } = await person()
    const browser = new Browser(server)
    await signIn(browser, authorizationUrl(server, 'first'), email)
    const { page } = await arrive(browser, { acr_values: mfa })
    expect(page.text.includes('Turn on')).toBe(false)
    const uid = pathOf(page).split('/')[2] ?? ''
    const csrf = /name="csrf" value="([^"]+)"/.exec(page.text)?.[1] ?? ''
    const begun = await browser.follow(await browser.request(`/interaction/${uid}/begin-set-up`, { form: { csrf } }))
    expect(begun.text.includes('Turn on')).toBe(false)
    const proven = await browser.submit(page, '/password', { email, password })
    expect(proven.text, 'with the password it goes on').toContain('Turn on')
  })

  it('F59: a password that goes away with the proof of its address is not among what was proven', async () => {
    const { email } = await person({ emailVerified: false, totpSecret: seededSecret })
    const authorization = authorizationUrl(server, 'first')
    const browser = new Browser(server)
    const page = await browser.follow(await browser.request(authorization.url))
    expect((await browser.submit(page, '/password', { email, password })).text).toContain('Authentication code')
    const csrf = /name="csrf" value="([^"]+)"/.exec(page.text)?.[1] ?? ''
    await browser.request(`${pathOf(page)}/link`, { form: { csrf, email } })
    const landing = await browser.follow(await browser.request(linkIn(await mailTo(server, email))))
    const second = await browser.submit(landing, '/link/continue', {})
    const done = await browser.submit(second, '/totp', { code: await codeFor(server) })
    const code = new URL(done.url).searchParams.get('code') ?? expect.fail(done.text.slice(0, 400))
    const { body } = await redeem(server, 'first', code, authorization.verifier)
    expect(decodeJwt(String(body['id_token']))).toMatchObject({
      amr: ['magic_link', 'otp'],
      acr: 'urn:mlpipes:acr:link',
    })
  })

  it('C16: an invitation proves the address of an account that is there', async () => {
    const { email, id } = await person({ emailVerified: false })
    const parts = { database: server.database, secrets: createSecrets(testSecret), issuer: server.issuer }
    await invitePerson(parts, { email, organizationSlug: 'hope', roles: ['member'] })
    const browser = new Browser(server)
    const page = await browser.follow(await browser.request(linkIn(await mailTo(server, email))))
    expect((await browser.submit(page, '/invite', {})).status).toBe(200)
    const whoever = await signIn(new Browser(server), authorizationUrl(server, 'first'), email)
    expect(whoever.status, 'a password from before the proof').toBe(401)
    const account = await server.database.kysely
      .selectFrom('accounts')
      .select('email_verified_at')
      .where('id', '=', id)
      .executeTakeFirstOrThrow()
    expect(account.email_verified_at).not.toBeNull()
  })

  it('F66: a consent page of a session that was ended allows nothing', async () => {
    const { email, id } = await person()
    const browser = new Browser(server)
    const { page } = await arrive(browser, {}, 'ehr')
    const consent = await browser.submit(page, '/password', { email, password })
    expect(consent.text).toContain('/consent"')
    await reset(email)
    const answer = await browser.submit(consent, '/consent', { decision: 'allow' })
    expect(answer.url).not.toContain('code=')
    const consents = await server.database.kysely
      .selectFrom('consents')
      .select('client_id')
      .where('account_id', '=', id)
      .execute()
    expect(consents).toEqual([])
  })

  it('F66: nor does one whose session alone was ended', async () => {
    const { email, id } = await person()
    const browser = new Browser(server)
    const { page } = await arrive(browser, {}, 'ehr')
    const consent = await browser.submit(page, '/password', { email, password })
    const rows = await server.database.run(
      'update mlpipes_auth.sessions set ended_at = now() where account_id = $1 returning uid',
      [id],
    )
    expect(rows).toHaveLength(1)
    expect((await browser.submit(consent, '/consent', { decision: 'allow' })).url).not.toContain('code=')
    const granted = await server.database.run('select 1 from mlpipes_auth.consents where account_id = $1', [id])
    expect(granted).toEqual([])
  })

  it('a code that was on its way while access was ended is worth nothing, offline or not', async () => {
    const { email, id } = await person()
    for (const scope of ['openid', 'openid offline_access']) {
      const browser = new Browser(server)
      const request = authorizationUrl(server, 'first', { scope, prompt: 'consent' })
      let page = await browser.follow(await browser.request(request.url))
      if (page.text.includes('/password"'))
        page = await browser.submit(page, '/password', { email, password: scope === 'openid' ? password : newPassword })
      if (page.text.includes('/consent"')) page = await browser.submit(page, '/consent', { decision: 'allow' })
      const code = new URL(page.url).searchParams.get('code') ?? ''
      const rows = await server.database.run(
        `select model, id_hash, payload::text as payload, grant_id, client_id, expires_at from mlpipes_auth.oidc_payloads
          where account_id = $1 and model in ('AuthorizationCode', 'Grant')`,
        [id],
      )
      if (scope === 'openid') await reset(email)
      else
        await server.database.run(
          `update mlpipes_auth.sessions set ended_at = now(), end_reason = 'disowned' where account_id = $1 and ended_at is null`,
          [id],
        )
      // As a request at the authorization endpoint would write them that read the session a moment before.
      for (const row of rows)
        await server.database.run(
          `insert into mlpipes_auth.oidc_payloads (model, id_hash, payload, grant_id, account_id, client_id, expires_at)
            values ($1, $2, $3::jsonb, $4, $5, $6, $7) on conflict do nothing`,
          [row['model'], row['id_hash'], row['payload'], row['grant_id'], id, row['client_id'], row['expires_at']],
        )
      const tokens = await redeem(server, 'first', code, request.verifier)
      expect(tokens.body['error'], scope).toBe('invalid_grant')
    }
  })
})

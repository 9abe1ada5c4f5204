// Signing up and invitations: F31, F58, F59, and that nothing exists before the address is proven.
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { invitePerson } from '../../src/cli/people.ts'
import { createSecrets } from '../../src/crypto/secrets.ts'
import { authorizationUrl, Browser, redeem, signIn } from '../support/client.ts'
import { linkIn, mailsTo, mailTo } from '../support/mails.ts'
import { mainDatabase, people, startServer, type TestServer, testSecret } from '../support/server.ts'

const environment = { ENABLE_SIGNUP: 'true' }
const seed = {
  ...people,
  organizations: [
    { slug: 'mercy', name: 'Mercy Hospital', policy: { signup: 'open' as const } },
    { slug: 'hope', name: 'Hope Clinic' },
  ],
}
const good = 'Lavender-Kayak-93-Moss'

describe.each(mainDatabase)('signing up on %s', (kind) => {
  let server: TestServer
  beforeAll(async () => {
    server = await startServer(kind, { environment, seed })
  })
  afterAll(() => server.close())

  async function arrive(client = 'first') {
    const browser = new Browser(server)
    const authorization = authorizationUrl(server, client)
    const signInPage = await browser.follow(await browser.request(authorization.url))
    const page = await browser.request(`${new URL(signInPage.url).pathname}/sign-up`)
    return { browser, page, verifier: authorization.verifier }
  }
  const submit = async (values: Record<string, string>, here = arrive()) => {
    const { browser, page, verifier } = await here
    const answer = await browser.submit(page, '/sign-up', {
      name: 'Nia New',
      email: 'x@y.example',
      password: good,
      ...values,
    })
    return { browser, answer, verifier }
  }
  const countOf = async (email: string) =>
    (await server.database.kysely.selectFrom('accounts').select('id').where('email_normalized', '=', email).execute())
      .length

  it('makes an account once the address is proven in the same browser, and goes on into the app', async () => {
    const { browser, answer, verifier } = await submit({
      email: 'Nia@new.example',
      npi: '1234567893',
      specialty: 'Oncology',
    })
    expect(answer.text).toContain('Check your email')
    expect(await countOf('nia@new.example'), 'nothing exists yet').toBe(0)
    const landing = await browser.follow(await browser.request(linkIn(await mailTo(server, 'Nia@new.example'))))
    const done = await browser.submit(landing, '/confirm/continue', {})
    const tokens = await redeem(server, 'first', new URL(done.url).searchParams.get('code') ?? '', verifier)
    const claims = JSON.parse(Buffer.from(String(tokens.body['id_token']).split('.')[1] ?? '', 'base64url').toString())
    expect(claims).toMatchObject({ amr: ['magic_link', 'pwd'], acr: 'urn:mlpipes:acr:password', roles: ['member'] })
    expect((await server.audit('account.signed_up'))[0]).toMatchObject({ accountId: claims.sub })
    const again = await signIn(new Browser(server), authorizationUrl(server, 'first'), 'nia@new.example', good)
    expect(again.url).toContain('code=')
  })

  it('tells the webhooks of the organisation that somebody has a place there, once they have', async () => {
    await server.database.run(
      `insert into mlpipes_auth.webhooks (id, organization_id, url, events, sealed_secret)
        select 'wh_joined', id, 'https://127.0.0.1:9', '{membership.created}', 'sealed' from mlpipes_auth.organizations
        where slug = 'mercy'`,
      [],
    )
    const told = async () =>
      (await server.database.run(`select body from mlpipes_auth.deliveries where webhook_id = 'wh_joined'`, [])).map(
        (row) => row['body'],
      )
    const { browser } = await submit({ email: 'told@new.example' })
    const landing = await browser.follow(await browser.request(linkIn(await mailTo(server, 'told@new.example'))))
    expect(await told()).toEqual([])
    await browser.submit(landing, '/confirm/continue', {})
    const [event] = await server.audit('account.signed_up')
    const data = { accountId: event?.accountId, roles: ['member'] }
    expect(await told()).toEqual([{ type: 'membership.created', data }])
  })

  it('F59: a link opened elsewhere makes no account; only its code in the first browser does', async () => {
    const { browser, answer } = await submit({ email: 'victim@new.example' })
    const elsewhere = await new Browser(server).request(linkIn(await mailTo(server, 'victim@new.example')))
    expect(elsewhere.status).toBe(303)
    const victim = new Browser(server)
    const page = await victim.follow(await victim.request(linkIn(await mailTo(server, 'victim@new.example'))))
    expect(page.text).not.toContain('<form')
    expect(await countOf('victim@new.example')).toBe(0)
    const code = /class="shown-code"[^>]*>([A-Z0-9-]+)</.exec(page.text)?.[1] ?? ''
    const done = await browser.submit(answer, '/confirm/code', { code })
    expect(done.url).toContain('code=')
    expect(await countOf('victim@new.example')).toBe(1)
  })

  it('F31: says the same for an address that is known, whose owner is told', async () => {
    const fresh = await submit({ email: 'fresh@new.example' })
    const known = await submit({ email: 'lee@mercy.example' })
    const blank = (text: string) => text.replace(/[\w.-]+@[\w.]+|value="[^"]+"|\/interaction\/[\w-]+/g, '·')
    expect(known.answer.status).toBe(fresh.answer.status)
    expect(blank(known.answer.text)).toBe(blank(fresh.answer.text))
    const mail = await mailTo(server, 'lee@mercy.example')
    expect(mail.text).not.toContain('token=')
    expect(mail.text).toMatch(/have an account|already/i)
  })

  it.each([
    ['a weak password', { password: 'short' }, 'At least 12 characters'],
    [
      'the e-mail as password',
      { email: 'longer.address@new.example', password: 'longer.address@new.example' },
      'Choose another password',
    ],
    ['an address with a line break (F58)', { email: 'a@b.example\r\nBcc: c@d.example' }, 'not an e-mail address'],
    ['an address that is too long (F58)', { email: `${'a'.repeat(250)}@b.example` }, 'not an e-mail address'],
    ['no name', { name: '  ' }, 'name is missing'],
    ['a wrong NPI', { npi: '1234567890' }, 'not an NPI'],
  ])('refuses %s and says how to go on', async (_name, values, words) => {
    const { answer } = await submit(values)
    expect(answer.status).toBe(400)
    expect(answer.text).toContain(words)
  })

  it('takes nobody where the policy is closed', async () => {
    const browser = new Browser(server)
    await server.apply({
      clients: [
        {
          client_id: 'hope-app',
          client_name: 'Hope App',
          organization: 'hope',
          redirect_uris: ['http://localhost:9/callback'],
          token_endpoint_auth_method: 'none',
          first_party: true,
          scope: 'openid profile email',
        },
      ],
    })
    const page = await browser.follow(await browser.request(authorizationUrl(server, 'hope-app').url))
    expect(page.text).not.toContain('Create an account')
    const path = new URL(page.url).pathname
    expect((await browser.request(`${path}/sign-up`)).status).toBe(303)
    const csrf = /name="csrf" value="([^"]+)"/.exec(page.text)?.[1] ?? ''
    const form = { csrf, name: 'N', email: 'sneaky@new.example', password: good }
    expect((await browser.request(`${path}/sign-up`, { form })).status).toBe(303)
    expect(mailsTo(server, 'sneaky@new.example')).toEqual([])
  })

  it('takes nobody by a link from before the policy was closed', async () => {
    const { browser } = await submit({ email: 'late@new.example' })
    const landing = await browser.follow(await browser.request(linkIn(await mailTo(server, 'late@new.example'))))
    const organizations = (signup: 'closed' | 'open') => [{ slug: 'mercy', name: 'Mercy Hospital', policy: { signup } }]
    await server.apply({ organizations: organizations('closed') })
    expect((await browser.submit(landing, '/confirm/continue', {})).status).toBe(401)
    expect(await countOf('late@new.example')).toBe(0)
    await server.apply({ organizations: organizations('open') })
  })

  it('keeps no password in the database or the logs before the account exists', async () => {
    await submit({ email: 'canary@new.example', password: 'Canary-Password-77-Xylo' })
    await mailTo(server, 'canary@new.example')
    const links = await server.database.kysely.selectFrom('mail_links').select(['sealed', 'kind']).execute()
    expect(JSON.stringify([links, server.logs, await server.audit()])).not.toMatch(/Canary-Password|canary@new/)
  })
})

describe.each(mainDatabase)('invitations on %s', (kind) => {
  let server: TestServer
  beforeAll(async () => {
    server = await startServer(kind, { environment, seed })
  })
  afterAll(() => server.close())

  async function invite(email: string, roles = ['member', 'nurse']) {
    const parts = { database: server.database, secrets: createSecrets(testSecret), issuer: server.issuer }
    await invitePerson(parts, { email, organizationSlug: 'mercy', roles })
    return linkIn(await mailTo(server, email))
  }

  it('gives the place and the roles that the inviter fixed, once', async () => {
    const link = await invite('ina@new.example')
    const browser = new Browser(server)
    const page = await browser.follow(await browser.request(link))
    expect(page.text).toContain('Mercy Hospital')
    const forged = await browser.submit(page, '/invite', { name: 'Ina', password: good, roles: 'org_admin' })
    expect(forged.status, 'unknown fields are refused').toBe(400)
    const done = await browser.submit(page, '/invite', { name: 'Ina Vited', password: good })
    expect(done.text).toContain('Welcome to Mercy Hospital')
    const landing = await signIn(new Browser(server), authorizationUrl(server, 'first'), 'ina@new.example', good)
    expect(landing.url).toContain('code=')
    expect((await server.audit('invitation.accepted'))[0]?.details).toEqual({ roles: ['member', 'nurse'] })
    expect((await browser.follow(await browser.request(link))).status).toBe(410)
  })

  it('is spent by its button alone, and once by 20 at the same moment', async () => {
    const link = await invite('race@new.example')
    for (let opened = 0; opened < 5; opened += 1) {
      const scanner = new Browser(server)
      await scanner.follow(await scanner.request(link))
    }
    const browser = new Browser(server)
    const page = await browser.follow(await browser.request(link))
    const csrf = /name="csrf" value="([^"]+)"/.exec(page.text)?.[1] ?? ''
    const form = { csrf, name: 'Race', password: good }
    const answers = await Promise.all(Array.from({ length: 20 }, () => browser.request('/invite', { form })))
    expect(answers.filter((answer) => answer.status === 200)).toHaveLength(1)
    expect(answers.filter((answer) => answer.status >= 500)).toEqual([])
  })

  it('takes nobody’s roles away', async () => {
    const link = await invite('ada@mercy.example', ['member'])
    const browser = new Browser(server)
    const page = await browser.follow(await browser.request(link))
    await browser.submit(page, '/invite', {})
    const row = await server.database.kysely
      .selectFrom('memberships as m')
      .innerJoin('accounts as a', 'a.id', 'm.account_id')
      .select('m.roles')
      .where('a.email_normalized', '=', 'ada@mercy.example')
      .executeTakeFirstOrThrow()
    expect(row.roles).toEqual(['org_admin'])
    expect((await server.audit('invitation.accepted'))[0]?.details).toEqual({ roles: [] })
  })

  it('lets somebody with an account join as a guest, without a new password', async () => {
    const link = await invite('hugo@hope.example', ['member'])
    const browser = new Browser(server)
    const page = await browser.follow(await browser.request(link))
    expect(page.text).not.toContain('type="password"')
    expect((await browser.submit(page, '/invite', {})).text).toContain('Welcome')
    const rows = await server.database.kysely
      .selectFrom('memberships as m')
      .innerJoin('accounts as a', 'a.id', 'm.account_id')
      .select(['m.home', 'm.roles'])
      .where('a.email_normalized', '=', 'hugo@hope.example')
      .orderBy('m.home')
      .execute()
    expect(rows.map((row) => row.home)).toEqual([false, true])
  })
})

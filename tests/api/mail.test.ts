// What goes by mail: sign-up, sign-in links and forgotten passwords over the API. Answers are the same for any address.
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { Browser } from '../support/client.ts'
import { linkIn, mailsTo, mailTo } from '../support/mails.ts'
import { mainDatabase, password, type TestServer } from '../support/server.ts'
import { ApiClient, appOrigin, comparable, good, problem, startApi } from './support.ts'

const parallel = 20

describe.each(mainDatabase)('by mail on %s', (kind) => {
  let server: TestServer
  beforeAll(async () => {
    server = await startApi(kind)
  })
  afterAll(() => server.close())

  const signUp = (email: string, more = {}) => ({
    email,
    password: good,
    name: 'Nia New',
    organization: 'mercy',
    ...more,
  })
  const countOf = async (email: string) =>
    (await server.database.kysely.selectFrom('accounts').select('id').where('email_normalized', '=', email).execute())
      .length
  /** The code that the newest mail's link shows, in whatever browser it is opened. */
  async function codeFrom(email: string, count = 1, browser = new Browser(server)) {
    const page = await browser.follow(await browser.request(linkIn(await mailTo(server, email, count))))
    expect(page.text, 'nothing to press there').not.toContain('<form')
    return /class="shown-code"[^>]*>([A-Z0-9-]+)</.exec(page.text)?.[1] ?? ''
  }

  it('makes an account when the code of the mail is typed in the same browser, and signs it in', async () => {
    const client = new ApiClient(server)
    const metadata = { npi: '1234567893', specialty: 'Oncology' }
    const asked = await client.post('/signup', signUp('Nia@new.example', { metadata }), { origin: appOrigin })
    expect(asked).toMatchObject({ status: 202, body: { status: 'check_email' } })
    expect(await countOf('nia@new.example'), 'nothing exists yet').toBe(0)
    expect((await mailTo(server, 'Nia@new.example')).text).toContain('Mercy App')
    const code = await codeFrom('Nia@new.example', 1, client.browser)
    const done = await client.post('/signup/confirm', { code: ` ${code.toLowerCase()} ` })
    expect(done.body).toMatchObject({
      status: 'complete',
      session: { account: { email: 'Nia@new.example', roles: ['member'] }, amr: ['magic_link', 'pwd'] },
    })
    const row = await server.database.kysely
      .selectFrom('accounts')
      .select('metadata')
      .where('email_normalized', '=', 'nia@new.example')
      .executeTakeFirst()
    expect(row?.metadata).toEqual(metadata)
  })

  it('F59: the code opens nothing in another browser, and five wrong tries end it', async () => {
    const client = new ApiClient(server)
    await client.post('/signup', signUp('victim@new.example'))
    const code = await codeFrom('victim@new.example')
    const other = new ApiClient(server)
    await other.post('/signin', { email: 'nobody@new.example', password })
    const refused = { status: 401, body: { type: problem('link_refused') } }
    expect(await other.post('/signup/confirm', { code })).toMatchObject(refused)
    expect(await new ApiClient(server).post('/signup/confirm', { code })).toMatchObject(refused)
    for (let tries = 0; tries < 5; tries += 1)
      expect(await client.post('/signup/confirm', { code: 'AAAA-AAAA' })).toMatchObject(refused)
    expect(await client.post('/signup/confirm', { code })).toMatchObject(refused)
    expect(await countOf('victim@new.example')).toBe(0)
  })

  it('F31: says the same for an address that is known, whose owner is told', async () => {
    const fresh = comparable(await new ApiClient(server).post('/signup', signUp('fresh@new.example')))
    const known = comparable(await new ApiClient(server).post('/signup', signUp('lee@mercy.example')))
    expect(known).toEqual(fresh)
    expect((await mailTo(server, 'lee@mercy.example')).text).not.toContain('token=')
  })

  it('takes nobody where sign-up is closed, and does not say whether such an organisation exists', async () => {
    const closed = comparable(
      await new ApiClient(server).post('/signup', signUp('x@new.example', { organization: 'hope' })),
    )
    const unknown = comparable(
      await new ApiClient(server).post('/signup', signUp('x@new.example', { organization: 'nix' })),
    )
    expect(closed).toMatchObject({ status: 403, body: { type: problem('sign_up_closed') } })
    expect(unknown).toEqual(closed)
    expect(mailsTo(server, 'x@new.example')).toEqual([])
  })

  it.each([
    ['a weak password', { password: 'short' }, 'password'],
    ['an address without a host', { email: 'nobody' }, 'email'],
    ['an address with a line break (F58)', { email: 'a@b.example\r\nBcc: c@d.example' }, 'email'],
    ['no name', { name: '  ' }, 'name'],
    ['a name with a bidirectional override (F77)', { name: 'Nia \u202e' }, 'name'],
    ['a wrong NPI', { metadata: { npi: '1234567890' } }, 'metadata.npi'],
    ['21 facts', { metadata: Object.fromEntries(Array.from({ length: 21 }, (_, n) => [`fact${n}`, 'x'])) }, 'metadata'],
    ['a fact that is no text', { metadata: { floor: 3 } }, 'metadata.floor'],
    ['roles of their own', { roles: ['org_admin'] }, 'roles'],
  ])('refuses %s and names the member', async (_name, values, path) => {
    const answer = await new ApiClient(server).post('/signup', signUp('bad@new.example', values))
    expect(answer).toMatchObject({ status: 400, body: { type: problem('input_invalid') } })
    expect(answer.body['errors']).toContainEqual(expect.objectContaining({ path }))
    expect(mailsTo(server, 'bad@new.example')).toEqual([])
  })

  it('takes 20 facts', async () => {
    const metadata = Object.fromEntries(Array.from({ length: 20 }, (_, n) => [`fact${n}`, 'x'.repeat(200)]))
    expect((await new ApiClient(server).post('/signup', signUp('facts@new.example', { metadata }))).status).toBe(202)
  })

  it('of 20 confirmations at once one makes the account', async () => {
    const client = new ApiClient(server)
    await client.post('/signup', signUp('race@new.example'))
    const code = await codeFrom('race@new.example')
    const headers = { 'x-csrf-token': await client.token() }
    const answers = await Promise.all(
      Array.from({ length: parallel }, () => client.call('/signup/confirm', { body: { code }, headers })),
    )
    expect(answers.filter(({ status }) => status === 200)).toHaveLength(1)
    for (const { status } of answers) expect([200, 401]).toContain(status)
    expect(await countOf('race@new.example')).toBe(1)
  })

  it('F32: signs in with the code of a mailed link, and says the same for an address that is not known', async () => {
    const client = new ApiClient(server)
    const known = comparable(await client.post('/magic-link', { email: 'p0@mercy.example' }))
    const unknown = comparable(await new ApiClient(server).post('/magic-link', { email: 'nobody@mercy.example' }))
    expect(known).toMatchObject({ status: 202, body: { status: 'check_email' } })
    expect(unknown).toEqual(known)
    expect(await client.post('/magic-link/code', { code: 'AAAA-AAAA' })).toMatchObject({
      status: 401,
      body: { type: problem('link_refused') },
    })
    const code = await codeFrom('p0@mercy.example')
    expect((await new ApiClient(server).post('/magic-link/code', { code })).status, 'in another browser').toBe(401)
    expect((await client.post('/magic-link/code', { code })).body).toMatchObject({
      status: 'complete',
      session: { amr: ['magic_link'], acr: 'urn:mlpipes:acr:link' },
    })
    expect((await client.post('/magic-link/code', { code })).status, 'once').toBe(401)
  })

  it('asks for the second factor after a link too', async () => {
    const client = new ApiClient(server)
    await client.post('/magic-link', { email: 't0@mercy.example' })
    const code = await codeFrom('t0@mercy.example')
    expect((await client.post('/magic-link/code', { code })).body).toEqual({ status: 'second_factor_required' })
    expect((await client.call('/session')).status).toBe(401)
  })

  it('asks for the password after a link where a second factor is to be set up, and takes it in the same flow', async () => {
    const client = new ApiClient(server)
    await client.post('/magic-link', { email: 'sam@strict.example' })
    const code = await codeFrom('sam@strict.example')
    expect((await client.post('/magic-link/code', { code })).body).toEqual({ status: 'password_required' })
    const answer = await client.post('/signin', { email: 'sam@strict.example', password })
    expect(answer.body).toEqual({ status: 'second_factor_setup_required' })
  })

  it('F32: mails a way to a new password, and says the same for an address that is not known', async () => {
    const known = comparable(await new ApiClient(server).post('/password/forgot', { email: 'p1@mercy.example' }))
    const unknown = comparable(await new ApiClient(server).post('/password/forgot', { email: 'nobody@mercy.example' }))
    expect(known.status).toBe(202)
    expect(unknown).toEqual(known)
    expect(linkIn(await mailTo(server, 'p1@mercy.example'))).toMatch(/^\/recover\?token=/)
    expect((await new ApiClient(server).post('/password/forgot', { email: 'nobody' })).body['errors']).toEqual([
      { path: 'email', message: expect.any(String) },
    ])
  })

  it('F56: sends no fourth mail of a kind within the quarter of an hour', async () => {
    const statuses = []
    for (let asked = 0; asked < 4; asked += 1)
      statuses.push((await new ApiClient(server).post('/password/forgot', { email: 'p2@mercy.example' })).status)
    expect(statuses).toEqual([202, 202, 202, 429])
  })

  it('names nothing in a mailed address that opens the flow', async () => {
    const client = new ApiClient(server)
    await client.post('/magic-link', { email: 'p3@mercy.example' })
    const link = linkIn(await mailTo(server, 'p3@mercy.example'))
    const thief = new ApiClient(server)
    thief.setCookie('mlpipes_flow', link.split('/')[2] ?? '', '/api/auth')
    const code = await codeFrom('p3@mercy.example')
    expect((await thief.post('/magic-link/code', { code })).status).toBe(401)
    expect((await client.post('/magic-link/code', { code })).status).toBe(200)
  })
})

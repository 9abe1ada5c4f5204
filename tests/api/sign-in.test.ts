// Signing in over the API: the same steps, throttles and audit rows as on the pages, and no step that can be skipped.
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { throttleLimits } from '../../src/credentials/throttle.ts'
import { authorizationUrl, Browser } from '../support/client.ts'
import { databaseKinds, password, type TestServer } from '../support/server.ts'
import { codeFor } from '../support/totp.ts'
import { ApiClient, appOrigin, comparable, good, problem, startApi } from './support.ts'

const parallel = 20

describe.each(databaseKinds)('signing in on %s', (kind) => {
  let server: TestServer
  beforeAll(async () => {
    server = await startApi(kind)
  })
  afterAll(() => server.close())
  /** What answers showed once and nothing may keep. */
  const shown: string[] = []

  const idOf = async (email: string) =>
    (await server.database.kysely.selectFrom('accounts').select('id').where('email', '=', email).executeTakeFirst())
      ?.id ?? ''
  const auditOf = async (name: string, email: string) => {
    const id = await idOf(email)
    return (await server.audit(name)).filter((event) => event.accountId === id)
  }
  /** A client whose password was taken, at the second factor. */
  async function atSecondFactor(email: string) {
    const client = new ApiClient(server)
    const answer = await client.post('/signin', { email, password })
    expect(answer.body).toEqual({ status: 'second_factor_required' })
    return client
  }

  it('signs in with a password, and says who it is and for how long', async () => {
    const client = new ApiClient(server)
    const answer = await client.post(
      '/signin',
      { email: ' P0@mercy.example', password },
      { 'user-agent': 'App/1', origin: appOrigin },
    )
    expect(answer.body).toMatchObject({
      status: 'complete',
      session: {
        account: {
          id: await idOf('p0@mercy.example'),
          email: 'p0@mercy.example',
          organization: { slug: 'mercy' },
          roles: ['member'],
        },
        acr: 'urn:mlpipes:acr:password',
        amr: ['pwd'],
      },
    })
    expect((await client.call('/session')).body['session']).toMatchObject({ amr: ['pwd'] })
    expect(client.cookie('mlpipes_flow'), 'the flow is over').toBeUndefined()
    const [created] = await auditOf('session.created', 'p0@mercy.example')
    expect(created).toMatchObject({
      clientId: 'app',
      userAgent: 'App/1',
      requestId: answer.headers.get('x-request-id'),
    })
    expect(created?.ip).toMatch(/127\.0\.0\.1|::1/)
    expect(await auditOf('login.succeeded', 'p0@mercy.example')).toHaveLength(1)
  })

  it('sets the cookie that the pages set: signed, HttpOnly, Lax, for the session of the browser', async () => {
    const client = new ApiClient(server)
    const answer = await client.post('/signin', { email: 'p1@mercy.example', password })
    const lines = answer.headers.getSetCookie().filter((line) => line.startsWith('mlpipes_session'))
    expect(lines.map((line) => line.replace(/=[^;]+/, '='))).toEqual([
      'mlpipes_session=; path=/; samesite=lax; httponly',
      'mlpipes_session.sig=; path=/; samesite=lax; httponly',
    ])
  })

  it('F30: answers unknown, disabled, without a password and wrong the same', async () => {
    const answers = []
    for (const [email, secret] of [
      ['nobody@mercy.example', password],
      ['gone@mercy.example', password],
      ['nopass@mercy.example', password],
      ['p2@mercy.example', 'wrong'],
      ['p2@mercy.example', ''],
    ])
      answers.push(comparable(await new ApiClient(server).post('/signin', { email, password: secret })))
    expect(answers[0]).toMatchObject({ status: 401, body: { type: problem('sign_in_refused') } })
    for (const answer of answers) expect(answer).toEqual(answers[0])
  })

  it('asks for the second factor that an account has, and takes each code once', async () => {
    const client = await atSecondFactor('t0@mercy.example')
    expect((await client.call('/session')).status, 'a password alone is no session').toBe(401)
    const wrong = await client.post('/totp', { code: '000000' })
    expect(wrong).toMatchObject({ status: 401, body: { type: problem('code_refused') } })
    const code = await codeFor(server)
    const done = await client.post('/totp', { code })
    expect(done.body).toMatchObject({
      status: 'complete',
      session: { amr: ['pwd', 'otp', 'mfa'], acr: 'urn:mlpipes:acr:mfa' },
    })
    const again = await atSecondFactor('t0@mercy.example')
    expect((await again.post('/totp', { code })).status).toBe(401)
  })

  it('F66: lets no step be called before its time, and none be skipped', async () => {
    const later = {
      '/totp': { code: '123456' },
      '/totp/backup-code': { code: 'AAAA' },
      '/totp/setup': {},
      '/totp/confirm': { code: '123456' },
      '/totp/codes-renew': {},
      '/totp/codes-kept': {},
      '/password/renew': { newPassword: good },
    }
    const stranger = new ApiClient(server)
    for (const [path, body] of Object.entries(later))
      expect(await stranger.post(path, body), path).toMatchObject({
        status: 409,
        body: { type: problem('out_of_step') },
      })
    const half = await atSecondFactor('t1@mercy.example')
    for (const path of [
      '/totp/setup',
      '/totp/confirm',
      '/totp/codes-renew',
      '/totp/codes-kept',
      '/password/renew',
    ] as const)
      expect((await half.post(path, later[path])).status, path).toBe(409)
    for (const path of ['/session/extend', '/password/change'])
      expect((await half.post(path, path === '/session/extend' ? {} : { newPassword: good })).status, path).toBe(401)
    expect((await half.call('/session')).status).toBe(401)
    expect(await auditOf('session.created', 't1@mercy.example')).toEqual([])
  })

  it('does not go on with a sign-in that is finished, whoever kept its cookie', async () => {
    const client = await atSecondFactor('t2@mercy.example')
    const kept = client.cookie('mlpipes_flow') ?? ''
    expect((await client.post('/totp', { code: await codeFor(server) })).body['status']).toBe('complete')
    const thief = new ApiClient(server)
    thief.setCookie('mlpipes_flow', kept, '/api/auth')
    expect((await thief.post('/totp', { code: '123456' })).status).toBe(409)
    const answer = await thief.post('/signin', { email: 't2@mercy.example', password })
    expect(answer.body, 'the second factor of the finished one does not count').toEqual({
      status: 'second_factor_required',
    })
    expect(thief.cookie('mlpipes_flow')).not.toBe(kept)
  })

  it('does not carry what one person proved over to another', async () => {
    const client = await atSecondFactor('t3@mercy.example')
    const answer = await client.post('/signin', { email: 'p3@mercy.example', password })
    expect(answer.body).toMatchObject({
      status: 'complete',
      session: { account: { email: 'p3@mercy.example' }, amr: ['pwd'] },
    })
  })

  it('F21: a session gets an id that nobody could have set, and ends the one before', async () => {
    const client = new ApiClient(server)
    client.setCookie('mlpipes_session', 'a'.repeat(43))
    await client.post('/signin', { email: 'p4@mercy.example', password })
    const first = client.cookie('mlpipes_session') ?? ''
    expect(first).not.toBe('a'.repeat(43))
    await client.post('/signin', { email: 'p5@mercy.example', password })
    const second = client.cookie('mlpipes_session')
    expect(second).not.toBe(first)
    const holder = new ApiClient(server)
    holder.setCookie('mlpipes_session', first)
    expect((await holder.call('/session')).status).toBe(401)
    expect((await client.call('/session')).body['session']).toMatchObject({ account: { email: 'p5@mercy.example' } })
    expect(await auditOf('session.ended', 'p4@mercy.example')).toMatchObject([
      { details: { reason: 'signed_in_anew' } },
    ])
  })

  it('keeps the session that was there when a sign-in is refused', async () => {
    const client = new ApiClient(server)
    await client.post('/signin', { email: 'p6@mercy.example', password })
    expect((await client.post('/signin', { email: 'p6@mercy.example', password: 'wrong' })).status).toBe(401)
    expect((await client.call('/session')).status).toBe(200)
  })

  it('sets up a second factor where the policy asks for one, and shows the backup codes before it is over', async () => {
    const client = new ApiClient(server)
    const begun = await client.post('/signin', { email: 'sam@strict.example', password })
    expect(begun.body).toEqual({ status: 'second_factor_setup_required' })
    const setup = await client.post('/totp/setup')
    expect(setup.body['uri']).toMatch(/^otpauth:\/\/totp\//)
    expect(setup.body['qr']).toMatch(/^data:image\/svg\+xml;base64,/)
    const secret = String(setup.body['secret'])
    expect((await client.post('/totp/setup')).body['secret'], 'asking again changes nothing').toBe(secret)
    await server.database.run(
      "update mlpipes_auth.totp_credentials set created_at = now() - interval '1 day' where account_id = $1 and confirmed_at is null",
      [await idOf('sam@strict.example')],
    )
    const renewedSecret = String((await client.post('/totp/setup')).body['secret'])
    expect(renewedSecret, 'one that has lapsed is replaced').not.toBe(secret)
    expect((await client.post('/totp/confirm', { code: '000000' })).status).toBe(401)
    const confirmed = await client.post('/totp/confirm', { code: await codeFor(server, renewedSecret) })
    expect(confirmed.body['backupCodes']).toHaveLength(10)
    shown.push(secret, renewedSecret, ...(confirmed.body['backupCodes'] as string[]))
    expect((await client.call('/session')).status, 'not before they are kept').toBe(401)
    const renewed = await client.post('/totp/codes-renew')
    expect(renewed.body['backupCodes']).not.toEqual(confirmed.body['backupCodes'])
    const done = await client.post('/totp/codes-kept')
    expect(done.body).toMatchObject({ status: 'complete', session: { acr: 'urn:mlpipes:acr:mfa' } })

    const [old] = confirmed.body['backupCodes'] as string[]
    const [code] = renewed.body['backupCodes'] as string[]
    const again = await atSecondFactor('sam@strict.example')
    expect((await again.post('/totp/backup-code', { code: old })).status).toBe(401)
    const spent = await again.post('/totp/backup-code', { code })
    expect(spent.body).toMatchObject({ status: 'complete', session: { amr: ['pwd', 'backup_code', 'mfa'] } })
    const third = await atSecondFactor('sam@strict.example')
    expect((await third.post('/totp/backup-code', { code })).status, 'once').toBe(401)
  })

  it('wants a new password where it is due, and ends what was signed in with the old one', async () => {
    const before = new ApiClient(server)
    await before.post('/signin', { email: 'p7@mercy.example', password })
    await server.database.run('update mlpipes_auth.password_credentials set must_change = true where account_id = $1', [
      await idOf('p7@mercy.example'),
    ])
    const client = new ApiClient(server)
    expect((await client.post('/signin', { email: 'p7@mercy.example', password })).body).toEqual({
      status: 'password_change_required',
    })
    const weak = await client.post('/password/renew', { newPassword: 'short' })
    expect(weak).toMatchObject({
      status: 400,
      body: { errors: expect.arrayContaining([expect.objectContaining({ path: 'newPassword' })]) },
    })
    expect((await client.call('/session')).status).toBe(401)
    expect((await client.post('/password/renew', { newPassword: good })).body).toMatchObject({ status: 'complete' })
    expect((await before.call('/session')).status).toBe(401)
    expect((await client.call('/session')).status).toBe(200)
  })

  it('F36: tries on the pages and over the API share one count', async () => {
    const email = 'p8@mercy.example'
    const browser = new Browser(server)
    const page = await browser.follow(await browser.request(authorizationUrl(server, 'first').url))
    for (let tries = 1; tries < throttleLimits.freeFailures; tries += 1)
      expect((await browser.submit(page, '/password', { email, password: 'wrong' })).status).toBe(401)
    expect((await new ApiClient(server).post('/signin', { email, password: 'wrong' })).status).toBe(401)
    const refused = await new ApiClient(server).post('/signin', { email, password })
    expect(refused).toMatchObject({ status: 429, body: { type: problem('throttled') } })
    expect(Number(refused.headers.get('retry-after'))).toBeGreaterThan(0)
  })

  it('F36: of 20 wrong passwords at once no more are compared than the throttle lets through', async () => {
    const email = 'p9@mercy.example'
    const clients = await Promise.all(
      Array.from({ length: parallel }, async () => {
        const client = new ApiClient(server)
        return { client, token: await client.token() }
      }),
    )
    const answers = await Promise.all(
      clients.map(({ client, token }) =>
        client.call('/signin', { body: { email, password: 'wrong' }, headers: { 'x-csrf-token': token } }),
      ),
    )
    const compared = answers.filter(({ status }) => status === 401).length
    expect(answers.filter(({ status }) => status === 429)).toHaveLength(parallel - compared)
    const mismatches = (await auditOf('login.failed', email)).filter(({ details }) =>
      JSON.stringify(details).includes('"mismatch"'),
    )
    expect(mismatches).toHaveLength(compared)
    expect(compared).toBeGreaterThanOrEqual(throttleLimits.freeFailures)
    // One more for each delay that may have passed meanwhile; the budget itself is ten.
    expect(compared).toBeLessThanOrEqual(throttleLimits.freeFailures + 2)
  })

  it('of 20 with the same code at once one ends the sign-in, in one session', async () => {
    const client = await atSecondFactor('totp@mercy.example')
    const headers = { 'x-csrf-token': await client.token() }
    const code = await codeFor(server)
    const answers = await Promise.all(
      Array.from({ length: parallel }, () => client.call('/totp', { body: { code }, headers })),
    )
    expect(answers.filter(({ status }) => status === 200)).toHaveLength(1)
    for (const { status } of answers) expect([200, 401, 409, 429]).toContain(status)
    expect(await auditOf('session.created', 'totp@mercy.example')).toHaveLength(1)
    expect(await auditOf('login.succeeded', 'totp@mercy.example')).toHaveLength(1)
  })

  it('keeps secrets out of logs and audit rows', async () => {
    const client = new ApiClient(server)
    const wrong = 'Canary-Wrong-77-Xylo'
    const token = await client.token()
    await client.post('/signin', { email: 'lee@mercy.example', password: wrong })
    const flow = client.cookie('mlpipes_flow')
    expect((await client.post('/signin', { email: 'lee@mercy.example', password })).status).toBe(200)
    const session = client.cookie('mlpipes_session')
    await client.call('/session/extend', { body: { password: wrong }, headers: { 'x-csrf-token': token } })
    const kept = JSON.stringify([server.logs, await server.audit()])
    for (const secret of [wrong, password, good, token, flow, session, client.cookie('mlpipes_csrf'), ...shown]) {
      expect(secret?.length ?? 0).toBeGreaterThan(8)
      expect(kept.includes(secret ?? '')).toBe(false)
    }
  })
})

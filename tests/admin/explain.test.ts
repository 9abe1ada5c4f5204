// Why a policy holds: for a person, a session and a token, with the verdict that introspection gives.
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { introspect, post } from '../support/client.ts'
import { mainDatabase } from '../support/server.ts'
import { type AdminServer, problem, seed, signIn, startAdmin } from './support.ts'

const file = {
  ...seed,
  organizations: [
    {
      slug: 'mercy',
      name: 'Mercy Hospital',
      policy: { session: { idleTimeout: 1_200 }, mfa: 'off' as const, tokens: { accessTokenTtl: 600 } },
    },
    { slug: 'hope', name: 'Hope Clinic', policy: { session: { idleTimeout: 300 } } },
    { slug: 'platform', name: 'Platform', policy: { session: { idleTimeout: 900 }, password: { minLength: 16 } } },
  ],
  clients: [
    ...(seed.clients ?? []),
    {
      client_id: 'checker',
      client_secret: 'checker-secret-0123456789',
      client_name: 'Checker',
      organization: 'platform',
      grant_types: ['client_credentials' as const],
      scope: 'openid',
      introspection: 'organization' as const,
    },
  ],
}

describe.each(mainDatabase)('an explanation on %s', (kind) => {
  let server: AdminServer
  beforeAll(async () => {
    server = await startAdmin(kind, file)
  })
  afterAll(() => server.close())

  const run = (statement: string, values: unknown[] = []) => server.database.run(statement, values)
  const explain = async (body: unknown, asker = 'auditor@mercy.example') =>
    server.call(await server.tokenOf(asker), '/api/admin/explain', { body })
  const field = (body: Record<string, unknown>, name: string) =>
    [body['policy']].flat().find((one) => Object(one).field === name)
  const sessionOf = async (email: string) =>
    String(
      (
        await run(
          'select uid from mlpipes_auth.sessions where account_id = $1 and ended_at is null order by created_at desc limit 1',
          [server.ids.get(email)],
        )
      )[0]?.['uid'],
    )
  const set = (slug: string, policy: unknown) =>
    run('update mlpipes_auth.organizations set policy = $2::jsonb where slug = $1', [slug, JSON.stringify(policy)])
  const mercy = file.organizations[0]?.policy

  it('says for a person which rule decided each field', async () => {
    const id = server.ids.get('member@mercy.example')
    const { status, body } = await explain({ account: id })
    expect(status).toBe(200)
    expect(body).toMatchObject({
      account: { id, roles: ['member', 'physician'] },
      session: null,
      token: null,
      standing: { stands: true, reason: null },
    })
    expect(field(body, 'session.idleTimeout')).toEqual({
      field: 'session.idleTimeout',
      value: 1_200,
      rule: 'organisation',
      because: null,
      decidedBy: [],
      written: 1_200,
    })
    expect(field(body, 'tokens.refreshTokenTtl')).toMatchObject({ rule: 'platform default', written: null })
    expect(field(body, 'password.minLength')).toMatchObject({ value: 12, rule: 'profile' })
    expect(field(body, 'signup')).toMatchObject({ value: 'closed' })
    expect(field(body, 'mfa')).toMatchObject({ value: 'off', rule: 'organisation' })
    const admin = await explain({ account: server.ids.get('admin@mercy.example') })
    expect(field(admin.body, 'mfa')).toMatchObject({ value: 'optional', rule: 'administrator', written: 'off' })
  })

  it('says that somebody who is switched off does not stand', async () => {
    const id = server.ids.get('victim@mercy.example')
    await run('update mlpipes_auth.accounts set disabled_at = now() where id = $1', [id])
    expect((await explain({ account: id })).body['standing']).toEqual({ stands: false, reason: 'account' })
    await run('update mlpipes_auth.accounts set disabled_at = null where id = $1', [id])
  })

  it('says for a session what holds it, of every organisation that it was used for', async () => {
    await signIn(server, 'support@mercy.example')
    const uid = await sessionOf('support@mercy.example')
    const { body } = await explain({ session: uid })
    expect(body).toMatchObject({
      standing: { stands: true, reason: null },
      account: { roles: ['support'] },
      session: { uid, organizations: ['mercy', 'platform'], idleSeconds: 900, endedAt: null, endReason: null },
    })
    // The console is the platform's, and the person is a member of mercy alone.
    expect(field(body, 'session.idleTimeout')).toMatchObject({
      value: 900,
      rule: 'client organisation',
      decidedBy: ['platform'],
      written: 1_200,
    })
    expect(field(body, 'password.minLength'), 'which the app’s organisation has no say in').toMatchObject({ value: 12 })
    // Seen from the app's organisation the person's own is the other one, whose roles are not told.
    const other = await explain({ session: uid }, 'root@platform.example')
    expect(other.body).toMatchObject({ account: { roles: [] }, session: { uid } })
    expect(field(other.body, 'tokens.accessTokenTtl')).toMatchObject({
      value: 600,
      rule: 'other membership',
      decidedBy: ['mercy'],
      written: null,
    })
  })

  it('says why a session does not stand', async () => {
    await signIn(server, 'support@mercy.example')
    const uid = await sessionOf('support@mercy.example')
    const standing = async () => (await explain({ session: uid })).body['standing']
    await set('mercy', { ...mercy, network: { allowedCidrs: ['192.0.2.0/24'] } })
    const asker = 'root@platform.example'
    const seen = await explain({ session: uid }, asker)
    expect(seen.body['standing']).toEqual({ stands: false, reason: 'network' })
    await set('mercy', mercy)
    await run(
      "update mlpipes_auth.sessions set last_activity_at = now() - interval '1000 seconds', idle_expires_at = now() + interval '1 hour' where uid = $1",
      [uid],
    )
    expect(await standing(), 'within mercy’s own limit').toEqual({ stands: true, reason: null })
    await run(
      "update mlpipes_auth.sessions set idle_expires_at = now() - interval '1 second' where uid = $1 and ended_at is null",
      [uid],
    )
    expect(Object(await standing()).reason).toMatch(/^(idle|ended)$/)
    await run("update mlpipes_auth.sessions set ended_at = now(), end_reason = 'password_reset' where uid = $1", [uid])
    const ended = await explain({ session: uid })
    expect(ended.body).toMatchObject({
      standing: { stands: false, reason: 'ended' },
      session: { endReason: 'password_reset' },
    })
  })

  it('gives a token the verdict of introspection, and says why', async () => {
    const token = await signIn(server, 'member@mercy.example')
    const uid = await sessionOf('member@mercy.example')
    const verdict = async () => {
      const { body } = await explain({ token })
      const { active } = await introspect(server, token, 'checker')
      const { stands, reason } = Object(body['standing'])
      expect(stands, 'as introspection says').toBe(active)
      return reason
    }
    const { body } = await explain({ token })
    expect(body).toMatchObject({
      token: {
        kind: 'AccessToken',
        client: { id: 'console' },
        organization: 'mercy',
        sessionUid: uid,
        endsWithSession: true,
      },
      session: { uid },
      account: { id: server.ids.get('member@mercy.example') },
      standing: { stands: true, reason: null },
    })
    expect(await verdict()).toBeNull()
    const account = server.ids.get('member@mercy.example')
    await run('update mlpipes_auth.accounts set disabled_at = now() where id = $1', [account])
    expect(await verdict()).toBe('account')
    await run('update mlpipes_auth.accounts set disabled_at = null where id = $1', [account])
    await set('mercy', { ...mercy, loginMethods: ['magic_link'] })
    const method = await explain({ token }, 'root@platform.example')
    expect(method.body['standing']).toEqual({ stands: false, reason: 'method' })
    await set('mercy', mercy)
    expect(await verdict()).toBeNull()
    await run("update mlpipes_auth.sessions set ended_at = now(), end_reason = 'sign_out' where uid = $1", [uid])
    expect(await verdict()).toBe('ended')
  })

  it('explains a token of a service, and of an app that is switched off', async () => {
    const token = await server.serviceToken('unscoped', 'openid')
    expect((await explain({ token })).body).toMatchObject({
      token: { kind: 'ClientCredentials', client: { id: 'unscoped' }, organization: 'mercy', sessionUid: null },
      account: null,
      standing: { stands: true },
    })
    await run("update mlpipes_auth.clients set disabled_at = now() where client_id = 'unscoped'")
    expect((await explain({ token })).body['standing']).toEqual({ stands: false, reason: 'client' })
    await run("update mlpipes_auth.clients set disabled_at = null where client_id = 'unscoped'")
    await post(server, '/oauth/revoke', 'unscoped', { token })
    expect(await explain({ token })).toMatchObject({ status: 404 })
  })

  it('tells nothing of another organisation’s, which is as if it were not there', async () => {
    const token = await signIn(server, 'member@hope.example')
    const uid = await sessionOf('member@hope.example')
    const id = server.ids.get('member@hope.example')
    const missing = await explain({ account: 'acc_missing' })
    expect(missing).toMatchObject({ status: 404, body: { type: problem('not_found') } })
    for (const body of [
      { account: id },
      { session: uid },
      { token },
      { token: 'x'.repeat(43) },
      { session: 'missing' },
    ]) {
      const answer = await explain(body)
      expect({ ...answer.body, instance: '' }).toEqual({ ...missing.body, instance: '' })
    }
    const denied = await server.audit('admin.access_denied')
    expect(denied.map(({ details }) => Object(details).target)).toEqual(expect.arrayContaining([id, uid]))
    expect(JSON.stringify(await server.audit())).not.toContain(token)
    expect(server.logs.join()).not.toContain(token)
  })

  it('is the same by GET for what an address may name, and tells nothing of a token there', async () => {
    const id = String(server.ids.get('member@mercy.example'))
    const token = await server.tokenOf('auditor@mercy.example')
    const get = (query: string) => server.call(token, `/api/admin/explain?${query}`)
    expect((await get(`account=${id}`)).body).toEqual((await explain({ account: id })).body)
    await signIn(server, 'member@mercy.example')
    const uid = await sessionOf('member@mercy.example')
    expect((await get(`session=${uid}`)).body).toMatchObject({ session: { uid }, standing: { stands: true } })
    expect((await get('session=missing')).status).toBe(404)
    for (const query of ['', `account=${id}&session=${uid}`, `account=${id}&account=${id}`, 'token=x', 'surprise=1'])
      expect(await get(query), query).toMatchObject({ status: 400, body: { type: problem('input_invalid') } })
  })

  it.each([
    {},
    { account: 'a', session: 'b' },
    { account: 1 },
    { token: 'x'.repeat(129) },
    { token: '' },
    { surprise: 1 },
  ])('refuses %j', async (body) => {
    expect(await explain(body)).toMatchObject({ status: 400, body: { type: problem('input_invalid') } })
  })
})

// Apps that read, change and remove themselves (RFC 7592), and what a registration token cannot be used for (F76).
import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest'
import { type AdminServer, seed, startAdmin } from '../admin/support.ts'
import { mainDatabase } from '../support/server.ts'
import { asUpdate, issueToken, knowsSecret, metadata, type RegistrationAnswer, register, send } from './support.ts'

interface App {
  readonly id: string
  readonly uri: string
  readonly token: string
  readonly answer: RegistrationAnswer
}

describe.each(mainDatabase)('on %s', (kind) => {
  let server: AdminServer
  let app: App
  const put = (own: App, change: Readonly<Record<string, unknown>>, token = own.token) =>
    send(server, 'PUT', own.uri, token, asUpdate(own.answer, change))
  const replaceSecret = (own: App, body?: unknown, headers: Record<string, string> = {}) =>
    send(server, 'POST', `${own.uri}/secret`, own.token, body, headers)
  const newApp = async (change: Readonly<Record<string, unknown>> = {}): Promise<App> => {
    const answer = await register(server, (await issueToken(server)).token, { ...metadata, ...change })
    return {
      id: String(answer.body['client_id']),
      uri: String(answer.body['registration_client_uri']),
      token: String(answer.body['registration_access_token']),
      answer,
    }
  }
  const run = (statement: string, ...values: unknown[]) => server.database.run(statement, values)

  beforeAll(async () => {
    server = await startAdmin(kind, seed)
  })
  afterAll(() => server.close())
  beforeEach(async () => {
    await run('delete from mlpipes_auth.sign_in_attempts')
    app = await newApp()
  })

  it('reads what was registered, without the secret, and changes nothing by it', async () => {
    for (let time = 0; time < 2; time += 1) {
      const read = await send(server, 'GET', app.uri, app.token)
      expect(read.status).toBe(200)
      const { client_secret: _once, ...registered } = app.answer.body
      expect(read.body).toEqual(registered)
      expect(read.headers.get('cache-control')).toBe('no-store')
    }
  })

  it('changes it, gives a new token for the old one, and keeps the secret', async () => {
    const changed = await put(app, { client_name: 'Vendor App 2', client_secret: app.answer.body['client_secret'] })
    expect(changed.status).toBe(200)
    expect(changed.body).toMatchObject({ client_id: app.id, client_name: 'Vendor App 2' })
    expect(changed.body).not.toHaveProperty('client_secret')
    const next = String(changed.body['registration_access_token'])
    expect(next).not.toBe(app.token)
    expect((await send(server, 'GET', app.uri, app.token)).status, 'the one of before').toBe(401)
    expect((await send(server, 'GET', app.uri, next)).status).toBe(200)
    const events = (await server.audit('client.updated')).filter((row) => row.clientId === app.id)
    expect(events).toMatchObject([{ actorType: 'client', actorId: app.id, details: { changed: ['client_name'] } }])
    const same = await send(server, 'PUT', app.uri, next, asUpdate(changed, {}))
    expect(same.status).toBe(200)
    const [event] = await server.audit('client.updated')
    expect(event?.details).toEqual({ changed: ['registration_access_token'] })
  })

  it('takes what is not said, and null, as what is not said at the beginning', async () => {
    const first = await put(app, { post_logout_redirect_uris: ['https://app.vendor.example/'] })
    const next = { ...app, answer: first, token: String(first.body['registration_access_token']) }
    const second = await put(next, { post_logout_redirect_uris: null, grant_types: null })
    expect(second.body).toMatchObject({ post_logout_redirect_uris: [], grant_types: ['authorization_code'] })
  })

  it('makes a secret when the app begins to need one', async () => {
    const first = await put(app, { token_endpoint_auth_method: 'none' })
    expect(first.body).not.toHaveProperty('client_secret_expires_at')
    const token = String(first.body['registration_access_token'])
    const body = asUpdate(first, { token_endpoint_auth_method: 'client_secret_basic' })
    const second = await send(server, 'PUT', app.uri, token, body)
    expect(second.body['client_secret']).toMatch(/^[\w-]{43}$/)
    expect(second.body['client_secret']).not.toBe(app.answer.body['client_secret'])
  })

  it.each<[string, Record<string, unknown>, boolean]>([
    ['its name', { client_name: 'Another App' }, true],
    ['where codes go', { redirect_uris: ['https://app.vendor.example/other'] }, true],
    ['what it asks for', { scope: 'openid profile email offline_access' }, true],
    ['what nobody is shown', { post_logout_redirect_uris: ['https://app.vendor.example/'] }, false],
  ])('asks people again when it changes %s: %j', async (_what, change, asksAgain) => {
    const account = server.ids.get('member@mercy.example')
    await run(
      `insert into mlpipes_auth.consents (account_id, client_id, scopes) values ($1, $2, '{openid}')`,
      account,
      app.id,
    )
    await run(
      `insert into mlpipes_auth.oidc_payloads (model, id_hash, payload, account_id, client_id, expires_at)
       values ('RefreshToken', $1, '{}', $2, $1, now() + interval '1 hour')`,
      app.id,
      account,
    )
    expect((await put(app, change)).status).toBe(200)
    const left = [
      ...(await run('select client_id from mlpipes_auth.consents where client_id = $1', app.id)),
      ...(await run('select client_id from mlpipes_auth.oidc_payloads where client_id = $1', app.id)),
    ]
    expect(left).toHaveLength(asksAgain ? 0 : 2)
  })

  it.each<[string, Record<string, unknown>]>([
    ['scopes', { scope: 'openid admin:write' }],
    ['grants', { grant_types: ['client_credentials'] }],
    ['hosts', { redirect_uris: ['https://evil.example/'] }],
    ['the way it authenticates', { token_endpoint_auth_method: 'client_secret_post' }],
    ['an http address', { redirect_uris: ['http://app.vendor.example/'] }],
    ['another client_id', { client_id: 'ehr' }],
    ['no client_id', { client_id: null }],
    ['another secret', { client_secret: 'another' }],
    ['a token of its own choice', { registration_access_token: 'mine' }],
    ['an address of its own choice', { registration_client_uri: 'https://evil.example/' }],
  ])('does not get out of its template by a change: %s; its token stays', async (_what, change) => {
    expect((await put(app, change)).status).toBe(400)
    const read = await send(server, 'GET', app.uri, app.token)
    expect(read.status).toBe(200)
    const { client_secret: _once, ...registered } = app.answer.body
    expect(read.body).toEqual(registered)
  })

  it('changes nothing that an administrator alone may give, and keeps what they gave', async () => {
    await run(
      `update mlpipes_auth.clients set introspection = 'own', metadata = metadata || '{"session_activity":false}' where client_id = $1`,
      app.id,
    )
    const answer = await put(app, {
      client_name: 'Other',
      first_party: true,
      introspection: 'organization',
      profile: 'fapi2',
    })
    expect(answer.status).toBe(200)
    const [row] = await run(
      `select first_party, introspection, profile, metadata -> 'session_activity' as activity from mlpipes_auth.clients
        where client_id = $1`,
      app.id,
    )
    expect(row).toEqual({ first_party: false, introspection: 'own', profile: 'standard', activity: false })
  })

  it.each([
    ['first_party', 'first_party = true'],
    ['introspection', `introspection = 'organization'`],
    ['permissions', `permissions = '{user:read}'`],
    ['profile', `profile = 'oidc-certification'`],
  ])('is not changed by itself once an administrator gave it %s', async (_what, given) => {
    await run(`update mlpipes_auth.clients set ${given} where client_id = $1`, app.id)
    const change = await put(app, { redirect_uris: ['https://app.vendor.example/elsewhere'] })
    for (const answer of [change, await replaceSecret(app)])
      expect(answer).toMatchObject({ status: 403, body: { error: 'access_denied' } })
    expect(await knowsSecret(server, app.id, app.answer.body['client_secret'])).toBe(true)
    expect((await send(server, 'GET', app.uri, app.token)).status).toBe(200)
  })

  it('lets a token do nothing to another client, and loses nothing by the attempt', async () => {
    const other = await newApp()
    expect((await replaceSecret({ ...other, token: app.token })).status).toBe(401)
    for (const method of ['GET', 'PUT', 'DELETE'])
      for (const address of [
        other.uri,
        '/oauth/register/ehr',
        '/oauth/register/client_none',
        '/oauth/register/mlpipes-account',
      ]) {
        const answer = await send(
          server,
          method,
          address,
          app.token,
          method === 'PUT' ? asUpdate(other.answer, {}) : undefined,
        )
        expect(answer.status, `${method} ${address}`).toBe(401)
      }
    for (const own of [app, other]) expect((await send(server, 'GET', own.uri, own.token)).status).toBe(200)
    const refused = await server.audit('registration.refused')
    expect(refused.slice(0, 12)).toMatchObject(Array(12).fill({ details: { error: 'invalid_token' } }))
  })

  it('takes neither the token that registered it nor that of a person, nor one in the address', async () => {
    const initial = await issueToken(server)
    const admin = await server.tokenOf('admin@mercy.example')
    for (const token of [initial.token, admin, undefined])
      expect((await send(server, 'GET', app.uri, token)).status).toBe(401)
    expect((await send(server, 'GET', `${app.uri}?access_token=${app.token}`, undefined)).status).toBe(401)
    expect((await register(server, app.token)).status, 'and its own token registers nothing').toBe(401)
  })

  it('is refused once an administrator has switched the client off, and goes on when it is switched on', async () => {
    const admin = await server.tokenOf('admin@mercy.example')
    await server.call(admin, `/api/admin/clients/${app.id}/disable`, { method: 'POST', body: {} })
    for (const method of ['GET', 'PUT', 'DELETE']) {
      const answer = await send(
        server,
        method,
        app.uri,
        app.token,
        method === 'PUT' ? asUpdate(app.answer, {}) : undefined,
      )
      expect(answer.status).toBe(403)
      expect(answer.body['error_description']).toContain('administrator')
    }
    expect((await replaceSecret(app)).status).toBe(403)
    await server.call(admin, `/api/admin/clients/${app.id}/enable`, { method: 'POST', body: {} })
    expect((await send(server, 'GET', app.uri, app.token)).status).toBe(200)
  })

  it('is over with its organisation, and when an administrator deletes the client', async () => {
    await run(`update mlpipes_auth.organizations set closed_at = now() where slug = 'mercy'`)
    expect((await send(server, 'GET', app.uri, app.token)).status).toBe(401)
    await run(`update mlpipes_auth.organizations set closed_at = null where slug = 'mercy'`)
    // Housekeeping, which comes by every other second, may have ended what it had meanwhile.
    server.forgetTokens()
    const admin = await server.tokenOf('admin@mercy.example')
    const { headers } = await server.call(admin, `/api/admin/clients/${app.id}`)
    const deleted = { method: 'DELETE', headers: { 'if-match': headers.get('etag') ?? '' } }
    expect((await server.call(admin, `/api/admin/clients/${app.id}`, deleted)).status).toBe(204)
    expect((await send(server, 'GET', app.uri, app.token)).status).toBe(401)
  })

  it('goes on when the token it was registered with is taken back, within the template of then', async () => {
    const admin = await server.tokenOf('admin@mercy.example')
    const { body } = await server.call(admin, '/api/admin/registration-tokens?limit=100')
    for (const { id } of body['items'] as { id: string }[])
      await server.call(admin, `/api/admin/registration-tokens/${id}`, { method: 'DELETE' })
    expect((await put(app, { redirect_uris: ['https://evil.example/'] })).status).toBe(400)
    expect((await put(app, { client_name: 'Later' })).status).toBe(200)
  })

  it('replaces its secret, and the former one works for a day beside it, and no third one', async () => {
    const first = app.answer.body['client_secret']
    const before = Math.floor(Date.now() / 1000)
    const replaced = await replaceSecret(app)
    expect(replaced.status).toBe(200)
    expect(replaced.headers.get('cache-control')).toBe('no-store')
    const {
      client_secret: second,
      registration_access_token: token,
      previous_client_secret_expires_at: until,
      ...registered
    } = replaced.body
    const { client_secret: _secret, registration_access_token: _token, ...asBefore } = app.answer.body
    expect(registered).toEqual(asBefore)
    expect(second).toMatch(/^[\w-]{43}$/)
    expect(Number(until) - before).toBeGreaterThanOrEqual(86_400)
    expect(Number(until) - before).toBeLessThan(86_460)
    const known = async () => [await knowsSecret(server, app.id, first), await knowsSecret(server, app.id, second)]
    expect(await known()).toEqual([true, true])
    const [event] = await server.audit('client.secret_replaced')
    expect(event).toMatchObject({ actorType: 'client', actorId: app.id, clientId: app.id, outcome: 'success' })

    expect((await replaceSecret(app)).status, 'the token of before').toBe(401)
    const now = { ...app, token: String(token), answer: replaced }
    const repeated = await put(now, { client_secret: first })
    expect(repeated.status, 'RFC 7592: the secret of now alone is repeated').toBe(400)
    expect(repeated.body['error_description']).toContain('client_secret')
    const changed = await put(now, { client_name: 'Vendor App 2', client_secret: second })
    expect(changed.status).toBe(200)
    expect(changed.body).not.toHaveProperty('client_secret')
    expect(await known(), 'a change leaves both').toEqual([true, true])

    const again = await replaceSecret({ ...now, token: String(changed.body['registration_access_token']) }, {})
    expect(again.status).toBe(200)
    expect(await known()).toEqual([false, true])
    expect(await knowsSecret(server, app.id, again.body['client_secret'])).toBe(true)
    const own = { ...now, token: String(again.body['registration_access_token']), answer: again }
    expect((await put(own, { token_endpoint_auth_method: 'none' })).status).toBe(200)
    expect(await known(), 'and one without a secret leaves none').toEqual([false, false])
  })

  it.each<[string, unknown, Record<string, string>, number]>([
    ['a secret of its own choice', { client_secret: 'mine' }, {}, 400],
    ['an overlap of its own choice', { overlapSeconds: 604_800 }, {}, 400],
    ['a list', [], {}, 400],
    ['null', null, {}, 400],
    ['half a document', '{', {}, 400],
    ['a form', 'client_secret=mine', { 'content-type': 'application/x-www-form-urlencoded' }, 415],
    ['what is called JSON otherwise', {}, { 'content-type': 'application/json; charset=utf-16' }, 415],
  ])('replaces no secret for %s, and its token stays', async (_what, body, headers, status) => {
    const answer = await replaceSecret(app, body, headers)
    expect(answer.status).toBe(status)
    expect(JSON.stringify(answer.body)).not.toContain('mine')
    expect((await send(server, 'GET', app.uri, app.token)).status).toBe(200)
    expect(await knowsSecret(server, app.id, app.answer.body['client_secret'])).toBe(true)
  })

  it.each([
    ['a grant', { grant_types: ['client_credentials'], response_types: [] }],
    ['a scope', { scope: 'openid admin:read' }],
    ['a host', { redirect_uris: ['https://elsewhere.example/callback'] }],
  ])('replaces no secret once an administrator has given it %s that it could not register', async (_what, members) => {
    await run(
      'update mlpipes_auth.clients set metadata = metadata || $2::jsonb where client_id = $1 returning 1',
      app.id,
      JSON.stringify(members),
    )
    expect(await replaceSecret(app)).toMatchObject({ status: 403, body: { error: 'access_denied' } })
    expect(await knowsSecret(server, app.id, app.answer.body['client_secret'])).toBe(true)
  })

  it('has no secret to replace when it proves itself without one', async () => {
    const open = await newApp({ token_endpoint_auth_method: 'none' })
    const signing = await newApp({
      token_endpoint_auth_method: 'private_key_jwt',
      jwks: { keys: [{ kty: 'OKP', crv: 'Ed25519', x: '11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo' }] },
    })
    for (const own of [open, signing]) {
      const answer = await replaceSecret(own)
      expect(answer).toMatchObject({ status: 400, body: { error: 'invalid_client_metadata' } })
      expect(answer.body['error_description']).toContain('without a secret')
      expect((await send(server, 'GET', own.uri, own.token)).status, 'its token stays').toBe(200)
      const [refused] = await server.audit('registration.refused')
      expect(refused).toMatchObject({ clientId: own.id, details: { detail: 'token_endpoint_auth_method' } })
    }
  })

  it('removes itself, with everything it has', async () => {
    const account = server.ids.get('member@mercy.example')
    await run(
      `insert into mlpipes_auth.oidc_payloads (model, id_hash, payload, account_id, client_id, expires_at)
       values ('AccessToken', $1, '{}', $2, $1, now() + interval '1 hour')`,
      app.id,
      account,
    )
    const removed = await send(server, 'DELETE', app.uri, app.token)
    expect(removed.status).toBe(204)
    expect(await run('select client_id from mlpipes_auth.clients where client_id = $1', app.id)).toEqual([])
    expect(await run('select client_id from mlpipes_auth.oidc_payloads where client_id = $1', app.id)).toEqual([])
    expect(await run('select client_id from mlpipes_auth.client_registrations where client_id = $1', app.id)).toEqual(
      [],
    )
    expect((await server.audit('client.deleted'))[0]).toMatchObject({ actorType: 'client', actorId: app.id })
    expect((await send(server, 'DELETE', app.uri, app.token)).status).toBe(401)
  })
})

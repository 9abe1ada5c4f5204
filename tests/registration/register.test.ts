// Apps that register themselves (RFC 7591), with openid-client and by hand: what a token allows, and what nobody may (F76).
import * as client from 'openid-client'
import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest'
import { throttleLimits } from '../../src/credentials/throttle.ts'
import { type AdminServer, seed, startAdmin } from '../admin/support.ts'
import { Browser } from '../support/client.ts'
import { password } from '../support/server.ts'
import { issueToken, metadata, register, send, template } from './support.ts'

const withMember = {
  ...seed,
  accounts: [
    ...(seed.accounts ?? []),
    { email: 'plain@mercy.example', name: 'Plain Person', password, organization: 'mercy', emailVerified: true },
  ],
}

describe.each(['postgres'] as const)('on %s', (kind) => {
  let server: AdminServer
  beforeAll(async () => {
    server = await startAdmin(kind, withMember, { environment: { REQUIRE_MFA: 'false', HIPAA_MODE: 'false' } })
  })
  afterAll(() => server.close())
  beforeEach(() => server.database.run('delete from mlpipes_auth.sign_in_attempts', []))

  it('lets openid-client register an app, sign somebody in and refresh', async () => {
    const { token } = await issueToken(server)
    const config = await client.dynamicClientRegistration(
      new URL(server.issuer),
      { ...metadata, client_name: 'Praxis-Kalender Süd' },
      client.ClientSecretBasic(),
      { initialAccessToken: token, execute: [client.allowInsecureRequests] },
    )
    const registered = config.clientMetadata()
    expect(registered).toMatchObject({
      client_name: 'Praxis-Kalender Süd',
      redirect_uris: metadata.redirect_uris,
      response_types: ['code'],
      client_secret_expires_at: 0,
      registration_client_uri: `${server.issuer}/oauth/register/${registered.client_id}`,
      profile: 'standard',
    })
    const verifier = client.randomPKCECodeVerifier()
    const url = client.buildAuthorizationUrl(config, {
      redirect_uri: metadata.redirect_uris[0] ?? '',
      scope: metadata.scope,
      prompt: 'consent',
      code_challenge: await client.calculatePKCECodeChallenge(verifier),
      code_challenge_method: 'S256',
      state: 'a-state',
    })
    const browser = new Browser(server)
    const page = await browser.follow(await browser.request(url.href))
    const consent = await browser.submit(page, '/password', { email: 'plain@mercy.example', password })
    expect(consent.text, 'nobody vouches for it: people are asked').toContain('Praxis-Kalender Süd')
    const landing = await browser.submit(consent, '/consent', { decision: 'allow' })
    const tokens = await client.authorizationCodeGrant(config, new URL(landing.url), {
      pkceCodeVerifier: verifier,
      expectedState: 'a-state',
    })
    expect(tokens.claims()?.sub).toMatch(/^acc_/)
    const fresh = await client.refreshTokenGrant(config, tokens.refresh_token ?? '')
    expect(fresh.access_token).not.toBe(tokens.access_token)
  })

  it('says in discovery where apps register', async () => {
    for (const path of ['openid-configuration', 'oauth-authorization-server']) {
      const { body } = await send(server, 'GET', `/.well-known/${path}`, undefined)
      expect(body['registration_endpoint']).toBe(`${server.issuer}/oauth/register`)
    }
  })

  it('answers what was registered, keeps no token, and writes down who did it', async () => {
    const { id, token } = await issueToken(server)
    const answer = await register(server, token, {
      ...metadata,
      software_id: 'x',
      contacts: ['a@b.example'],
      scope: null,
    })
    expect(answer.status).toBe(201)
    expect(answer.headers.get('cache-control')).toBe('no-store')
    expect(answer.headers.get('pragma')).toBe('no-cache')
    const { client_id: clientId, client_secret: secret, registration_access_token: own } = answer.body
    expect(answer.body).toMatchObject({
      scope: template.scopes.join(' '),
      token_endpoint_auth_method: 'client_secret_basic',
    })
    for (const ignored of ['software_id', 'contacts', 'first_party', 'introspection', 'permissions'])
      expect(answer.body).not.toHaveProperty(ignored)
    const stored = JSON.stringify([
      await server.database.run(
        `select r.client_id, r.token_hash, r.template, c.metadata, c.secret_digest from mlpipes_auth.client_registrations r
           join mlpipes_auth.clients c on c.client_id = r.client_id`,
        [],
      ),
      await server.database.run('select id, token_hash, template from mlpipes_auth.registration_tokens', []),
      await server.audit(),
      server.logs,
    ])
    for (const kept of [token, own, secret]) expect(stored).not.toContain(String(kept))
    const [event] = (await server.audit('client.created')).filter((row) => row.clientId === clientId)
    expect(event).toMatchObject({
      actorType: 'client',
      actorId: clientId,
      details: { introspection: 'none', firstParty: false, registrationTokenId: id },
    })
  })

  it('gives nothing away that an administrator alone may give', async () => {
    const { token } = await issueToken(server)
    const wanted = {
      first_party: true,
      introspection: 'organization',
      permissions: ['user:read'],
      profile: 'oidc-certification',
    }
    const answer = await register(server, token, {
      ...metadata,
      ...wanted,
      organization: 'hope',
      client_id: 'ehr',
      client_secret: 'mine',
    })
    expect(answer.status).toBe(201)
    const [row] = await server.database.run(
      `select c.first_party, c.introspection, c.permissions, c.profile, o.slug from mlpipes_auth.clients c
         join mlpipes_auth.organizations o on o.id = c.organization_id where c.client_id = $1`,
      [answer.body['client_id']],
    )
    expect(row).toEqual({
      first_party: false,
      introspection: 'none',
      permissions: [],
      profile: 'standard',
      slug: 'mercy',
    })
    expect(answer.body['client_id']).not.toBe('ehr')
    expect(answer.body['client_secret']).not.toBe('mine')
  })

  const redirect = (...uris: string[]) => ({ redirect_uris: uris })
  const native = { application_type: 'native', token_endpoint_auth_method: 'none' }
  it.each<[string, Record<string, unknown>, string, string]>([
    ['http', redirect('http://app.vendor.example/cb'), 'invalid_redirect_uri', 'https URI'],
    ['http to this machine, for web', redirect('http://localhost:8080/cb'), 'invalid_redirect_uri', 'native'],
    [
      'https to this machine',
      { ...redirect('https://localhost/cb'), ...native },
      'invalid_redirect_uri',
      'must be http',
    ],
    [
      'a machine that the token does not name',
      { ...redirect('http://[::1]/cb'), ...native },
      'invalid_redirect_uri',
      'localhost 127.0.0.1',
    ],
    ['another host', redirect('https://evil.example/cb'), 'invalid_redirect_uri', 'app.vendor.example'],
    ['a host below', redirect('https://x.app.vendor.example/cb'), 'invalid_redirect_uri', 'allows'],
    [
      'a host that begins alike',
      redirect('https://app.vendor.example.evil.example/cb'),
      'invalid_redirect_uri',
      'allows',
    ],
    ['another port', redirect('https://app.vendor.example:8443/cb'), 'invalid_redirect_uri', 'allows'],
    [
      'one of two',
      redirect('https://app.vendor.example/cb', 'https://evil.example/'),
      'invalid_redirect_uri',
      'redirect_uris.1',
    ],
    ['a wildcard', redirect('https://*.vendor.example/cb'), 'invalid_redirect_uri', 'wildcard'],
    ['a user', redirect('https://app.vendor.example@evil.example/cb'), 'invalid_redirect_uri', 'user'],
    [
      'a host that other parsers find elsewhere',
      redirect('https://app.vendor.example\\@evil.example/'),
      'invalid_redirect_uri',
      'https',
    ],
    ['no authority', redirect('https:app.vendor.example/cb'), 'invalid_redirect_uri', 'https'],
    ['an empty authority', redirect('https:///app.vendor.example/cb'), 'invalid_redirect_uri', 'https'],
    ['a fragment', redirect('https://app.vendor.example/cb#x'), 'invalid_redirect_uri', 'fragment'],
    ['an empty fragment', redirect('https://app.vendor.example/cb#'), 'invalid_redirect_uri', 'fragment'],
    ['a script', redirect('javascript:alert(1)'), 'invalid_redirect_uri', 'https'],
    ['data', redirect('data:text/html,x'), 'invalid_redirect_uri', 'https'],
    ['a NUL', redirect('https://app.vendor.example/\0'), 'invalid_redirect_uri', 'https'],
    ['none at all', redirect(), 'invalid_redirect_uri', 'at least one'],
    ['51 of them', redirect(...Array<string>(51).fill('https://app.vendor.example/cb')), 'invalid_redirect_uri', '50'],
    [
      'a sign-out page elsewhere',
      { post_logout_redirect_uris: ['https://evil.example/'] },
      'invalid_client_metadata',
      'post_logout',
    ],
    [
      'keys of a private address',
      { jwks_uri: 'https://169.254.169.254/', token_endpoint_auth_method: 'private_key_jwt' },
      'invalid_client_metadata',
      'public internet',
    ],
    [
      'keys of this machine',
      { jwks_uri: 'https://localhost/', token_endpoint_auth_method: 'private_key_jwt' },
      'invalid_client_metadata',
      'public internet',
    ],
    [
      'keys over http',
      { jwks_uri: 'http://app.vendor.example/', token_endpoint_auth_method: 'private_key_jwt' },
      'invalid_client_metadata',
      'https',
    ],
    [
      'sign-outs to a private address',
      { backchannel_logout_uri: 'https://10.0.0.1/' },
      'invalid_client_metadata',
      'public internet',
    ],
    [
      'sign-outs to one in disguise',
      { backchannel_logout_uri: 'https://[::ffff:10.0.0.1]/' },
      'invalid_client_metadata',
      'public internet',
    ],
    ['sign-outs to a number', { backchannel_logout_uri: 'https://167772161/' }, 'invalid_client_metadata', ''],
    ['another grant', { grant_types: ['client_credentials'] }, 'invalid_client_metadata', 'grant_types'],
    ['implicit', { grant_types: ['implicit'] }, 'invalid_client_metadata', 'grant_types'],
    ['tokens in the address', { response_types: ['id_token'] }, 'invalid_client_metadata', 'response_types'],
    ['the administration', { scope: 'openid admin:write' }, 'invalid_client_metadata', 'scope'],
    ['introspection', { scope: 'openid introspect' }, 'invalid_client_metadata', 'scope'],
    ['an unknown scope', { scope: 'openid everything' }, 'invalid_client_metadata', 'scope'],
    [
      'another way to authenticate',
      { token_endpoint_auth_method: 'client_secret_post' },
      'invalid_client_metadata',
      'token_endpoint_auth_method',
    ],
    [
      'keys that are private',
      {
        token_endpoint_auth_method: 'private_key_jwt',
        jwks: { keys: [{ kty: 'EC', crv: 'P-256', x: 'a', y: 'a', d: 'a' }] },
      },
      'invalid_client_metadata',
      'private',
    ],
    ['no keys', { token_endpoint_auth_method: 'private_key_jwt' }, 'invalid_client_metadata', 'jwks'],
    ['no name', { client_name: null }, 'invalid_client_metadata', 'client_name'],
    ['a name of 101 letters', { client_name: 'x'.repeat(101) }, 'invalid_client_metadata', 'client_name'],
    ['a name written backwards', { client_name: 'App \u202eppA' }, 'invalid_client_metadata', 'client_name'],
    ['a name with a line break', { client_name: 'App\nApp' }, 'invalid_client_metadata', 'client_name'],
    ['a name with something invisible', { client_name: 'App\u200b' }, 'invalid_client_metadata', 'client_name'],
    ['a name that fills', { client_name: '\u3164' }, 'invalid_client_metadata', 'client_name'],
    ['a name of half a character', { client_name: 'App \ud800' }, 'invalid_client_metadata', 'client_name'],
    ['a name of nothing', { client_name: '.' }, 'invalid_client_metadata', 'client_name'],
  ])('refuses %s, says what to do, and leaves the token as it is', async (_what, change, error, said) => {
    const { id, token } = await issueToken(server)
    const before = await clients(server)
    const answer = await register(server, token, { ...metadata, ...change })
    expect(answer.status, JSON.stringify(answer.body)).toBe(400)
    expect(answer.body['error']).toBe(error)
    expect(String(answer.body['error_description'])).toContain(said)
    expect(String(answer.body['error_description'])).toMatch(/^[\x20-\x21\x23-\x5b\x5d-\x7e]{1,600}$/)
    expect(await clients(server)).toBe(before)
    const [refused] = await server.audit('registration.refused')
    expect(refused).toMatchObject({ outcome: 'failure', details: { error, registrationTokenId: id } })
    expect((await register(server, token)).status).toBe(201)
  })

  it('takes a native app to any port of the machine, and HTML in a name as text', async () => {
    const { token } = await issueToken(server)
    const body = { ...metadata, ...native, client_name: '<b>Bold</b> & Söhne', redirect_uris: ['http://127.0.0.1/cb'] }
    const answer = await register(server, token, body)
    expect(answer.body).toMatchObject({ client_name: '<b>Bold</b> & Söhne', token_endpoint_auth_method: 'none' })
    expect(answer.body).not.toHaveProperty('client_secret')
    expect(answer.body).not.toHaveProperty('client_secret_expires_at')
    const browser = new Browser(server)
    const query = new URLSearchParams({
      client_id: String(answer.body['client_id']),
      response_type: 'code',
      redirect_uri: 'http://127.0.0.1:49152/cb',
      scope: 'openid',
      code_challenge: 'a'.repeat(43),
      code_challenge_method: 'S256',
    })
    const page = await browser.follow(await browser.request(`/oauth/authorize?${query}`))
    const consent = await browser.submit(page, '/password', { email: 'plain@mercy.example', password })
    expect(consent.text).toContain('&lt;b&gt;Bold&lt;/b&gt; &amp; Söhne')
  })

  it('takes name and list at their limits', async () => {
    const { token } = await issueToken(server)
    const uris = Array.from({ length: 50 }, (_, index) => `https://app.vendor.example/${index}`)
    const answer = await register(server, token, { ...metadata, client_name: 'ü'.repeat(100), redirect_uris: uris })
    expect(answer.status).toBe(201)
  })

  it('holds an app of high assurance to its profile', async () => {
    const { token } = await issueToken(server, { profile: 'fapi2', tokenEndpointAuthMethods: ['private_key_jwt'] })
    expect((await register(server, token)).body['error_description']).toContain('jwks')
    const answer = await register(server, token, { ...metadata, jwks_uri: 'https://app.vendor.example/jwks' })
    expect(answer.body).toMatchObject({ profile: 'fapi2', token_endpoint_auth_method: 'private_key_jwt' })
  })

  it.each<[string, unknown, number, Record<string, string>]>([
    ['a list', [], 400, {}],
    ['a text', '"x"', 400, {}],
    ['null', 'null', 400, {}],
    ['no JSON', '{', 400, {}],
    ['nothing', '', 400, {}],
    ['a prototype', '{"__proto__":{"first_party":true}}', 400, {}],
    ['lists without end', '['.repeat(30_000), 400, {}],
    ['a form', 'client_name=x', 415, { 'content-type': 'application/x-www-form-urlencoded' }],
    ['JSON that says it is text', '{}', 415, { 'content-type': 'text/plain' }],
    ['too much', JSON.stringify({ client_name: 'x'.repeat(70_000) }), 413, {}],
  ])('answers a body that is %s as OAuth does', async (_what, body, status, headers) => {
    const { token } = await issueToken(server)
    const answer = await send(server, 'POST', '/oauth/register', token, body, headers)
    expect(answer.status).toBe(status)
    expect(answer.body).toMatchObject({
      error: expect.stringMatching(/^invalid_/),
      error_description: expect.any(String),
    })
  })

  it('asks for a token first, and tells apart neither unknown, expired, spent nor deleted ones', async () => {
    const none = await register(server, undefined)
    expect(none.status).toBe(401)
    expect(none.headers.get('www-authenticate')).toBe('Bearer')
    const spent = await issueToken(server)
    expect((await register(server, spent.token)).status).toBe(201)
    const expired = await issueToken(server)
    await server.database.run(
      `update mlpipes_auth.registration_tokens set expires_at = now() - interval '1 second' where id = $1`,
      [expired.id],
    )
    const deleted = await issueToken(server)
    const admin = await server.tokenOf('admin@mercy.example')
    await server.call(admin, `/api/admin/registration-tokens/${deleted.id}`, { method: 'DELETE' })
    const unknown = `iat_${'x'.repeat(43)}`
    const answers = []
    for (const token of [
      spent.token,
      expired.token,
      deleted.token,
      unknown,
      `rat_${'x'.repeat(43)}`,
      admin,
      'x y',
      '\u00e9',
    ])
      answers.push(await register(server, token))
    for (const answer of answers) {
      expect(answer.status).toBe(401)
      expect(answer.headers.get('www-authenticate')).toBe('Bearer error="invalid_token"')
      expect(answer.body).toEqual(answers[0]?.body)
    }
  })

  it('takes a token of a closed organisation for nothing', async () => {
    const { token } = await issueToken(server, {}, { by: 'admin@hope.example' })
    await server.database.run(`update mlpipes_auth.organizations set closed_at = now() where slug = 'hope'`, [])
    expect((await register(server, token)).status).toBe(401)
    await server.database.run(`update mlpipes_auth.organizations set closed_at = null where slug = 'hope'`, [])
    const answer = await register(server, token)
    const [row] = await server.database.run(
      `select o.slug from mlpipes_auth.clients c join mlpipes_auth.organizations o on o.id = c.organization_id
        where c.client_id = $1`,
      [answer.body['client_id']],
    )
    expect(row, 'whose token it was decides').toEqual({ slug: 'hope' })
  })

  it('counts refusals per token and per address, and gives a success its try back', async () => {
    const { token } = await issueToken(server, {}, { maxUses: 2 })
    const { tries } = throttleLimits.registrationsPerToken
    for (let index = 0; index < tries - 1; index += 1) expect((await register(server, token, {})).status).toBe(400)
    expect((await register(server, token)).status, 'the last try').toBe(201)
    for (let index = 0; index < tries; index += 1) expect((await register(server, token, {})).status).toBe(400)
    const refused = await register(server, token)
    expect(refused.status).toBe(429)
    expect(Number(refused.headers.get('retry-after'))).toBeGreaterThan(0)
    expect(refused.body['error']).toBe('temporarily_unavailable')
    const other = await issueToken(server)
    expect((await register(server, other.token)).status, 'another token').toBe(201)
    await server.database.run('delete from mlpipes_auth.sign_in_attempts', [])
    const made = (index: number) => `iat_${String(index).padStart(43, 'x')}`
    for (let index = 0; index < throttleLimits.registrationsPerAddress.tries; index += 1)
      expect((await register(server, made(index))).status).toBe(401)
    expect((await register(server, made(1_000))).status).toBe(429)
  }, 60_000)

  it('refuses a template that could give more than an administrator may, and takes each member at its limit', async () => {
    const admin = await server.tokenOf('admin@mercy.example')
    const issue = (change: Record<string, unknown>, beside: Record<string, unknown> = {}) =>
      server.call(admin, '/api/admin/registration-tokens', {
        body: { name: 'Vendor', template: { ...template, ...change }, ...beside },
      })
    const hosts = (count: number) => Array.from({ length: count }, (_, index) => `h${index}.vendor.example`)
    for (const [change, beside] of [
      [{ scopes: ['admin:read'] }],
      [{ scopes: ['introspect'] }],
      [{ profile: 'oidc-certification' }],
      [{ profile: 'fapi2' }],
      [{ redirectHosts: ['*.vendor.example'] }],
      [{ redirectHosts: ['https://app.vendor.example'] }],
      [{ redirectHosts: ['App.vendor.example'] }],
      [{ redirectHosts: ['app.vendor.example/x'] }],
      [{ redirectHosts: ['a@b.example'] }],
      [{ redirectHosts: ['127.1'] }],
      [{ redirectHosts: [] }],
      [{ redirectHosts: hosts(21) }],
      [{ grantTypes: [] }],
      [{ firstParty: true }],
      [{}, { maxUses: 0 }],
      [{}, { maxUses: 1_001 }],
      [{}, { expiresInSeconds: 59 }],
      [{}, { expiresInSeconds: 2_592_001 }],
      [{}, { name: '' }],
    ] as const)
      expect((await issue(change, beside)).status, JSON.stringify([change, beside])).toBe(400)
    const most = await issue({ redirectHosts: hosts(20) }, { maxUses: 1_000, expiresInSeconds: 2_592_000 })
    expect(most.status).toBe(201)
    const [event] = await server.audit('registration_token.created')
    expect(event).toMatchObject({
      actorType: 'account',
      details: { registrationTokenId: most.body['id'], maxUses: 1_000 },
    })
  })

  it('gives an organisation a hundred tokens and no more', async () => {
    const admin = await server.tokenOf('admin@mercy.example')
    await server.database.run(`delete from mlpipes_auth.registration_tokens`, [])
    await server.database.run(
      `insert into mlpipes_auth.registration_tokens (id, organization_id, name, token_hash, template, max_uses, expires_at)
       select 'registration_' || n, o.id, 'x', 'h' || n, $1::jsonb, 1, now() + interval '1 hour'
       from generate_series(1, 99) n, mlpipes_auth.organizations o where o.slug = 'mercy'`,
      [JSON.stringify(template)],
    )
    const last = await issueToken(server)
    await expect(issueToken(server)).rejects.toThrow('409')
    const listed = await server.call(admin, '/api/admin/registration-tokens?limit=100')
    expect(listed.body['items']).toHaveLength(100)
    expect(listed.text).not.toContain(last.token)
    await server.database.run(`delete from mlpipes_auth.registration_tokens`, [])
  })
})

const clients = async (server: AdminServer) =>
  Number((await server.database.run('select count(*)::integer as count from mlpipes_auth.clients', []))[0]?.['count'])

// Introspection by a resource server that shows a token instead of its secret, and who may see a refresh token.
import { randomUUID } from 'node:crypto'
import { exportJWK, generateKeyPair, SignJWT } from 'jose'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { basic, introspect, post } from '../support/client.ts'
import { type DatabaseKind, mainDatabase, startServer, type TestServer } from '../support/server.ts'
import { personTokens, seed, serviceToken } from './seed.ts'

const tokenPath = '/oauth/token'

describe.each(mainDatabase)('on %s', (kind: DatabaseKind) => {
  let server: TestServer
  let key: Parameters<SignJWT['sign']>[0]
  beforeAll(async () => {
    const pair = await generateKeyPair('ES256')
    key = pair.privateKey
    server = await startServer(kind, { seed: seed({ ...(await exportJWK(pair.publicKey)), alg: 'ES256' }) })
  })
  afterAll(() => server.close())

  async function ask(authorization: string, form: Record<string, string>, headers: Record<string, string> = {}) {
    const answer = await fetch(new URL('/oauth/introspect', server.issuer), {
      method: 'POST',
      headers: { authorization, ...headers },
      body: new URLSearchParams(form),
    })
    return { status: answer.status, headers: answer.headers, body: await answer.json() }
  }

  it('answers a bearer of the scope as it answers the same client with its secret', async () => {
    const { access_token: token } = await personTokens(server)
    const caller = await serviceToken(server, 'reader', { scope: 'introspect' })
    const byBearer = await ask(`Bearer ${caller}`, { token })
    expect(byBearer.status).toBe(200)
    expect(byBearer.body).toEqual(await introspect(server, token, 'reader'))
    expect(byBearer.body).toMatchObject({
      active: true,
      client_id: 'first',
      scope: expect.stringContaining('openid'),
      iss: server.issuer,
      sub: expect.stringMatching(/^acc_/),
      exp: expect.any(Number),
      iat: expect.any(Number),
      sid: expect.any(String),
      acr: expect.any(String),
      auth_time: expect.any(Number),
      roles: expect.any(Array),
      org_id: expect.stringMatching(/^org_/),
    })
    const organizationId: unknown = Reflect.get(Object(byBearer.body), 'org_id')
    const aud = `${server.issuer}/organizations/${organizationId}`
    expect(byBearer.body, 'for the APIs of the organisation of the app').toHaveProperty('aud', aud)
    expect(byBearer.headers.get('cache-control')).toBe('no-store')
    // It may ask about its own token too.
    expect((await ask(`bearer ${caller}`, { token: caller })).body).toEqual({
      active: true,
      client_id: 'reader',
      scope: 'introspect',
      token_type: 'Bearer',
      iss: server.issuer,
      aud,
      exp: expect.any(Number),
      iat: expect.any(Number),
      org_id: organizationId,
    })
  })

  it('is announced with every way to say who asks, as is revocation, which is for apps without a secret too', async () => {
    const answer = await fetch(new URL('/.well-known/oauth-authorization-server', server.issuer))
    const metadata: Record<string, unknown> = Object(await answer.json())
    const methods = ['client_secret_basic', 'client_secret_post', 'private_key_jwt']
    const algorithms = metadata['token_endpoint_auth_signing_alg_values_supported']
    expect(algorithms).toContain('ES256')
    expect(metadata).toMatchObject({
      introspection_endpoint_auth_methods_supported: [...methods, 'Bearer'],
      introspection_endpoint_auth_signing_alg_values_supported: algorithms,
      revocation_endpoint_auth_methods_supported: [...methods, 'none'],
      revocation_endpoint_auth_signing_alg_values_supported: algorithms,
    })
    const { access_token: token } = await personTokens(server, 'spa', { scope: 'openid' })
    const asSpa = (path: string) => post(server, path, 'spa', { token })
    expect((await asSpa('/oauth/introspect')).body).toEqual({ active: false })
    expect(await introspect(server, token)).toMatchObject({ active: true })
    expect((await asSpa('/oauth/revoke')).status).toBe(200)
    expect(await introspect(server, token)).toEqual({ active: false })
  })

  it('lets in a client that has a key and no secret', async () => {
    const assertion = await new SignJWT({})
      .setProtectedHeader({ alg: 'ES256' })
      .setIssuer('keyed')
      .setSubject('keyed')
      .setAudience(server.issuer)
      .setJti(randomUUID())
      .setIssuedAt()
      .setExpirationTime('1m')
      .sign(key)
    const answer = await fetch(new URL(tokenPath, server.issuer), {
      method: 'POST',
      body: new URLSearchParams({
        grant_type: 'client_credentials',
        scope: 'introspect',
        client_assertion_type: 'urn:ietf:params:oauth:client-assertion-type:jwt-bearer',
        client_assertion: assertion,
      }),
    })
    const issued: unknown = await answer.json()
    const caller = Reflect.get(Object(issued), 'access_token')
    const { access_token: token } = await personTokens(server)
    expect((await ask(`Bearer ${caller}`, { token })).body).toMatchObject({ active: true })
    // Letting it in once has opened no other door.
    expect((await ask(basic('keyed', '-'), { token })).status).toBe(401)
    expect((await ask(basic('keyed', ''), { token })).status).toBeGreaterThanOrEqual(400)
  })

  it('goes by the client’s introspection setting, and writes down what it did not tell', async () => {
    const { access_token: token } = await personTokens(server)
    const caller = await serviceToken(server, 'blind', { scope: 'introspect' })
    expect((await ask(`Bearer ${caller}`, { token })).body).toEqual({ active: false })
    const denied = async () => (await server.audit('introspection.denied')).map(({ clientId }) => clientId)
    await expect.poll(denied).toContain('blind')
  })

  it.each([
    ['a token without the scope', () => serviceToken(server, 'reader', { scope: 'openid' }), 403, 'insufficient_scope'],
    [
      'a person’s token with the scope',
      async () => (await personTokens(server, 'asker', { scope: 'openid introspect' })).access_token,
      401,
      'invalid_token',
    ],
    ['a token that never was', async () => 'A'.repeat(43), 401, 'invalid_token'],
    ['something else', async () => 'a b', 401, 'invalid_token'],
  ])('refuses %s', async (_name, obtain, status, error) => {
    const { access_token: token } = await personTokens(server)
    const answer = await ask(`Bearer ${await obtain()}`, { token })
    expect(answer.status).toBe(status)
    expect(answer.body).toMatchObject({ error })
    expect(answer.headers.get('www-authenticate')).toContain(`Bearer error="${error}"`)
  })

  it('refuses a caller whose token was revoked or whose client was disabled', async () => {
    const { access_token: token } = await personTokens(server)
    const revoked = await serviceToken(server, 'reader', { scope: 'introspect' })
    await fetch(new URL('/oauth/revoke', server.issuer), {
      method: 'POST',
      headers: { authorization: basic('reader') },
      body: new URLSearchParams({ token: revoked }),
    })
    expect((await ask(`Bearer ${revoked}`, { token })).status).toBe(401)
    const caller = await serviceToken(server, 'reader', { scope: 'introspect' })
    const disable = (at: string) =>
      server.database.run(`update mlpipes_auth.clients set disabled_at = ${at} where client_id = 'reader'`, [])
    await disable('now()')
    const answer = await ask(`Bearer ${caller}`, { token })
    await disable('null')
    expect(answer.status).toBe(401)
    expect(answer.body).toMatchObject({ error: 'invalid_token' })
    expect(answer.headers.get('www-authenticate')).toContain('Bearer error="invalid_token"')
    expect((await ask(`Bearer ${caller}`, { token })).body).toMatchObject({ active: true })
  })

  it('takes one way to say who asks, and lets nobody be somebody else', async () => {
    const { access_token: token } = await personTokens(server)
    const caller = await serviceToken(server, 'blind', { scope: 'introspect' })
    for (const more of [
      { client_id: 'reader' },
      { client_secret: 'reader-secret-0123456789' },
      { client_id: 'reader', client_secret: 'reader-secret-0123456789' },
    ]) {
      const answer = await ask(`Bearer ${caller}`, { token, ...more })
      expect(answer.status, JSON.stringify(more)).toBe(400)
    }
    expect((await ask(`Bearer ${caller}`, {})).status).toBe(400)
    // The bearer of a token is let in at this endpoint alone.
    const elsewhere = await fetch(new URL('/oauth/revoke', server.issuer), {
      method: 'POST',
      headers: { authorization: `Bearer ${caller}` },
      body: new URLSearchParams({ token: caller }),
    })
    expect(elsewhere.status).toBe(400)
  })

  it('tells of a refresh token to its own client only', async () => {
    const tokens = await personTokens(server, 'certification', {
      scope: 'openid offline_access',
      prompt: 'consent',
    })
    const refreshToken = tokens.refresh_token ?? ''
    expect(await introspect(server, refreshToken, 'certification')).toMatchObject({ active: true })
    expect(await introspect(server, refreshToken, 'api')).toEqual({ active: false })
    const caller = await serviceToken(server, 'reader', { scope: 'introspect' })
    expect((await ask(`Bearer ${caller}`, { token: refreshToken })).body).toEqual({ active: false })
    expect((await ask(`Bearer ${caller}`, { token: tokens.access_token })).body).toMatchObject({ active: true })
  })
})

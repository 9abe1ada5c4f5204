// Introspection whose answer is signed, so that a resource server can keep it as proof of what it was told (RFC 9701).
import { createRemoteJWKSet, exportJWK, generateKeyPair, type JWTPayload, jwtVerify } from 'jose'
import * as oauth from 'oauth4webapi'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { basic, introspect, post } from '../support/client.ts'
import { secretOf, startServer, type TestServer } from '../support/server.ts'
import { boundToken } from './proof.ts'
import { personTokens, seed, serviceToken } from './seed.ts'

const mediaType = 'application/token-introspection+jwt'
const signing = (client_id: string, extra: object = {}) => ({
  client_id,
  client_secret: secretOf(client_id),
  client_name: `Keeps what it is told: ${client_id}`,
  organization: 'mercy',
  grant_types: ['client_credentials' as const],
  scope: 'openid introspect',
  introspection: 'organization' as const,
  introspection_signed_response_alg: 'RS256' as const,
  ...extra,
})

let server: TestServer
let keys: ReturnType<typeof createRemoteJWKSet>
let pair: Awaited<ReturnType<typeof generateKeyPair>>
beforeAll(async () => {
  pair = await generateKeyPair('ES256')
  const { clients, ...others } = seed({ ...(await exportJWK(pair.publicKey)), alg: 'ES256' })
  const more = [signing('keeper'), signing('sightless', { introspection: 'none' })]
  server = await startServer('postgres', { seed: { ...others, clients: [...clients, ...more] } })
  keys = createRemoteJWKSet(new URL('/oauth/jwks', server.issuer))
})
afterAll(() => server.close())

async function ask(caller: string, token: string, headers: Record<string, string> = {}) {
  const answer = await fetch(new URL('/oauth/introspect', server.issuer), {
    method: 'POST',
    headers: { authorization: basic(caller), accept: mediaType, ...headers },
    body: new URLSearchParams({ token }),
  })
  return { status: answer.status, headers: answer.headers, text: await answer.text() }
}

/** What the server signed for this caller, and for nobody else; throws for anything that it did not sign. */
async function told(text: string, caller: string, alg = 'ES256'): Promise<JWTPayload> {
  const demands = { issuer: server.issuer, audience: caller, typ: 'token-introspection+jwt', algorithms: [alg] }
  const { payload, protectedHeader } = await jwtVerify(text, keys, demands)
  expect(protectedHeader).toEqual({ alg, typ: 'token-introspection+jwt', kid: expect.any(String) })
  return payload
}

const toldOf = async (caller: string, token: string) => told((await ask(caller, token)).text, caller)

const ofTokens: Record<string, () => Promise<string>> = {
  'of a person': async () => (await personTokens(server)).access_token,
  'of a service': () => serviceToken(server, 'api'),
  'that is bound to a key': () => boundToken(server, pair),
}

describe.each([
  ['signed', 'ES256'],
  ['keeper', 'RS256'],
])('to %s, by %s', (caller, alg) => {
  it.each(Object.keys(ofTokens))('a token %s is told of as without a signature', async (name) => {
    const token = (await ofTokens[name]?.()) ?? ''
    const plain = await introspect(server, token, caller)
    expect(plain).toMatchObject({ active: true, iss: server.issuer })
    const answer = await ask(caller, token)
    expect(answer.status).toBe(200)
    expect(answer.headers.get('content-type')?.split(';')[0]).toBe(mediaType)
    expect(answer.headers.get('cache-control')).toBe('no-store')
    // RFC 9701 §5: nothing else at the top, above all no `sub` and no `exp`, so that it cannot pass for an access token.
    expect(await told(answer.text, caller, alg)).toEqual({
      iss: server.issuer,
      aud: caller,
      iat: expect.any(Number),
      token_introspection: plain,
    })
  })
})

it('is made when it is asked for, and announced', async () => {
  const { access_token: token } = await personTokens(server)
  const before = Math.floor(Date.now() / 1000)
  const { iat = 0 } = await toldOf('signed', token)
  expect(iat).toBeGreaterThanOrEqual(before)
  expect(iat).toBeLessThanOrEqual(Date.now() / 1000)
  const metadata: unknown = await (await fetch(`${server.issuer}/.well-known/oauth-authorization-server`)).json()
  expect(metadata).toMatchObject({
    introspection_signing_alg_values_supported: expect.arrayContaining(['ES256', 'RS256']),
  })
})

describe('of a token that is no good', () => {
  const inactive = { token_introspection: { active: false } }

  it('nothing is told but that, and that is signed', async () => {
    const expected = { iss: server.issuer, aud: 'signed', iat: expect.any(Number), ...inactive }
    expect(await toldOf('signed', 'A'.repeat(43))).toEqual(expected)
    const { access_token: token, refresh_token: refreshToken = '' } = await personTokens(server)
    expect(await toldOf('signed', refreshToken), 'another app’s to refresh with').toEqual(expected)
    expect(await toldOf('signed', token)).toMatchObject({ token_introspection: { active: true } })
    await post(server, '/oauth/revoke', 'first', { token })
    expect(await toldOf('signed', token)).toEqual(expected)
  })

  it('because its session ended, the next answer says so, and the one before remains what it was', async () => {
    const { access_token: token, browser } = await personTokens(server)
    const { text } = await ask('signed', token)
    expect(await told(text, 'signed')).toMatchObject({ token_introspection: { active: true } })
    const page = await browser.follow(await browser.request('/oauth/logout'))
    await browser.submit(page, '/oauth/logout/confirm', { logout: 'yes' })
    expect(await toldOf('signed', token)).toMatchObject(inactive)
    expect(await told(text, 'signed')).toMatchObject({ token_introspection: { active: true } })
  })

  it('for who asks and may see nothing, and that is written down', async () => {
    const { access_token: token } = await personTokens(server)
    expect(await told((await ask('sightless', token)).text, 'sightless', 'RS256')).toMatchObject(inactive)
    const denied = async () => (await server.audit('introspection.denied')).map(({ clientId }) => clientId)
    await expect.poll(denied).toContain('sightless')
  })
})

describe('is given', () => {
  it('to who shows a token instead of its secret', async () => {
    const { access_token: token } = await personTokens(server)
    const own = await serviceToken(server, 'keeper', { scope: 'introspect' })
    const { text } = await ask('keeper', token, { authorization: `Bearer ${own}` })
    const plain = await introspect(server, token, 'keeper')
    expect(await told(text, 'keeper', 'RS256')).toMatchObject({ token_introspection: plain })
  })

  it('to nobody whose registration does not say so', async () => {
    const token = await serviceToken(server, 'api')
    for (const accept of [mediaType, `${mediaType}, application/json;q=0.5`]) {
      const { headers, text } = await ask('api', token, { accept })
      expect(headers.get('content-type')).toMatch(/^application\/json\b/)
      expect(JSON.parse(text)).toEqual(await introspect(server, token))
    }
  })

  it.each(['application/json', '*/*', 'text/html', `${mediaType};q=0.5, application/json`])(
    'to nobody who asks for %s',
    async (accept) => {
      const { headers, text } = await ask('signed', await serviceToken(server, 'api'), { accept })
      expect(headers.get('content-type')).toMatch(/^application\/json\b/)
      expect(JSON.parse(text)).toMatchObject({ active: true, client_id: 'api' })
    },
  )

  it('to nobody who is not let in, or asks wrongly', async () => {
    const refused = await ask('signed', 'A'.repeat(43), { authorization: basic('signed', 'another-secret-0123456789') })
    expect(refused.status).toBe(401)
    expect(JSON.parse(refused.text)).toMatchObject({ error: 'invalid_client' })
    const wrong = await ask('signed', '')
    expect(wrong.status).toBe(400)
    expect(JSON.parse(wrong.text)).toMatchObject({ error: 'invalid_request' })
  })
})

it('is taken by oauth4webapi, by the letter', async () => {
  const insecure = { [oauth.allowInsecureRequests]: true }
  const issuer = new URL(server.issuer)
  const as = await oauth.processDiscoveryResponse(issuer, await oauth.discoveryRequest(issuer, insecure))
  const client: oauth.Client = { client_id: 'signed', introspection_signed_response_alg: 'ES256' }
  const secret = oauth.ClientSecretBasic(secretOf(client.client_id))
  const { access_token: token } = await personTokens(server)
  const answer = await oauth.introspectionRequest(as, client, secret, token, insecure)
  const described = await oauth.processIntrospectionResponse(as, client, answer)
  await oauth.validateApplicationLevelSignature(as, answer, insecure)
  expect(described).toEqual(await introspect(server, token, 'signed'))
})

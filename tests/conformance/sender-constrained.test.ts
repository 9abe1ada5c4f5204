// Pushed authorization requests (RFC 9126) and tokens that only their holder can use (RFC 9449), with openid-client as the
// relying party, and with the tricks that a relying party would not play.

import { randomBytes } from 'node:crypto'
import { request } from 'node:http'
import { exportJWK, generateKeyPair, SignJWT } from 'jose'
import * as oidc from 'openid-client'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { Browser, introspect, post, redirectUri, signIn } from '../support/client.ts'
import { secretOf, startServer, type TestServer } from '../support/server.ts'

let server: TestServer
let config: oidc.Configuration
beforeAll(async () => {
  // One connection: whatever asks for a second while it holds one would wait for itself.
  server = await startServer('postgres', { poolSize: 1 })
  config = await oidc.discovery(new URL(server.issuer), 'first', undefined, oidc.ClientSecretBasic(secretOf('first')), {
    execute: [oidc.allowInsecureRequests],
  })
})
afterAll(() => server.close())

const parameters = async (verifier: string) => ({
  redirect_uri: redirectUri,
  scope: 'openid profile',
  state: 'a-state',
  code_challenge: await oidc.calculatePKCECodeChallenge(verifier),
  code_challenge_method: 'S256',
})
const checks = (pkceCodeVerifier: string) => ({ pkceCodeVerifier, expectedState: 'a-state', idTokenExpected: true })

/** Tokens bound to a key, by a pushed request. */
async function boundTokens() {
  const keys = await oidc.randomDPoPKeyPair('ES256', { extractable: true })
  const DPoP = oidc.getDPoPHandle(config, keys)
  const verifier = oidc.randomPKCECodeVerifier()
  const url = await oidc.buildAuthorizationUrlWithPAR(config, await parameters(verifier), { DPoP })
  const landing = await signIn(new Browser(server), { url: url.href, verifier: '' })
  const tokens = await oidc.authorizationCodeGrant(config, new URL(landing.url), checks(verifier), undefined, { DPoP })
  return { keys, DPoP, tokens, url, landing }
}

describe('pushed authorization requests', () => {
  it('are announced, and carry a sign-in without anything of it in the address', async () => {
    expect(config.serverMetadata().pushed_authorization_request_endpoint).toBe(`${server.issuer}/oauth/par`)
    const verifier = oidc.randomPKCECodeVerifier()
    const url = await oidc.buildAuthorizationUrlWithPAR(config, await parameters(verifier))
    expect([...url.searchParams.keys()].sort()).toEqual(['client_id', 'request_uri'])
    const landing = await signIn(new Browser(server), { url: url.href, verifier: '' })
    const tokens = await oidc.authorizationCodeGrant(config, new URL(landing.url), checks(verifier))
    expect(tokens.claims()).toMatchObject({ org_slug: 'mercy' })
  })

  it('work once, for the client that pushed them, and for a minute', async () => {
    const push = async () => {
      const verifier = oidc.randomPKCECodeVerifier()
      return oidc.buildAuthorizationUrlWithPAR(config, await parameters(verifier))
    }
    const errorOf = async (url: URL) => {
      const answer = await new Browser(server).request(url.href)
      const location = answer.headers.get('location')
      return location === null ? answer.status : new URL(location, server.issuer).searchParams.get('error')
    }
    const used = await push()
    await signIn(new Browser(server), { url: used.href, verifier: '' })
    expect(await errorOf(used)).toBe(400)
    const foreign = await push()
    foreign.searchParams.set('client_id', 'certification')
    expect(await errorOf(foreign)).toBe(400)
    const old = await push()
    await server.database.run(
      `update mlpipes_auth.oidc_payloads set expires_at = now() where model = 'PushedAuthorizationRequest'`,
      [],
    )
    expect(await errorOf(old)).toBe(400)
  })

  it('give one code to 20 who use one at the same moment', async () => {
    const browser = new Browser(server)
    const verifier = oidc.randomPKCECodeVerifier()
    await signIn(browser, { url: oidc.buildAuthorizationUrl(config, await parameters(verifier)).href, verifier: '' })
    const url = await oidc.buildAuthorizationUrlWithPAR(config, await parameters(verifier))
    const cookie = browser.cookies.map(({ name, value }) => `${name}=${value}`).join('; ')
    const answers = await Promise.all(
      Array.from({ length: 20 }, () => fetch(url, { redirect: 'manual', headers: { cookie, accept: 'text/html' } })),
    )
    const codes = answers.filter((answer) => answer.headers.get('location')?.includes('code='))
    expect(codes).toHaveLength(1)
    for (const answer of answers) expect(answer.status).toBeLessThan(500)
  })

  it('refuse a redirect address that is not registered, and a client that does not authenticate', async () => {
    const refused = await post(server, '/oauth/par', 'first', {
      response_type: 'code',
      client_id: 'first',
      ...(await parameters(oidc.randomPKCECodeVerifier())),
      redirect_uri: 'https://elsewhere.example/',
    })
    expect(refused.status).toBe(400)
    const nobody = await fetch(new URL('/oauth/par', server.issuer), {
      method: 'POST',
      body: new URLSearchParams({ client_id: 'first', response_type: 'code', redirect_uri: redirectUri }),
    })
    expect(nobody.status).toBe(401)
  })
})

describe('tokens bound to a key', () => {
  it('say so, and are good with a proof only', async () => {
    const { DPoP, tokens } = await boundTokens()
    expect(tokens.token_type).toBe('dpop')
    const described = await introspect(server, tokens.access_token)
    expect(described).toMatchObject({ active: true, token_type: 'DPoP', cnf: { jkt: expect.any(String) } })
    const subject = tokens.claims()?.sub ?? ''
    expect(await oidc.fetchUserInfo(config, tokens.access_token, subject, { DPoP })).toMatchObject({ sub: subject })
    for (const scheme of ['Bearer', 'DPoP']) {
      const stolen = await fetch(new URL('/oauth/userinfo', server.issuer), {
        headers: { authorization: `${scheme} ${tokens.access_token}` },
      })
      expect(stolen.status, scheme).toBeGreaterThanOrEqual(400)
      expect(stolen.status, scheme).toBeLessThan(500)
    }
    const other = oidc.getDPoPHandle(config, await oidc.randomDPoPKeyPair('ES256'))
    await expect(oidc.fetchUserInfo(config, tokens.access_token, subject, { DPoP: other })).rejects.toThrow()
  })

  it('take each proof once, also when 20 use it at the same moment', async () => {
    const { keys, tokens } = await boundTokens()
    const url = new URL('/oauth/userinfo', server.issuer).href
    const ath = Buffer.from(
      await crypto.subtle.digest('SHA-256', new TextEncoder().encode(tokens.access_token)),
    ).toString('base64url')
    const proof = await new SignJWT({ htm: 'GET', htu: url, ath, jti: randomBytes(16).toString('hex') })
      .setProtectedHeader({ alg: 'ES256', typ: 'dpop+jwt', jwk: await exportJWK(keys.publicKey) })
      .setIssuedAt()
      .sign(keys.privateKey)
    const use = () => fetch(url, { headers: { authorization: `DPoP ${tokens.access_token}`, dpop: proof } })
    const answers = await Promise.all(Array.from({ length: 20 }, use))
    expect(answers.filter((answer) => answer.status === 200)).toHaveLength(1)
    for (const answer of answers) expect(answer.status).toBeLessThan(500)
    expect((await use()).status).toBe(401)
  })

  it('do not become another key’s by refreshing, and a proof of the past is none', async () => {
    const { DPoP, tokens } = await boundTokens()
    const renewed = await oidc.refreshTokenGrant(config, tokens.refresh_token ?? '', undefined, { DPoP })
    expect(renewed.token_type).toBe('dpop')
    const { privateKey, publicKey } = await generateKeyPair('ES256')
    const proof = await new SignJWT({ htm: 'POST', htu: `${server.issuer}/oauth/token`, jti: 'one' })
      .setProtectedHeader({ alg: 'ES256', typ: 'dpop+jwt', jwk: await exportJWK(publicKey) })
      .setIssuedAt(Math.floor(Date.now() / 1000) - 3_600)
      .sign(privateKey)
    const form = { grant_type: 'client_credentials' }
    const old = await post(server, '/oauth/token', 'api', form, { dpop: proof })
    // RFC 9449 §8: rather than trusting the client's clock, the server hands out a nonce.
    expect(old).toMatchObject({ status: 400, body: { error: 'use_dpop_nonce' } })
  })

  it('may be asked for a nonce that every replica knows', async () => {
    const replica = await startServer('postgres', { share: server })
    const { privateKey, publicKey } = await generateKeyPair('ES256')
    const jwk = await exportJWK(publicKey)
    const proofWith = (nonce: string) =>
      new SignJWT({ htm: 'POST', htu: `${server.issuer}/oauth/token`, jti: randomBytes(8).toString('hex'), nonce })
        .setProtectedHeader({ alg: 'ES256', typ: 'dpop+jwt', jwk })
        .setIssuedAt()
        .sign(privateKey)
    const form = { grant_type: 'client_credentials' }
    const made = await post(server, '/oauth/token', 'api', form, { dpop: await proofWith('made-up') })
    expect(made.body).toMatchObject({ error: 'use_dpop_nonce' })
    const nonce = made.headers.get('dpop-nonce') ?? ''
    // It answers under the issuer's name only, which fetch would not send to another port.
    const askReplica = (proof: string) =>
      new Promise<{ status: number; body: Record<string, unknown> }>((resolve, reject) => {
        const headers = {
          host: new URL(server.issuer).host,
          authorization: `Basic ${Buffer.from(`api:${secretOf('api')}`).toString('base64')}`,
          dpop: proof,
          'content-type': 'application/x-www-form-urlencoded',
        }
        const asking = { host: '127.0.0.1', port: replica.port, path: '/oauth/token', method: 'POST', headers }
        const outgoing = request(asking, (answer) => {
          let text = ''
          answer.on('data', (chunk: Buffer) => {
            text += chunk.toString()
          })
          answer.on('end', () => resolve({ status: answer.statusCode ?? 0, body: JSON.parse(text) }))
        })
        outgoing.on('error', reject)
        outgoing.end(new URLSearchParams(form).toString())
      })
    expect(await askReplica(await proofWith(nonce))).toMatchObject({ status: 200, body: { token_type: 'DPoP' } })
    expect(await askReplica(await proofWith('made-up'))).toMatchObject({
      status: 400,
      body: { error: 'use_dpop_nonce' },
    })
    await replica.close()
  })
})

// FAPI 2.0 Security Profile: the modules of `fapi2-security-profile-final-test-plan` about codes, the keys that they and
// tokens are bound to, and refreshing.
import { exportJWK, generateKeyPair, UnsecuredJWT } from 'jose'
import { afterAll, beforeAll, describe, expect, it, vi } from 'vitest'
import { introspect, post } from '../support/client.ts'
import { startServer, type TestServer } from '../support/server.ts'
import {
  accessTokenHash,
  createProofKey,
  type Fapi2Client,
  type Landing,
  now,
  openFapi2Client,
  type ProofKey,
  proofFor,
} from './fapi2-client.ts'

let server: TestServer
let client: Fapi2Client
let second: Fapi2Client
let tokenUrl: string
let userinfoUrl: string
beforeAll(async () => {
  server = await startServer('postgres', { poolSize: 1 })
  client = await openFapi2Client(server, 'high')
  second = await openFapi2Client(server, 'second')
  tokenUrl = `${server.issuer}/oauth/token`
  userinfoUrl = `${server.issuer}/oauth/userinfo`
})
afterAll(() => server.close())

const invalidGrant = { status: 400, body: { error: 'invalid_grant' } }

async function tokensOf(landing: Landing) {
  const { status, body } = await client.redeem(landing)
  expect(status).toBe(200)
  return { access: String(body['access_token']), refresh: String(body['refresh_token']) }
}

/** So that a limit is hit to the second. The server tells the time by the same clock, and the database by its own. */
async function withClockStopped(work: () => Promise<void>): Promise<void> {
  vi.useFakeTimers({ toFake: ['Date'], now: Date.now() })
  try {
    await work()
  } finally {
    vi.useRealTimers()
  }
}

/** Shows a token with a proof; the proof is as it should be, but for what is changed. */
async function showToken(token: string, key: ProofKey, claims = {}, header = {}, scheme = 'DPoP') {
  const proof = await proofFor(key, userinfoUrl, { htm: 'GET', ath: accessTokenHash(token), ...claims }, header)
  return showProof(token, proof, scheme)
}
async function showProof(token: string, proof: string | undefined, scheme = 'DPoP') {
  const headers = { authorization: `${scheme} ${token}`, ...(proof === undefined ? {} : { dpop: proof }) }
  const answer = await fetch(userinfoUrl, { headers })
  return { status: answer.status, error: /error="([^"]+)"/.exec(answer.headers.get('www-authenticate') ?? '')?.[1] }
}

describe('FAPI 2.0: an authorization code', () => {
  it('fapi2-security-profile-final-attempt-reuse-authorization-code-after-one-second: it works once, and its tokens end', async () => {
    const landing = await client.land()
    const { access } = await tokensOf(landing)
    await new Promise((resolve) => setTimeout(resolve, 1_000))
    expect(await client.redeem(landing)).toMatchObject(invalidGrant)
    expect(await introspect(server, access)).toEqual({ active: false })
    expect(await showToken(access, landing.key)).toEqual({ status: 401, error: 'invalid_token' })
  })

  it('works once, however soon it is tried again', async () => {
    const landing = await client.land()
    const answers = await Promise.all([client.redeem(landing), client.redeem(landing)])
    expect(answers.map(({ status }) => status).sort()).toEqual([200, 400])
    expect(answers.find(({ status }) => status === 400)).toMatchObject(invalidGrant)
  })

  it('fapi2-security-profile-final-ensure-token-endpoint-fails-with-expired-auth-code: after 60 seconds', async () => {
    const [late, inTime] = [await client.land(), await client.land()]
    const age = (seconds: number) =>
      server.database.run(
        `update mlpipes_auth.oidc_payloads set expires_at = expires_at - make_interval(secs => $1)
          where model = 'AuthorizationCode' and consumed_at is null`,
        [seconds],
      )
    await age(50)
    expect((await client.redeem(inTime)).status).toBe(200)
    await age(10)
    expect(await client.redeem(late)).toMatchObject(invalidGrant)
  })

  it.each([
    ['ensure-pkce-code-verifier-required', undefined],
    ['incorrect-pkce-code-verifier-rejected', 'another-verifier-of-forty-three-characters-x'],
  ])('fapi2-security-profile-final-%s', async (_name, code_verifier) => {
    const landing = await client.land()
    expect(await client.redeem(landing, { code_verifier })).toMatchObject(invalidGrant)
    expect((await client.redeem(landing)).status, 'with the right one').toBe(200)
  })

  it('fapi2-security-profile-final-ensure-authorization-code-is-bound-to-client', async () => {
    const landing = await client.land()
    // The second client proves itself with its own key, and has the DPoP key and the verifier too.
    expect(await second.redeem(landing)).toMatchObject(invalidGrant)
    expect((await client.redeem(landing)).status, 'by the right one').toBe(200)
  })

  it('fapi2-security-profile-final-ensure-client-id-in-token-endpoint, -ensure-client-assertion-in-token-endpoint', async () => {
    const landing = await client.land()
    const invalidClient = { status: 401, body: { error: 'invalid_client' } }
    const asSecond = await client.assertion({ iss: 'second', sub: 'second' })
    expect(await client.redeem(landing, { client_id: 'second' }, { assertion: asSecond })).toMatchObject(invalidClient)
    const nobody = await client.redeem(landing, { client_id: client.clientId }, { assertion: undefined })
    expect(nobody).toMatchObject(invalidClient)
    const mixed = await client.redeem(landing, { client_id: 'second' })
    expect(mixed).toMatchObject({ status: 400, body: { error: 'invalid_request' } })
    expect((await client.redeem(landing)).status, 'by the right one').toBe(200)
  })

  it('fapi2-security-profile-final-ensure-holder-of-key-required', async () => {
    const landing = await client.land()
    expect(await client.redeem(landing, {}, { proof: undefined })).toMatchObject(invalidGrant)
    expect((await client.redeem(landing)).status, 'with a proof').toBe(200)
  })

  it('fapi2-security-profile-final-ensure-dpopproof-at-par-endpoint-binding-success, -ensure-token-endpoint-fails-with-mismatched-dpop-proof-jkt', async () => {
    const other = await proofFor(await createProofKey(), tokenUrl)
    expect(await client.redeem(await client.land(), {}, { proof: other })).toMatchObject(invalidGrant)
    expect((await client.redeem(await client.land())).status).toBe(200)
  })

  it('fapi2-security-profile-final-ensure-dpop-auth-code-binding-success, -ensure-token-endpoint-fails-with-mismatched-dpop-jkt', async () => {
    const key = await createProofKey()
    const landing = async () => client.land({ dpop_jkt: key.thumbprint }, key)
    const other = await proofFor(await createProofKey(), tokenUrl)
    expect(await client.redeem(await landing(), {}, { proof: other })).toMatchObject(invalidGrant)
    expect((await client.redeem(await landing())).status).toBe(200)
  })
})

describe('FAPI 2.0: a proof', () => {
  it.each([
    ['ensure-dpopproof-with-iat-10seconds-before-succeeds', () => ({ iat: now() - 10 })],
    ['ensure-dpopproof-with-iat-10seconds-after-succeeds', () => ({ iat: now() + 10 })],
    ['check-dpop-proof-nbf-exp', () => ({ nbf: now(), exp: now() + 300 })],
  ])('fapi2-security-profile-final-%s: at PAR, token and userinfo', async (_name, claims) => {
    const key = await createProofKey()
    const proof = await proofFor(key, `${server.issuer}/oauth/par`, claims())
    expect((await client.push({}, { proof })).status).toBe(201)
    const redeemed = await client.redeem(
      await client.land({}, key),
      {},
      { proof: await proofFor(key, tokenUrl, claims()) },
    )
    expect(redeemed.status).toBe(200)
    expect(await showToken(String(redeemed.body['access_token']), key, claims())).toMatchObject({ status: 200 })
  })

  it('is too old at an hour: at PAR, token and userinfo', async () => {
    const key = await createProofKey()
    const iat = now() - 3_600
    // RFC 9449 §8: rather than trusting the client's clock, the server hands out a nonce.
    const refused = { status: 400, body: { error: 'use_dpop_nonce' } }
    const atPar = await client.push({}, { proof: await proofFor(key, `${server.issuer}/oauth/par`, { iat }) })
    expect(atPar).toMatchObject(refused)
    const landing = await client.land({}, key)
    const atToken = await client.redeem(landing, {}, { proof: await proofFor(key, tokenUrl, { iat }) })
    expect(atToken).toMatchObject(refused)
    expect(atToken.headers.get('dpop-nonce')).toBeTruthy()
    const { access } = await tokensOf(landing)
    expect(await showToken(access, key, { iat })).toEqual({ status: 401, error: 'use_dpop_nonce' })
  })

  // FAPI 2.0 Security Profile §5.3.2.1. The provider by itself takes 300 s, and with a nonce any time at all.
  it.each([61, 62, 290, 3_600])('is too early at %i s, and not at 60: at PAR, token and userinfo', async (seconds) => {
    const key = await createProofKey()
    const [good, ...landings] = [await client.land({}, key), await client.land({}, key), await client.land({}, key)]
    await withClockStopped(async () => {
      const refused = { status: 400, body: { error: 'invalid_dpop_proof' } }
      const proof = (url: string, ahead: number, claims = {}) => proofFor(key, url, { iat: now() + ahead, ...claims })
      const push = async (ahead: number) => client.push({}, { proof: await proof(`${server.issuer}/oauth/par`, ahead) })
      expect(await push(seconds)).toMatchObject(refused)
      const pushed = await push(60)
      expect(pushed.status).toBe(201)

      const nonce = pushed.headers.get('dpop-nonce') ?? expect.fail('no nonce')
      for (const [index, claims] of [{}, { nonce }].entries()) {
        const landing = landings[index] ?? expect.fail('no code')
        const redeem = async (ahead: number) =>
          client.redeem(landing, {}, { proof: await proof(tokenUrl, ahead, claims) })
        expect(await redeem(seconds), `with ${JSON.stringify(claims)}`).toMatchObject(refused)
        expect((await redeem(60)).status, `with ${JSON.stringify(claims)}`).toBe(200)
      }

      const { access } = await tokensOf(good)
      for (const claims of [{}, { nonce }]) {
        const early = await showToken(access, key, { iat: now() + seconds, ...claims })
        expect(early).toEqual({ status: 401, error: 'invalid_dpop_proof' })
        expect((await showToken(access, key, { iat: now() + 60, ...claims })).status).toBe(200)
      }
    })
  })

  it('is too early at 61 s from an app of no profile too, and one that is no JWT stays the provider’s to refuse', async () => {
    const key = await createProofKey()
    const ask = async (proof: string) =>
      post(server, '/oauth/token', 'api', { grant_type: 'client_credentials' }, { dpop: proof })
    const refused = { status: 400, body: { error: 'invalid_dpop_proof' } }
    await withClockStopped(async () => {
      expect(await ask(await proofFor(key, tokenUrl, { iat: now() + 61 }))).toMatchObject(refused)
      expect(await ask(await proofFor(key, tokenUrl, { iat: now() + 60 }))).toMatchObject({ status: 200 })
    })
    for (const proof of ['no.jwt', 'a.b.c', `${'e30.'.repeat(2)}x`]) expect(await ask(proof)).toMatchObject(refused)
  })

  it.each<[string, Record<string, unknown>, Record<string, unknown>]>([
    ['without typ', {}, { typ: undefined }],
    ['of another typ', {}, { typ: 'JWT' }],
    ['without jwk', {}, { jwk: undefined }],
    ['without jti', { jti: undefined }, {}],
    ['without htm', { htm: undefined }, {}],
    ['for another method', { htm: 'PUT' }, {}],
    ['without htu', { htu: undefined }, {}],
    ['for another address', { htu: 'https://elsewhere.example/' }, {}],
    ['without iat', { iat: undefined }, {}],
    ['without ath', { ath: undefined }, {}],
    ['for another token', { ath: accessTokenHash('another') }, {}],
  ])('fapi2-security-profile-final-dpop-negative-tests: none %s', async (_name, claims, header) => {
    const { access, key } = await boundToken()
    expect(await showToken(access, key, claims, header)).toEqual({ status: 401, error: 'invalid_dpop_proof' })
  })

  it('fapi2-security-profile-final-dpop-negative-tests: none by another key, unsigned, beside another or again', async () => {
    const { access, key } = await boundToken()
    const invalidProof = { status: 401, error: 'invalid_dpop_proof' }
    expect(await showToken(access, await createProofKey())).toEqual({ status: 401, error: 'invalid_token' })
    const forged = { ...key, jwk: (await createProofKey()).jwk }
    expect(await showToken(access, forged), 'a signature by another key than it names').toEqual(invalidProof)
    const secret = await exportJWK(key.privateKey)
    expect(await showToken(access, key, {}, { jwk: secret }), 'a private key').toEqual(invalidProof)
    const proof = () => proofFor(key, userinfoUrl, { htm: 'GET', ath: accessTokenHash(access) })
    expect(await showProof(access, 'no.jwt'), 'no JWT').toEqual(invalidProof)
    expect(await showProof(access, `${await proof()}, ${await proof()}`), 'two').toEqual(invalidProof)
    const claims = { htm: 'GET', htu: userinfoUrl, ath: accessTokenHash(access), jti: 'a', iat: now() }
    expect(await showProof(access, new UnsecuredJWT(claims).encode()), 'unsigned').toEqual(invalidProof)
    const once = await proof()
    expect(await showProof(access, once)).toMatchObject({ status: 200 })
    expect(await showProof(access, once), 'again').toEqual({ status: 401, error: 'invalid_token' })
  })

  it('fapi2-security-profile-final-dpop-negative-tests: none with RS256', async () => {
    const { access } = await boundToken()
    const { privateKey, publicKey } = await generateKeyPair('RS256')
    const key = { privateKey, jwk: await exportJWK(publicKey), thumbprint: '' }
    expect(await showToken(access, key, {}, { alg: 'RS256' })).toEqual({ status: 401, error: 'invalid_dpop_proof' })
  })

  it('fapi2-security-profile-final-dpop-negative-tests: what does no harm is taken', async () => {
    const { access, key } = await boundToken()
    const harmless = [
      { htu: `${userinfoUrl}?a=b#c` },
      { htu: userinfoUrl.replace('http:', 'HTTP:') },
      { extra: 'claim' },
    ]
    for (const claims of harmless) expect(await showToken(access, key, claims)).toMatchObject({ status: 200 })
    expect(await showToken(access, key, {}, { extra: 'member' })).toMatchObject({ status: 200 })
  })

  it('fapi2-security-profile-final-access-token-type-header-case-sensitivity', async () => {
    const { access, key } = await boundToken()
    for (const scheme of ['dPoP', 'dpop'])
      expect(await showToken(access, key, {}, {}, scheme)).toMatchObject({ status: 200 })
  })

  async function boundToken() {
    const landing = await client.land()
    return { ...(await tokensOf(landing)), key: landing.key }
  }
})

describe('FAPI 2.0: a refresh token', () => {
  const refresh = async (token: string, by: Fapi2Client, sending: Parameters<Fapi2Client['post']>[2]) =>
    by.post('/oauth/token', { client_id: by.clientId, grant_type: 'refresh_token', refresh_token: token }, sending)

  it('fapi2-security-profile-final-refresh-token: no rotation', async () => {
    const landing = await client.land()
    const { access, refresh: token } = await tokensOf(landing)
    for (let time = 0; time < 2; time += 1) {
      const renewed = await refresh(token, client, { proof: await proofFor(landing.key, tokenUrl) })
      expect(renewed.status).toBe(200)
      expect(renewed.body['access_token']).not.toBe(access)
      expect(renewed.body['refresh_token'] ?? token).toBe(token)
    }
  })

  it('fapi2-security-profile-final-refresh-token: of this client, who proves itself, with a proof', async () => {
    const landing = await client.land()
    const { refresh: token } = await tokensOf(landing)
    const proof = () => proofFor(landing.key, tokenUrl)
    expect(await refresh(token, second, { proof: await proof() })).toMatchObject(invalidGrant)
    const nobody = await refresh(token, client, { assertion: undefined, proof: await proof() })
    expect(nobody).toMatchObject({ status: 401, body: { error: 'invalid_client' } })
    expect(await refresh(token, client, {})).toMatchObject(invalidGrant)
    expect((await refresh(token, client, { proof: await proof() })).status).toBe(200)
  })
})

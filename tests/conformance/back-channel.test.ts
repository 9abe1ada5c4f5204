// OpenID Foundation's `oidcc-backchannel-rp-initiated-logout-certification-test-plan`: its two modules as black-box tests,
// step by step under the names of their conditions. Who else is told, and what happens when nobody answers, is
// tests/deliveries/logout.test.ts.
import { randomBytes } from 'node:crypto'
import { decodeJwt, decodeProtectedHeader, type JWTVerifyResult } from 'jose'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { app, type Call, type Receiver, seed, startReceiver, until, verifyLogout } from '../deliveries/support.ts'
import { authorizationUrl, obtainTokens } from '../support/client.ts'
import { startServer, type TestServer } from '../support/server.ts'

const client = 'back-channel'
const postLogout = 'http://localhost:9/'
const logoutEvent = 'http://schemas.openid.net/event/backchannel-logout'

let server: TestServer
let receiver: Receiver
beforeAll(async () => {
  receiver = await startReceiver()
  const logoutUri = `${receiver.url}/backchannel_logout`
  const known = { backchannel_logout_uri: logoutUri, backchannel_logout_session_required: true }
  server = await startServer('postgres', {
    poolSize: 1,
    seed: seed(app(client, { ...known, profile: 'oidc-certification' })),
  })
})
afterAll(async () => {
  await server.close()
  await receiver.close()
})

describe('Back-Channel Logout OP', () => {
  it('oidcc-backchannel-logout-discovery-endpoint-verification', async () => {
    const answer = await fetch(`${server.issuer}/.well-known/openid-configuration`)
    expect(await answer.json()).toMatchObject({
      backchannel_logout_supported: true,
      backchannel_logout_session_supported: true,
      end_session_endpoint: `${server.issuer}/oauth/logout`,
    })
  })

  describe('oidcc-backchannel-rp-initiated-logout', () => {
    const state = randomBytes(64).toString('hex')
    let tokens: Awaited<ReturnType<typeof obtainTokens>>
    let call: Call
    let landing: string
    let verified: JWTVerifyResult
    beforeAll(async () => {
      const noPkce = { code_challenge: undefined, code_challenge_method: undefined }
      tokens = await obtainTokens(server, client, { ...noPkce, scope: 'openid' })
      const query = { id_token_hint: tokens.id_token, post_logout_redirect_uri: postLogout, state }
      const asked = await tokens.browser.request(`/oauth/logout?${new URLSearchParams(query)}`)
      const page = await tokens.browser.follow(asked)
      landing = (await tokens.browser.submit(page, '/oauth/logout/confirm', {})).url
      await until(() => expect(receiver.calls).toHaveLength(1))
      call = receiver.calls[0] ?? expect.fail('nobody called')
      verified = await verifyLogout(server, call, client)
    })

    it('ExtractLogoutTokenFromBackchannelLogoutRequest, CheckForUnexpectedParametersInBackchannelLogoutRequest', () => {
      expect(call.path).toBe('/backchannel_logout')
      expect(call.headers['content-type']).toBe('application/x-www-form-urlencoded')
      expect([...new URLSearchParams(call.body).keys()]).toEqual(['logout_token'])
    })
    it('ValidateLogoutTokenSignature: the key of its ID tokens, and a type that no ID token has', () => {
      const { alg, kid } = decodeProtectedHeader(tokens.id_token)
      expect(verified.protectedHeader).toEqual({ alg, kid, typ: 'logout+jwt' })
    })
    it('ValidateLogoutTokenClaims', () => {
      const { iss, aud, iat = 0, exp = 0, jti, events } = verified.payload
      expect({ iss, aud, events }).toEqual({ iss: server.issuer, aud: client, events: { [logoutEvent]: {} } })
      expect(jti).toEqual(expect.stringMatching(/^.{16,}$/))
      expect(Math.abs(iat - Date.now() / 1_000)).toBeLessThan(300)
      expect(exp).toBeGreaterThan(iat)
    })
    it('CheckIdTokenSubMatchesLogoutToken, CheckIdTokenSidMatchesLogoutToken, CheckLogoutTokenHasSubOrSid', () => {
      const { sub, sid } = decodeJwt(tokens.id_token)
      expect([sub, sid]).toEqual([expect.any(String), expect.any(String)])
      expect(verified.payload).toMatchObject({ sub, sid })
    })
    it('CheckLogoutTokenNoNonce, although the ID token has one', () => {
      expect(decodeJwt(tokens.id_token)).toHaveProperty('nonce')
      expect(verified.payload).not.toHaveProperty('nonce')
    })
    it('CheckPostLogoutState, CheckForUnexpectedParametersInPostLogoutRedirect', () => {
      expect(landing).toBe(`${postLogout}?state=${state}`)
    })
    it('CheckErrorFromAuthorizationEndpointIsOneThatRequiredAUserInterface', async () => {
      const { url } = authorizationUrl(server, client, { prompt: 'none' })
      const answer = await tokens.browser.request(url)
      expect(new URL(answer.headers.get('location') ?? 'http://none/').searchParams.get('error')).toBe('login_required')
    })
  })
})

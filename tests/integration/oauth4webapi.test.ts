// oauth4webapi as a client: the whole road of an app through that library alone, which checks every answer by the letter of
// its specification. Only the browser in between is ours.
import * as oauth from 'oauth4webapi'
import { afterAll, beforeAll, expect, it } from 'vitest'
import { Browser, redirectUri, signIn } from '../support/client.ts'
import { people, secretOf, startServer, type TestServer } from '../support/server.ts'

const client: oauth.Client = { client_id: 'webapi' }
const authentication = oauth.ClientSecretBasic(secretOf(client.client_id))
const insecure = { [oauth.allowInsecureRequests]: true }

let server: TestServer
let as: oauth.AuthorizationServer
beforeAll(async () => {
  const app = {
    client_id: client.client_id,
    client_secret: secretOf(client.client_id),
    client_name: 'Web API',
    organization: 'mercy',
    redirect_uris: [redirectUri],
    grant_types: ['authorization_code' as const, 'refresh_token' as const],
    scope: 'openid profile email offline_access',
    introspection: 'own' as const,
    require_pushed_authorization_requests: true,
    dpop_bound_access_tokens: true,
  }
  server = await startServer('postgres', {
    poolSize: 1,
    seed: { ...people, clients: [...(people.clients ?? []), app] },
  })
  const issuer = new URL(server.issuer)
  as = await oauth.processDiscoveryResponse(issuer, await oauth.discoveryRequest(issuer, insecure))
})
afterAll(() => server.close())

async function introspect(token: string) {
  const answer = await oauth.introspectionRequest(as, client, authentication, token, insecure)
  return oauth.processIntrospectionResponse(as, client, answer)
}

async function authorize(DPoP: oauth.DPoPHandle) {
  const [verifier, state, nonce] = [
    oauth.generateRandomCodeVerifier(),
    oauth.generateRandomState(),
    oauth.generateRandomNonce(),
  ]
  const parameters = {
    response_type: 'code',
    redirect_uri: redirectUri,
    scope: 'openid profile email offline_access',
    prompt: 'consent',
    state,
    nonce,
    code_challenge: await oauth.calculatePKCECodeChallenge(verifier),
    code_challenge_method: 'S256',
  }
  const asked = { DPoP, ...insecure }
  const pushed = await oauth.pushedAuthorizationRequest(as, client, authentication, parameters, asked)
  const { request_uri } = await oauth.processPushedAuthorizationResponse(as, client, pushed)
  const query = new URLSearchParams({ client_id: client.client_id, request_uri })
  const page = await signIn(new Browser(server), { url: `${as.authorization_endpoint}?${query}`, verifier })
  const landed = oauth.validateAuthResponse(as, client, new URL(page.url), state)
  return { landed, verifier, nonce }
}

it('discovery, PAR, code, PKCE, DPoP, userinfo, introspection, refresh, revocation', async () => {
  const DPoP = oauth.DPoP(client, await oauth.generateKeyPair('ES256'))
  const asked = { DPoP, ...insecure }
  const { landed, verifier, nonce } = await authorize(DPoP)
  const granted = await oauth.authorizationCodeGrantRequest(
    as,
    client,
    authentication,
    landed,
    redirectUri,
    verifier,
    asked,
  )
  const tokens = await oauth.processAuthorizationCodeResponse(as, client, granted, {
    expectedNonce: nonce,
    requireIdToken: true,
  })
  // Beyond what comes over TLS: the signature by the published keys.
  await oauth.validateApplicationLevelSignature(as, granted, insecure)
  expect(tokens.token_type).toBe('dpop')
  const claims = oauth.getValidatedIdTokenClaims(tokens) ?? expect.fail('no ID token')

  const userinfo = await oauth.userInfoRequest(as, client, tokens.access_token, asked)
  expect(await oauth.processUserInfoResponse(as, client, claims.sub, userinfo)).toMatchObject({
    email: 'lee@mercy.example',
    name: 'Dr Lee',
  })
  const thumbprint = await DPoP.calculateThumbprint()
  const active = { active: true, sub: claims.sub, token_type: 'DPoP', cnf: { jkt: thumbprint } }
  expect(await introspect(tokens.access_token)).toMatchObject(active)

  const renewal = await oauth.refreshTokenGrantRequest(as, client, authentication, tokens.refresh_token ?? '', asked)
  const renewed = await oauth.processRefreshTokenResponse(as, client, renewal)
  expect(renewed.access_token).not.toBe(tokens.access_token)
  expect(await introspect(renewed.access_token)).toMatchObject(active)

  const revoked = await oauth.revocationRequest(as, client, authentication, renewed.refresh_token ?? '', insecure)
  await oauth.processRevocationResponse(revoked)
  expect(await introspect(renewed.access_token)).toEqual({ active: false })
})

it('is refused with the errors that the library knows', async () => {
  const DPoP = oauth.DPoP(client, await oauth.generateKeyPair('ES256'))
  const { landed } = await authorize(DPoP)
  const wrong = oauth.generateRandomCodeVerifier()
  const asked = { DPoP, ...insecure }
  const refused = await oauth.authorizationCodeGrantRequest(
    as,
    client,
    authentication,
    landed,
    redirectUri,
    wrong,
    asked,
  )
  await expect(oauth.processAuthorizationCodeResponse(as, client, refused)).rejects.toMatchObject({
    code: oauth.RESPONSE_BODY_ERROR,
    error: 'invalid_grant',
  })
  const userinfo = await oauth.userInfoRequest(as, client, 'not-a-token', asked)
  await expect(oauth.processUserInfoResponse(as, client, oauth.skipSubjectCheck, userinfo)).rejects.toMatchObject({
    code: oauth.WWW_AUTHENTICATE_CHALLENGE,
    status: 401,
  })
})

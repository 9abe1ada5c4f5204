// The relying party of the module lists that run once per response mode: openid-client, and what of the lists is a table.

import { type JWK, UnsecuredJWT } from 'jose'
import { sql } from 'kysely'
import * as oidc from 'openid-client'
import { expect } from 'vitest'
import { type Answer, authorizationUrl, Browser, redirectUri, signIn } from '../support/client.ts'
import { secretOf, type TestServer } from '../support/server.ts'

export const client = 'certification'
export const noPkce = { code_challenge: undefined, code_challenge_method: undefined }

export interface RelyingParty {
  readonly config: oidc.Configuration
  /** A sign-in through openid-client, which checks state, issuer, nonce, signature, audience and times. */
  flow(
    extra?: Record<string, string>,
    browser?: Browser,
    checks?: oidc.AuthorizationCodeGrantChecks,
  ): Promise<{ tokens: oidc.TokenEndpointResponse; browser: Browser; claims: oidc.IDToken }>
  /** The error that a request is answered with at the redirect URI, without a sign-in. */
  errorOf(extra: Record<string, string | undefined>, browser?: Browser): Promise<string | null>
  /** A code and what else came with it to the redirect URI. */
  landing(extra?: Record<string, string | undefined>, clientId?: string): Promise<URLSearchParams>
}

/** How an answer comes to the redirect URI, and as what openid-client takes it. */
export type Delivery = (page: Answer) => { readonly parameters: URLSearchParams; readonly callback: URL | Request }

export const byQuery: Delivery = (page) => {
  const callback = new URL(page.headers.get('location') ?? page.url, page.url)
  return { parameters: callback.searchParams, callback }
}

/** @param mode what every request says beside its own parameters */
export async function relyingParty(
  server: TestServer,
  delivery: Delivery,
  mode: Readonly<Record<string, string>> = {},
): Promise<RelyingParty> {
  const config = await oidc.discovery(
    new URL(server.issuer),
    client,
    undefined,
    oidc.ClientSecretBasic(secretOf(client)),
    { execute: [oidc.allowInsecureRequests] },
  )
  return {
    config,
    async flow(extra = {}, browser = new Browser(server), checks = {}) {
      const [state, nonce] = [oidc.randomState(), oidc.randomNonce()]
      const url = oidc.buildAuthorizationUrl(config, {
        redirect_uri: redirectUri,
        scope: 'openid',
        state,
        nonce,
        ...mode,
        ...extra,
      })
      const { callback } = delivery(await signIn(browser, { url: url.href, verifier: '' }))
      const tokens = await oidc.authorizationCodeGrant(config, callback, {
        expectedState: state,
        expectedNonce: nonce,
        idTokenExpected: true,
        ...checks,
      })
      return { tokens, browser, claims: tokens.claims() ?? expect.fail('no ID token') }
    },
    async errorOf(extra, browser = new Browser(server)) {
      const { url } = authorizationUrl(server, client, { ...noPkce, ...mode, ...extra })
      return delivery(await browser.request(url)).parameters.get('error')
    },
    async landing(extra = {}, clientId = client) {
      const authorization = authorizationUrl(server, clientId, { ...noPkce, ...mode, ...extra })
      return delivery(await signIn(new Browser(server), authorization)).parameters
    },
  }
}

/**
 * Makes the sign-in of everybody who has a session so much older, where a module waits. Whoever is not asked again
 * afterwards has an `auth_time` before the one that was said at first.
 */
export async function ageSignIns(server: TestServer, seconds: number): Promise<void> {
  await sql`
    update mlpipes_auth.sessions
       set payload = jsonb_set(payload, '{loginTs}', to_jsonb((payload->>'loginTs')::bigint - ${seconds}::bigint))
     where payload ? 'loginTs'`.execute(server.database.kysely)
}

/** A client that authenticates in the body, for `oidcc-server-client-secret-post`. */
export const postingClient = {
  client_id: 'certification-post',
  client_secret: secretOf('certification-post'),
  client_name: 'Post',
  organization: 'mercy',
  redirect_uris: [redirectUri],
  token_endpoint_auth_method: 'client_secret_post' as const,
  first_party: true,
  profile: 'oidc-certification' as const,
}

/** A client that signs what it asks for (RFC 9101), beside showing its secret. */
export const signingClient = (keys: readonly JWK[]) => ({
  client_id: 'certification-signing',
  client_secret: secretOf('certification-signing'),
  client_name: 'Signing',
  organization: 'mercy',
  redirect_uris: [redirectUri],
  jwks: { keys: keys.map((key) => ({ ...key })) },
  scope: 'openid profile',
  first_party: true,
})

export const redeemPosting = (server: TestServer, code: string) =>
  fetch(`${server.issuer}/oauth/token`, {
    method: 'POST',
    body: new URLSearchParams({
      grant_type: 'authorization_code',
      code,
      redirect_uri: redirectUri,
      client_id: postingClient.client_id,
      client_secret: postingClient.client_secret,
    }),
  })

export const scopeModules: [string, string, Record<string, unknown>][] = [
  ['oidcc-scope-profile', 'openid profile', { name: 'Dr Lee' }],
  ['oidcc-scope-email', 'openid email', { email: 'lee@mercy.example', email_verified: true }],
  ['oidcc-scope-address', 'openid address', {}],
  ['oidcc-scope-phone', 'openid phone', {}],
  ['oidcc-scope-all', 'openid profile email address phone', { name: 'Dr Lee', email: 'lee@mercy.example' }],
  ['oidcc-alternate-happy-flow', 'email openid', { email: 'lee@mercy.example' }],
]

export const requestModules: [string, Record<string, string>][] = [
  ['oidcc-display-page', { display: 'page' }],
  ['oidcc-display-popup', { display: 'popup' }],
  ['oidcc-ui-locales', { ui_locales: 'se' }],
  ['oidcc-claims-locales', { claims_locales: 'se' }],
  ['oidcc-ensure-request-with-unknown-parameter-succeeds', { extra: 'foobar' }],
  ['oidcc-login-hint', { login_hint: 'lee@mercy.example' }],
  ['oidcc-ensure-request-with-acr-values-succeeds', { acr_values: 'urn:mlpipes:acr:password' }],
  ['oidcc-claims-essential', { claims: JSON.stringify({ userinfo: { name: { essential: true } } }) }],
]

export const userinfoModules: [string, 'GET' | 'POST', 'header' | 'body'][] = [
  ['oidcc-userinfo-get', 'GET', 'header'],
  ['oidcc-userinfo-post-header', 'POST', 'header'],
  ['oidcc-userinfo-post-body', 'POST', 'body'],
]

/** Asks as one of these modules does. */
export function askUserinfo(server: TestServer, method: 'GET' | 'POST', where: 'header' | 'body', token: string) {
  const init =
    where === 'header'
      ? { headers: { authorization: `Bearer ${token}` } }
      : { body: new URLSearchParams({ access_token: token }) }
  return fetch(`${server.issuer}/oauth/userinfo`, { method, ...init })
}

export const requestObjectModules: [string, Record<string, string>, string][] = [
  [
    'oidcc-request-uri-unsigned-supported-correctly-or-rejected-as-unsupported',
    { request_uri: 'https://rp.example/request' },
    'request_uri_not_supported',
  ],
  [
    'oidcc-unsigned-request-object-supported-correctly-or-rejected-as-unsupported',
    { request: new UnsecuredJWT({ client_id: client }).encode() },
    'invalid_request_object',
  ],
  [
    'oidcc-ensure-request-object-with-redirect-uri',
    { request: new UnsecuredJWT({ redirect_uri: 'https://elsewhere.example/' }).encode() },
    'invalid_request_object',
  ],
]

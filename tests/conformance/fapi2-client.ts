// A client of the FAPI 2.0 modules: it proves itself with one key and binds its tokens to another. openid-client takes the
// good roads; what it would never send goes out by hand.
import { createHash, randomBytes } from 'node:crypto'
import {
  type CryptoKey,
  calculateJwkThumbprint,
  exportJWK,
  generateKeyPair,
  type JWK,
  type JWTHeaderParameters,
  SignJWT,
} from 'jose'
import * as oidc from 'openid-client'
import { Browser, redirectUri, signIn, type Tokens } from '../support/client.ts'
import type { TestServer } from '../support/server.ts'

export const now = () => Math.floor(Date.now() / 1000)
type Claims = Readonly<Record<string, unknown>>
type Form = Readonly<Record<string, string | undefined>>

/** What the client binds its tokens to. */
export interface ProofKey {
  readonly privateKey: CryptoKey
  readonly jwk: JWK
  readonly thumbprint: string
}

export async function createProofKey(): Promise<ProofKey> {
  const { privateKey, publicKey } = await generateKeyPair('ES256', { extractable: true })
  const jwk = await exportJWK(publicKey)
  return { privateKey, jwk, thumbprint: await calculateJwkThumbprint(jwk) }
}

/** A DPoP proof (RFC 9449 §4.2) as it should be, but for what is changed. */
export function proofFor(key: ProofKey, htu: string, claims: Claims = {}, header: Claims = {}): Promise<string> {
  return new SignJWT({ htm: 'POST', htu, jti: crypto.randomUUID(), iat: now(), ...claims })
    .setProtectedHeader({ alg: 'ES256', typ: 'dpop+jwt', jwk: key.jwk, ...header } as JWTHeaderParameters)
    .sign(key.privateKey)
}

export const accessTokenHash = (token: string) => createHash('sha256').update(token).digest('base64url')

/** A code, and what belongs to it at the token endpoint. */
export interface Landing {
  readonly key: ProofKey
  readonly verifier: string
  readonly code: string
  readonly parameters: URLSearchParams
}

interface Sending {
  /** Instead of the client's own; nothing if it is undefined. */
  readonly assertion?: string | undefined
  readonly proof?: string | undefined
}

export interface Fapi2Client {
  readonly clientId: string
  readonly redirectUri: string
  readonly config: oidc.Configuration
  readonly keys: Awaited<ReturnType<typeof generateKeyPair>>
  /** A client assertion (RFC 7523 §3) as it should be, but for what is changed. */
  assertion(claims?: Claims, alg?: string, key?: CryptoKey): Promise<string>
  /** Posts a form as this client; a list of pairs may say one thing twice. */
  post(path: string, form: Form | readonly (readonly [string, string])[], sending?: Sending): Promise<Tokens>
  /** A pushed request as it should be, but for what is changed. */
  push(extra?: Form, sending?: Sending): Promise<Tokens>
  /** That request as a signed object (RFC 9101), but for what is changed. */
  requestObject(claims?: Claims, alg?: string, key?: CryptoKey): Promise<string>
  /** Where the browser goes with a pushed request. */
  authorizationUrl(requestUri: unknown, extra?: Record<string, string>): string
  /** A pushed request that is bound to a key, and a sign-in with it. */
  land(extra?: Form, key?: ProofKey, beside?: Record<string, string>): Promise<Landing>
  redeem(landing: Landing, extra?: Form, sending?: Sending): Promise<Tokens>
}

const assertionType = 'urn:ietf:params:oauth:client-assertion-type:jwt-bearer'

/** Registers a client with this id and answers for it. */
export async function openFapi2Client(
  server: TestServer,
  clientId: string,
  returnTo = redirectUri,
): Promise<Fapi2Client> {
  const keys = await generateKeyPair('PS256', { extractable: true })
  const kid = `${clientId}-key`
  const registration = {
    client_id: clientId,
    client_name: 'High Assurance',
    organization: 'mercy',
    redirect_uris: [returnTo],
    grant_types: ['authorization_code' as const, 'refresh_token' as const],
    token_endpoint_auth_method: 'private_key_jwt' as const,
    jwks: { keys: [{ ...(await exportJWK(keys.publicKey)), kid, alg: 'PS256', use: 'sig' }] },
    scope: 'openid profile offline_access',
    first_party: true,
    introspection: 'own' as const,
    profile: 'fapi2' as const,
  }
  await server.apply({ clients: [registration] })
  const config = await oidc.discovery(
    new URL(server.issuer),
    clientId,
    undefined,
    oidc.PrivateKeyJwt({ key: keys.privateKey, kid }),
    { execute: [oidc.allowInsecureRequests] },
  )

  const assertion: Fapi2Client['assertion'] = (claims = {}, alg = 'PS256', key = keys.privateKey) => {
    const usual = { iss: clientId, sub: clientId, aud: server.issuer, jti: crypto.randomUUID() }
    return new SignJWT({ ...usual, iat: now(), exp: now() + 60, ...claims }).setProtectedHeader({ alg, kid }).sign(key)
  }

  const post: Fapi2Client['post'] = async (path, form, sending = {}) => {
    const shown = 'assertion' in sending ? sending.assertion : await assertion()
    const proves =
      shown === undefined
        ? []
        : [['client_assertion_type', assertionType] as const, ['client_assertion', shown] as const]
    const pairs = Array.isArray(form) ? form : Object.entries(form).filter(([, value]) => value !== undefined)
    const response = await fetch(new URL(path, server.issuer), {
      method: 'POST',
      headers: sending.proof === undefined ? {} : { dpop: sending.proof },
      body: new URLSearchParams([...pairs, ...proves]),
    })
    const body = (await response.json()) as Record<string, unknown>
    return { status: response.status, headers: response.headers, body }
  }

  const push: Fapi2Client['push'] = (extra = {}, sending) =>
    post('/oauth/par', { ...usualRequest(clientId, returnTo), ...extra }, sending)

  const requestObject: Fapi2Client['requestObject'] = (claims = {}, alg = 'PS256', key = keys.privateKey) => {
    const times = { nbf: now(), exp: now() + 60 }
    return new SignJWT({ ...usualRequest(clientId, returnTo), iss: clientId, aud: server.issuer, ...times, ...claims })
      .setProtectedHeader({ alg, kid, typ: 'oauth-authz-req+jwt' })
      .sign(key)
  }

  const authorizationUrl: Fapi2Client['authorizationUrl'] = (requestUri, extra = {}) =>
    `${server.issuer}/oauth/authorize?${new URLSearchParams({ client_id: clientId, request_uri: String(requestUri), ...extra })}`

  return {
    clientId,
    redirectUri: returnTo,
    config,
    keys,
    assertion,
    post,
    push,
    requestObject,
    authorizationUrl,
    async land(extra = {}, key, beside = {}) {
      const bound = key ?? (await createProofKey())
      const verifier = randomBytes(32).toString('base64url')
      const code_challenge = createHash('sha256').update(verifier).digest('base64url')
      const proof = await proofFor(bound, `${server.issuer}/oauth/par`)
      const pushed = await push({ code_challenge, ...extra }, { proof })
      if (pushed.status !== 201) throw new Error(`not pushed: ${pushed.status} ${JSON.stringify(pushed.body)}`)
      const url = authorizationUrl(pushed.body['request_uri'], beside)
      const page = await signIn(new Browser(server), { url, verifier })
      const parameters = new URL(page.url).searchParams
      const code = parameters.get('code')
      if (code === null) throw new Error(`no code: ${page.status} ${page.url}`)
      return { key: bound, verifier, code, parameters }
    },
    async redeem({ key, verifier, code }, extra = {}, sending = {}) {
      const proof = 'proof' in sending ? sending.proof : await proofFor(key, `${server.issuer}/oauth/token`)
      const form = { grant_type: 'authorization_code', code, redirect_uri: returnTo, code_verifier: verifier, ...extra }
      return post('/oauth/token', form, { ...sending, proof })
    },
  }
}

/** What every request says; the challenge is that of RFC 7636 appendix B. */
const usualRequest = (clientId: string, returnTo: string) => ({
  client_id: clientId,
  response_type: 'code',
  redirect_uri: returnTo,
  scope: 'openid profile',
  state: 'a-state',
  nonce: 'a-nonce',
  code_challenge: 'E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM',
  code_challenge_method: 'S256',
})

/** How the authorization endpoint refuses: by a page that says the reason, or back at the redirect URI. */
export async function refusalOf(server: TestServer, url: string) {
  const page = await new Browser(server).request(url)
  const location = page.headers.get('location')
  if (location !== null) return { status: page.status, error: new URL(location, url).searchParams.get('error') }
  return { status: page.status, error: /<dt>Reason<\/dt><dd><code>([^<]*)/.exec(page.text)?.[1] }
}

// Introspection past the provider, for the one request that resource servers send all day: a form with an opaque token, from
// a client that shows its secret in the header (RFC 7662 §2.1). The provider answers it too, half as fast (docs/decisions/0007).
// Who may see what is decided in introspection.ts for both. Whatever is asked in another way, and whatever is not to be
// answered, is left to the provider as it came: it alone refuses. Tests ask both and compare.
import type { IncomingMessage } from 'node:http'
import { parse } from 'node:querystring'
import { isClientId } from '../clients/clients.ts'
import { matchesClientSecret } from '../clients/secret.ts'
import { type Secrets, sha256 } from '../crypto/secrets.ts'
import type { Introspected, IntrospectionReads } from './introspected.ts'
import { type IntrospectedToken, type IntrospectionPolicy, toCaller } from './introspection.ts'
import { keepIntrospected, keepSessionOfToken } from './request-session.ts'

const maxBodyBytes = 2_048
const formType = 'application/x-www-form-urlencoded'
/** An opaque token of ours: 256 bits in base64url. */
const tokenPattern = /^[\w-]{43}$/
const basicPattern = /^Basic ([A-Za-z0-9+/]+={0,2})$/i
/** Credentials that nobody needs to decode (RFC 6749 §2.3.1). */
const plainCredentials = /^([\w.~-]+):([\w.~-]+)$/
/** Headers that ask for more than the plain answer: one for a browser, another way to say who asks. */
const unusualHeaders = [
  'origin',
  'dpop',
  'oauth-client-attestation',
  'oauth-client-attestation-pop',
  'transfer-encoding',
]

/** Of a client by the names of its registration, or of a stored token. */
type Members = Readonly<Record<string, unknown>>

interface Parts {
  readonly issuer: string
  readonly secrets: Secrets
  readonly introspected: IntrospectionReads
  readonly mayIntrospect: IntrospectionPolicy
}

/** The answer (RFC 7662 §2.2); undefined leaves the request, unread, to the provider. */
export type DirectIntrospection = (request: IncomingMessage) => Promise<Record<string, unknown> | undefined>

export function createDirectIntrospection(parts: Parts): DirectIntrospection {
  const { issuer, secrets, introspected, mayIntrospect } = parts

  return async (request) => {
    const asked = await readRequest(request)
    if (!asked) return undefined
    const [client, known] = await Promise.all([
      introspected.findCaller(asked.clientId),
      keepIntrospected(request, sha256(asked.token), introspected.find),
    ])
    if (!client || !isAuthenticated(secrets, client, asked.secret)) return undefined
    if (client['introspection_signed_response_alg'] !== undefined || (known && !isUsual(known))) return undefined
    if (!known || !isLive(known)) return { active: false }
    const { payload } = known.token
    if (known.session && payload['expiresWithSession'] === true) keepSessionOfToken(request, known.session)
    const token = toToken(known, asked.token)
    const isAllowed = await mayIntrospect(request, toCaller(client), token)
    return isAllowed ? describe(token, payload, issuer) : { active: false }
  }
}

interface Asked {
  readonly clientId: string
  readonly secret: string
  readonly token: string
}

/** What a request asks, if it asks in the usual way. It stays unread. */
async function readRequest(request: IncomingMessage): Promise<Asked | undefined> {
  const { headers, url = '' } = request
  if (url.includes('?') || headers['content-type']?.split(';', 1)[0] !== formType) return undefined
  if (unusualHeaders.some((name) => headers[name] !== undefined)) return undefined
  const caller = readBasic(headers.authorization)
  const token = caller && readToken(await peekBody(request))
  return token === undefined || !caller ? undefined : { ...caller, token }
}

function readBasic(authorization: string | undefined): Omit<Asked, 'token'> | undefined {
  const encoded = basicPattern.exec(authorization ?? '')?.[1] ?? ''
  const bytes = Buffer.from(encoded, 'base64')
  const [, clientId = '', secret = ''] = plainCredentials.exec(bytes.toString('latin1')) ?? []
  // Buffer.from is content with bad padding, the provider is not.
  return isClientId(clientId) && bytes.toString('base64') === encoded ? { clientId, secret } : undefined
}

/** The token of a form that says nothing else but perhaps its type, which makes no difference. */
function readToken(body: string | undefined): string | undefined {
  if (body === undefined) return undefined
  const { token, token_type_hint: hint, ...others } = parse(body)
  const isUsual = !Array.isArray(hint) && Object.keys(others).length === 0
  return isUsual && typeof token === 'string' && tokenPattern.test(token) ? token : undefined
}

/** The body, if all of it comes in one piece. It is put back, for whoever reads the request. */
async function peekBody(request: IncomingMessage): Promise<string | undefined> {
  const length = Number(request.headers['content-length'])
  if (!(length > 0 && length <= maxBodyBytes)) return undefined
  if (request.readableLength === 0) await firstBytes(request)
  if (request.readableLength !== length) return undefined
  const body: unknown = request.read(length)
  if (!Buffer.isBuffer(body)) return undefined
  request.unshift(body)
  return body.toString('latin1')
}

/** Settles when something can be read, or never will be. */
function firstBytes(request: IncomingMessage): Promise<void> {
  const { promise, resolve } = Promise.withResolvers<void>()
  const done = () => {
    request.off('readable', done).off('close', done)
    resolve()
  }
  request.on('readable', done).on('close', done)
  return promise
}

function isAuthenticated(secrets: Secrets, client: Members, secret: string): boolean {
  const usesSecret = String(client['token_endpoint_auth_method']).startsWith('client_secret_')
  const { client_secret: current, previous_secret: previous } = client
  return usesSecret && matchesClientSecret(secrets, secret, { current: text(current), previous: text(previous) })
}

const models = new Set(['AccessToken', 'ClientCredentials'])
/** What a stored token may say for its answer to be known here. */
const members = new Set(
  'iat exp kind clientId gty grantId sessionUid expiresWithSession accountId organizationId aud claims extra scope sid jkt'.split(
    ' ',
  ),
)

/** Refresh tokens are their own app's to ask about, which is rare; and nothing of ours says more than is listed. */
function isUsual({ model, token: { payload } }: Introspected): boolean {
  return models.has(model) && payload['kind'] === model && Object.keys(payload).every((name) => members.has(name))
}

/** Whether a token, its grant and the session that it ends with are good now, as the provider judges them. */
function isLive({ token, grant, session }: Introspected): boolean {
  const { payload } = token
  if (!isUnexpired(payload)) return false
  if (payload['grantId'] !== undefined && !isGrantGood(grant?.payload, payload)) return false
  return payload['expiresWithSession'] !== true || isSessionGood(session?.payload, payload)
}

/** By the second that `exp` names (RFC 7519 §4.1.4); what has none does not expire. */
function isUnexpired({ exp }: Members): boolean {
  return exp === undefined || Number(exp) > Math.floor(Date.now() / 1000)
}

function isGrantGood(grant: Members | undefined, token: Members): boolean {
  if (!grant || !isUnexpired(grant)) return false
  return grant['clientId'] === token['clientId'] && grant['accountId'] === token['accountId']
}

function isSessionGood(session: Members | undefined, token: Members): boolean {
  if (!session || !isUnexpired(session) || session['accountId'] !== token['accountId']) return false
  const authorizations: unknown = session['authorizations']
  const ofClient: unknown = Reflect.get(Object(authorizations), String(token['clientId']))
  return Reflect.get(Object(ofClient), 'grantId') === token['grantId']
}

function toToken({ model, token: { payload } }: Introspected, value: string): IntrospectedToken {
  const { clientId, accountId, extra, aud, iat } = payload
  return {
    kind: model,
    jti: value,
    clientId: text(clientId),
    accountId: text(accountId),
    iat: typeof iat === 'number' ? iat : undefined,
    extra: typeof extra === 'object' && extra !== null ? { ...extra } : undefined,
    aud: Array.isArray(aud) ? aud.map(String) : text(aud),
  }
}

/** RFC 7662 §2.2, with what the token carries for its reader; `cnf` is RFC 9449 §6.2. */
function describe(token: IntrospectedToken, { exp, iat, sid, scope, jkt }: Members, issuer: string) {
  return {
    ...(token.accountId === undefined ? {} : { sub: token.accountId }),
    ...token.extra,
    active: true,
    client_id: token.clientId,
    exp,
    iat,
    sid,
    iss: issuer,
    aud: token.aud,
    scope: scope === '' ? undefined : scope,
    ...(jkt === undefined ? {} : { cnf: { jkt } }),
    token_type: jkt === undefined ? 'Bearer' : 'DPoP',
  }
}

function text(value: unknown): string | undefined {
  return typeof value === 'string' ? value : undefined
}

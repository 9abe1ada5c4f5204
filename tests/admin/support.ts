// Administrators with real tokens: people sign in through the code flow, services with client credentials, and everybody
// calls the API as a program does. Every answer is held against the OpenAPI document.
import { generateKeyPairSync, randomUUID } from 'node:crypto'
import { importJWK, SignJWT } from 'jose'
import { expect } from 'vitest'
import { z } from 'zod'
import type { AdminOperation } from '../../src/admin/operation.ts'
import { adminOperations } from '../../src/admin/operations.ts'
import { problemSchema } from '../../src/api/contract.ts'
import { openApiDocument } from '../../src/api/openapi.ts'
import type { ApplyInput } from '../../src/apply/apply.ts'
import { authorizationUrl, Browser, post, redeem, redirectUri } from '../support/client.ts'
import { type DatabaseKind, password, startServer, type TestServer, type TestServerOptions } from '../support/server.ts'
import { codeFor, seededSecret } from '../support/totp.ts'

export const problem = (code: string) => `urn:mlpipes:error:${code}`
export const scopes = 'openid admin:read admin:write'
const { privateKey, publicKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' })
const strongKey = { ...publicKey.export({ format: 'jwk' }), kid: 'strong', alg: 'ES256', use: 'sig' }

const person = (name: string, organization: string, roles: readonly string[], extra: object = {}) => ({
  email: `${name}@${organization}.example`,
  name: `Person ${name}`,
  password,
  organization,
  roles: [...roles],
  emailVerified: true,
  totpSecret: seededSecret,
  ...extra,
})
const service = (id: string, organization: string, scope = 'admin:read admin:write') => ({
  client_id: id,
  client_name: `Service ${id}`,
  organization,
  grant_types: ['client_credentials' as const],
  scope,
})
const withSecret = (id: string) => ({ client_secret: `${id}-secret-0123456789` })

/** Two hospitals and whoever runs the platform. Passwords alone suffice to sign in where nothing is sensitive. */
export const seed: ApplyInput = {
  organizations: [
    { slug: 'mercy', name: 'Mercy Hospital' },
    { slug: 'hope', name: 'Hope Clinic' },
    { slug: 'platform', name: 'Platform' },
  ],
  accounts: [
    person('admin', 'mercy', ['org_admin']),
    person('second', 'mercy', ['org_admin']),
    person('auditor', 'mercy', ['auditor']),
    person('support', 'mercy', ['support']),
    person('member', 'mercy', ['member', 'physician']),
    person('victim', 'mercy', ['member']),
    person('admin', 'hope', ['org_admin']),
    person('member', 'hope', ['member']),
    person('root', 'platform', ['platform_admin']),
  ],
  clients: [
    {
      client_id: 'console',
      client_secret: 'console-secret-0123456789',
      client_name: 'Administration',
      organization: 'platform',
      redirect_uris: [redirectUri],
      grant_types: ['authorization_code', 'refresh_token'],
      scope: 'openid profile email offline_access admin:read admin:write',
      first_party: true,
    },
    { ...service('weak', 'mercy'), ...withSecret('weak') },
    { ...service('strong', 'mercy'), token_endpoint_auth_method: 'private_key_jwt', jwks: { keys: [strongKey] } },
    { ...service('unscoped', 'mercy', 'openid'), ...withSecret('unscoped') },
  ],
}

export interface ApiAnswer {
  readonly status: number
  readonly headers: Headers
  readonly body: Record<string, unknown>
  readonly text: string
}

export interface Sent {
  readonly method?: string
  readonly body?: unknown
  readonly headers?: Readonly<Record<string, string>>
}

export interface AdminServer extends TestServer {
  readonly ids: ReadonlyMap<string, string>
  /** An access token of a person, signed in with the second factor a moment ago. */
  tokenOf(email: string, extra?: Record<string, string>): Promise<string>
  /** The next `tokenOf` signs in anew. */
  forgetTokens(): void
  /** The token of a service client. */
  serviceToken(clientId: string, scope?: string): Promise<string>
  call(token: string | undefined, path: string, sent?: Sent): Promise<ApiAnswer>
}

export async function startAdmin(
  kind: DatabaseKind,
  file: ApplyInput = seed,
  options: Omit<TestServerOptions, 'seed'> = {},
): Promise<AdminServer> {
  const server = await startServer(kind, { ...options, seed: file })
  const rows = await server.database.run('select id, email from mlpipes_auth.accounts', [])
  const ids = new Map(rows.map((row) => [String(row['email']), String(row['id'])]))
  const held = new Map<string, Promise<string>>()
  return {
    ...server,
    ids,
    tokenOf(email, extra = {}) {
      const key = JSON.stringify([email, extra])
      const token = held.get(key) ?? signIn(server, email, extra)
      held.set(key, token)
      return token
    },
    forgetTokens: () => held.clear(),
    serviceToken: (clientId, scope = 'admin:read admin:write') => serviceToken(server, clientId, scope),
    call: (token, path, sent = {}) => call(server, token, path, sent),
  }
}

/** Signs in with password and code, and redeems the code of the console. */
export async function signIn(server: TestServer, email: string, extra: Record<string, string> = {}): Promise<string> {
  // Each code counts once, and nobody here waits for the next one.
  await server.database.run('update mlpipes_auth.totp_credentials set last_step = 0', [])
  const browser = new Browser(server)
  const authorization = authorizationUrl(server, 'console', { scope: scopes, ...extra })
  let page = await browser.follow(await browser.request(authorization.url))
  page = await browser.submit(page, '/password', { email, password })
  if (page.text.includes('/totp"')) page = await browser.submit(page, '/totp', { code: await codeFor(server) })
  if (page.text.includes('/consent"')) page = await browser.submit(page, '/consent', { decision: 'allow' })
  const code = new URL(page.url).searchParams.get('code')
  if (code === null) throw new Error(`no code for ${email}: ${page.status} ${page.url} ${page.text.slice(0, 500)}`)
  const tokens = await redeem(server, 'console', code, authorization.verifier)
  return String(tokens.body['access_token'])
}

async function serviceToken(server: TestServer, clientId: string, scope: string): Promise<string> {
  const form = { grant_type: 'client_credentials', scope }
  if (clientId !== 'strong') return String((await post(server, '/oauth/token', clientId, form)).body['access_token'])
  const assertion = await new SignJWT({ jti: randomUUID() })
    .setProtectedHeader({ alg: 'ES256', kid: 'strong' })
    .setIssuer(clientId)
    .setSubject(clientId)
    .setAudience(server.issuer)
    .setIssuedAt()
    .setExpirationTime('1m')
    .sign(await importJWK(privateKey.export({ format: 'jwk' }), 'ES256'))
  const answer = await fetch(`${server.issuer}/oauth/token`, {
    method: 'POST',
    body: new URLSearchParams({
      ...form,
      client_id: clientId,
      client_assertion_type: 'urn:ietf:params:oauth:client-assertion-type:jwt-bearer',
      client_assertion: assertion,
    }),
  })
  return String(z.object({ access_token: z.string() }).parse(await answer.json()).access_token)
}

async function call(server: TestServer, token: string | undefined, path: string, sent: Sent): Promise<ApiAnswer> {
  const { method = sent.body === undefined ? 'GET' : 'POST', body, headers = {} } = sent
  const answer = await fetch(new URL(path, server.issuer), {
    method,
    headers: {
      ...(token === undefined ? {} : { authorization: `Bearer ${token}` }),
      ...(body === undefined ? {} : { 'content-type': 'application/json' }),
      ...headers,
    },
    ...(body === undefined ? {} : { body: typeof body === 'string' ? body : JSON.stringify(body) }),
  })
  const text = await answer.text()
  const isJson = /^application\/(?:problem\+)?json/.test(answer.headers.get('content-type') ?? '')
  const read: Record<string, unknown> = isJson ? JSON.parse(text) : {}
  conforms(method, new URL(path, server.issuer).pathname, answer.status, read)
  return { status: answer.status, headers: answer.headers, body: read, text }
}

const document = openApiDocument({ issuer: 'http://localhost', sessionCookie: 'mlpipes_session' })
const anObject = z.record(z.string(), z.unknown())
const at = (value: unknown, ...path: string[]): unknown =>
  path.reduce<unknown>((here, name) => (here === undefined ? undefined : anObject.parse(here)[name]), value)

/** The operation at an address, if there is one: a fixed path before one with an id in it. */
export function operationAt(method: string, path: string): AdminOperation | undefined {
  const matches = adminOperations.filter(
    (one) => one.method === method && new RegExp(`^${one.path.replace(/:\w+/g, '[^/]+')}$`).test(path),
  )
  return matches.sort((one, other) => one.path.split(':').length - other.path.split(':').length)[0]
}

/** Fails when an answer is not one that the document describes for this operation. */
function conforms(method: string, path: string, status: number, body: unknown): void {
  const operation = operationAt(method, path)
  if (!operation) return
  const described = document.paths[operation.path.replace(/:(\w+)/g, '{$1}')]?.[method.toLowerCase()]
  const response = at(described, 'responses', String(status))
  const where = `${method} ${path} ${status}: ${JSON.stringify(body)}`
  expect(response, `not described: ${where}`).toBeDefined()
  if (status >= 400) {
    const sent = problemSchema.parse(body)
    const parts = z.array(z.unknown()).parse(at(response, 'content', 'application/problem+json', 'schema', 'allOf'))
    expect(at(parts[1], 'properties', 'type', 'enum'), where).toContain(sent.type)
    return
  }
  const schema = at(response, 'content', 'application/json', 'schema')
  if (schema === undefined) {
    expect(body, where).toEqual({})
    return
  }
  const whole = JSON.stringify({ ...anObject.parse(schema), $defs: document.components.schemas })
  const local = JSON.parse(whole.replaceAll('#/components/schemas/', '#/$defs/'))
  expect(z.fromJSONSchema(local).safeParse(body).error, where).toBeUndefined()
}

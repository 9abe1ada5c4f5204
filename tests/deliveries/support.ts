// What the delivery tests stand on: receivers on loopback that do as they are told, and apps that want to hear.
import { createServer, type IncomingHttpHeaders } from 'node:http'
import type { AddressInfo } from 'node:net'
import { createRemoteJWKSet, type JWTVerifyResult, jwtVerify } from 'jose'
import { vi } from 'vitest'
import type { ApplyInput } from '../../src/apply/apply.ts'
import { authorizationUrl, Browser, obtainTokens, signIn } from '../support/client.ts'
import { people, type TestServer } from '../support/server.ts'

export interface Call {
  readonly path: string
  readonly headers: IncomingHttpHeaders
  readonly body: string
}

export interface Receiver {
  readonly url: string
  readonly port: number
  readonly calls: Call[]
  /** What it answers; 'never' keeps the caller waiting. Asked with the number of calls so far. */
  answer: (count: number, call: Call) => number | 'never'
  close(): Promise<void>
}

export async function startReceiver(port = 0): Promise<Receiver> {
  const calls: Call[] = []
  const server = createServer((request, response) => {
    let body = ''
    request.on('data', (chunk: Buffer) => {
      body += chunk.toString()
    })
    request.on('end', () => {
      const call = { path: request.url ?? '', headers: request.headers, body }
      calls.push(call)
      const status = receiver.answer(calls.length, call)
      if (status !== 'never') response.writeHead(status).end('canary of an answer')
    })
  })
  await new Promise<void>((resolve) => void server.listen(port, '127.0.0.1', () => resolve()))
  const bound = (server.address() as AddressInfo).port
  const receiver: Receiver = {
    url: `http://127.0.0.1:${bound}`,
    port: bound,
    calls,
    answer: () => 200,
    close: () =>
      new Promise((resolve) => {
        server.close(() => resolve())
        server.closeAllConnections()
      }),
  }
  return receiver
}

export const until = (claim: () => void | Promise<void>) => vi.waitFor(claim, { timeout: 20_000, interval: 20 })

type ClientInput = NonNullable<ApplyInput['clients']>[number]

/** An app that needs no consent and hears of endings. */
export const app = (client_id: string, extra: Partial<ClientInput> = {}): ClientInput => ({
  client_id,
  client_secret: `${client_id}-secret-0123456789`,
  client_name: client_id,
  organization: 'mercy',
  redirect_uris: ['http://localhost:9/callback'],
  post_logout_redirect_uris: ['http://localhost:9/'],
  grant_types: ['authorization_code', 'refresh_token'],
  scope: 'openid profile email offline_access',
  first_party: true,
  ...extra,
})

export const seed = (...clients: readonly ClientInput[]): ApplyInput => ({
  ...people,
  clients: [...(people.clients ?? []), ...clients],
})

/** Signs somebody in to these apps in one browser. */
export async function open(
  server: TestServer,
  clientIds: readonly string[],
  { email = 'lee@mercy.example', scope = 'openid profile email' } = {},
) {
  const browser = new Browser(server)
  const [first = ''] = clientIds
  await signIn(browser, authorizationUrl(server, first), email)
  const tokens: Awaited<ReturnType<typeof obtainTokens>>[] = []
  for (const clientId of clientIds) tokens.push(await obtainTokens(server, clientId, { scope }, browser))
  const session = await server.database.kysely
    .selectFrom('sessions')
    .select(['uid', 'account_id', 'organization_id', 'payload'])
    .where('account_id', 'is not', null)
    .orderBy('created_at', 'desc')
    .limit(1)
    .executeTakeFirstOrThrow()
  return {
    browser,
    tokens,
    uid: session.uid,
    accountId: session.account_id ?? '',
    organizationId: session.organization_id ?? '',
    sidOf: (clientId: string) => (session.payload['authorizations'] as Record<string, { sid?: string }>)[clientId]?.sid,
  }
}

/** The logout token of a call, verified as a client would. */
export async function verifyLogout(server: TestServer, call: Call, audience: string): Promise<JWTVerifyResult> {
  const token = new URLSearchParams(call.body).get('logout_token') ?? ''
  const jwks = createRemoteJWKSet(new URL(`${server.issuer}/oauth/jwks`))
  return jwtVerify(token, jwks, { issuer: server.issuer, audience, typ: 'logout+jwt' })
}

export async function deliveryRows(server: TestServer, sessionUid?: string) {
  const rows = await server.database.kysely
    .selectFrom('deliveries')
    .select([
      'delivery_id',
      'kind',
      'client_id',
      'session_uid',
      'sid',
      'body',
      'attempts',
      'delivered_at',
      'failed_at',
      'last_error',
    ])
    .orderBy('id')
    .execute()
  return rows.filter((row) => sessionUid === undefined || row.session_uid === sessionUid)
}

// A browser and a relying party over the generator's sockets: the requests of a sign-in, one by one, and of its tokens.
import { createHash, randomBytes } from 'node:crypto'
import { generateSync } from 'otplib'
import type { Server } from './installation.ts'
import { type Reply, send } from './load.ts'

export const redirectUri = 'http://localhost:9/callback'
export const password = 'Bench-Password-2026'
export const totpSecret = 'JBSWY3DPEHPK3PXPJBSWY3DPEHPK3PXP'

export const form = (values: Record<string, string>) => new URLSearchParams(values).toString()
export const basic = (clientId: string, secret = `${clientId}-secret-0123456789`) =>
  `Basic ${Buffer.from(`${clientId}:${secret}`).toString('base64')}`

export function expectOk<Answer extends Reply>(answer: Answer): Answer {
  if (answer.status !== 200) throw new Error(`${answer.status}: ${answer.text.slice(0, 200)}`)
  return answer
}

/** One browser: keeps cookies, whatever their paths, which never differ here. */
export class Visitor {
  readonly #server: Server
  readonly #cookies = new Map<string, string>()

  constructor(server: Server) {
    this.#server = server
  }

  /** @param type of the body; a form unless said */
  async go(path: string, body?: string, headers: Record<string, string> = {}, type?: string): Promise<Reply> {
    const cookie = [...this.#cookies].map(([name, value]) => `${name}=${value}`).join('; ')
    const answer = await send(new URL(path, this.#server.url).href, {
      port: this.#server.port,
      headers: { cookie, accept: 'text/html', ...headers },
      ...(body === undefined ? {} : { method: 'POST', body }),
      ...(type === undefined ? {} : { type }),
    })
    for (const line of answer.headers('set-cookie')) {
      const [pair = ''] = line.split(';')
      this.#cookies.set(pair.slice(0, pair.indexOf('=')), pair.slice(pair.indexOf('=') + 1))
    }
    return answer
  }
}

export interface Visit {
  /** Of the sign-in page. */
  readonly path: string
  readonly csrf: string
  readonly verifier: string
  readonly visitor: Visitor
}

interface Asking {
  readonly clientId?: string
  readonly scope?: string
  readonly extra?: Readonly<Record<string, string>>
}

async function authorize(
  visitor: Visitor,
  server: Server,
  { clientId = 'app', scope = 'openid profile', extra }: Asking,
) {
  const verifier = randomBytes(32).toString('base64url')
  const query = new URLSearchParams({
    client_id: clientId,
    response_type: 'code',
    redirect_uri: redirectUri,
    scope,
    code_challenge: createHash('sha256').update(verifier).digest('base64url'),
    code_challenge_method: 'S256',
    ...extra,
  })
  return { verifier, answer: await visitor.go(`${server.isReference ? '/auth' : '/oauth/authorize'}?${query}`) }
}

/** A browser at the sign-in page. */
export async function arrive(server: Server, asking: Asking = {}, visitor = new Visitor(server)): Promise<Visit> {
  const { verifier, answer } = await authorize(visitor, server, asking)
  const path = String(answer.header('location'))
  const page = await visitor.go(path)
  return { path, csrf: csrfOf(page), verifier, visitor }
}

/** Another code for a browser that is signed in: one request. */
export async function askAgain(server: Server, visitor: Visitor, asking: Asking = {}): Promise<SignIn> {
  const { verifier, answer } = await authorize(visitor, server, asking)
  const code = codeOf(answer)
  if (code === null) throw new Error(`no code: ${answer.status} ${answer.text.slice(0, 500)}`)
  return { code, verifier, visitor }
}

export const csrfOf = (page: Reply) => /name="csrf" value="([^"]+)"/.exec(page.text)?.[1] ?? ''

export interface SignIn {
  readonly code: string
  readonly verifier: string
  readonly visitor: Visitor
}

/** The way from the last answer of a sign-in back to the app. */
export async function finish({ visitor, verifier }: Visit, submitted: Reply): Promise<SignIn> {
  const landing = await visitor.go(String(submitted.header('location')))
  const code = codeOf(landing)
  if (code === null)
    throw new Error(`sign-in failed: ${submitted.status} ${landing.status} ${landing.text.slice(0, 500)}`)
  return { code, verifier, visitor }
}

export const codeOf = (landing: Reply) => URL.parse(landing.header('location') ?? '')?.searchParams.get('code') ?? null

export const submitPassword = ({ visitor, path, csrf }: Visit, email: string) =>
  visitor.go(`${path}/password`, form({ csrf, email, password }))

/** The whole way through a sign-in with a password, four requests. */
export async function signIn(server: Server, email: string, asking: Asking = {}): Promise<SignIn> {
  const visit = await arrive(server, asking)
  return finish(visit, await submitPassword(visit, email))
}

/** Six requests. */
export async function signInWithTotp(server: Server, email: string, asking: Asking = {}) {
  const visit = await arrive(server, asking)
  const { path, csrf, visitor } = visit
  await submitPassword(visit, email)
  await visitor.go(path)
  const code = generateSync({ secret: totpSecret })
  return finish(visit, await visitor.go(`${path}/totp`, form({ csrf, code })))
}

export interface Tokens {
  readonly access_token: string
  readonly refresh_token: string
  readonly id_token: string
}

export const redemption = ({ code, verifier }: SignIn) =>
  form({ grant_type: 'authorization_code', code, redirect_uri: redirectUri, code_verifier: verifier })

export async function redeem(server: Server, signedIn: SignIn, clientId = 'app', proof?: string): Promise<Tokens> {
  const answer = await requestTokens(server, basic(clientId), redemption(signedIn), proof)
  return JSON.parse(expectOk(answer).text)
}

/** @param proof for DPoP (RFC 9449) */
export const requestTokens = (server: Server, authorization: string, body: string, proof?: string) =>
  send(tokenAddress(server), {
    port: server.port,
    method: 'POST',
    headers: { authorization, ...(proof === undefined ? {} : { dpop: proof }) },
    body,
  })

export const tokenAddress = (server: Server) => `${server.url}${server.isReference ? '' : '/oauth'}/token`

export const introspect = (server: Server, token: string, clientId = 'api') =>
  send(server.url + (server.isReference ? '/token/introspection' : '/oauth/introspect'), {
    port: server.port,
    method: 'POST',
    headers: { authorization: basic(clientId) },
    body: form({ token }),
  })

/** A call of a JSON API with a token. */
export function call(
  server: Server,
  token: string,
  path: string,
  { method, body, headers = {} }: { method?: string; body?: unknown; headers?: Record<string, string> } = {},
): Promise<Reply> {
  return send(new URL(path, server.url).href, {
    port: server.port,
    method: method ?? (body === undefined ? 'GET' : 'POST'),
    headers: { authorization: `Bearer ${token}`, ...headers },
    ...(body === undefined ? {} : { body: JSON.stringify(body), type: 'application/json' }),
  })
}

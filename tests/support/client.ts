// A relying party and a browser without a screen: walks sign-ins over plain HTTP, keeping cookies as a browser does.
import { createHash, randomBytes } from 'node:crypto'
import { password, secretOf, type TestServer } from './server.ts'

export const redirectUri = 'http://localhost:9/callback'
const maxHops = 10

/** All that a client knows of a server. */
export type Issuer = Pick<TestServer, 'issuer'>

export interface Answer {
  readonly status: number
  readonly headers: Headers
  readonly text: string
  readonly url: string
}

interface Cookie {
  readonly name: string
  readonly value: string
  readonly path: string
}

/** One browser profile. */
export class Browser {
  readonly cookies: Cookie[] = []
  readonly #server: Issuer

  constructor(server: Issuer) {
    this.#server = server
  }

  async request(
    path: string,
    init: { method?: string; form?: Record<string, string>; headers?: Record<string, string> } = {},
  ): Promise<Answer> {
    const url = new URL(path, this.#server.issuer)
    const cookie = this.cookies
      .filter(
        (entry) =>
          url.pathname === entry.path ||
          url.pathname.startsWith(entry.path.endsWith('/') ? entry.path : `${entry.path}/`),
      )
      .map((entry) => `${entry.name}=${entry.value}`)
      .join('; ')
    const response = await fetch(url, {
      method: init.method ?? (init.form ? 'POST' : 'GET'),
      redirect: 'manual',
      headers: { accept: 'text/html', ...(cookie ? { cookie } : {}), ...init.headers },
      ...(init.form ? { body: new URLSearchParams(init.form) } : {}),
    })
    for (const line of response.headers.getSetCookie()) this.#keep(line)
    return { status: response.status, headers: response.headers, text: await response.text(), url: url.href }
  }

  #keep(line: string): void {
    const [pair = '', ...attributes] = line.split(';').map((part) => part.trim())
    const [name = '', value = ''] = [pair.slice(0, pair.indexOf('=')), pair.slice(pair.indexOf('=') + 1)]
    const path = attributes.find((attribute) => attribute.toLowerCase().startsWith('path='))?.slice(5) ?? '/'
    const index = this.cookies.findIndex((entry) => entry.name === name && entry.path === path)
    if (index >= 0) this.cookies.splice(index, 1)
    if (value !== '' && !/expires=Thu, 01 Jan 1970/i.test(line)) this.cookies.push({ name, value, path })
  }

  /** Follows redirects until a page, or until the redirect leaves for the relying party. */
  async follow(answer: Answer): Promise<Answer> {
    let current = answer
    for (let hop = 0; hop < maxHops; hop += 1) {
      const location = current.headers.get('location')
      if (location === null) return current
      const next = new URL(location, current.url)
      if (next.origin !== this.#server.issuer) return { ...current, url: next.href }
      current = await this.request(next.href)
    }
    throw new Error('too many redirects')
  }

  /** Submits the form with this action suffix on a page, with its hidden fields and these values. */
  async submit(page: Answer, actionSuffix: string, values: Record<string, string>): Promise<Answer> {
    const form = [...page.text.matchAll(/<form[^>]*action="([^"]+)"[^>]*>([\s\S]*?)<\/form>/g)].find((match) =>
      match[1]?.endsWith(actionSuffix),
    )
    if (!form?.[1])
      throw new Error(`no form for ${actionSuffix} on ${page.url} (${page.status}): ${page.text.slice(0, 300)}`)
    const hidden = [...(form[2] ?? '').matchAll(/<input[^>]*type="hidden"[^>]*>/g)].map((match) => {
      const name = /name="([^"]*)"/.exec(match[0])?.[1] ?? ''
      const value = /value="([^"]*)"/.exec(match[0])?.[1] ?? ''
      return [name, value] as const
    })
    return this.follow(await this.request(form[1], { form: { ...Object.fromEntries(hidden), ...values } }))
  }
}

export interface Authorization {
  readonly url: string
  readonly verifier: string
}

export function authorizationUrl(
  server: Issuer,
  clientId: string,
  extra: Record<string, string | undefined> = {},
): Authorization {
  const verifier = randomBytes(32).toString('base64url')
  const parameters = {
    client_id: clientId,
    response_type: 'code',
    redirect_uri: redirectUri,
    scope: 'openid profile email',
    state: randomBytes(8).toString('hex'),
    nonce: randomBytes(8).toString('hex'),
    code_challenge: createHash('sha256').update(verifier).digest('base64url'),
    code_challenge_method: 'S256',
    ...extra,
  }
  const given = Object.entries(parameters).filter((entry): entry is [string, string] => entry[1] !== undefined)
  return { url: `${server.issuer}/oauth/authorize?${new URLSearchParams(given)}`, verifier }
}

/** Signs in with a password and allows the client if asked; returns where the browser ended up. */
export async function signIn(
  browser: Browser,
  authorization: Authorization,
  email = 'lee@mercy.example',
  secret = password,
): Promise<Answer> {
  let page = await browser.follow(await browser.request(authorization.url))
  if (page.text.includes('/password"')) page = await browser.submit(page, '/password', { email, password: secret })
  if (page.text.includes('/consent"')) page = await browser.submit(page, '/consent', { decision: 'allow' })
  return page
}

export interface Tokens {
  readonly status: number
  readonly headers: Headers
  readonly body: Record<string, unknown>
}

/** A form POST to an endpoint with HTTP Basic client authentication, or with client_id alone for a public client. */
export async function post(
  server: Issuer,
  path: string,
  clientId: string,
  form: Record<string, string>,
  headers: Record<string, string> = {},
): Promise<Tokens> {
  const isPublic = clientId === 'spa'
  const response = await fetch(new URL(path, server.issuer), {
    method: 'POST',
    headers: { accept: 'application/json', ...(isPublic ? {} : { authorization: basic(clientId) }), ...headers },
    body: new URLSearchParams(isPublic ? { client_id: clientId, ...form } : form),
  })
  const text = await response.text()
  return { status: response.status, headers: response.headers, body: text === '' ? {} : JSON.parse(text) }
}

export function basic(clientId: string, secret = secretOf(clientId)): string {
  return `Basic ${Buffer.from(`${clientId}:${secret}`).toString('base64')}`
}

/** The whole code flow; throws when no code comes back. */
export async function obtainCode(
  server: Issuer,
  clientId: string,
  extra: Record<string, string | undefined> = {},
  browser = new Browser(server),
  email?: string,
) {
  const authorization = authorizationUrl(server, clientId, extra)
  const landing = await signIn(browser, authorization, email)
  const code = new URL(landing.url).searchParams.get('code')
  if (code === null) throw new Error(`no code: ${landing.status} ${landing.url} ${landing.text.slice(0, 500)}`)
  const verifier =
    'code_challenge' in extra && extra['code_challenge'] === undefined ? undefined : authorization.verifier
  return { code, verifier, browser, landing: new URL(landing.url) }
}

export function redeem(server: Issuer, clientId: string, code: string, verifier: string | undefined): Promise<Tokens> {
  return post(server, '/oauth/token', clientId, {
    grant_type: 'authorization_code',
    code,
    redirect_uri: redirectUri,
    ...(verifier === undefined ? {} : { code_verifier: verifier }),
  })
}

export async function obtainTokens(
  server: Issuer,
  clientId: string,
  extra: Record<string, string | undefined> = {},
  browser?: Browser,
) {
  const { code, verifier, browser: used } = await obtainCode(server, clientId, extra, browser)
  const tokens = await redeem(server, clientId, code, verifier)
  if (tokens.status !== 200) throw new Error(`no tokens: ${tokens.status} ${JSON.stringify(tokens.body)}`)
  return { ...tokens.body, browser: used } as {
    access_token: string
    refresh_token?: string
    id_token: string
    scope: string
    browser: Browser
  }
}

export async function introspect(server: Issuer, token: string, caller = 'api'): Promise<Record<string, unknown>> {
  return (await post(server, '/oauth/introspect', caller, { token })).body
}

/** The same, asked in the usual way and in one that the provider answers: which must not differ. */
export async function introspectBothWays(
  server: Issuer,
  token: string,
  caller = 'api',
): Promise<Record<string, unknown>> {
  const byProvider = await post(server, '/oauth/introspect', caller, { token, client_id: caller })
  const usual = await introspect(server, token, caller)
  if (JSON.stringify(sorted(usual)) !== JSON.stringify(sorted(byProvider.body)))
    throw new Error(`two answers: ${JSON.stringify(usual)} and ${JSON.stringify(byProvider.body)}`)
  return usual
}

const sorted = (members: Record<string, unknown>) => Object.entries(members).sort(([a], [b]) => (a < b ? -1 : 1))

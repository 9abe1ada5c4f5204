// A first-party app in a browser: keeps cookies as a browser does, asks for its token, and calls the API in JSON. Every
// answer is held against the OpenAPI document.
import { expect } from 'vitest'
import { z } from 'zod'
import { problemSchema } from '../../src/api/contract.ts'
import { openApiDocument } from '../../src/api/openapi.ts'
import { Browser } from '../support/client.ts'
import { type DatabaseKind, password, people, startServer, type TestServer } from '../support/server.ts'
import { seededSecret } from '../support/totp.ts'

export const appOrigin = 'https://app.mercy.example'
export const good = 'Lavender-Kayak-93-Moss'
export const environment = { ENABLE_SIGNUP: 'true', ENABLE_MAGIC_LINKS: 'true' }

/** The people of every test, with an app at an origin of its own, and an organisation that anybody may join. */
export const seed = {
  ...people,
  organizations: [
    { slug: 'mercy', name: 'Mercy Hospital', policy: { signup: 'open' as const } },
    { slug: 'hope', name: 'Hope Clinic' },
    { slug: 'strict', name: 'Strict Hospital', policy: { mfa: 'required' as const } },
    { slug: 'still', name: 'Still Clinic', policy: { session: { extendOnActivity: false } } },
  ],
  accounts: [
    ...(people.accounts ?? []),
    ...[
      'sam@strict.example',
      'stella@still.example',
      ...Array.from({ length: 16 }, (_, n) => `p${n}@mercy.example`),
    ].map((email) => ({
      email,
      name: `Person ${email.split('@')[0]}`,
      password,
      organization: (email.split('@')[1] ?? '').split('.')[0] ?? '',
      emailVerified: true,
    })),
    ...['t0', 't1', 't2', 't3'].map((name) => ({
      email: `${name}@mercy.example`,
      name: `Toni ${name}`,
      password,
      organization: 'mercy',
      totpSecret: seededSecret,
      emailVerified: true,
    })),
  ],
  clients: [
    ...(people.clients ?? []),
    {
      client_id: 'app',
      client_name: 'Mercy App',
      organization: 'mercy',
      redirect_uris: [`${appOrigin}/callback`],
      token_endpoint_auth_method: 'none' as const,
      scope: 'openid profile',
      first_party: true,
    },
    {
      client_id: 'third',
      client_name: 'Third Party',
      organization: 'mercy',
      redirect_uris: ['https://third.example/callback'],
      token_endpoint_auth_method: 'none' as const,
      scope: 'openid profile',
    },
  ],
}

export const startApi = (kind: DatabaseKind) => startServer(kind, { environment, seed })

export interface ApiAnswer {
  readonly status: number
  readonly headers: Headers
  readonly body: Record<string, unknown>
  readonly text: string
}

export interface CallOptions {
  /** Text is sent as it is, anything else as JSON. Undefined: none. */
  readonly body?: unknown
  readonly method?: string
  /** Undefined takes away what would be sent. */
  readonly headers?: Readonly<Record<string, string | undefined>>
}

export class ApiClient {
  readonly browser: Browser
  readonly #server: TestServer

  constructor(server: TestServer, browser = new Browser(server)) {
    this.#server = server
    this.browser = browser
  }

  /** A POST with the token; of a GET, everything but the path may be left out. */
  async call(path: string, { body, method, headers = {} }: CallOptions = {}): Promise<ApiAnswer> {
    const url = new URL(path.startsWith('/api/') ? path : `/api/auth${path}`, this.#server.issuer)
    const verb = method ?? (body === undefined ? 'GET' : 'POST')
    const cookie = this.browser.cookies
      .filter((entry) => url.pathname.startsWith(entry.path))
      .map((entry) => `${entry.name}=${entry.value}`)
      .join('; ')
    const sent = {
      accept: 'application/json',
      ...(body === undefined ? {} : { 'content-type': 'application/json' }),
      ...(cookie === '' ? {} : { cookie }),
      ...headers,
    }
    const given = Object.entries(sent).filter((entry): entry is [string, string] => entry[1] !== undefined)
    const answer = await fetch(url, {
      method: verb,
      headers: Object.fromEntries(given),
      ...(body === undefined ? {} : { body: typeof body === 'string' ? body : JSON.stringify(body) }),
    })
    for (const line of answer.headers.getSetCookie()) this.#keep(line)
    const text = await answer.text()
    const isJson = (answer.headers.get('content-type') ?? '').includes('json')
    const read = isJson ? JSON.parse(text) : {}
    if (url.pathname.startsWith('/api/auth/') && verb !== 'OPTIONS') conforms(verb, url.pathname, answer.status, read)
    return { status: answer.status, headers: answer.headers, body: read, text }
  }

  async post(path: string, body: unknown = {}, headers: CallOptions['headers'] = {}): Promise<ApiAnswer> {
    return this.call(path, { body, headers: { 'x-csrf-token': await this.token(), ...headers } })
  }

  async token(): Promise<string> {
    return String((await this.call('/csrf')).body['csrfToken'])
  }

  cookie(name: string): string | undefined {
    return this.browser.cookies.find((entry) => entry.name === name)?.value
  }

  setCookie(name: string, value: string, path = '/'): void {
    const { cookies } = this.browser
    const index = cookies.findIndex((entry) => entry.name === name)
    if (index >= 0) cookies.splice(index, 1)
    cookies.push({ name, value, path })
  }

  #keep(line: string): void {
    const [pair = ''] = line.split(';', 1)
    const [name = '', value = ''] = [pair.slice(0, pair.indexOf('=')), pair.slice(pair.indexOf('=') + 1)]
    const path = /;\s*path=([^;]+)/i.exec(line)?.[1] ?? '/'
    const { cookies } = this.browser
    const index = cookies.findIndex((entry) => entry.name === name && entry.path === path)
    if (index >= 0) cookies.splice(index, 1)
    if (value !== '' && !/expires=Thu, 01 Jan 1970/i.test(line)) cookies.push({ name, value, path })
  }
}

const document = openApiDocument({ issuer: 'http://localhost', sessionCookie: 'mlpipes_session' })
const anObject = z.record(z.string(), z.unknown())
const at = (value: unknown, ...path: string[]): unknown =>
  path.reduce<unknown>((here, name) => (here === undefined ? undefined : anObject.parse(here)[name]), value)

/** Fails when an answer is not one that the document describes for this operation. */
function conforms(method: string, path: string, status: number, body: unknown): void {
  const response = at(document.paths[path], method.toLowerCase(), 'responses', String(status))
  expect(response, `${method} ${path} is not described with ${status}: ${JSON.stringify(body)}`).toBeDefined()
  if (status >= 400) {
    const problem = problemSchema.parse(body)
    const parts = z.array(z.unknown()).parse(at(response, 'content', 'application/problem+json', 'schema', 'allOf'))
    expect(at(parts[1], 'properties', 'type', 'enum'), `${method} ${path} ${status}`).toContain(problem.type)
    expect(problem.status).toBe(status)
    return
  }
  const schema = at(response, 'content', 'application/json', 'schema')
  if (schema === undefined) {
    expect(body).toEqual({})
    return
  }
  const whole = JSON.stringify({ ...anObject.parse(schema), $defs: document.components.schemas })
  const local = JSON.parse(whole.replaceAll('#/components/schemas/', '#/$defs/'))
  expect(z.fromJSONSchema(local).safeParse(body).error, `${method} ${path} ${status}`).toBeUndefined()
}

export const problem = (code: string) => `urn:mlpipes:error:${code}`

/** Without what is another one at every request. */
export function comparable({ status, headers, body }: ApiAnswer) {
  const names = [...headers.keys()].filter((name) => !['date', 'x-request-id', 'content-length'].includes(name)).sort()
  const cookies = headers.getSetCookie().map((line) => line.replace(/=[^;]*/, '='))
  return { status, body: { ...body, instance: undefined }, names, cookies }
}

// Tokens as an administrator gives them out, and an app that registers with them over plain HTTP.
import type { Template } from '../../src/registration/template.ts'
import type { AdminServer } from '../admin/support.ts'
import { basic } from '../support/client.ts'
import type { TestServer } from '../support/server.ts'

export const template: Template = {
  grantTypes: ['authorization_code', 'refresh_token'],
  scopes: ['openid', 'profile', 'email', 'offline_access'],
  redirectHosts: ['app.vendor.example', 'localhost', '127.0.0.1'],
  tokenEndpointAuthMethods: ['client_secret_basic', 'private_key_jwt', 'none'],
  accessTokenFormats: ['opaque'],
  profile: 'standard',
}

export const metadata = {
  client_name: 'Vendor App',
  redirect_uris: ['https://app.vendor.example/callback'],
  grant_types: ['authorization_code', 'refresh_token'],
  scope: 'openid profile offline_access',
}

export interface RegistrationAnswer {
  readonly status: number
  readonly headers: Headers
  readonly body: Record<string, unknown>
}

/** A registration token of mercy, by the admin API. */
export async function issueToken(
  server: AdminServer,
  extra: Partial<Template> = {},
  limits: { readonly maxUses?: number; readonly expiresInSeconds?: number; readonly by?: string } = {},
): Promise<{ id: string; token: string }> {
  const { by = 'admin@mercy.example', ...said } = limits
  const body = { name: 'Vendor', template: { ...template, ...extra }, ...said }
  const answer = await server.call(await server.tokenOf(by), '/api/admin/registration-tokens', { body })
  if (answer.status !== 201) throw new Error(`no token: ${answer.status} ${answer.text}`)
  return { id: String(answer.body['id']), token: String(answer.body['token']) }
}

export async function send(
  server: Pick<TestServer, 'issuer'>,
  method: string,
  address: string,
  token: string | undefined,
  body?: unknown,
  headers: Readonly<Record<string, string>> = {},
): Promise<RegistrationAnswer> {
  const answer = await fetch(new URL(address, server.issuer), {
    method,
    headers: {
      ...(token === undefined ? {} : { authorization: `Bearer ${token}` }),
      ...(body === undefined ? {} : { 'content-type': 'application/json' }),
      ...headers,
    },
    ...(body === undefined ? {} : { body: typeof body === 'string' ? body : JSON.stringify(body) }),
  })
  const text = await answer.text()
  return { status: answer.status, headers: answer.headers, body: text === '' ? {} : JSON.parse(text) }
}

export const register = (server: Pick<TestServer, 'issuer'>, token: string | undefined, body: unknown = metadata) =>
  send(server, 'POST', '/oauth/register', token, body)

/** Whether the token endpoint knows a client by this secret: 400 is for a code that is none, 401 for the secret. */
export async function knowsSecret(
  server: Pick<TestServer, 'issuer'>,
  clientId: unknown,
  secret: unknown,
): Promise<boolean> {
  const { status } = await fetch(`${server.issuer}/oauth/token`, {
    method: 'POST',
    headers: { authorization: basic(String(clientId), String(secret)) },
    body: new URLSearchParams({ grant_type: 'refresh_token', refresh_token: 'none' }),
  })
  if (status !== 400 && status !== 401) throw new Error(`the token endpoint answered ${status}`)
  return status === 400
}

/** What a client sends to change itself: what it was answered, without what is the server's to say. */
export function asUpdate(answer: RegistrationAnswer, change: Readonly<Record<string, unknown>>) {
  const {
    registration_access_token: _token,
    registration_client_uri: _uri,
    client_secret_expires_at: _expires,
    client_id_issued_at: _issued,
    client_secret: _secret,
    ...members
  } = answer.body
  return { ...members, ...change }
}

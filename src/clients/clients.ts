// Clients: the relying parties and resource servers of an organisation, with the rules for what may be registered.
import { z } from 'zod'
import { coalesce } from '../db/coalesce.ts'
import type { Database, Row } from '../db/database.ts'
import { receiverProblem } from '../http/receiver.ts'
import { endingCauses } from '../sessions/causes.ts'
import { jwks } from './jwks.ts'

/** Every scope this server knows. */
export const supportedScopes = [
  'openid',
  'offline_access',
  'profile',
  'email',
  'introspect',
  'admin:read',
  'admin:write',
] as const

const scopeList = z
  .string()
  .max(1024, 'must be at most 1024 characters long')
  .refine(
    (text) => text.split(' ').every((scope) => (supportedScopes as readonly string[]).includes(scope)),
    `must be a space-separated list out of: ${supportedScopes.join(' ')}`,
  )

const loopbackHosts = new Set(['localhost', '127.0.0.1', '[::1]'])

// Scheme, authority and what may follow, in the characters that a URI is made of (RFC 3986 §2), without `#` and `*`. Parsers
// quietly mend the rest, each in its own way: to one the host of https://app.example\@evil.example is the first, to another
// the second.
const redirectPattern = /^https?:\/\/[\w.~[%-][\w.~:/?[\]@!$&'()+,;=%-]*$/i

/** Characters of a name, characters of a URI, and URIs of one kind in one registration. */
export const clientLimits = { nameLength: 100, uriLength: 2_048, uris: 50 } as const

/** A redirect URI that a browser may be sent to: https, or http to this very machine; exact, without a fragment. */
export function isRedirectUri(text: string): boolean {
  const url = URL.parse(text)
  if (!url || text.length > clientLimits.uriLength || url.username || url.password || !redirectPattern.test(text))
    return false
  return url.protocol === 'https:' || (url.protocol === 'http:' && loopbackHosts.has(url.hostname))
}

/** A device without a browser, or a program in a terminal, whose person signs in elsewhere (RFC 8628). */
export const deviceGrant = 'urn:ietf:params:oauth:grant-type:device_code'
const grantTypes = ['authorization_code', 'refresh_token', 'client_credentials', deviceGrant] as const

const redirectUri = z.string().refine(isRedirectUri, {
  error: ({ input }) =>
    String(input).length > clientLimits.uriLength
      ? `must be at most ${clientLimits.uriLength} characters long`
      : 'must be an https URI (http only for localhost) with its host, without user, fragment, wildcard or a character that no URI has',
})
const redirectUris = z.array(redirectUri).max(clientLimits.uris, `must be at most ${clientLimits.uris} URIs`)
const keysUri = z
  .string()
  .refine(
    (text) => receiverProblem(text, { allowsLoopback: false }) === undefined,
    'must be an https URI on the public internet, without user or fragment',
  )
/** Where sign-outs are told. In production a call to this machine is not made, whatever is registered (http/outbound.ts). */
const logoutUri = z
  .string()
  .refine(
    (text) => isRedirectUri(text) && receiverProblem(text, { allowsLoopback: true }) === undefined,
    'must be an https URI on the public internet (this machine, and http, only as localhost, 127.0.0.1 or [::1]), without user, fragment, wildcard or a character that no URI has',
  )
const printable = z
  .string()
  .refine(
    (text) => text.isWellFormed() && !/[\p{Cc}\p{Bidi_Control}]/u.test(text),
    'must not contain control or bidirectional characters',
  )

// A client id never looks like an account's subject (RFC 9700 §4.15), nor is it that of our own pages.
const clientIdPattern = /^(?!acc_|mlpipes-account$)[A-Za-z0-9._~-]{1,128}$/

export function isClientId(text: string): boolean {
  return clientIdPattern.test(text)
}

const oneOf = <const Value extends string>(values: readonly Value[]) =>
  z.enum(values, { error: `must be one of: ${values.join(', ')}` })

/** What may be said of a client, by the names of RFC 7591 where they have one. Registered by `apply` or the admin API. */
export const clientFields = {
  client_name: printable
    .min(1, 'must not be empty')
    .max(clientLimits.nameLength, `must be at most ${clientLimits.nameLength} characters long`),
  redirect_uris: redirectUris,
  post_logout_redirect_uris: redirectUris,
  grant_types: z.array(oneOf(grantTypes)).max(grantTypes.length),
  token_endpoint_auth_method: oneOf(['client_secret_basic', 'client_secret_post', 'private_key_jwt', 'none']),
  application_type: oneOf(['web', 'native']),
  id_token_signed_response_alg: oneOf(['RS256', 'ES256']),
  jwks,
  /** Where its public keys are to be fetched, instead of `jwks`: https, and never from a private network (F78). */
  jwks_uri: keysUri,
  require_pushed_authorization_requests: z.boolean(),
  dpop_bound_access_tokens: z.boolean(),
  /** `jwt`: its APIs read tokens themselves (RFC 9068), and nothing ends one before it expires. */
  access_token_format: oneOf(['opaque', 'jwt']),
  introspection_signed_response_alg: oneOf(['RS256', 'ES256']),
  scope: scopeList,
  introspection: oneOf(['none', 'own', 'organization']),
  first_party: z.boolean(),
  /** Whether its introspection of a person's token counts as that person's activity. */
  session_activity: z.boolean(),
  backchannel_logout_uri: logoutUri,
  backchannel_logout_session_required: z.boolean(),
  /** Which endings it wants to hear of; all, without it. */
  backchannel_logout_causes: z.array(oneOf(endingCauses)).max(endingCauses.length),
  profile: oneOf(['standard', 'oidc-certification', 'fapi2']),
}

export type ClientField = keyof typeof clientFields

/** The same with what is taken for what is not said. */
export const clientMembers = {
  client_name: clientFields.client_name,
  redirect_uris: clientFields.redirect_uris.default([]),
  post_logout_redirect_uris: clientFields.post_logout_redirect_uris.default([]),
  grant_types: clientFields.grant_types.default(['authorization_code']),
  token_endpoint_auth_method: clientFields.token_endpoint_auth_method.default('client_secret_basic'),
  application_type: clientFields.application_type.default('web'),
  id_token_signed_response_alg: clientFields.id_token_signed_response_alg.optional(),
  jwks: clientFields.jwks.optional(),
  jwks_uri: clientFields.jwks_uri.optional(),
  require_pushed_authorization_requests: clientFields.require_pushed_authorization_requests.default(false),
  dpop_bound_access_tokens: clientFields.dpop_bound_access_tokens.default(false),
  access_token_format: clientFields.access_token_format.default('opaque'),
  introspection_signed_response_alg: clientFields.introspection_signed_response_alg.optional(),
  scope: clientFields.scope.default('openid profile email'),
  introspection: clientFields.introspection.default('none'),
  first_party: clientFields.first_party.default(false),
  session_activity: clientFields.session_activity.default(true),
  backchannel_logout_uri: clientFields.backchannel_logout_uri.optional(),
  backchannel_logout_session_required: clientFields.backchannel_logout_session_required.default(false),
  backchannel_logout_causes: clientFields.backchannel_logout_causes.optional(),
  profile: clientFields.profile.default('standard'),
} as const satisfies Readonly<Record<ClientField, z.ZodType>>

const membersSchema = z.strictObject(clientMembers)
export type ClientMembers = z.output<typeof membersSchema>

export const hasSecret = ({ token_endpoint_auth_method: method }: Pick<ClientMembers, 'token_endpoint_auth_method'>) =>
  method.startsWith('client_secret')

/** What `apply` accepts about a client. Unknown members are refused. */
export const clientSchema = z
  .strictObject({
    client_id: z
      .string()
      .regex(
        clientIdPattern,
        'must be 1 to 128 characters of A-Z a-z 0-9 . _ ~ - not starting with acc_, and not mlpipes-account',
      ),
    client_secret: z
      .string()
      .min(8, 'must be at least 8 characters')
      .max(256)
      .regex(/^[\x21-\x7e]+$/, 'must be printable ASCII')
      .optional(),
    organization: z.string().min(1).max(64),
    ...clientMembers,
  })
  .superRefine((client, context) => {
    const problem = (path: string, message: string) => context.addIssue({ code: 'custom', path: [path], message })
    if (hasSecret(client) && client.client_secret === undefined)
      problem('client_secret', 'is required by this token_endpoint_auth_method')
    if (!hasSecret(client) && client.client_secret !== undefined)
      problem('client_secret', 'is not used by this token_endpoint_auth_method')
    for (const { path, message } of memberProblems(client)) problem(path, message)
  })

export type ClientInput = z.output<typeof clientSchema>

/** What members say together that each alone may. Pure. */
export function memberProblems(client: ClientMembers): { readonly path: ClientField; readonly message: string }[] {
  const problems: { readonly path: ClientField; readonly message: string }[] = []
  const problem = (path: ClientField, message: string) => void problems.push({ path, message })
  const method = client.token_endpoint_auth_method
  const hasKeys = client.jwks !== undefined || client.jwks_uri !== undefined
  if (method === 'private_key_jwt' && !hasKeys) problem('jwks', 'is required by private_key_jwt, or jwks_uri')
  if (client.jwks && client.jwks_uri !== undefined) problem('jwks_uri', 'stands instead of jwks, not beside it')
  if (client.profile === 'fapi2') for (const [path, message] of fapi2Problems(client)) problem(path, message)
  if (client.grant_types.includes('authorization_code') && client.redirect_uris.length === 0)
    problem('redirect_uris', 'needs at least one URI for the authorization_code grant')
  if (method === 'none' && client.grant_types.includes('client_credentials'))
    problem('grant_types', 'client_credentials needs a client that authenticates')
  if (client.backchannel_logout_uri === undefined) {
    const needs = 'needs a backchannel_logout_uri'
    if (client.backchannel_logout_session_required) problem('backchannel_logout_session_required', needs)
    if (client.backchannel_logout_causes) problem('backchannel_logout_causes', needs)
  }
  // This server takes opaque tokens only, so that it hears at once of everything that ends one.
  if (client.access_token_format === 'jwt' && client.scope.split(' ').includes('introspect'))
    problem('access_token_format', 'must be opaque for the scope introspect')
  if (method === 'none' && client.introspection !== 'none')
    problem('introspection', 'needs a client that authenticates')
  return problems
}

/** FAPI 2.0 Security Profile §5.3.2: what such a client cannot be registered with. */
function fapi2Problems(client: ClientMembers): [ClientField, string][] {
  const problems: [ClientField, string][] = []
  if (client.token_endpoint_auth_method !== 'private_key_jwt')
    problems.push(['token_endpoint_auth_method', 'must be private_key_jwt in profile fapi2'])
  if (client.id_token_signed_response_alg === 'RS256')
    problems.push(['id_token_signed_response_alg', 'must be ES256 in profile fapi2'])
  // Its requests are not pushed, and who allows them may be shown somebody else's (RFC 8628 §5.4).
  if (client.grant_types.includes(deviceGrant)) problems.push(['grant_types', 'has no device grant in profile fapi2'])
  return problems
}

/** What the provider is told of a client beyond what its registration says by itself. */
function securityMetadata(client: ClientMembers): Record<string, unknown> {
  const isFapi = client.profile === 'fapi2'
  const alg = client.id_token_signed_response_alg ?? (isFapi ? 'ES256' : undefined)
  return {
    ...(alg === undefined ? {} : { id_token_signed_response_alg: alg }),
    ...(client.jwks ? { jwks: client.jwks } : {}),
    ...(client.jwks_uri === undefined ? {} : { jwks_uri: client.jwks_uri }),
    // Requests come pushed, and tokens are good with a proof of possession only.
    ...(isFapi || client.require_pushed_authorization_requests ? { require_pushed_authorization_requests: true } : {}),
    ...(isFapi || client.dpop_bound_access_tokens ? { dpop_bound_access_tokens: true } : {}),
    ...(client.access_token_format === 'jwt' ? { access_token_format: 'jwt' } : {}),
    ...(client.introspection_signed_response_alg === undefined
      ? {}
      : { introspection_signed_response_alg: client.introspection_signed_response_alg }),
  }
}

/** What of a client goes into its `metadata` column: the members that the provider knows by these names. */
export function clientMetadata(client: ClientMembers): Record<string, unknown> {
  const codeFlow = client.grant_types.includes('authorization_code')
  return {
    redirect_uris: client.redirect_uris,
    post_logout_redirect_uris: client.post_logout_redirect_uris,
    grant_types: client.grant_types,
    response_types: codeFlow ? ['code'] : [],
    token_endpoint_auth_method: client.token_endpoint_auth_method,
    application_type: client.application_type,
    scope: client.scope,
    ...(client.session_activity ? {} : { session_activity: false }),
    ...securityMetadata(client),
    ...logoutMetadata(client),
  }
}

function logoutMetadata(client: ClientMembers): Record<string, unknown> {
  const { backchannel_logout_uri: uri, backchannel_logout_causes: causes } = client
  if (uri === undefined) return {}
  return {
    backchannel_logout_uri: uri,
    backchannel_logout_session_required: client.backchannel_logout_session_required,
    ...(causes ? { backchannel_logout_causes: causes } : {}),
  }
}

const findClients = `select c.client_id, c.name, c.secret_digest, c.metadata, c.introspection, c.first_party, c.profile,
      case when c.previous_secret_until > now() then c.previous_secret_digest end as previous_secret,
      o.id as organization_id, o.name as organization_name, o.policy as organization_policy
    from mlpipes_auth.clients c join mlpipes_auth.organizations o on o.id = c.organization_id and o.closed_at is null
    where c.disabled_at is null and c.client_id = any($1::text[])`

export interface Clients {
  /** The client's metadata as the provider takes it, if the client may act now. Concurrent calls share a statement. */
  findMetadata(clientId: string): Promise<Record<string, unknown> | undefined>
}

export function createClients(database: Database): Clients {
  return {
    findMetadata: coalesce<string, Record<string, unknown> | undefined>(database, {
      statement: findClients,
      values: (ids) => [[...new Set(ids)]],
      results(rows, ids) {
        const byId = new Map(rows.map((row) => [String(row['client_id']), toMetadata(row)]))
        return ids.map((id) => byId.get(id))
      },
    }),
  }
}

/** The client as the provider takes it, from a row of `findClients`. */
export function toMetadata(row: Row): Record<string, unknown> {
  return {
    ...(row['metadata'] as Record<string, unknown>),
    client_id: row['client_id'],
    client_name: row['name'],
    // The digest stands where the provider expects the secret; comparing is ours (oidc/internals.ts).
    ...(row['secret_digest'] === null ? {} : { client_secret: row['secret_digest'] }),
    ...(row['previous_secret'] === null ? {} : { previous_secret: row['previous_secret'] }),
    introspection: row['introspection'],
    first_party: row['first_party'],
    profile: row['profile'],
    organization_id: row['organization_id'],
    organization_name: row['organization_name'],
    organization_policy: row['organization_policy'],
  }
}

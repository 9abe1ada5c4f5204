// What an app asks to be (RFC 7591 §2), held to what any client may be, to what is refused to apps that nobody looked at
// before (F76), and to the template of its token. Pure. What is not known here is ignored, as RFC 7591 §2 wants: so nothing
// that an administrator alone may give can be asked for.
import { z } from 'zod'
import { type ClientMembers, clientFields } from '../clients/clients.ts'
import { receiverProblem } from '../http/receiver.ts'
import { loopbackHosts, type Template } from './template.ts'

export interface MetadataProblem {
  /** The member, or nothing for what several say together. */
  readonly path: string
  readonly message: string
}

export type Asked =
  | { readonly ok: true; readonly members: ClientMembers }
  | { readonly ok: false; readonly problems: readonly MetadataProblem[] }

export interface AskingContext {
  readonly template: Template
  /** What the app is now, when it changes itself. */
  readonly before?: ClientMembers
  /** Development and tests: this very machine may be told of sign-outs. */
  readonly allowsLoopback: boolean
}

// A person decides by the name whom they let in. What is invisible, or piles up over the line, is no part of one.
const name = clientFields.client_name.refine(
  (text) =>
    /^[\p{L}\p{M}\p{N}\p{P}\p{S} ]*$/u.test(text) &&
    !/\p{Default_Ignorable_Code_Point}|\p{M}{5}|^ | $| {2}/u.test(text) &&
    /[\p{L}\p{N}]/u.test(text),
  'must be made of letters, digits, punctuation and single spaces, with at least one letter or digit',
)

const shape = {
  client_name: name,
  redirect_uris: clientFields.redirect_uris,
  post_logout_redirect_uris: clientFields.post_logout_redirect_uris,
  grant_types: clientFields.grant_types,
  response_types: z.array(z.literal('code', 'must be code: no other flow is offered')).max(1),
  token_endpoint_auth_method: clientFields.token_endpoint_auth_method,
  application_type: clientFields.application_type,
  id_token_signed_response_alg: clientFields.id_token_signed_response_alg,
  jwks: clientFields.jwks,
  jwks_uri: clientFields.jwks_uri,
  require_pushed_authorization_requests: clientFields.require_pushed_authorization_requests,
  dpop_bound_access_tokens: clientFields.dpop_bound_access_tokens,
  access_token_format: clientFields.access_token_format,
  introspection_signed_response_alg: clientFields.introspection_signed_response_alg,
  scope: clientFields.scope,
  backchannel_logout_uri: clientFields.backchannel_logout_uri,
  backchannel_logout_session_required: clientFields.backchannel_logout_session_required,
  backchannel_logout_causes: clientFields.backchannel_logout_causes,
} as const
const askedSchema = z.object(shape).partial().extend({ client_name: name })
type AskedMembers = z.output<typeof askedSchema>

/** Reads what an app says of itself. RFC 7592 §2.2: null is what is not said. */
export function readMetadata(body: unknown, context: AskingContext): Asked {
  if (typeof body !== 'object' || body === null || Array.isArray(body))
    return { ok: false, problems: [{ path: '', message: 'the body must be a JSON object of client metadata' }] }
  const said = Object.fromEntries(Object.entries(body).filter(([, value]) => value !== null))
  const read = askedSchema.safeParse(said)
  if (!read.success) {
    const problems = read.error.issues.map(({ path, message }) => ({ path: path.map(String).join('.'), message }))
    return { ok: false, problems }
  }
  const members = toMembers(read.data, context)
  const problems = problemsOf(members, context)
  return problems.length === 0 ? { ok: true, members } : { ok: false, problems }
}

/** What an app may not be that registered itself. */
export function problemsOf(members: ClientMembers, context: Omit<AskingContext, 'before'>): MetadataProblem[] {
  return [...addressProblems(members, context), ...templateProblems(members, context.template)]
}

/** What is not said is what RFC 7591 §2 takes for it, where the template has that, and otherwise what the template has. */
function toMembers(
  { response_types: _code, ...asked }: AskedMembers,
  { template, before }: AskingContext,
): ClientMembers {
  const { grantTypes, tokenEndpointAuthMethods: methods, accessTokenFormats: formats, scopes, profile } = template
  return {
    ...asked,
    redirect_uris: asked.redirect_uris ?? [],
    post_logout_redirect_uris: asked.post_logout_redirect_uris ?? [],
    grant_types: asked.grant_types ?? (grantTypes.includes('authorization_code') ? ['authorization_code'] : grantTypes),
    token_endpoint_auth_method:
      asked.token_endpoint_auth_method ??
      methods.find((method) => method === 'client_secret_basic') ??
      methods[0] ??
      'none',
    application_type: asked.application_type ?? 'web',
    require_pushed_authorization_requests: asked.require_pushed_authorization_requests ?? false,
    dpop_bound_access_tokens: asked.dpop_bound_access_tokens ?? false,
    access_token_format: asked.access_token_format ?? (formats.includes('opaque') ? 'opaque' : 'jwt'),
    scope: asked.scope ?? scopes.join(' '),
    backchannel_logout_session_required: asked.backchannel_logout_session_required ?? false,
    // An administrator's to say, and what they said stays.
    introspection: before?.introspection ?? 'none',
    first_party: before?.first_party ?? false,
    session_activity: before?.session_activity ?? true,
    profile: before?.profile ?? profile,
  }
}

function addressProblems(members: ClientMembers, { template, allowsLoopback }: AskingContext): MetadataProblem[] {
  const { jwks_uri: keys, backchannel_logout_uri: logout, application_type: type } = members
  const redirects = (['redirect_uris', 'post_logout_redirect_uris'] as const).flatMap((member) =>
    members[member].flatMap((uri, index) => {
      const message = redirectProblem(uri, type, template)
      return message === undefined ? [] : [{ path: `${member}.${index}`, message }]
    }),
  )
  const called = [
    { path: 'jwks_uri', message: keys === undefined ? undefined : receiverProblem(keys, { allowsLoopback: false }) },
    {
      path: 'backchannel_logout_uri',
      message: logout === undefined ? undefined : receiverProblem(logout, { allowsLoopback }),
    },
  ]
  return [...redirects, ...called.flatMap(({ path, message }) => (message === undefined ? [] : [{ path, message }]))]
}

function redirectProblem(
  text: string,
  type: ClientMembers['application_type'],
  template: Template,
): string | undefined {
  const url = new URL(text)
  const isLoopback = loopbackHosts.has(url.hostname)
  // RFC 8252 §8.3: plain http goes no further than the machine it is on, and only an app on that machine listens there.
  if (isLoopback && type !== 'native')
    return 'is on the person’s own machine, which is for application_type native alone; use an https address'
  if (isLoopback && url.protocol === 'https:') return 'must be http on the person’s own machine (RFC 8252)'
  if (template.redirectHosts.includes(isLoopback ? url.hostname : url.host)) return undefined
  return `must be on a host that this registration token allows: ${template.redirectHosts.join(' ') || 'none'}`
}

function templateProblems(members: ClientMembers, template: Template): MetadataProblem[] {
  const { grantTypes, scopes, tokenEndpointAuthMethods, accessTokenFormats } = template
  const only = (path: string, asked: readonly string[], allowed: readonly string[]): MetadataProblem[] =>
    asked.every((value) => allowed.includes(value))
      ? []
      : [{ path, message: `may hold under this registration token only: ${allowed.join(' ')}` }]
  return [
    ...only('grant_types', members.grant_types, grantTypes),
    ...only('scope', members.scope.split(' '), scopes),
    ...only('token_endpoint_auth_method', [members.token_endpoint_auth_method], tokenEndpointAuthMethods),
    ...only('access_token_format', [members.access_token_format], accessTokenFormats),
  ]
}

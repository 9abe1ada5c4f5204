// Operations on clients: what they take and answer. Protocol members have their names of RFC 7591.
import { z } from 'zod'
import { clientFields, clientMembers } from '../clients/clients.ts'
import { maxOverlapSeconds } from '../clients/secret.ts'
import { organizationPermissions } from '../organizations/permissions.ts'
import { flag, idParam, instant, listQuery, maxVersion, operation, pageOf, search } from './operation.ts'

const group = 'Clients'
const params = z.strictObject({ clientId: idParam })
const clearable = <Schema extends z.ZodType>(schema: Schema) => schema.nullable().optional()

/** What is not said stays as it is; null takes away what need not be there. */
const patch = z.strictObject({
  client_name: clientFields.client_name.optional(),
  redirect_uris: clientFields.redirect_uris.optional(),
  post_logout_redirect_uris: clientFields.post_logout_redirect_uris.optional(),
  grant_types: clientFields.grant_types.optional(),
  token_endpoint_auth_method: clientFields.token_endpoint_auth_method.optional(),
  application_type: clientFields.application_type.optional(),
  id_token_signed_response_alg: clearable(clientFields.id_token_signed_response_alg),
  jwks: clearable(clientFields.jwks),
  jwks_uri: clearable(clientFields.jwks_uri),
  require_pushed_authorization_requests: clientFields.require_pushed_authorization_requests.optional(),
  dpop_bound_access_tokens: clientFields.dpop_bound_access_tokens.optional(),
  access_token_format: clientFields.access_token_format.optional(),
  introspection_signed_response_alg: clearable(clientFields.introspection_signed_response_alg),
  scope: clientFields.scope.optional(),
  introspection: clientFields.introspection.optional(),
  first_party: clientFields.first_party.optional(),
  session_activity: clientFields.session_activity.optional(),
  backchannel_logout_uri: clearable(clientFields.backchannel_logout_uri),
  backchannel_logout_session_required: clientFields.backchannel_logout_session_required.optional(),
  backchannel_logout_causes: clearable(clientFields.backchannel_logout_causes),
  profile: clientFields.profile.optional(),
})
export type ClientPatch = z.output<typeof patch>

const shape = {
  client_id: z.string(),
  client_name: z.string(),
  redirect_uris: z.array(z.string()),
  post_logout_redirect_uris: z.array(z.string()),
  grant_types: z.array(z.string()),
  token_endpoint_auth_method: z.string(),
  application_type: z.string(),
  id_token_signed_response_alg: z.string().nullable(),
  jwks: z.strictObject({ keys: z.array(z.record(z.string(), z.unknown())) }).nullable(),
  jwks_uri: z.string().nullable(),
  require_pushed_authorization_requests: z.boolean(),
  dpop_bound_access_tokens: z.boolean(),
  access_token_format: z
    .string()
    .meta({ description: 'jwt: nothing ends an access token before it expires, 5 minutes after it was issued' }),
  introspection_signed_response_alg: z.string().nullable(),
  scope: z.string(),
  introspection: z.enum(['none', 'own', 'organization']),
  first_party: z.boolean().meta({ description: 'whether people are not asked for consent' }),
  session_activity: z.boolean(),
  backchannel_logout_uri: z.string().nullable(),
  backchannel_logout_session_required: z.boolean(),
  backchannel_logout_causes: z
    .array(z.string())
    .nullable()
    .meta({ description: 'the endings it wants to hear of; null: all' }),
  profile: z.string(),
  hasSecret: z.boolean(),
  previousSecretUntil: instant
    .nullable()
    .meta({ description: 'until when the secret of before works beside the one of now; null when it does not' }),
  permissions: z.array(z.string()).meta({ description: 'what it may do at this API with a token of its own' }),
  createdAt: instant,
  updatedAt: instant,
  disabledAt: instant.nullable(),
}
const client = z.strictObject(shape).meta({ id: 'Client' })
const secret = z.string().meta({ description: 'shown this once, and nowhere kept' })
const one = { status: 200, description: 'The client.', schema: client } as const

export const operations = {
  list: operation({
    id: 'listClients',
    method: 'GET',
    path: '/api/admin/clients',
    group,
    permission: 'client:read',
    pageKey: 1,
    summary: 'Apps and services',
    description: 'The clients of the organisation, by client_id. `q` is looked for in names and ids.',
    query: listQuery({ q: search.optional(), disabled: flag.optional() }),
    answer: { status: 200, description: 'A page of clients.', schema: pageOf(client) },
  }),
  get: operation({
    id: 'getClient',
    method: 'GET',
    path: '/api/admin/clients/:clientId',
    group,
    permission: 'client:read',
    versioned: 1,
    summary: 'One client',
    description: 'Everything that is registered of it but its secret, which is nowhere kept.',
    params,
    answer: one,
  }),
  create: operation({
    id: 'createClient',
    method: 'POST',
    path: '/api/admin/clients',
    group,
    permission: 'client:create',
    versioned: 1,
    summary: 'Register a client',
    description:
      'Its client_id and, where its token_endpoint_auth_method uses one, its secret are made here. `introspection: organization` needs a step-up; `first_party` and `profile: oidc-certification` are the platform’s to give.',
    body: z.strictObject(clientMembers),
    answer: {
      status: 201,
      description: 'The client, with its secret.',
      schema: z.strictObject({ ...shape, client_secret: secret.nullable() }).meta({ id: 'RegisteredClient' }),
    },
    problems: ['not_possible', 'step_up_required', 'client_too_weak'],
  }),
  update: operation({
    id: 'updateClient',
    method: 'PATCH',
    path: '/api/admin/clients/:clientId',
    group,
    permission: 'client:update',
    versioned: 1,
    summary: 'Change a client',
    description:
      'Members that are not sent stay. Another name, redirect_uris, scope or first_party makes it another app to people: what they allowed it is gone, with its tokens, and its next authorization asks them again. Another token_endpoint_auth_method or jwks, and `introspection: organization`, need a step-up; of a client that skips the consent page, redirect_uris and scope are the platform’s to change.',
    params,
    body: patch,
    answer: one,
    problems: ['not_possible', 'step_up_required', 'client_too_weak'],
  }),
  setPermissions: operation({
    id: 'setClientPermissions',
    method: 'PUT',
    path: '/api/admin/clients/:clientId/permissions',
    group,
    permission: 'client:update',
    stepUp: true,
    versioned: 1,
    summary: 'What a service may do at this API',
    description:
      'Permissions of the organisation that the caller holds, for a client with the client_credentials grant and a scope admin:read or admin:write. They count from its next request.',
    params,
    body: z.strictObject({
      permissions: z
        .array(z.enum(organizationPermissions))
        .max(organizationPermissions.length)
        .refine((names) => new Set(names).size === names.length, 'must not hold one twice'),
    }),
    answer: one,
    problems: ['not_possible'],
  }),
  disable: operation({
    id: 'disableClient',
    method: 'POST',
    path: '/api/admin/clients/:clientId/disable',
    group,
    permission: 'client:disable',
    versioned: 1,
    summary: 'Switch a client off',
    description: 'From the next request on it is not known, and all of its tokens are over. Webhook: client.disabled.',
    params,
    answer: one,
  }),
  enable: operation({
    id: 'enableClient',
    method: 'POST',
    path: '/api/admin/clients/:clientId/enable',
    group,
    permission: 'client:disable',
    versioned: 1,
    summary: 'Switch a client on again',
    description: 'Nothing of before comes back: its people sign in to it anew. Webhook: client.enabled.',
    params,
    answer: one,
  }),
  replaceSecret: operation({
    id: 'replaceClientSecret',
    method: 'POST',
    path: '/api/admin/clients/:clientId/replace-secret',
    group,
    permission: 'client:update',
    stepUp: true,
    summary: 'A new secret for a client',
    description:
      'The old one is dead at once, or works beside the new one for `overlapSeconds`, at most a week. Tokens that were issued go on.',
    params,
    body: z.strictObject({
      overlapSeconds: z.number().int().min(0).max(maxOverlapSeconds).default(0),
      version: z
        .number()
        .int()
        .min(0)
        .max(maxVersion)
        .optional()
        .meta({ description: 'Of the client as it was read: a client that was changed since keeps its secret.' }),
    }),
    answer: {
      status: 200,
      description: 'The new secret.',
      schema: z.strictObject({ client_id: z.string(), client_secret: secret }).meta({ id: 'ClientSecret' }),
    },
    problems: ['not_possible', 'version_stale'],
  }),
  delete: operation({
    id: 'deleteClient',
    method: 'DELETE',
    path: '/api/admin/clients/:clientId',
    group,
    permission: 'client:disable',
    versioned: 1,
    summary: 'Delete a client',
    description: 'With its tokens and with what people allowed it. Its client_id is never given out again.',
    params,
    answer: { status: 204, description: 'It is gone.' },
  }),
} as const

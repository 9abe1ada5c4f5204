// Registration tokens: with one, an app registers itself (registration/) within what its template allows. An administrator
// gives it to a vendor; it is shown once.
import { randomBytes } from 'node:crypto'
import { z } from 'zod'
import { text } from '../api/contract.ts'
import { ApiProblem } from '../api/problems.ts'
import { appendAudit } from '../audit/audit.ts'
import { sha256 } from '../crypto/secrets.ts'
import { newRegistrationToken } from '../registration/registration.ts'
import {
  deleteRegistrationToken,
  insertRegistrationToken,
  listRegistrationTokens,
  maxRegistrationTokens,
  type StoredToken,
} from '../registration/store.ts'
import { templateSchema } from '../registration/template.ts'
import { NotHere } from './call.ts'
import type { Kernel } from './kernel.ts'
import { idParam, instant, listQuery, operation, pageOf } from './operation.ts'

const group = 'Clients'
const path = '/api/admin/registration-tokens'
export const maxUsesOfToken = 1_000
export const maxTokenSeconds = 2_592_000
const defaultTokenSeconds = 604_800
const maxNameLength = 100

const shape = {
  id: z.string(),
  name: z.string(),
  template: z
    .strictObject({
      grantTypes: z.array(z.string()),
      scopes: z.array(z.string()),
      redirectHosts: z.array(z.string()),
      tokenEndpointAuthMethods: z.array(z.string()),
      accessTokenFormats: z.array(z.string()),
      profile: z.string(),
    })
    .meta({ description: 'what an app may ask for; more is refused' }),
  maxUses: z.number().int(),
  uses: z.number().int().meta({ description: 'how many apps were registered with it' }),
  createdAt: instant,
  expiresAt: instant,
}
const tokenSchema = z.strictObject(shape).meta({ id: 'RegistrationToken' })

export const operations = {
  list: operation({
    id: 'listRegistrationTokens',
    method: 'GET',
    path,
    group,
    permission: 'client:create',
    pageKey: 1,
    summary: 'Tokens with which apps register themselves',
    description: 'Spent and expired ones too, until they are deleted or have been expired for a month.',
    query: listQuery({}),
    answer: { status: 200, description: 'A page of tokens.', schema: pageOf(tokenSchema) },
  }),
  create: operation({
    id: 'createRegistrationToken',
    method: 'POST',
    path,
    group,
    permission: 'client:create',
    summary: 'Let a vendor register an app',
    description: `An initial access token of RFC 7591 for apps of the organisation, within a template that never changes. An organisation has at most ${maxRegistrationTokens}.`,
    body: z.strictObject({
      name: text(maxNameLength).min(1).meta({ description: 'whom it is for' }),
      template: templateSchema,
      maxUses: z.number().int().min(1).max(maxUsesOfToken).default(1),
      expiresInSeconds: z.number().int().min(60).max(maxTokenSeconds).default(defaultTokenSeconds),
    }),
    answer: {
      status: 201,
      description: 'The token.',
      schema: z
        .strictObject({ ...shape, token: z.string().meta({ description: 'shown this once, and nowhere kept' }) })
        .meta({ id: 'NewRegistrationToken' }),
    },
    problems: ['not_possible'],
  }),
  delete: operation({
    id: 'deleteRegistrationToken',
    method: 'DELETE',
    path: `${path}/:tokenId`,
    group,
    permission: 'client:create',
    summary: 'Take a registration token back',
    description: 'Nothing is registered with it any more. What was registered stays.',
    params: z.strictObject({ tokenId: idParam }),
    answer: { status: 204, description: 'It is gone.' },
  }),
} as const

const newId = () => `registration_${randomBytes(16).toString('base64url')}`

export function addRegistrationTokens({ on }: Kernel): void {
  on(operations.list, async (tx, { organization, page }) => ({
    body: page.answer(await listRegistrationTokens(tx, organization.id, page), toAnswer, ({ id }) => [id]),
  }))

  on(operations.create, async (tx, { organization, body, about }) => {
    const [id, token] = [newId(), newRegistrationToken('iat')]
    const created = await insertRegistrationToken(tx, organization.id, { id, ...body, tokenHash: sha256(token) })
    const message = `an organisation has at most ${maxRegistrationTokens} registration tokens; delete one first`
    if (!created) throw new ApiProblem('not_possible', [{ path: '', message }])
    const details = { registrationTokenId: id, maxUses: body.maxUses, expiresInSeconds: body.expiresInSeconds }
    await appendAudit(tx, { ...about, name: 'registration_token.created', outcome: 'success', details })
    return { body: { ...toAnswer(created), token } }
  })

  on(operations.delete, async (tx, { organization, params, about }) => {
    const registrationTokenId = params.tokenId
    if (!(await deleteRegistrationToken(tx, organization.id, registrationTokenId)))
      throw new NotHere('registration_token', registrationTokenId)
    const details = { registrationTokenId }
    await appendAudit(tx, { ...about, name: 'registration_token.deleted', outcome: 'success', details })
    return {}
  })
}

function toAnswer({ createdAt, expiresAt, ...token }: StoredToken) {
  return { ...token, createdAt: createdAt.toISOString(), expiresAt: expiresAt.toISOString() }
}

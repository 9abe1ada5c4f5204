// People whom an organisation manages: the accounts at home here. What is done to their access is in user-access.ts.
import { z } from 'zod'
import { canonicalEmail, isEmailShaped, normalizeEmail } from '../accounts/accounts.ts'
import { email, metadata, name } from '../api/contract.ts'
import { ApiProblem } from '../api/problems.ts'
import { appendAudit } from '../audit/audit.ts'
import { randomId } from '../crypto/secrets.ts'
import type { Tx } from '../db/database.ts'
import { enqueueWebhooks } from '../deliveries/webhooks.ts'
import { Refusal } from '../errors.ts'
import type { Organizations } from '../organizations/organizations.ts'
import { type Call, NotHere } from './call.ts'
import { assertNotElsewhere } from './domains.ts'
import type { Kernel } from './kernel.ts'
import { flag, idParam, instant, listQuery, operation, pageOf, search } from './operation.ts'
import { assertMayActOn, assertMayGive, assertStillAdministered, maxRolesHeld } from './rules.ts'
import { mailWelcome, type UserMailing } from './user-mail.ts'
import { findUser, listUsers, setRoles, type User, updateUser } from './user-store.ts'
import { toEtag } from './versions.ts'

export const group = 'People'
const root = '/api/admin/users'

export const roleName = z.string().regex(/^[a-z][a-z0-9_]{0,62}$/, 'must be a-z 0-9 _, starting with a letter')
export const roleList = z
  .array(roleName)
  .max(maxRolesHeld)
  .refine((names) => new Set(names).size === names.length, 'must not name a role twice')
export const userParams = z.strictObject({ accountId: idParam })

export const userSchema = z
  .strictObject({
    id: z.string(),
    email: z.string(),
    emailVerified: z.boolean(),
    name: z.string(),
    metadata: z.record(z.string(), z.string()),
    roles: z.array(z.string()),
    disabledAt: instant.nullable(),
    hasPassword: z.boolean(),
    passwordMustChange: z.boolean(),
    secondFactors: z.number().int(),
    factorResetUntil: instant.nullable().meta({ description: 'until then a lost factor may be replaced' }),
    createdAt: instant,
    updatedAt: instant,
  })
  .meta({ id: 'User' })

const oneUser = { status: 200, description: 'The person.', schema: userSchema } as const

export const operations = {
  list: operation({
    id: 'listUsers',
    method: 'GET',
    path: root,
    group,
    permission: 'user:read',
    pageKey: 1,
    summary: 'People of the organisation',
    description: 'In the order of their addresses. q looks in addresses and names. Guests are listed on their own.',
    query: listQuery({ q: search.optional(), role: roleName.optional(), disabled: flag.optional() }),
    answer: { status: 200, description: 'A page of people.', schema: pageOf(userSchema) },
  }),
  get: operation({
    id: 'getUser',
    method: 'GET',
    path: `${root}/:accountId`,
    group,
    permission: 'user:read',
    versioned: 2,
    summary: 'One person',
    description: 'With their place here and how they sign in. No secret is ever shown.',
    params: userParams,
    answer: oneUser,
  }),
  create: operation({
    id: 'createUser',
    method: 'POST',
    path: root,
    group,
    permission: 'user:create',
    versioned: 2,
    summary: 'Create a person',
    description:
      'The account exists at once, without a password: its owner is mailed a link to choose one, which also proves the address; where the policy allows no passwords, a link to the page where they sign in by mail. Nobody else ever knows it. No account is made with an address of a domain that another organisation has verified. Roles that permit something need membership:write, a step-up, and that the caller holds it too.',
    body: z.strictObject({
      email,
      name,
      roles: roleList.default([]),
      metadata: metadata.default({}),
    }),
    answer: { status: 201, description: 'The person.', schema: userSchema },
    problems: ['already_exists', 'step_up_required', 'client_too_weak'],
  }),
  update: operation({
    id: 'updateUser',
    method: 'PATCH',
    path: `${root}/:accountId`,
    group,
    permission: 'user:update',
    versioned: 2,
    summary: 'Change a name or details',
    description:
      'What is left out stays. metadata is replaced as a whole. The address is its owner’s to change. Somebody else who holds more than the caller is not theirs to change.',
    params: userParams,
    body: z.strictObject({ name: name.optional(), metadata: metadata.optional() }),
    answer: oneUser,
  }),
  setRoles: operation({
    id: 'setUserRoles',
    method: 'PUT',
    path: `${root}/:accountId/roles`,
    group,
    permission: 'membership:write',
    stepUp: true,
    exclusive: true,
    versioned: 2,
    summary: 'Give and take roles',
    description:
      'The whole list. Nobody gives, or takes from somebody who holds, what they do not hold themselves, and the last administrator stays one.',
    params: userParams,
    body: z.strictObject({ roles: roleList }),
    answer: oneUser,
    problems: ['last_administrator'],
  }),
} as const

export interface UserParts extends UserMailing {
  readonly organizations: Organizations
  now(): Date
}

export function addUsers({ on, onPrepared }: Kernel, parts: UserParts): void {
  on(operations.list, async (tx, { organization, query, page }) => {
    const { q, role, disabled } = query
    const rows = await listUsers(tx, organization.id, { q, role, disabled }, page)
    return { body: page.answer(rows, toAnswer, (user) => [user.emailNormalized]) }
  })

  on(operations.get, async (tx, call) => answerOf(await requireUser(tx, call)))

  onPrepared(operations.create, async ({ organization: { id } }) => {
    // Outside the transaction: the embedded database has one connection, which the transaction holds.
    const organization = await parts.organizations.find(id)
    if (!organization) throw new Refusal('not_found')
    return async (tx, call) => {
      const { body, caller, about } = call
      const { roles } = body
      if (!isEmailShaped(normalizeEmail(body.email)))
        throw new ApiProblem('input_invalid', [{ path: 'email', message: 'must be a whole e-mail address' }])
      await assertMayGive(tx, id, caller, roles, parts.now())
      // Asked first: an address of theirs is answered alike, whether or not it has an account.
      await assertNotElsewhere(tx, id, body.email)
      const accountId = await insertUser(tx, id, body)
      if (accountId === undefined) throw new ApiProblem('already_exists')
      await appendAudit(
        tx,
        { ...about, accountId, name: 'account.created', outcome: 'success', details: { roles } },
        { ...about, accountId, name: 'membership.created', outcome: 'success', details: { roles } },
      )
      await enqueueWebhooks(tx, id, { type: 'membership.created', data: { accountId, roles } })
      const user = await requireUser(tx, call, accountId)
      await mailWelcome(tx, parts, user, { organization, about })
      return { ...answerOf(user), location: `${root}/${accountId}` }
    }
  })

  on(operations.update, async (tx, call) => {
    const { organization, params, body, expected, about } = call
    const user = await requireUser(tx, call)
    // Whoever may change names and details may change their own, whatever they hold elsewhere.
    if (call.caller.kind !== 'account' || call.caller.id !== user.id)
      await assertMayActOn(tx, organization.id, call.caller, user.id)
    const changed = Object.keys(body)
    if (changed.length === 0) {
      if (toEtag(user.version) !== toEtag(expected)) throw new ApiProblem('version_stale')
      return answerOf(user)
    }
    if (!(await updateUser(tx, organization.id, params.accountId, expected, body)))
      throw new ApiProblem('version_stale')
    const { accountId } = params
    await appendAudit(tx, { ...about, accountId, name: 'account.updated', outcome: 'success', details: { changed } })
    return answerOf(await requireUser(tx, call))
  })

  on(operations.setRoles, async (tx, call) => {
    const { organization, params, body, expected } = call
    const before = await requireUser(tx, call)
    await assertMayActOn(tx, organization.id, call.caller, params.accountId)
    await assertMayGive(tx, organization.id, call.caller, body.roles, parts.now())
    if (!(await setRoles(tx, organization.id, params.accountId, expected, body.roles)))
      throw new ApiProblem('version_stale')
    await recordRoles(tx, call, params.accountId, before.roles, body.roles)
    return answerOf(await requireUser(tx, call))
  })
}

/** What follows every change of somebody's roles: still an administrator left, audit, webhooks. */
export async function recordRoles(
  tx: Tx,
  { organization, about }: Pick<Call, 'organization' | 'about'>,
  accountId: string,
  rolesBefore: readonly string[],
  roles: readonly string[],
): Promise<void> {
  const lost = rolesBefore.filter((role) => !roles.includes(role))
  await assertStillAdministered(tx, organization.id, accountId, lost)
  const details = { roles: [...roles], rolesBefore: [...rolesBefore] }
  await appendAudit(tx, { ...about, accountId, name: 'membership.updated', outcome: 'success', details })
  await enqueueWebhooks(tx, organization.id, { type: 'membership.updated', data: { accountId, ...details } })
}

const ofAccount = z.object({ accountId: idParam })

/** The person of a call. @throws NotHere */
export async function requireUser(
  tx: Tx,
  { organization, params }: { readonly organization: Call['organization']; readonly params?: unknown },
  accountId = ofAccount.parse(params).accountId,
): Promise<User> {
  const user = await findUser(tx, organization.id, accountId)
  if (!user) throw new NotHere('account', accountId)
  return user
}

export const answerOf = (user: User) => ({ body: toAnswer(user), version: user.version })

export function toAnswer(user: User): z.input<typeof userSchema> {
  const { emailNormalized, version, disabledAt, factorResetUntil, createdAt, updatedAt, roles, metadata, ...plain } =
    user
  return {
    ...plain,
    metadata: { ...metadata },
    roles: [...roles],
    disabledAt: disabledAt?.toISOString() ?? null,
    factorResetUntil: factorResetUntil?.toISOString() ?? null,
    createdAt: createdAt.toISOString(),
    updatedAt: updatedAt.toISOString(),
  }
}

/** An account without a password, at home here. Undefined when the address has one already, wherever that is. */
async function insertUser(
  tx: Tx,
  organizationId: string,
  input: z.output<NonNullable<typeof operations.create.body>>,
): Promise<string | undefined> {
  const id = randomId('acc')
  const made = await tx
    .insertInto('accounts')
    .values({
      id,
      email: canonicalEmail(input.email),
      email_normalized: normalizeEmail(input.email),
      name: input.name.trim(),
      organization_id: organizationId,
      metadata: JSON.stringify(input.metadata),
    })
    .onConflict((conflict) => conflict.column('email_normalized').doNothing())
    .executeTakeFirst()
  if (made.numInsertedOrUpdatedRows !== 1n) return undefined
  await tx
    .insertInto('memberships')
    .values({ account_id: id, organization_id: organizationId, home: true, roles: [...input.roles] })
    .execute()
  return id
}

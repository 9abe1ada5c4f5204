// Invitations to a place here: for people who have no account yet, and for those of other organisations, who become guests.
// Which of the two somebody is, nobody is told before they accept; but for an address of a domain that another organisation
// has verified, with which nobody makes an account here.
import { z } from 'zod'
import { isEmailShaped, normalizeEmail } from '../accounts/accounts.ts'
import { email } from '../api/contract.ts'
import { ApiProblem } from '../api/problems.ts'
import { appendAudit } from '../audit/audit.ts'
import { type ListedLink, linkSeconds, type MailLinks } from '../credentials/mail-links.ts'
import type { Throttle } from '../credentials/throttle.ts'
import type { Database } from '../db/database.ts'
import { transactFor } from '../db/organization-transaction.ts'
import type { Invitations, InviteOutcome } from '../invitations/invitations.ts'
import { maxOpenInvitations } from '../invitations/open.ts'
import { NotHere } from './call.ts'
import { addressElsewhere } from './domains.ts'
import type { Kernel } from './kernel.ts'
import { idParam, instant, listQuery, operation, pageOf } from './operation.ts'
import { assertMayGive } from './rules.ts'
import { countMail } from './user-mail.ts'
import { roleList } from './users.ts'

const group = 'Invitations'
const root = '/api/admin/invitations'
const kind = 'invite'

const invitationSchema = z
  .strictObject({
    id: z.string(),
    email: z.string(),
    roles: z.array(z.string()),
    createdAt: instant,
    expiresAt: instant,
  })
  .meta({ id: 'Invitation' })

export const operations = {
  list: operation({
    id: 'listInvitations',
    method: 'GET',
    path: root,
    group,
    permission: 'user:read',
    pageKey: 1,
    summary: 'Invitations that are open',
    description: 'Neither accepted, withdrawn nor too old.',
    query: listQuery({}),
    answer: { status: 200, description: 'A page of invitations.', schema: pageOf(invitationSchema) },
  }),
  create: operation({
    id: 'createInvitation',
    method: 'POST',
    path: root,
    group,
    permission: 'user:create',
    summary: 'Invite somebody',
    description: `Mails a link that works for ${linkSeconds.invite / 3_600} hours. Who has an account in another organisation becomes a guest with it; anybody else makes one. Roles that permit something need membership:write, a step-up, and that the caller holds it too. It counts while the caller could still send it, and ends an older one to the same address. An organisation sends three invitations to an address in 15 minutes, and an organisation has at most ${maxOpenInvitations} open ones.`,
    body: z.strictObject({ email, roles: roleList.default([]) }),
    answer: { status: 201, description: 'The invitation.', schema: invitationSchema },
    problems: ['step_up_required', 'client_too_weak', 'not_possible', 'throttled'],
  }),
  withdraw: operation({
    id: 'withdrawInvitation',
    method: 'DELETE',
    path: `${root}/:invitationId`,
    group,
    permission: 'user:create',
    summary: 'Withdraw an invitation',
    description: 'Its link opens nothing afterwards.',
    params: z.strictObject({ invitationId: idParam }),
    answer: { status: 204, description: 'It is withdrawn.' },
  }),
} as const

export interface InvitationParts {
  readonly database: Database
  readonly invitations: Pick<Invitations, 'invite'>
  readonly throttle: Pick<Throttle, 'take'>
  readonly links: MailLinks
  now(): Date
}

export function addInvitations({ on, onPrepared }: Kernel, parts: InvitationParts): void {
  const { database, invitations, throttle, links, now } = parts
  on(operations.list, async (tx, { organization, page }) => {
    const rows = await links.list(tx, kind, organization.id, page.after?.[0], page.limit + 1)
    return { body: page.answer(rows, toAnswer, ({ idHash }) => [idHash]) }
  })

  onPrepared(operations.create, async (asked) => {
    const { email: address } = asked.body
    if (!isEmailShaped(normalizeEmail(address)))
      throw new ApiProblem('input_invalid', [{ path: 'email', message: 'must be a whole e-mail address' }])
    // Outside the transaction that invites, as in user-access.ts. On the budget of an address that the caller may invite, and
    // of this organisation: nobody keeps another from inviting somebody.
    const { id } = asked.organization
    await transactFor(database.kysely, id, (tx) => assertMayGive(tx, id, asked.caller, asked.body.roles, now()))
    await countMail(throttle, 'invite', { email: address, within: id })
    return async (tx, { organization, body, caller, about }) => {
      const { roles } = body
      await assertMayGive(tx, organization.id, caller, roles, now())
      const by = { type: caller.kind, id: caller.id, organizationId: caller.organization.id }
      const inviter = { by, name: caller.name, origin: about.origin }
      const id = idOf(await invitations.invite(tx, { email: body.email, organization, roles }, inviter))
      const createdAt = now()
      const expiresAt = new Date(createdAt.getTime() + linkSeconds.invite * 1_000)
      const payload = { email: body.email.trim(), roles }
      return { body: toAnswer({ idHash: id, payload, createdAt, expiresAt }), location: `${root}/${id}` }
    }
  })

  on(operations.withdraw, async (tx, { organization, params, about }) => {
    const { invitationId } = params
    if (!(await links.withdraw(tx, kind, organization.id, invitationId))) throw new NotHere('invitation', invitationId)
    await appendAudit(tx, { ...about, name: 'invitation.withdrawn', outcome: 'success', details: {} })
    return {}
  })
}

/** @throws ApiProblem that says why nobody was invited; what was ended for it is undone with the transaction */
function idOf(outcome: InviteOutcome): string {
  if (outcome.ok) return outcome.id
  if (outcome.reason === 'address_elsewhere') throw new ApiProblem('input_invalid', [addressElsewhere])
  const message = `an organisation has at most ${maxOpenInvitations} open invitations; withdraw some that nobody accepts`
  throw new ApiProblem('not_possible', [{ path: '', message }])
}

const payloadSchema = z.object({ email: z.string(), roles: z.array(z.string()) })

function toAnswer({ idHash, payload, createdAt, expiresAt }: ListedLink): z.input<typeof invitationSchema> {
  const { email: invited, roles } = payloadSchema.parse(payload)
  return {
    id: idHash,
    email: invited,
    roles,
    createdAt: createdAt.toISOString(),
    expiresAt: expiresAt.toISOString(),
  }
}

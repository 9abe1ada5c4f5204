// Invitations: somebody of an organisation offers a place in it, with roles that the invited cannot change. The link
// works once, for 72 hours, and proves the address it was sent to.
import { z } from 'zod'
import { canonicalEmail, normalizeEmail } from '../accounts/accounts.ts'
import { appendAudit } from '../audit/audit.ts'
import type { AuditEvent, Origin } from '../audit/events.ts'
import { linkSeconds, linkUrl, type MailLinks } from '../credentials/mail-links.ts'
import type { Passwords } from '../credentials/password.ts'
import { checkNewPassword, effectivePasswordRules, type PasswordProblem } from '../credentials/password-rules.ts'
import { randomId, sha256 } from '../crypto/secrets.ts'
import { type Database, runIn, type Tx } from '../db/database.ts'
import { beyond } from '../db/organization-transaction.ts'
import { transact } from '../db/transaction.ts'
import { enqueueWebhooks } from '../deliveries/webhooks.ts'
import { proveAddress } from '../login/address-proof.ts'
import type { Outbox } from '../mail/outbox.ts'
import { isAddressElsewhere } from '../organizations/domains.ts'
import type { Organization, Organizations } from '../organizations/organizations.ts'
import { type InvitedBy, inviterSchema, whyNotGiven } from './inviters.ts'
import { endOlder, maxOpenInvitations } from './open.ts'

export interface Invitation {
  readonly email: string
  readonly organization: Organization
  readonly roles: readonly string[]
  /** Whether the address has an account already, which then only joins. */
  readonly hasAccount: boolean
}

export type AcceptOutcome =
  | { readonly ok: true }
  | { readonly ok: false; readonly reason: 'link_dead' }
  | { readonly ok: false; readonly reason: 'password'; readonly problems: readonly PasswordProblem[] }

/** The id of an invitation opens nothing. */
export type InviteOutcome =
  | { readonly ok: true; readonly id: string }
  | { readonly ok: false; readonly reason: 'address_elsewhere' | 'too_many_open' }

export interface Invitations {
  /**
   * Mails an invitation, in the transaction of whoever checked that the inviter may give these roles, confined to the
   * organisation. When it is refused, the transaction has to be undone.
   */
  invite(tx: Tx, invited: Invited, inviter: Inviter): Promise<InviteOutcome>
  /** What a live link offers. Spends nothing. */
  look(token: string): Promise<Invitation | undefined>
  accept(
    token: string,
    input: { readonly name: string; readonly password: string },
    origin: Origin,
  ): Promise<AcceptOutcome>
}

export interface Invited {
  readonly email: string
  readonly organization: Pick<Organization, 'id' | 'name'>
  readonly roles: readonly string[]
}

export interface Inviter {
  readonly by: InvitedBy
  readonly name: string
  readonly origin: Origin
}

interface Parts {
  readonly database: Database
  readonly issuer: string
  readonly passwords: Passwords
  readonly links: MailLinks
  readonly outbox: Pick<Outbox, 'enqueue'>
  readonly organizations: Organizations
}

const kind = 'invite'
const payloadSchema = z.strictObject({ email: z.string(), roles: z.array(z.string()), by: inviterSchema })

/** Undoes an acceptance whose link was spent by somebody faster, or whose address got an account or lost it meanwhile. */
class Undone extends Error {}

// A place is for who may act, and an invitation of before a place was taken away does not give it back.
const mayJoin = `select a.id from mlpipes_auth.mail_links l
    join mlpipes_auth.accounts a on a.id = $2 and a.disabled_at is null
    join mlpipes_auth.organizations h on h.id = a.organization_id and h.closed_at is null
    where l.id_hash = $1 and not exists (select from mlpipes_auth.audit_events e
      where e.account_id = a.id and e.occurred_at >= l.created_at and e.organization_id = l.organization_id
        and e.name = 'access.ended' and e.details ->> 'cause' = 'membership_ended')`

export function createInvitations(parts: Parts): Invitations {
  const { database, issuer, passwords, links, outbox, organizations } = parts
  const db = database.kysely

  async function accountOf(email: string): Promise<Known | undefined> {
    const row = await db
      .selectFrom('accounts')
      .select(['id', 'email_verified_at', 'organization_id'])
      .where('email_normalized', '=', normalizeEmail(email))
      .executeTakeFirst()
    return (
      row && { id: row.id, emailVerified: row.email_verified_at !== null, organization: { id: row.organization_id } }
    )
  }

  async function look(token: string): Promise<Invitation | undefined> {
    const link = await links.look(kind, token)
    const payload = payloadSchema.safeParse(link?.payload)
    if (!payload.success || link?.organizationId === undefined) return undefined
    const organization = await organizations.find(link.organizationId)
    if (!organization) return undefined
    const { email, roles } = payload.data
    const known = await accountOf(email)
    if (known && (await database.run(mayJoin, [sha256(token), known.id])).length === 0) return undefined
    return { email, roles, organization, hasAccount: known !== undefined }
  }

  async function createAccount(tx: Tx, invitation: Invitation, name: string, hash?: string): Promise<string> {
    const id = randomId('acc')
    const made = await tx
      .insertInto('accounts')
      .values((eb) => ({
        id,
        email: invitation.email,
        email_normalized: normalizeEmail(invitation.email),
        name,
        organization_id: invitation.organization.id,
        metadata: '{}',
        email_verified_at: eb.fn<Date>('now'),
      }))
      .onConflict((conflict) => conflict.column('email_normalized').doNothing())
      .executeTakeFirst()
    if (made.numInsertedOrUpdatedRows !== 1n) throw new Undone()
    if (hash !== undefined) await tx.insertInto('password_credentials').values({ account_id: id, hash }).execute()
    return id
  }

  /**
   * Spends the link and gives the place, with its audit row.
   * @returns false, with an audit row that says why, when who invited may not give it any more: the link is spent all the same
   */
  async function join(tx: Tx, token: string, invitation: Invitation, person: Person, origin: Origin): Promise<boolean> {
    const spent = await links.spend(tx, kind, token)
    if (!spent) throw new Undone()
    const { organization, roles } = invitation
    const isNew = 'hash' in person
    const { by } = payloadSchema.parse(spent.payload)
    const reason =
      (await whyNotGiven(tx, by, { organizationId: organization.id, roles })) ??
      (isNew && (await isElsewhere(tx, by, invitation)) ? 'address_elsewhere' : undefined)
    if (reason !== undefined) {
      await appendAudit(tx, refusedEvent(reason, organization.id, isNew ? undefined : person.id, origin))
      return false
    }
    const accountId = isNew ? await createAccount(tx, invitation, person.name, person.hash) : person.id
    // The link was mailed to the address: what somebody else set on it before goes (F59).
    if (!isNew) await proveAddress(tx, person, origin)
    const given = await tx
      .insertInto('memberships')
      .values({ account_id: accountId, organization_id: organization.id, home: isNew, roles: [...roles] })
      // Who has a place already keeps it as it is: an old invitation takes nobody's roles away.
      .onConflict((conflict) => conflict.columns(['account_id', 'organization_id']).doNothing())
      .executeTakeFirst()
    const isGiven = given.numInsertedOrUpdatedRows === 1n
    // The insert waited for whoever was taking the place away; what they did is seen from here.
    if (!isNew && (await runIn(tx, mayJoin, [sha256(token), accountId])).length === 0) throw new Undone()
    await appendAudit(tx, {
      name: 'invitation.accepted',
      outcome: 'success',
      actor: { type: 'account', id: accountId },
      accountId,
      organizationId: organization.id,
      origin,
      details: { roles: isGiven ? [...roles] : [] },
    })
    if (isGiven)
      await enqueueWebhooks(tx, organization.id, {
        type: 'membership.created',
        data: { accountId, roles: [...roles] },
      })
    return true
  }

  return {
    async invite(tx, invited, inviter) {
      const { email, organization } = invited
      if (await beyond(tx, organization.id, () => wouldBeMadeElsewhere(tx, organization.id, email)))
        return { ok: false, reason: 'address_elsewhere' }
      const { id, others } = await mailInvitation(tx, { issuer, links, outbox }, invited, inviter)
      return others < maxOpenInvitations ? { ok: true, id } : { ok: false, reason: 'too_many_open' }
    },

    look,

    async accept(token, { name, password }, origin) {
      const invitation = await look(token)
      if (!invitation) return { ok: false, reason: 'link_dead' }
      const known = await accountOf(invitation.email)
      let person: Person
      if (known === undefined) {
        const problems = problemsOf(invitation, name, password)
        if (problems.length > 0) return { ok: false, reason: 'password', problems }
        person = { name, hash: takesPasswords(invitation) ? await passwords.hash(password) : undefined }
      } else {
        person = known
      }
      try {
        const joined = await transact(db, (tx) => join(tx, token, invitation, person, origin))
        return joined ? { ok: true } : { ok: false, reason: 'link_dead' }
      } catch (error) {
        if (error instanceof Undone) return { ok: false, reason: 'link_dead' }
        throw error
      }
    },
  }
}

/** Whether somebody new chooses a password: not where the organisation lets nobody sign in with one. */
export function takesPasswords({ organization }: Pick<Invitation, 'organization'>): boolean {
  return organization.policy.loginMethods.includes('password')
}

function problemsOf(invitation: Invitation, name: string, password: string): readonly PasswordProblem[] {
  if (!takesPasswords(invitation)) return []
  const { organization, email } = invitation
  const context = { email, name, organizationName: organization.name }
  const checked = checkNewPassword(password, effectivePasswordRules(organization.policy), context)
  return checked.ok ? [] : checked.problems
}

// Asked again when it is accepted: the domain may have been verified since. What the operator sends counts always.
async function isElsewhere(tx: Tx, by: InvitedBy, { organization, email }: Invitation): Promise<boolean> {
  return by.type !== 'operator' && isAddressElsewhere(tx, organization.id, email)
}

const isKnown = 'select id from mlpipes_auth.accounts where email_normalized = $1'

/** Whether accepting would make an account that another organisation alone may make. Who has an account becomes a guest. */
async function wouldBeMadeElsewhere(tx: Tx, organizationId: string, email: string): Promise<boolean> {
  if (!(await isAddressElsewhere(tx, organizationId, email))) return false
  return (await runIn(tx, isKnown, [normalizeEmail(email)])).length === 0
}

function refusedEvent(
  reason: string,
  organizationId: string,
  accountId: string | undefined,
  origin: Origin,
): AuditEvent<'link.refused'> {
  return {
    name: 'link.refused',
    outcome: 'failure',
    actor: accountId === undefined ? { type: 'anonymous' } : { type: 'account', id: accountId },
    accountId,
    organizationId,
    origin,
    details: { kind, reason, attempts: 1 },
  }
}

/** Who accepts: somebody new, or an account that is there. */
type Person = { readonly name: string; readonly hash: string | undefined } | Known

interface Known {
  readonly id: string
  readonly emailVerified: boolean
  readonly organization: { readonly id: string }
}

/**
 * Puts an invitation into the outbox, with its link and its audit row. An older one to the address ends with its own, so
 * that there is one link to accept or withdraw.
 * @returns its id, which opens nothing, and how many others are open
 */
export async function mailInvitation(
  tx: Tx,
  mailing: Pick<Parts, 'issuer' | 'links' | 'outbox'>,
  { email: given, organization, roles }: Invited,
  { by, name, origin }: Inviter,
): Promise<{ readonly id: string; readonly others: number }> {
  const email = canonicalEmail(given)
  const about = {
    outcome: 'success' as const,
    actor: by.type === 'operator' ? { type: by.type } : { type: by.type, id: by.id },
    organizationId: organization.id,
    origin,
  }
  const { ended, left } = await endOlder(tx, mailing.links, organization.id, email)
  for (let one = 0; one < ended; one += 1)
    await appendAudit(tx, { ...about, name: 'invitation.withdrawn', details: {} })
  const token = await mailing.links.issue(tx, {
    kind,
    organizationId: organization.id,
    payload: { email, roles: [...roles], by },
  })
  await mailing.outbox.enqueue(tx, {
    template: 'invitation',
    to: email,
    data: {
      link: linkUrl(mailing.issuer, '/invite', token),
      hours: linkSeconds[kind] / 3_600,
      organizationName: organization.name,
      inviterName: name,
    },
  })
  await appendAudit(tx, { ...about, name: 'invitation.sent', details: { roles: [...roles] } })
  return { id: sha256(token), others: left }
}

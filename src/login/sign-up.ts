// Signing up inside a sign-in. Nothing exists before the address is proven: what the person entered waits, sealed, in
// the link that is mailed to it. So nobody can prepare an account on somebody else's address (F59), and an address that
// is known already gets a mail that says so, while the page says the same to everybody (F31).

import { z } from 'zod'
import { type Accounts, canonicalEmail, isEmailShaped, normalizeEmail } from '../accounts/accounts.ts'
import { appendAudit } from '../audit/audit.ts'
import type { AuditEvent, Origin } from '../audit/events.ts'
import { type Link, linkSeconds, linkUrl, type MailLinks } from '../credentials/mail-links.ts'
import type { Passwords } from '../credentials/password.ts'
import { checkNewPassword, effectivePasswordRules, type PasswordProblem } from '../credentials/password-rules.ts'
import type { Throttle } from '../credentials/throttle.ts'
import { randomId, type Secrets, sha256 } from '../crypto/secrets.ts'
import type { Database, Tx } from '../db/database.ts'
import { transact } from '../db/transaction.ts'
import { enqueueWebhooks } from '../deliveries/webhooks.ts'
import type { Outbox } from '../mail/outbox.ts'
import { admitsAddress } from '../organizations/domains.ts'
import type { Organization, Policies } from '../organizations/organizations.ts'
import { noSoonerThan } from './even.ts'
import type { Login, LoginInteraction, Outcome, Visitor } from './login.ts'

export interface SignUpInput {
  readonly email: string
  readonly name: string
  readonly password: string
  readonly metadata: Readonly<Record<string, string>>
}

export type SignUpOutcome =
  | { readonly step: 'sent' }
  | { readonly step: 'closed' }
  | { readonly step: 'throttled'; readonly retryAfterSeconds: number }
  | { readonly step: 'refused'; readonly reason: 'address_unreadable' | 'address_foreign' }
  | { readonly step: 'refused'; readonly reason: 'password'; readonly problems: readonly PasswordProblem[] }

export interface SignUp {
  request(
    interaction: LoginInteraction,
    organization: Organization | undefined,
    input: SignUpInput,
    visitor: Visitor,
  ): Promise<SignUpOutcome>
  follow(interaction: LoginInteraction, token: string, visitor: Visitor): Promise<Outcome>
  typeCode(interaction: LoginInteraction, code: string, visitor: Visitor): Promise<Outcome>
}

interface Parts {
  readonly database: Database
  readonly issuer: string
  readonly accounts: Accounts
  readonly passwords: Passwords
  readonly throttle: Throttle
  readonly secrets: Secrets
  readonly links: MailLinks
  readonly outbox: Pick<Outbox, 'enqueue'>
  readonly login: Login
  readonly policies: Policies
  readonly evenAnswerMs: number
}

const kind = 'sign_up'
export const signUpRoles = ['member'] as const
const waiting = z.strictObject({
  email: z.string(),
  name: z.string(),
  passwordHash: z.string(),
  metadata: z.record(z.string(), z.string()),
  sentTo: z.string(),
})

export function createSignUp(parts: Parts): SignUp {
  const { database, issuer, accounts, passwords, throttle, secrets, links, outbox, login } = parts
  const db = database.kysely

  async function mail(
    tx: Tx,
    interaction: LoginInteraction,
    organization: Organization,
    input: Omit<z.output<typeof waiting>, 'sentTo'>,
  ) {
    const known = await tx
      .selectFrom('accounts')
      .select(['id', 'email'])
      .where('email_normalized', '=', normalizeEmail(input.email))
      .executeTakeFirst()
    const token = await links.issue(tx, {
      kind,
      organizationId: organization.id,
      interactionHash: sha256(interaction.uid),
      // For a known address the link is never sent, and would lead nowhere.
      payload: known ? { sentTo: input.email } : { ...input, sentTo: input.email },
    })
    const { clientName } = interaction
    if (known) return outbox.enqueue(tx, { template: 'sign-up-known', to: known.email, data: { clientName } }, known.id)
    await outbox.enqueue(tx, {
      template: 'sign-up-link',
      to: input.email,
      data: {
        link: linkUrl(issuer, `/interaction/${interaction.uid}/confirm`, token),
        minutes: linkSeconds[kind] / 60,
        name: input.name,
        clientName,
      },
    })
  }

  /** Asked again when the link is used: the policy may have been closed since it was mailed. */
  async function isOpen(tx: Tx, organizationId: string): Promise<boolean> {
    const row = await tx
      .selectFrom('organizations')
      .select('policy')
      .where('id', '=', organizationId)
      .where('closed_at', 'is', null)
      .executeTakeFirst()
    return row !== undefined && parts.policies(row.policy).signup === 'open'
  }

  /** Makes the account that waited in the link; undefined when the address was taken meanwhile. */
  async function create(
    tx: Tx,
    link: Link,
    interaction: LoginInteraction,
    origin: Origin,
  ): Promise<string | undefined> {
    const entered = waiting.safeParse(link.payload)
    if (!entered.success || link.organizationId === undefined) return undefined
    if (!(await isOpen(tx, link.organizationId))) return undefined
    const { email, name, passwordHash, metadata } = entered.data
    if (!(await admitsAddress(tx, link.organizationId, email))) return undefined
    const id = randomId('acc')
    const made = await tx
      .insertInto('accounts')
      .values((eb) => ({
        id,
        email,
        email_normalized: normalizeEmail(email),
        name,
        organization_id: link.organizationId ?? '',
        metadata: JSON.stringify(metadata),
        email_verified_at: eb.fn<Date>('now'),
      }))
      .onConflict((conflict) => conflict.column('email_normalized').doNothing())
      .executeTakeFirst()
    if (made.numInsertedOrUpdatedRows !== 1n) return undefined
    await tx
      .insertInto('memberships')
      .values({ account_id: id, organization_id: link.organizationId, home: true, roles: [...signUpRoles] })
      .execute()
    await tx.insertInto('password_credentials').values({ account_id: id, hash: passwordHash }).execute()
    await appendAudit(tx, signedUpEvent(id, link.organizationId, interaction, origin))
    const data = { accountId: id, roles: [...signUpRoles] }
    await enqueueWebhooks(tx, link.organizationId, { type: 'membership.created', data })
    return id
  }

  /** Spends the link, makes the account, and goes on signing in as it. */
  async function accept(
    interaction: LoginInteraction,
    visitor: Visitor,
    spend: (tx: Tx) => Promise<Link | undefined>,
  ): Promise<Outcome> {
    const id = await transact(db, async (tx) => {
      const link = await spend(tx)
      return link && create(tx, link, interaction, visitor.origin)
    })
    const account = id === undefined ? undefined : await accounts.findForSignInById(id, undefined, interaction.place)
    if (!account) return { step: 'refused', reason: 'link_dead' }
    // The password was chosen in this very sign-in, by whoever reads the mail: both are proven.
    const standing = await login.standing(interaction)
    const withLink = { ...standing, flow: { ...standing.flow, accountId: account.id, proved: ['link' as const] } }
    return login.prove(interaction, withLink, { account, factor: 'pwd', failuresBefore: 0 }, visitor)
  }

  async function ask(
    interaction: LoginInteraction,
    organization: Organization | undefined,
    input: SignUpInput,
    visitor: Visitor,
  ): Promise<SignUpOutcome> {
    if (organization?.policy.signup !== 'open') return { step: 'closed' }
    const email = normalizeEmail(input.email)
    if (!isEmailShaped(email)) return { step: 'refused', reason: 'address_unreadable' }
    if (!(await transact(db, (tx) => admitsAddress(tx, organization.id, email))))
      return { step: 'refused', reason: 'address_foreign' }
    const checked = checkNewPassword(input.password, effectivePasswordRules(organization.policy), {
      email,
      name: input.name,
      organizationName: organization.name,
    })
    if (!checked.ok) return { step: 'refused', reason: 'password', problems: checked.problems }
    const { origin } = visitor
    const taken = await throttle.take({ purpose: 'sign_up', identifier: email, ip: origin.ip, deviceHash: undefined })
    if (!taken.ok) return { step: 'throttled', retryAfterSeconds: taken.retryAfterSeconds }
    const passwordHash = await passwords.hash(input.password)
    const entered = {
      email: canonicalEmail(input.email),
      name: input.name,
      passwordHash,
      metadata: { ...input.metadata },
    }
    await transact(db, async (tx) => {
      await mail(tx, interaction, organization, entered)
      await appendAudit(tx, {
        name: 'link.sent',
        outcome: 'success',
        actor: { type: 'anonymous' },
        organizationId: organization.id,
        clientId: interaction.clientId,
        origin,
        details: { kind, identifierMac: secrets.mac('attempts', `identifier:${email}`) },
      })
    })
    return { step: 'sent' }
  }

  return {
    request: (interaction, organization, input, visitor) =>
      noSoonerThan(
        parts.evenAnswerMs,
        () => ask(interaction, organization, input, visitor),
        ({ step }) => step === 'sent',
      ),

    follow: (interaction, token, visitor) =>
      accept(interaction, visitor, (tx) => links.spend(tx, kind, token, sha256(interaction.uid))),

    typeCode: (interaction, code, visitor) =>
      accept(interaction, visitor, async (tx) => {
        const answer = await links.spendByCode(tx, kind, sha256(interaction.uid), code)
        if (answer.ok) return answer.link
        await appendAudit(tx, {
          name: 'link.refused',
          outcome: 'failure',
          actor: { type: 'anonymous' },
          organizationId: interaction.organizationId,
          clientId: interaction.clientId,
          origin: visitor.origin,
          details: { kind, reason: 'code_mismatch', attempts: answer.tries },
        })
        return undefined
      }),
  }
}

function signedUpEvent(id: string, organizationId: string, interaction: LoginInteraction, origin: Origin): AuditEvent {
  return {
    name: 'account.signed_up',
    outcome: 'success',
    actor: { type: 'account', id },
    accountId: id,
    organizationId,
    clientId: interaction.clientId,
    origin,
    details: { roles: [...signUpRoles] },
  }
}

// Signing in with a link in a mail. It proves that somebody reads the mailbox, and no more: it is bound to the sign-in
// that asked for it, works once for ten minutes, and on another device only shows a code to type in the first browser.
import { type Accounts, isEmailShaped, normalizeEmail, type SignInAccount } from '../../accounts/accounts.ts'
import { appendAudit } from '../../audit/audit.ts'
import type { AuditEvent, Origin } from '../../audit/events.ts'
import { type Link, type LinkKind, linkSeconds, linkUrl, type MailLinks } from '../../credentials/mail-links.ts'
import type { Throttle } from '../../credentials/throttle.ts'
import { type Secrets, sha256 } from '../../crypto/secrets.ts'
import type { Database, Tx } from '../../db/database.ts'
import { transact } from '../../db/transaction.ts'
import type { Outbox } from '../../mail/outbox.ts'
import { proveAddress } from '../address-proof.ts'
import { noSoonerThan } from '../even.ts'
import type { Login, LoginInteraction, Outcome, Visitor } from '../login.ts'

export type RequestOutcome =
  | { readonly step: 'sent' }
  | { readonly step: 'throttled'; readonly retryAfterSeconds: number }
  | { readonly step: 'refused'; readonly reason: 'address_unreadable' }

export interface LinkMethod {
  /** Mails a link to the address if an account may use one. The answer is the same for any address (F32). */
  request(interaction: LoginInteraction, email: string, visitor: Visitor): Promise<RequestOutcome>
  /** Spends the link itself, in the browser that asked for it. */
  follow(interaction: LoginInteraction, token: string, visitor: Visitor): Promise<Outcome>
  /** Spends the link by the code that it showed elsewhere. */
  typeCode(interaction: LoginInteraction, code: string, visitor: Visitor): Promise<Outcome>
}

interface Parts {
  readonly database: Database
  readonly issuer: string
  readonly accounts: Accounts
  readonly throttle: Throttle
  readonly secrets: Secrets
  readonly links: MailLinks
  readonly outbox: Pick<Outbox, 'enqueue'>
  readonly login: Login
  readonly evenAnswerMs: number
}

export function createLinkMethod(parts: Parts): LinkMethod {
  const { database, issuer, accounts, throttle, secrets, links, outbox, login } = parts
  const db = database.kysely
  const kind: LinkKind = 'sign_in'

  /** The same statements for an account that may use a link and for nobody; only the mail differs. */
  async function send(tx: Tx, interaction: LoginInteraction, sentTo: string, account: SignInAccount | undefined) {
    const token = await links.issue(tx, {
      kind,
      accountId: account?.id,
      organizationId: account?.organization.id,
      interactionHash: sha256(interaction.uid),
      payload: { sentTo },
    })
    if (!account) return outbox.enqueue(tx, { template: 'none' })
    await outbox.enqueue(
      tx,
      {
        template: 'sign-in-link',
        to: account.email,
        data: {
          link: linkUrl(issuer, `/interaction/${interaction.uid}/link`, token),
          minutes: linkSeconds[kind] / 60,
          clientName: interaction.clientName,
        },
      },
      account.id,
    )
  }

  /** Adds what a spent link proves to the sign-in. `spend` runs inside its transaction. */
  async function prove(
    interaction: LoginInteraction,
    visitor: Visitor,
    account: SignInAccount | undefined,
    spend: (tx: Tx) => Promise<Link | undefined>,
  ): Promise<Outcome> {
    if (!account || !mayUseLink(account)) return { step: 'refused', reason: 'link_dead' }
    let spent = false
    const standing = await login.standing(interaction)
    // A password that goes away with the first proof of the address proves nothing here either (F59).
    const flow = account.emailVerified ? standing.flow : { ...standing.flow, accountId: undefined }
    const outcome = await login.prove(
      interaction,
      { ...standing, flow },
      {
        account,
        factor: 'link',
        failuresBefore: 0,
        async within(tx) {
          const link = await spend(tx)
          if (link?.accountId !== account.id) return false
          spent = true
          await proveAddress(tx, account, visitor.origin, { interactionHash: sha256(interaction.uid) })
          return true
        },
      },
      visitor,
    )
    return spent ? outcome : { step: 'refused', reason: 'link_dead' }
  }

  async function ask(interaction: LoginInteraction, input: string, visitor: Visitor): Promise<RequestOutcome> {
    const email = normalizeEmail(input)
    if (!isEmailShaped(email)) return { step: 'refused', reason: 'address_unreadable' }
    const { origin, deviceHash } = visitor
    const found = await accounts.findForSignIn(email, interaction.place)
    const about = { identifier: email, ip: origin.ip, deviceHash, accountId: found?.id }
    const taken = await throttle.take({ purpose: 'link', ...about })
    if (!taken.ok) return { step: 'throttled', retryAfterSeconds: taken.retryAfterSeconds }
    const account = found && mayUseLink(found) ? found : undefined
    await transact(db, async (tx) => {
      await send(tx, interaction, input.trim(), account)
      await appendAudit(tx, {
        name: 'link.sent',
        outcome: account ? 'success' : 'failure',
        actor: { type: 'anonymous' },
        accountId: account?.id,
        organizationId: account?.organization.id ?? interaction.organizationId,
        clientId: interaction.clientId,
        origin,
        details: { kind, identifierMac: secrets.mac('attempts', `identifier:${email}`) },
      })
    })
    return { step: 'sent' }
  }

  return {
    request: (interaction, input, visitor) => noSoonerThan(parts.evenAnswerMs, () => ask(interaction, input, visitor)),

    async follow(interaction, token, visitor) {
      const link = await links.look(kind, token)
      const account =
        link?.accountId === undefined
          ? undefined
          : await accounts.findForSignInById(link.accountId, undefined, interaction.place)
      const interactionHash = sha256(interaction.uid)
      return prove(interaction, visitor, account, async (tx) => {
        const spent = await links.spend(tx, kind, token, interactionHash)
        if (spent) await appendAudit(tx, usedEvent(interaction, spent, 'link', visitor.origin))
        return spent
      })
    },

    async typeCode(interaction, code, visitor) {
      const { origin } = visitor
      const answer = await transact(db, async (tx) => {
        const tried = await links.spendByCode(tx, kind, sha256(interaction.uid), code)
        await appendAudit(
          tx,
          tried.ok
            ? usedEvent(interaction, tried.link, 'code', origin)
            : refusedEvent(interaction, tried.tries, origin),
        )
        return tried
      })
      if (!answer.ok) return { step: 'refused', reason: 'link_dead' }
      const { accountId } = answer.link
      const account =
        accountId === undefined ? undefined : await accounts.findForSignInById(accountId, undefined, interaction.place)
      return prove(interaction, visitor, account, async () => answer.link)
    },
  }
}

function mayUseLink(account: SignInAccount): boolean {
  return account.active && account.policy.loginMethods.includes('magic_link')
}

function usedEvent(interaction: LoginInteraction, link: Link, by: 'link' | 'code', origin: Origin): AuditEvent {
  const { accountId } = link
  return {
    name: 'link.used',
    outcome: 'success',
    actor: accountId === undefined ? { type: 'anonymous' } : { type: 'account', id: accountId },
    accountId,
    organizationId: link.organizationId,
    clientId: interaction.clientId,
    origin,
    details: { kind: 'sign_in', by },
  }
}

function refusedEvent(interaction: LoginInteraction, tries: number, origin: Origin): AuditEvent {
  return {
    name: 'link.refused',
    outcome: 'failure',
    actor: { type: 'anonymous' },
    organizationId: interaction.organizationId,
    clientId: interaction.clientId,
    origin,
    details: { kind: 'sign_in', reason: 'code_mismatch', attempts: tries },
  }
}

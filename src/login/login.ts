// The sign-in itself: where one stands, and how a proof moves it on. What proves something is in methods/; each of them
// hands its verdict to `prove`, and only flow.ts says what comes next. Pages are in routes.ts.
import type { Accounts, SignInAccount } from '../accounts/accounts.ts'
import type { Place } from '../accounts/place.ts'
import { appendAudit } from '../audit/audit.ts'
import type { AuditEvent, Origin } from '../audit/events.ts'
import { rememberDevice } from '../credentials/devices.ts'
import { factorResetState, forgetFactorReset } from '../credentials/factor-reset.ts'
import type { Notices } from '../credentials/notices.ts'
import { isPasswordExpired } from '../credentials/password-rules.ts'
import { startTotpSetup } from '../credentials/totp.ts'
import { type Secrets, sha256 } from '../crypto/secrets.ts'
import type { Database, Tx } from '../db/database.ts'
import { joinTransaction, transact } from '../db/transaction.ts'
import { isAddressAllowed } from '../organizations/network.ts'
import { type Acr, authenticationContext, type Factor, nextStep, type Requirements, type Step } from './flow.ts'
import { advanceFlow, findFlow, type StoredFlow } from './store.ts'

/** What the provider needs to hear when a sign-in is over. */
export interface LoginResult {
  readonly accountId: string
  /** The organisation that the sign-in is for. */
  readonly organizationId: string
  readonly amr: string[]
  readonly acr: string
  /** Epoch seconds of the sign-in. */
  readonly ts: number
}

/** The interaction that a sign-in belongs to, and how to finish it. */
export interface LoginInteraction {
  readonly uid: string
  readonly clientId: string
  readonly clientName: string
  readonly organizationId: string | undefined
  /** Where it leads: what the app asked for, its organisation and its policy, where the live session is. */
  readonly place: Place
  /** Where the browser is. */
  readonly ip: string | undefined
  /** What the app asked for. */
  readonly acr: Acr | undefined
  /** What a live session of this browser proved, if proving more is enough. */
  readonly before: { readonly accountId: string; readonly proved: readonly Factor[]; readonly ts: number } | undefined
  /** Stores the result where the provider resumes; runs inside the transaction of the sign-in. */
  finish(result: LoginResult): Promise<void>
}

/** Who is at the browser, as far as one can know before they prove it. */
export interface Visitor {
  readonly origin: Origin
  /** SHA-256 of the device cookie. */
  readonly deviceHash: string | undefined
}

export type Refused =
  | { readonly step: 'refused'; readonly reason: RefusalReason; readonly triesLeft?: number | undefined }
  | { readonly step: 'throttled'; readonly retryAfterSeconds: number }
export type RefusalReason = 'mismatch' | 'code_mismatch' | 'backup_mismatch' | 'link_dead' | 'disabled_factor' | 'stale'
/** Where a proof led: on to a step, or nowhere. */
export type Outcome = { readonly step: Step } | Refused

export interface Standing {
  readonly step: Step
  readonly flow: StoredFlow
  readonly account: SignInAccount | undefined
}

/** One thing proven about an account. */
export interface Proof {
  readonly account: SignInAccount
  readonly factor: Factor
  readonly failuresBefore: number
  /** More that belongs into the same transaction, such as spending what works once. False undoes everything. */
  within?(tx: Tx): Promise<boolean>
}

/** What else a step changes about the flow. */
interface FlowChange {
  readonly organizationId?: string
  readonly totpId?: string | undefined
  readonly codesPending?: boolean
}

export interface LoginParts {
  readonly database: Database
  readonly accounts: Accounts
  readonly secrets: Secrets
  readonly notices: Notices
  /** Whether second factors are offered on this platform. */
  readonly offersSecondFactor: boolean
  now(): Date
}

export interface Login {
  standing(interaction: LoginInteraction): Promise<Standing>
  /** Somebody of several organisations says which one this sign-in is for. */
  choose(interaction: LoginInteraction, organizationId: string, visitor: Visitor): Promise<Outcome>
  /** Adds a proof to the sign-in. When that completes it, finishes it in the same transaction. */
  prove(interaction: LoginInteraction, standing: Standing, proof: Proof, visitor: Visitor): Promise<Outcome>
  /** Moves the sign-in on after something else than a proof was done: codes kept, password changed, set-up begun. */
  move(
    interaction: LoginInteraction,
    standing: Standing,
    change: FlowChange,
    visitor: Visitor,
    within?: (tx: Tx) => Promise<boolean>,
  ): Promise<Outcome>
  /** Records a try that failed. `within` may count it where that belongs into the same transaction. */
  fail(
    interaction: LoginInteraction,
    failure: Failure,
    origin: Origin,
    within?: (tx: Tx) => Promise<void>,
  ): Promise<void>
}

export interface Failure {
  readonly reason: string
  readonly attempts: number
  readonly account?: SignInAccount | undefined
  readonly identifierMac?: string | undefined
}

/** Undoes a transaction whose flow was moved by somebody else, or whose single use was spent. */
class Undone extends Error {}

export function createLogin(parts: LoginParts): Login {
  const { database, accounts, secrets, notices, now } = parts
  const db = database.kysely

  const requirements = (interaction: LoginInteraction, account: SignInAccount): Requirements => {
    const maySetUp = parts.offersSecondFactor && account.policy.mfa !== 'off'
    return {
      organization: account.decision.kind,
      isNetworkAllowed: isAddressAllowed(account.policy, interaction.ip),
      loginMethods: account.policy.loginMethods,
      mfa: account.policy.mfa,
      acr: interaction.acr,
      hasPassword: account.passwordHash !== undefined,
      hasSecondFactor: account.totpIds.length > 0,
      maySetUp,
      passwordExpired: isPasswordExpired(account, now()),
      // Where none may be set up, none is due.
      factorReset: maySetUp ? factorResetState(account.factorResetUntil, now()) : 'none',
    }
  }

  /** The account as it stands in the organisation that was chosen, if one was. */
  const find = (interaction: LoginInteraction, flow: StoredFlow, accountId: string, tx?: Tx) =>
    accounts.findForSignInById(accountId, tx, placeOf(interaction, flow))

  async function settle(
    tx: Tx,
    interaction: LoginInteraction,
    account: SignInAccount,
    next: StoredFlow,
    visitor: Visitor,
    failuresBefore: number,
  ): Promise<Step> {
    const step = nextStep(next, requirements(interaction, account))
    const needsSetup = step === 'set_up_second_factor' && next.totpId === undefined
    const totpId = needsSetup ? await beginSetup(tx, account, visitor.origin) : next.totpId
    if (!(await advanceFlow(tx, sha256(interaction.uid), { ...next, totpId }))) throw new Undone()
    if (step === 'done') await complete(tx, interaction, account, next.proved, visitor, failuresBefore)
    return step
  }

  async function beginSetup(tx: Tx, account: SignInAccount, origin: Origin): Promise<string | undefined> {
    const setup = await startTotpSetup(tx, secrets, {
      accountId: account.id,
      email: account.email,
      organizationName: account.organization.name,
      name: 'Authenticator',
      actor: { type: 'account', id: account.id },
      organizationId: account.organization.id,
      origin,
    })
    return setup.ok ? setup.totpId : undefined
  }

  async function complete(
    tx: Tx,
    interaction: LoginInteraction,
    account: SignInAccount,
    proved: readonly Factor[],
    visitor: Visitor,
    failuresBefore: number,
  ): Promise<void> {
    const { amr, acr } = authenticationContext(proved)
    await appendAudit(tx, {
      name: 'login.succeeded',
      outcome: 'success',
      actor: { type: 'account', id: account.id },
      accountId: account.id,
      organizationId: account.organization.id,
      clientId: interaction.clientId,
      origin: visitor.origin,
      details: { amr, acr, failuresBefore },
    })
    if (account.factorResetUntil) await forgetFactorReset(tx, account.id)
    await noteDevice(tx, account, visitor)
    await joinTransaction(tx, () =>
      interaction.finish({
        accountId: account.id,
        organizationId: account.organization.id,
        amr,
        acr,
        ts: signedInAt(interaction, account),
      }),
    )
  }

  /** Who only proved more signed in when they began: neither `auth_time` nor the absolute limit starts again. */
  function signedInAt({ before }: LoginInteraction, account: SignInAccount): number {
    return before?.accountId === account.id ? before.ts : Math.floor(now().getTime() / 1000)
  }

  async function noteDevice(tx: Tx, account: SignInAccount, { deviceHash, origin }: Visitor): Promise<void> {
    if (deviceHash === undefined) return
    const { isNew, isFirst } = await rememberDevice(tx, account.id, deviceHash, origin.userAgent)
    // The first device is the person's own, at their first sign-in; there is nothing to compare it with.
    if (!isNew || isFirst) return
    const event: AuditEvent = {
      name: 'device.added',
      outcome: 'success',
      actor: { type: 'account', id: account.id },
      accountId: account.id,
      organizationId: account.organization.id,
      origin,
      details: {},
    }
    await appendAudit(tx, event)
    await notices.send(tx, account, 'new_device', origin)
  }

  /** Runs `work` in a transaction of its own that another request's move undoes. */
  async function attempt(work: (tx: Tx) => Promise<Step>): Promise<Outcome> {
    try {
      return { step: await transact(db, work) }
    } catch (error) {
      if (error instanceof Undone) return { step: 'refused', reason: 'stale' }
      throw error
    }
  }

  const login: Login = {
    async standing(interaction) {
      const stored = await findFlow(db, sha256(interaction.uid))
      const flow = stored ?? firstFlow(interaction)
      const account = flow.accountId === undefined ? undefined : await find(interaction, flow, flow.accountId)
      if (!account?.active)
        return { step: 'identify', flow: { ...emptyFlow, version: flow.version }, account: undefined }
      const step = nextStep(flow, requirements(interaction, account))
      // A session alone binds nothing new to the account: whoever stole it would keep the account by that (F63).
      if (!stored && step === 'set_up_second_factor') return { step: 'identify', flow: emptyFlow, account: undefined }
      return { step, flow, account }
    },

    prove: (interaction, { flow }, proof, visitor) =>
      attempt(async (tx) => {
        const { factor } = proof
        // What is asked of somebody depends on the organisation that they chose before.
        const isChosen = flow.organizationId !== undefined && flow.accountId === proof.account.id
        const account = (isChosen ? await find(interaction, flow, proof.account.id, tx) : undefined) ?? proof.account
        if (proof.within && !(await proof.within(tx))) throw new Undone()
        // Another person than the one so far: nothing of what was proven is theirs.
        const base = flow.accountId === account.id ? flow : { ...emptyFlow, version: flow.version }
        const next = { ...base, accountId: account.id, proved: [...base.proved, factor] }
        const step = await settle(tx, interaction, account, next, visitor, proof.failuresBefore)
        if (step !== 'done') await appendAudit(tx, factorEvent(interaction, account, factor, visitor.origin))
        return step
      }),

    async choose(interaction, organizationId, visitor) {
      const standing = await login.standing(interaction)
      const { account } = standing
      const isOffered =
        account?.decision.kind === 'choose' &&
        account.decision.among.some(({ organization }) => organization.id === organizationId)
      if (!isOffered) return { step: 'refused', reason: 'stale' }
      return login.move(interaction, standing, { organizationId }, visitor)
    },

    move: (interaction, { flow, account }, change, visitor, within) =>
      attempt(async (tx) => {
        if (!account || (within && !(await within(tx)))) throw new Undone()
        // What was just done may have changed what the account has.
        const next = { ...flow, ...change }
        const current = (await find(interaction, next, account.id, tx)) ?? account
        return settle(tx, interaction, current, next, visitor, 0)
      }),

    async fail(interaction, { reason, attempts, account, identifierMac }, origin, within) {
      await transact(db, async (tx) => {
        await appendAudit(tx, {
          name: 'login.failed',
          outcome: 'failure',
          actor: { type: 'anonymous' },
          accountId: account?.id,
          organizationId: account?.organization.id,
          clientId: interaction.clientId,
          origin,
          details: { reason, attempts, ...(identifierMac === undefined ? {} : { identifierMac }) },
        })
        await within?.(tx)
      })
    },
  }
  return login
}

const emptyFlow: StoredFlow = {
  version: 0,
  accountId: undefined,
  proved: [],
  codesPending: false,
  totpId: undefined,
  organizationId: undefined,
}

function placeOf({ place }: LoginInteraction, { organizationId }: StoredFlow): Place {
  return { ...place, chosenId: organizationId ?? place.chosenId }
}

/** Somebody with a live session who only has to prove more begins with what they proved for it. */
function firstFlow({ before }: LoginInteraction): StoredFlow {
  return before ? { ...emptyFlow, accountId: before.accountId, proved: before.proved } : emptyFlow
}

const methodNames: Readonly<Record<Factor, string>> = {
  pwd: 'password',
  link: 'magic_link',
  otp: 'totp',
  backup: 'backup_code',
}

function factorEvent(
  interaction: LoginInteraction,
  account: SignInAccount,
  factor: Factor,
  origin: Origin,
): AuditEvent {
  return {
    name: 'login.factor_succeeded',
    outcome: 'success',
    actor: { type: 'account', id: account.id },
    accountId: account.id,
    organizationId: account.organization.id,
    clientId: interaction.clientId,
    origin,
    details: { method: methodNames[factor] },
  }
}

// The session of whoever calls: who it is, what it has left, keeping it and ending it.
import type { Accounts, SignInAccount } from '../accounts/accounts.ts'
import { appendAudit } from '../audit/audit.ts'
import type { Origin } from '../audit/events.ts'
import type { Database } from '../db/database.ts'
import { transact } from '../db/transaction.ts'
import { satisfies } from '../oidc/acr.ts'
import type { BrowserSession, BrowserSessions, Cookies } from '../oidc/browser-session.ts'
import { freshSeconds } from '../self-service/door.ts'
import { extendIdleLimit, readSecondsLeft, type SecondsLeft } from '../sessions/activity.ts'
import { endSession } from '../sessions/ending.ts'
import { sessionLimits } from '../sessions/policy.ts'
import type { SessionAnswer } from './contract.ts'

/** The browser that calls. */
export interface CallingBrowser {
  readonly cookies: Cookies
  readonly ip: string | undefined
}
const strongest = 'urn:mlpipes:acr:mfa'

export interface CurrentSession {
  /** What an app is told; undefined when nobody is signed in. Reading it is no activity. */
  describe(browser: CallingBrowser): Promise<SessionAnswer | undefined>
  /** Counts as activity, if the policy lets that extend a session. Undefined when nobody is signed in. */
  extend(browser: CallingBrowser): Promise<{ readonly extended: boolean; readonly session: SessionAnswer } | undefined>
  /** For a change that wants a sign-in of the last minutes, with the second factor that the account has. */
  forSensitiveChange(
    browser: CallingBrowser,
  ): Promise<{ readonly uid: string; readonly account: SignInAccount; readonly isFresh: boolean } | undefined>
  /** Ends it with everything that was issued in it. */
  end(cookies: Cookies, origin: Origin, clientId: string): Promise<void>
}

export function createCurrentSession(parts: {
  readonly database: Database
  readonly accounts: Accounts
  readonly browserSessions: BrowserSessions
  now(): Date
}): CurrentSession {
  const { database, accounts, browserSessions, now } = parts
  const db = database.kysely
  return {
    async describe({ cookies, ip }) {
      const session = await browserSessions.read(cookies, ip)
      const left = session && (await readSecondsLeft(database, session.uid))
      return session && left && toAnswer(session, left)
    },

    async extend({ cookies, ip }) {
      const session = await browserSessions.read(cookies, ip)
      if (!session) return undefined
      const { policy } = session.account
      const extended = policy.session.extendOnActivity
        ? await transact(db, (tx) => extendIdleLimit(tx, session.uid, sessionLimits(policy).idleSeconds))
        : undefined
      const left = extended ?? (await readSecondsLeft(database, session.uid))
      return left && { extended: extended !== undefined, session: toAnswer(session, left) }
    },

    async forSensitiveChange({ cookies, ip }) {
      const session = await browserSessions.read(cookies, ip)
      const account = session && (await accounts.findForSignInById(session.account.id))
      if (!session || !account?.active) return undefined
      const ageSeconds = Math.floor((now().getTime() - session.signedInAt.getTime()) / 1_000)
      const isStrong = account.totpIds.length === 0 || satisfies(session.acr, strongest)
      return { uid: session.uid, account, isFresh: ageSeconds <= freshSeconds && isStrong }
    },

    async end(cookies, origin, clientId) {
      const session = await browserSessions.find(cookies)
      if (!session) return
      const { uid, account } = session
      const about = {
        accountId: account.id,
        organizationId: account.organization.id,
        actor: { type: 'account' as const, id: account.id },
        origin,
      }
      await transact(db, async (tx) => {
        if (!(await endSession(tx, { ...about, uid, cause: 'sign_out' }))) return
        await appendAudit(tx, {
          ...about,
          name: 'logout.succeeded',
          outcome: 'success',
          sessionUid: uid,
          clientId,
          details: { reason: 'sign_out' },
        })
      })
    },
  }
}

function toAnswer({ account, acr, amr, signedInAt }: BrowserSession, left: SecondsLeft): SessionAnswer {
  const { id, email, name, organization, roles } = account
  return {
    account: { id, email, name, organization: { ...organization }, roles: [...roles] },
    acr: acr ?? '',
    amr: [...amr],
    signedInAt: signedInAt.toISOString(),
    idleSecondsLeft: Math.max(0, left.idle),
    absoluteSecondsLeft: Math.max(0, left.absolute),
  }
}

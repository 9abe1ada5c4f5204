// The session of a browser, read from the cookie that the provider set, for pages and APIs of our own. The cookie's
// value has 256 random bits and is looked up by its hash, so its signature would prove nothing more.
import type { Account, Accounts } from '../accounts/accounts.ts'
import { sha256 } from '../crypto/secrets.ts'
import { isAddressAllowed } from '../organizations/network.ts'
import { breachOf } from '../sessions/policy.ts'
import type { Sessions } from '../sessions/sessions.ts'

export interface BrowserSession {
  readonly uid: string
  readonly account: Account
  readonly acr: string | undefined
  readonly amr: readonly string[]
  readonly signedInAt: Date
  readonly idleExpiresAt: Date
  readonly absoluteExpiresAt: Date
  /** Where the browser was last seen. */
  readonly ip: string | undefined
}

export interface BrowserSessions {
  /** The live session of an account that may act now. Reading it is no activity. */
  find(cookies: Cookies): Promise<BrowserSession | undefined>
  /**
   * The same, if what was proven for it does under the policy of now. Otherwise the browser is to be sent to the
   * authorization endpoint, where its person steps up.
   * @param ip where the browser is; where it was last seen when undefined
   */
  read(cookies: Cookies, ip?: string): Promise<BrowserSession | undefined>
}

export type Cookies = Readonly<Record<string, string | undefined>>

const idPattern = /^[A-Za-z0-9_-]{20,128}$/

export function sessionCookieName(issuer: string): string {
  return issuer.startsWith('https://') ? '__Host-mlpipes_session' : 'mlpipes_session'
}

export function createBrowserSessions(parts: {
  readonly issuer: string
  readonly sessions: Sessions
  readonly accounts: Accounts
}): BrowserSessions {
  const name = sessionCookieName(parts.issuer)
  const browserSessions: BrowserSessions = {
    async find(cookies) {
      const id = cookies[name]
      if (id === undefined || !idPattern.test(id)) return undefined
      const stored = await parts.sessions.findById(sha256(id))
      const { accountId, organizationId } = stored ?? {}
      // Who lost the place that the session is in goes on in their home organisation.
      const account =
        accountId === undefined
          ? undefined
          : ((await parts.accounts.findActive(accountId, organizationId)) ??
            (await parts.accounts.findActive(accountId)))
      if (!stored || !account) return undefined
      const { acr, amr, loginTs } = stored.payload
      return {
        uid: stored.uid,
        account,
        acr: typeof acr === 'string' ? acr : undefined,
        amr: Array.isArray(amr) ? amr.filter((entry) => typeof entry === 'string') : [],
        signedInAt: new Date(Number(loginTs ?? 0) * 1000),
        idleExpiresAt: stored.idleExpiresAt,
        absoluteExpiresAt: stored.absoluteExpiresAt,
        ip: stored.ip,
      }
    },
    async read(cookies, ip) {
      const session = await browserSessions.find(cookies)
      if (!session) return undefined
      const { amr, account } = session
      const isPlaceAllowed = isAddressAllowed(account.policy, ip ?? session.ip)
      return breachOf({ amr, isPlaceAllowed }, account.policy) ? undefined : session
    },
  }
  return browserSessions
}

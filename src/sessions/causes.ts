// What each cause of an ending ends, and what it spares: the one table that every ending goes by. Pure.

export interface EndingRule {
  /** Which sessions of whom: the one that is named, those of an account, of an organisation, either of the first two. */
  readonly sessions: 'one' | 'account' | 'either' | 'organization' | 'none'
  /** Codes, access and refresh tokens that were issued in these sessions, without `offline_access`. */
  readonly boundTokens: boolean
  /** Tokens that the person allowed to outlive the session; where they are spared, only the policy's cap ends them. */
  readonly offlineTokens: boolean
  /** The provider's grants, where no session of the account goes on with them. */
  readonly grants: boolean
  /** What the person allowed the app, so that it has to ask again. */
  readonly consents: boolean
  /** Sign-ins that somebody has begun. */
  readonly signIns: boolean
  /** Links by mail that open a sign-in. */
  readonly links: boolean
}

const everything = {
  sessions: 'account',
  boundTokens: true,
  offlineTokens: true,
  grants: true,
  consents: false,
  signIns: true,
  links: true,
} as const
const quietly = {
  sessions: 'one',
  boundTokens: true,
  offlineTokens: false,
  grants: false,
  consents: false,
  signIns: false,
  links: false,
} as const

export const endings = {
  /** The person signed out. */
  sign_out: quietly,
  /** The same browser signed in anew. */
  signed_in_anew: quietly,
  /** Nobody did anything in it for as long as the policy allows, or it lasted as long as it may. */
  idle: quietly,
  absolute: quietly,
  /** More sessions at once than the policy allows: the oldest made room. */
  max_concurrent: quietly,
  /** The policy no longer lets anybody act from where it is used. */
  network: quietly,
  /** Somebody looked at a list and found one, or all, that should not be there: what it left behind goes too. */
  ended_by_owner: { ...everything, sessions: 'either' },
  ended_by_administrator: { ...everything, sessions: 'either' },
  password_reset: everything,
  password_changed: everything,
  factor_changed: everything,
  disowned: everything,
  address_proven: everything,
  disabled: everything,
  organization_closed: { ...everything, sessions: 'organization' },
  membership_ended: { ...everything, sessions: 'organization', links: false },
  client_disabled: { ...everything, sessions: 'none', signIns: false, links: false },
  consent_withdrawn: {
    ...everything,
    sessions: 'none',
    consents: true,
    signIns: false,
    links: false,
  },
} as const satisfies Readonly<Record<string, EndingRule>>

export type EndingCause = keyof typeof endings

/** Every cause, in the order of the table. */
export const endingCauses = Object.keys(endings) as [EndingCause, ...EndingCause[]]

export function endingRule(cause: EndingCause): EndingRule {
  return endings[cause]
}

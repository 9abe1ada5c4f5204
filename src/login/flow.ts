// What comes next in a sign-in: one pure function of what is proven and what is asked for. A method proves one thing;
// nothing but this decides that a sign-in is over.
import type { Policy } from '../organizations/policy.ts'

/** What a person can prove: a password, a link in their mail, a code of their authenticator, a backup code. */
export type Factor = 'pwd' | 'link' | 'otp' | 'backup'
export const factors: readonly Factor[] = ['pwd', 'link', 'otp', 'backup']

export type Step =
  | 'identify'
  | 'choose_organization'
  | 'wrong_organization'
  | 'wrong_network'
  | 'wrong_method'
  | 'password'
  | 'second_factor'
  | 'set_up_second_factor'
  | 'save_backup_codes'
  | 'change_password'
  | 'impossible'
  | 'done'

export type Acr = 'link' | 'password' | 'mfa'

export interface Flow {
  readonly accountId: string | undefined
  readonly proved: readonly Factor[]
  /** Backup codes were shown in this sign-in and not confirmed as kept yet. */
  readonly codesPending: boolean
}

export interface Requirements {
  /** Which organisation the sign-in is for: known, to be chosen, or one that the person does not belong to. */
  readonly organization: 'in' | 'choose' | 'foreign'
  readonly isNetworkAllowed: boolean
  readonly loginMethods: Policy['loginMethods']
  readonly mfa: Policy['mfa']
  /** What the app asked for (OpenID Connect Core §3.1.2.1, §5.5.1.1). */
  readonly acr: Acr | undefined
  readonly hasPassword: boolean
  /** Whether the account has a confirmed second factor. */
  readonly hasSecondFactor: boolean
  /** Whether a second factor may be set up here at all. */
  readonly maySetUp: boolean
  readonly passwordExpired: boolean
  /** An administrator took a lost factor away: a new one is due within the window, and nothing is possible after it. */
  readonly factorReset: 'none' | 'open' | 'lapsed'
}

export function nextStep(flow: Flow, requirements: Requirements): Step {
  const { proved } = flow
  const hasSecond = proved.includes('otp') || proved.includes('backup')
  if (flow.accountId === undefined || !(proved.includes('pwd') || proved.includes('link'))) return 'identify'
  // Whoever proved who they are is told what stands against them; nobody else learns where they belong.
  if (requirements.organization !== 'in')
    return requirements.organization === 'choose' ? 'choose_organization' : 'wrong_organization'
  if (!requirements.isNetworkAllowed) return 'wrong_network'
  if (!hasAllowedMethod(proved, requirements))
    return requirements.hasPassword && requirements.loginMethods.includes('password') ? 'password' : 'wrong_method'
  // A factor that somebody turned on is asked for whatever the way in and the policy: MFA stands on the account.
  if (!hasSecond && requirements.hasSecondFactor) return 'second_factor'
  if (!proved.includes('pwd') && needsPassword(requirements, hasSecond))
    return requirements.hasPassword ? 'password' : 'impossible'
  if (!hasSecond && needsSecondFactor(requirements))
    return requirements.maySetUp && requirements.factorReset !== 'lapsed' ? 'set_up_second_factor' : 'impossible'
  if (flow.codesPending) return 'save_backup_codes'
  if (proved.includes('pwd') && requirements.passwordExpired) return 'change_password'
  return 'done'
}

/** Whether one of the things proven first is a way in that the organisation takes. */
function hasAllowedMethod(proved: readonly Factor[], { loginMethods }: Requirements): boolean {
  return (
    (proved.includes('pwd') && loginMethods.includes('password')) ||
    (proved.includes('link') && loginMethods.includes('magic_link'))
  )
}

function needsSecondFactor({ mfa, acr, factorReset }: Requirements): boolean {
  return mfa === 'required' || acr === 'mfa' || factorReset !== 'none'
}

/**
 * A link is worth less than a password (SP 800-63B-4 §3.1.3.1). It does not reach an acr that asks for one, and it does
 * not bind a new authenticator to an account that has a password.
 */
function needsPassword(requirements: Requirements, hasSecond: boolean): boolean {
  if (requirements.acr === 'password' || requirements.acr === 'mfa') return true
  return requirements.hasPassword && !hasSecond && needsSecondFactor(requirements)
}

const acrNames: Readonly<Record<Acr, string>> = {
  link: 'urn:mlpipes:acr:link',
  password: 'urn:mlpipes:acr:password',
  mfa: 'urn:mlpipes:acr:mfa',
}
const amrNames: Readonly<Record<Factor, string>> = { pwd: 'pwd', link: 'magic_link', otp: 'otp', backup: 'backup_code' }

/** `amr` (RFC 8176, and ours) and `acr` of what was proven. A link never makes a sign-in multi-factor. */
export function authenticationContext(proved: readonly Factor[]): { amr: string[]; acr: string } {
  const isMfa = proved.includes('pwd') && (proved.includes('otp') || proved.includes('backup'))
  const acr: Acr = isMfa ? 'mfa' : proved.includes('pwd') ? 'password' : 'link'
  return { amr: [...proved.map((factor) => amrNames[factor]), ...(isMfa ? ['mfa'] : [])], acr: acrNames[acr] }
}

/** The factors behind the `amr` of a session, for somebody who only has to prove more. */
export function provedBefore(amr: readonly string[]): Factor[] {
  return factors.filter((factor) => amr.includes(amrNames[factor]))
}

/** Our short name of an `acr`; undefined for one that is not ours. */
export function acrOf(name: string | undefined): Acr | undefined {
  return (['link', 'password', 'mfa'] as const).find((acr) => acrNames[acr] === name)
}

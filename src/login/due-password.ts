// A new password that is due before a sign-in may end: too old, or known to others.
import { effectivePasswordRules, type PasswordProblem } from '../credentials/password-rules.ts'
import type { PasswordChange } from '../credentials/password-store.ts'
import { sha256 } from '../crypto/secrets.ts'
import { endAccess } from '../sessions/ending.ts'
import type { Login, LoginInteraction, Outcome, Visitor } from './login.ts'

export type DuePasswordOutcome =
  | Outcome
  | { readonly step: 'unacceptable'; readonly problems: readonly PasswordProblem[] }

/** Replaces the password of a sign-in that stands at that step, ends what was signed in with the old one, and goes on. */
export async function replaceDuePassword(
  parts: { readonly login: Login; readonly passwordChange: PasswordChange },
  interaction: LoginInteraction,
  newPassword: string,
  visitor: Visitor,
): Promise<DuePasswordOutcome> {
  const standing = await parts.login.standing(interaction)
  const { account } = standing
  if (standing.step !== 'change_password' || !account) return { step: 'refused', reason: 'stale' }
  const about = {
    accountId: account.id,
    organizationId: account.organization.id,
    actor: { type: 'account' as const, id: account.id },
    origin: visitor.origin,
  }
  const changed = await parts.passwordChange.change({
    ...about,
    newPassword,
    rules: effectivePasswordRules(account.policy),
    context: { email: account.email, name: account.name, organizationName: account.organization.name },
    // What was proven in this sign-in must still be the password: whoever changed it meanwhile had a reason.
    provedHash: account.passwordHash,
    by: 'self',
    inTransaction: async (tx) =>
      void (await endAccess(tx, {
        ...about,
        cause: 'password_changed',
        exceptInteractionHash: sha256(interaction.uid),
      })),
  })
  if (!changed.ok) return { step: 'unacceptable', problems: changed.problems }
  return parts.login.move(interaction, standing, {}, visitor)
}

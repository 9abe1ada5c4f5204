// TOTP (RFC 6238): SHA-1, 6 digits, 30 s, one step either way. Spending a step is one conditional update.
import { verify } from 'otplib'
import type { Secrets } from '../crypto/secrets.ts'
import type { Tx } from '../db/database.ts'

const periodSeconds = 30

/** The step that a code belongs to, or undefined when it fits none around `now`. */
export async function matchTotpStep(secretBase32: string, code: string, now: Date): Promise<number | undefined> {
  if (!/^\d{6}$/.test(code)) return undefined
  const result = await verify({
    secret: secretBase32,
    token: code,
    epoch: Math.floor(now.getTime() / 1000),
    epochTolerance: periodSeconds,
  })
  return result.valid && 'timeStep' in result ? result.timeStep : undefined
}

/** Context that a TOTP secret is sealed with. */
export function totpSealContext(id: string): string {
  return `totp:${id}`
}

/**
 * Finds the authenticator that a code belongs to.
 * @returns its id and the step, to be spent with `spendTotpStep`
 */
export async function findTotpMatch(tx: Tx, secrets: Secrets, accountId: string, code: string, now: Date) {
  const rows = await tx
    .selectFrom('totp_credentials')
    .select(['id', 'sealed_secret'])
    .where('account_id', '=', accountId)
    .where('confirmed_at', 'is not', null)
    .execute()
  for (const row of rows) {
    const step = await matchTotpStep(secrets.open(row.sealed_secret, totpSealContext(row.id)), code, now)
    if (step !== undefined) return { id: row.id, step }
  }
  return undefined
}

/** Spends a step: true for the one caller who was first with it or a later one (F60). */
export async function spendTotpStep(tx: Tx, match: { readonly id: string; readonly step: number }): Promise<boolean> {
  const result = await tx
    .updateTable('totp_credentials')
    .set({ last_step: String(match.step) })
    .where('id', '=', match.id)
    .where('last_step', '<', String(match.step))
    .executeTakeFirst()
  return result.numUpdatedRows === 1n
}

// A lost phone and no backup code left: an administrator takes the factors away and opens a window in which the person
// may set up a new one with the first factor alone. When the window closes unused, nobody gets in until it is opened
// again: a forgotten reset must not leave an account without its second factor.
import type { Tx } from '../db/database.ts'

export const factorResetHours = 24

/** Whether an account stands in such a window. Pure. */
export function factorResetState(until: Date | undefined, now: Date): 'none' | 'open' | 'lapsed' {
  if (until === undefined) return 'none'
  return until > now ? 'open' : 'lapsed'
}

export async function openFactorReset(tx: Tx, accountId: string, until: Date): Promise<void> {
  await tx.updateTable('accounts').set({ factor_reset_until: until }).where('id', '=', accountId).execute()
}

/** A new factor stands; the window is over. */
export async function forgetFactorReset(tx: Tx, accountId: string): Promise<void> {
  await tx
    .updateTable('accounts')
    .set({ factor_reset_until: null })
    .where('id', '=', accountId)
    .where('factor_reset_until', 'is not', null)
    .execute()
}

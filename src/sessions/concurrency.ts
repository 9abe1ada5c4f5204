// How many sessions one person may have at once in an organisation: one that enters it, by a sign-in or by single sign-on,
// makes room by ending the oldest.
import type { Origin } from '../audit/events.ts'
import { runIn, type Tx } from '../db/database.ts'
import { endSession } from './ending.ts'
import { isLive, isUsedFor } from './live.ts'

// Two sign-ins of one person at the same moment: the second counts what the first made.
const settle = 'select id from mlpipes_auth.accounts where id = $1 for update'
// Those that were begun elsewhere and used for it are among them, or single sign-on would be the way past the limit. One
// that had to make room meanwhile ends nobody else's.
const surplus = `select s.uid from mlpipes_auth.sessions s
    where s.account_id = $1 and s.uid <> $3 and ${isLive}
      and exists (select from mlpipes_auth.sessions e where e.uid = $3 and e.ended_at is null)
      and ${isUsedFor('$2')}
    order by s.signed_in_at desc nulls last, s.created_at desc offset $4::integer`

export interface Entering {
  readonly accountId: string
  readonly organizationId: string
  /** At least 1: the session that is entered. */
  readonly maxConcurrent: number
  readonly uid: string
  readonly origin: Origin
}

/**
 * Writes the session that somebody enters and ends those that are then too many, oldest first, with their tokens and word
 * to their apps.
 * @param save writes the session in this transaction
 */
export async function enterWithin(tx: Tx, entering: Entering, save: () => Promise<void>): Promise<void> {
  const { accountId, organizationId, maxConcurrent, uid, origin } = entering
  await runIn(tx, settle, [accountId])
  await save()
  const rows = await runIn(tx, surplus, [accountId, organizationId, uid, maxConcurrent - 1])
  for (const row of rows) {
    const about = { accountId, organizationId, actor: { type: 'account' as const, id: accountId }, origin }
    await endSession(tx, { ...about, uid: String(row['uid']), cause: 'max_concurrent' })
  }
}

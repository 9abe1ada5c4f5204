// Ending what an account has out there: sessions, grants and tokens together, with the audit rows of it, in the
// transaction of whatever caused it.
import { appendAudit } from '../audit/audit.ts'
import type { Actor, AuditEvent, Origin } from '../audit/events.ts'
import { runIn, type Tx } from '../db/database.ts'

export type EndingCause =
  | 'password_reset'
  | 'password_changed'
  | 'factor_changed'
  | 'disowned'
  | 'ended_by_owner'
  | 'address_proven'

export interface Ending {
  readonly accountId: string
  readonly organizationId: string | undefined
  readonly cause: EndingCause
  /** A session that goes on, with its tokens: the one in which the person is doing this. */
  readonly exceptSessionUid?: string | undefined
  readonly actor: Actor
  readonly origin: Origin
}

// What a stolen or left-over session could still be used with. With a session spared, grants stay: they are shared
// between sessions, and the tokens of the others are gone all the same.
const statement = `with ended as (
    update mlpipes_auth.sessions set ended_at = now(), end_reason = $2
    where account_id = $1 and ended_at is null and uid is distinct from $3 returning uid
  ), gone as (
    delete from mlpipes_auth.oidc_payloads where account_id = $1
      and (model in ('AccessToken', 'RefreshToken', 'AuthorizationCode') and payload ->> 'sessionUid' is distinct from $3
        or model = 'Grant' and $3::text is null)
    returning model
  )
  select coalesce((select array_agg(uid) from ended), '{}') as uids, (select count(*) from gone where model <> 'Grant') as tokens`

export interface Ended {
  readonly sessions: number
  readonly tokens: number
}

/** Ends every session of an account, but for the one spared, with all that was issued to apps. */
export async function endAccess(tx: Tx, ending: Ending): Promise<Ended> {
  const { accountId, organizationId, cause, exceptSessionUid, actor, origin } = ending
  const [row] = await runIn(tx, statement, [accountId, cause, exceptSessionUid ?? null])
  const uids: unknown[] = Array.isArray(row?.['uids']) ? row['uids'] : []
  const ended = { sessions: uids.length, tokens: Number(row?.['tokens'] ?? 0) }
  const common = { outcome: 'success' as const, actor, accountId, organizationId, origin }
  const sessionEvents = uids.map(
    (uid): AuditEvent => ({ ...common, name: 'session.ended', sessionUid: String(uid), details: { reason: cause } }),
  )
  await appendAudit(tx, ...sessionEvents, { ...common, name: 'access.ended', details: { cause, ...ended } })
  return ended
}

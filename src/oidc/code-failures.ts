// A code that is tried again and again without what belongs to it: another redirect_uri, no or a wrong code_verifier, another
// client. Such a try leaves the code to whom it was meant for, so they are counted, and a few are all.
import type { KoaContextWithOIDC } from 'oidc-provider'
import { appendAudit } from '../audit/audit.ts'
import type { AuditEvent } from '../audit/events.ts'
import { type Db, type Row, runIn } from '../db/database.ts'
import { inRequestTransaction } from '../db/transaction.ts'
import { originOf } from '../http/origin.ts'

export const maxCodeFailures = 5

// Dead for readers too whose transaction began before this one, and waits for the row.
const fail = `update mlpipes_auth.oidc_payloads set failures = failures + 1,
      expires_at = case when failures + 1 >= $2::integer then '-infinity' else expires_at end
    where model = 'AuthorizationCode' and id_hash = $1 and consumed_at is null and failures < $2::integer
    returning failures, account_id, organization_id, payload ->> 'sessionUid' as session_uid`

const tried = new WeakMap<object, string>()

/** A request reads a code that nobody has spent. */
export function codeTried(request: object, idHash: string): void {
  tried.set(request, idHash)
}

/** It spent it. Whatever is refused afterwards is not about guessing. */
export function codeSpent(request: object): void {
  tried.delete(request)
}

/** Counts a try that was refused. Call it when the request is answered, in its transaction, which holds the code. */
export async function countCodeFailure(db: Db, context: KoaContextWithOIDC): Promise<void> {
  const idHash = tried.get(context.req)
  if (idHash === undefined || context.status < 400 || context.status >= 500) return
  await inRequestTransaction(db, async (tx) => {
    const [row] = await runIn(tx, fail, [idHash, maxCodeFailures])
    if (row) await appendAudit(tx, refusedEvent(context, row, idHash))
  })
}

function refusedEvent({ oidc: { client }, req }: KoaContextWithOIDC, row: Row, codeHash: string): AuditEvent {
  const text = (name: string) => (typeof row[name] === 'string' ? row[name] : undefined)
  const failures = Number(row['failures'])
  return {
    name: 'code.refused',
    outcome: 'failure',
    actor: client ? { type: 'client', id: client.clientId } : { type: 'anonymous' },
    accountId: text('account_id'),
    organizationId: text('organization_id'),
    sessionUid: text('session_uid'),
    clientId: client?.clientId,
    origin: originOf(req),
    details: { codeHash, failures, isDead: failures >= maxCodeFailures },
  }
}

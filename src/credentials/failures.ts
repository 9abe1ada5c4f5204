// Consecutive failures of an authenticator, and disabling it for them (SP 800-63B-4 §3.2.2). Unlike a throttle this
// forgets nothing with time: only success or recovery ends it. How fast failures may come is throttle.ts's.
import { appendAudit } from '../audit/audit.ts'
import type { Actor, AuditEvent, Origin } from '../audit/events.ts'
import { type Db, runIn, type Tx } from '../db/database.ts'

export type AuthenticatorKind = 'password' | 'totp' | 'backup_code'

/** SP 800-63B-4 §3.2.2: no more than 100 consecutive failures per authenticator of an account, from wherever they come. */
export const maxConsecutiveFailures = 100

/** For the audit row: where it happened, and whose account. */
export interface FailureContext {
  readonly organizationId?: string | undefined
  readonly origin: Origin
}

// A disabled authenticator counts no further, so exactly one call sees the row change to disabled.
// It reads the account, so that the same statement can be run for nobody: a try on an unknown address then does as much.
const countFailure = `insert into mlpipes_auth.authenticator_failures as f (account_id, kind, consecutive)
    select id, $2, 1 from mlpipes_auth.accounts where id = $1
    on conflict (account_id, kind) do update set consecutive = f.consecutive + 1,
      disabled_at = case when f.consecutive + 1 >= $3::integer then now() end
    where f.disabled_at is null
    returning consecutive, disabled_at is not null as disabled`

/**
 * Counts a failure of an authenticator, and disables it at the hundredth in a row: until recovery, however long that takes.
 * @param accountId undefined for an address that has no account: the work is done and changes nothing (F30)
 * @returns `disabledNow` for the one failure that did it; `consecutive` stays at 100 afterwards
 */
export async function recordFailure(
  tx: Tx,
  accountId: string | undefined,
  kind: AuthenticatorKind,
  context: FailureContext,
): Promise<{ readonly consecutive: number; readonly disabledNow: boolean }> {
  const [row] = await runIn(tx, countFailure, [accountId ?? '', kind, maxConsecutiveFailures])
  if (!row) return { consecutive: maxConsecutiveFailures, disabledNow: false }
  const consecutive = Number(row['consecutive'])
  const disabledNow = row['disabled'] === true
  if (disabledNow) await appendAudit(tx, disabledEvent(accountId, kind, consecutive, context))
  return { consecutive, disabledNow }
}

function disabledEvent(
  accountId: string | undefined,
  kind: AuthenticatorKind,
  failures: number,
  { organizationId, origin }: FailureContext,
): AuditEvent {
  return {
    name: 'authenticator.disabled',
    outcome: 'success',
    actor: { type: 'system' },
    accountId,
    organizationId,
    origin,
    details: { kind, failures },
  }
}

const disableNow = `insert into mlpipes_auth.authenticator_failures as f (account_id, kind, disabled_at) values ($1, $2, now())
    on conflict (account_id, kind) do update set disabled_at = now() where f.disabled_at is null
    returning consecutive`

/** Disables an authenticator that others may hold, until recovery. Nothing happens to one that is disabled already. */
export async function disable(
  tx: Tx,
  accountId: string,
  kind: AuthenticatorKind,
  context: FailureContext,
): Promise<void> {
  const [row] = await runIn(tx, disableNow, [accountId, kind])
  if (row) await appendAudit(tx, disabledEvent(accountId, kind, Number(row['consecutive']), context))
}

/** Success ends the row of failures (SP 800-63B-4 §3.2.2). Enables nothing that is disabled. */
export async function clearFailures(tx: Tx, accountId: string, kind: AuthenticatorKind): Promise<void> {
  await tx
    .deleteFrom('authenticator_failures')
    .where('account_id', '=', accountId)
    .where('kind', '=', kind)
    .where('disabled_at', 'is', null)
    .execute()
}

/** The authenticators of an account that only recovery brings back. */
export async function disabledKinds(db: Db | Tx, accountId: string): Promise<ReadonlySet<string>> {
  const rows = await db
    .selectFrom('authenticator_failures')
    .select('kind')
    .where('account_id', '=', accountId)
    .where('disabled_at', 'is not', null)
    .execute()
  return new Set(rows.map((row) => row.kind))
}

/**
 * Recovery: the authenticator was bound anew (reset by mail, set-up, an administrator), so its failures are history.
 * @returns whether it was disabled; only then is there something to audit
 */
export async function restore(
  tx: Tx,
  accountId: string,
  kind: AuthenticatorKind,
  context: FailureContext & { readonly actor: Actor },
): Promise<boolean> {
  const row = await tx
    .deleteFrom('authenticator_failures')
    .where('account_id', '=', accountId)
    .where('kind', '=', kind)
    .returning('disabled_at')
    .executeTakeFirst()
  if (!row?.disabled_at) return false
  await appendAudit(tx, {
    name: 'authenticator.restored',
    outcome: 'success',
    actor: context.actor,
    accountId,
    organizationId: context.organizationId,
    origin: context.origin,
    details: { kind },
  })
  return true
}

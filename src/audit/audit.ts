// The audit log's front door: append inside the transaction of the act, list what was written.
import { type Db, runIn, type Tx } from '../db/database.ts'
import type { AuditEvent } from './events.ts'
import { type AuditRecord, auditValues, insertAuditEvents, recordColumns, toRecord } from './store.ts'

/** Writes events in the caller's transaction: the act and its record stand or fall together. */
export async function appendAudit(tx: Tx, ...events: AuditEvent[]): Promise<void> {
  await runIn(tx, insertAuditEvents, auditValues(events))
}

const maxListed = 1_000

/** The newest events, newest first. `limit` is at most 1,000. */
export async function listAudit(db: Db, limit = 100): Promise<AuditRecord[]> {
  const rows = await db
    .selectFrom('audit_events')
    .select(recordColumns)
    .orderBy('occurred_at', 'desc')
    .orderBy('id', 'desc')
    .limit(Math.min(limit, maxListed))
    .execute()
  return rows.map(toRecord)
}

// The audit log of one organisation, or of none, newest first, page by page.
import { recordColumns, toRecord } from '../audit/store.ts'
import { type Row, runIn, type Tx } from '../db/database.ts'

export interface AuditFilter {
  readonly name?: readonly string[] | undefined
  readonly accountId?: string | undefined
  readonly clientId?: string | undefined
  readonly sessionUid?: string | undefined
  readonly outcome?: string | undefined
  readonly ip?: string | undefined
  /** Instants; the first is inside, the second is not. */
  readonly from?: string | undefined
  readonly to?: string | undefined
}

/** Where a page begins: behind this one. To the microsecond, which a Date would lose. */
export interface AuditPlace {
  readonly at: string
  readonly id: string
}

const columns = recordColumns.map((column) => (column === 'ip' ? 'host(ip) as ip' : column)).join(', ')
// Bounds of time are there in every case, so that a plan made once for all of them walks the index from where a page begins.
const matching = (
  owner: string,
) => `${owner} and ($2::text[] is null or name = any($2)) and ($3::text is null or account_id = $3)
      and ($4::text is null or client_id = $4) and ($5::text is null or session_uid = $5)
      and ($6::text is null or outcome = $6) and ($7::inet is null or ip = $7)
      and occurred_at >= coalesce($8::timestamptz, '-infinity') and occurred_at < coalesce($9::timestamptz, 'infinity')
      and occurred_at <= coalesce($10::timestamptz, 'infinity')
      and (occurred_at, id) < (coalesce($10::timestamptz, 'infinity'), coalesce($11::bigint, 9223372036854775807))`
const statements = (owner: string) => ({
  list: `select ${columns}, occurred_at::text as at from mlpipes_auth.audit_events where ${matching(owner)}
    order by occurred_at desc, id desc limit $12::integer`,
  count: `select count(*)::integer as count from
    (select 1 from mlpipes_auth.audit_events where ${matching(owner)} limit $12::integer) as matching`,
})
const ofOne = statements('organization_id = $1')
const ofNone = statements('organization_id is null and $1::text is null')

/** Whose events are read; undefined for those that belong to no organisation. */
export type AuditOwner = string | undefined

/** Rows for `toEvent` and `placeOf`. */
export function listEvents(
  tx: Tx,
  owner: AuditOwner,
  filter: AuditFilter,
  after: AuditPlace | undefined,
  limit: number,
): Promise<Row[]> {
  return runIn(tx, statementsFor(owner).list, [...values(owner, filter, after), limit])
}

/** How many there are, counted up to `limit`. */
export async function countEvents(tx: Tx, owner: AuditOwner, filter: AuditFilter, limit: number): Promise<number> {
  const [row] = await runIn(tx, statementsFor(owner).count, [...values(owner, filter, undefined), limit])
  return Number(row?.['count'])
}

const statementsFor = (owner: AuditOwner) => (owner === undefined ? ofNone : ofOne)

function values(owner: AuditOwner, filter: AuditFilter, after: AuditPlace | undefined): unknown[] {
  const { name, accountId, clientId, sessionUid, outcome, ip, from, to } = filter
  const given = [accountId, clientId, sessionUid, outcome, ip, from, to, after?.at, after?.id]
  return [owner ?? null, name ? [...name] : null, ...given.map((one) => one ?? null)]
}

const moment = 'select least($1::timestamptz, now())::text as until'

/** The time that is asked for, or the transaction's own if that is earlier: its own events are then not among them. */
export async function untilNow(tx: Tx, to: string | undefined): Promise<string> {
  const [row] = await runIn(tx, moment, [to ?? null])
  return String(row?.['until'])
}

export function placeOf(row: Row): AuditPlace {
  return { at: String(row['at']), id: String(row['id']) }
}

export function toEvent(row: Row) {
  const { occurredAt, details, ...event } = toRecord(row)
  return { ...event, occurredAt: occurredAt.toISOString(), details: { ...Object(details) } }
}

export type ListedEvent = ReturnType<typeof toEvent>

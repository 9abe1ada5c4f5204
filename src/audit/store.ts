// audit_events in SQL: how a set of events becomes one insert, alone or beside another write in the same statement.
import { isIP } from 'node:net'
import type { Row } from '../db/database.ts'
import { type AuditEvent, auditEvents } from './events.ts'

const columns = [
  'name',
  'outcome',
  'actor_type',
  'actor_id',
  'account_id',
  'organization_id',
  'session_uid',
  'client_id',
  'ip',
  'user_agent',
  'request_id',
  'details',
] as const
const maxUserAgentLength = 512

/** Number of parameters that `auditValues` fills. */
export const auditParameterCount = columns.length

/**
 * The insert as SQL, reading its rows from array parameters that start at `$first`.
 * Written so that it can stand alone or in a WITH list.
 */
export function auditInsert(first: number): string {
  const arrays = columns.map((_, index) => `$${first + index}::text[]`).join(', ')
  const typed = columns
    .map((column) => (column === 'ip' ? 'ip::inet' : column === 'details' ? 'details::jsonb' : column))
    .join(', ')
  return auditInsertOf(columns, `select ${typed} from unnest(${arrays}) as event (${columns.join(', ')})`)
}

export const insertAuditEvents = auditInsert(1)

/**
 * The insert as SQL out of a query of these columns, for a statement that has all of an event itself and very many of them.
 * Nothing checks their details: a test holds them against `auditEvents`.
 */
export function auditInsertOf(named: readonly (typeof columns)[number][], query: string): string {
  return `insert into mlpipes_auth.audit_events (${named.join(', ')}) ${query}`
}

/** The parameters of `auditInsert`: one array per column. Throws when an event's details do not have their shape. */
export function auditValues(events: readonly AuditEvent[]): (string | null)[][] {
  const rows = events.map(toRow)
  return columns.map((_, index) => rows.map((row) => row[index] ?? null))
}

function toRow(event: AuditEvent): (string | null)[] {
  const details = auditEvents[event.name].parse(event.details)
  return [
    event.name,
    event.outcome,
    event.actor.type,
    'id' in event.actor ? event.actor.id : null,
    event.accountId ?? null,
    event.organizationId ?? null,
    event.sessionUid ?? null,
    event.clientId ?? null,
    event.origin.ip !== undefined && isIP(event.origin.ip) ? event.origin.ip : null,
    cleanText(event.origin.userAgent)?.slice(0, maxUserAgentLength) ?? null,
    event.origin.requestId ?? null,
    JSON.stringify(details),
  ]
}

/** Strips what could forge a line or a terminal command when the log is read (F84). */
function cleanText(text: string | undefined): string | undefined {
  return text?.toWellFormed().replace(/[\p{Cc}\p{Zl}\p{Zp}\p{Bidi_Control}]/gu, ' ')
}

/** What is read of an event. */
export const recordColumns = ['id', 'occurred_at', ...columns] as const

export interface AuditRecord {
  readonly id: string
  readonly occurredAt: Date
  readonly name: string
  readonly outcome: string
  readonly actorType: string
  readonly actorId: string | null
  readonly accountId: string | null
  readonly organizationId: string | null
  readonly sessionUid: string | null
  readonly clientId: string | null
  readonly ip: string | null
  readonly userAgent: string | null
  readonly requestId: string | null
  readonly details: unknown
}

/** Maps a row of `recordColumns`. */
export function toRecord(row: Row): AuditRecord {
  const text = (value: unknown) => (value === null || value === undefined ? null : String(value))
  return {
    id: String(row['id']),
    occurredAt: row['occurred_at'] as Date,
    name: String(row['name']),
    outcome: String(row['outcome']),
    actorType: String(row['actor_type']),
    actorId: text(row['actor_id']),
    accountId: text(row['account_id']),
    organizationId: text(row['organization_id']),
    sessionUid: text(row['session_uid']),
    clientId: text(row['client_id']),
    ip: text(row['ip']),
    userAgent: text(row['user_agent']),
    requestId: text(row['request_id']),
    details: row['details'],
  }
}

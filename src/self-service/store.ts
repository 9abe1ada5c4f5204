// What an account's owner may see of it, in SQL: sessions, apps with access, the audit trail, and all of it for taking
// away. Every statement asks for the account; what belongs to others does not exist here.
import { type AuditRecord, recordColumns, toRecord } from '../audit/store.ts'
import { type Database, type Row, runIn, type Tx } from '../db/database.ts'
import { isLive } from '../sessions/live.ts'
import { endConsent } from '../sessions/parting.ts'

export interface OwnSession {
  readonly uid: string
  readonly ip: string | undefined
  readonly userAgent: string | undefined
  readonly signedInAt: Date
  readonly lastActivityAt: Date
}

export interface App {
  readonly clientId: string
  readonly name: string
  readonly organizationName: string
  readonly isFirstParty: boolean
  readonly scopes: readonly string[]
  readonly since: Date
}

/** Sessions and apps shown; nobody has nearly as many. */
const maxListed = 200
export const eventsPerPage = 50
/** Audit events in a download: years of a busy account, and an answer that still fits into memory. */
export const maxExportedEvents = 10_000

const listSessions = `select uid, host(ip) as ip, user_agent, signed_in_at, last_activity_at from mlpipes_auth.sessions s
    where account_id = $1 and signed_in_at is not null and ${isLive}
    order by last_activity_at desc, uid limit ${maxListed}`

// What a person allowed, and what is live without having been asked for (apps of the organisation's own).
const listApps = `with had as (
    select client_id, scopes, granted_at as since from mlpipes_auth.consents where account_id = $1
    union all
    select client_id, string_to_array(coalesce(payload -> 'openid' ->> 'scope', payload ->> 'scope', ''), ' '), created_at
    from mlpipes_auth.oidc_payloads
    where account_id = $1 and model in ('Grant', 'RefreshToken') and consumed_at is null
      and (expires_at is null or expires_at > now())
  )
  select c.client_id, c.name, o.name as organization_name, c.first_party, min(had.since) as since,
    array(select distinct scope from had each, unnest(each.scopes) scope where each.client_id = c.client_id and scope <> ''
      order by scope) as scopes
  from had join mlpipes_auth.clients c on c.client_id = had.client_id
    join mlpipes_auth.organizations o on o.id = c.organization_id
  group by c.client_id, c.name, o.name, c.first_party order by c.name, c.client_id limit ${maxListed}`

export async function findSessions(database: Database, accountId: string): Promise<OwnSession[]> {
  const rows = await database.run(listSessions, [accountId])
  return rows.map((row) => ({
    uid: String(row['uid']),
    ip: textOf(row['ip']),
    userAgent: textOf(row['user_agent']),
    signedInAt: row['signed_in_at'] as Date,
    lastActivityAt: row['last_activity_at'] as Date,
  }))
}

export async function findApps(database: Database, accountId: string): Promise<App[]> {
  const rows = await database.run(listApps, [accountId])
  return rows.map((row) => ({
    clientId: String(row['client_id']),
    name: String(row['name']),
    organizationName: String(row['organization_name']),
    isFirstParty: row['first_party'] === true,
    scopes: row['scopes'] as string[],
    since: row['since'] as Date,
  }))
}

/**
 * Takes everything from an app that it has of an account, and tells it.
 * @returns the organisation of the app, or undefined when it had nothing
 */
export async function dropApp(
  tx: Tx,
  accountId: string,
  clientId: string,
): Promise<{ readonly organizationId: string } | undefined> {
  const client = await tx
    .selectFrom('clients')
    .select('organization_id')
    .where('client_id', '=', clientId)
    .executeTakeFirst()
  if (!client) return undefined
  return (await endConsent(tx, { accountId, clientId })) ? { organizationId: client.organization_id } : undefined
}

export interface OwnEvent extends AuditRecord {
  /** The app's name, while it is registered. */
  readonly clientName: string | undefined
}

export interface EventPage {
  readonly events: readonly OwnEvent[]
  /** For the page after this one; undefined at the end. */
  readonly older: string | undefined
}

const cursorPattern = /^(\d{1,17})-(\d{1,18})$/
const eventColumns = recordColumns.map((column) => (column === 'ip' ? 'host(e.ip) as ip' : `e.${column}`)).join(', ')
const listEvents = `select ${eventColumns}, c.name as client_name,
      (extract(epoch from e.occurred_at) * 1000000)::bigint::text as occurred_micros
    from mlpipes_auth.audit_events e left join mlpipes_auth.clients c on c.client_id = e.client_id
    where e.account_id = $1 and ($2::bigint is null
      or (e.occurred_at, e.id) < (timestamptz 'epoch' + $2::bigint * interval '1 microsecond', $3::bigint))
    order by e.occurred_at desc, e.id desc limit $4::integer`

/** @param before a cursor of a page before; the newest events when it is none */
export async function findEvents(
  database: Database,
  accountId: string,
  before: string | undefined,
): Promise<EventPage> {
  const [, micros = null, id = null] = cursorPattern.exec(before ?? '') ?? []
  const rows = await database.run(listEvents, [accountId, micros, id, eventsPerPage + 1])
  const shown = rows.slice(0, eventsPerPage)
  const last = shown.at(-1)
  const hasMore = rows.length > eventsPerPage && last !== undefined
  return {
    events: shown.map(toOwnEvent),
    older: hasMore ? `${String(last['occurred_micros'])}-${String(last['id'])}` : undefined,
  }
}

function toOwnEvent(row: Row): OwnEvent {
  return { ...toRecord(row), clientName: textOf(row['client_name']) }
}

/** Details that are digests: nothing for people, and nothing to hand out. */
const keptBack = new Set(['tokenHash', 'identifierMac'])

/** All that is known of an account, without secrets or digests of them, in the transaction that records the download. */
export async function readOwnData(tx: Tx, accountId: string): Promise<Record<string, unknown>> {
  const account = await tx
    .selectFrom('accounts')
    .select(['id', 'email', 'email_verified_at', 'name', 'metadata', 'created_at', 'updated_at'])
    .where('id', '=', accountId)
    .executeTakeFirstOrThrow()
  const memberships = await tx
    .selectFrom('memberships as m')
    .innerJoin('organizations as o', 'o.id', 'm.organization_id')
    .select(['o.slug', 'o.name', 'm.home', 'm.roles', 'm.created_at'])
    .where('m.account_id', '=', accountId)
    .orderBy('m.created_at')
    .execute()
  return {
    account: {
      id: account.id,
      email: account.email,
      emailVerifiedAt: account.email_verified_at,
      name: account.name,
      metadata: account.metadata,
      createdAt: account.created_at,
      updatedAt: account.updated_at,
    },
    memberships: memberships.map((row) => ({
      organization: { slug: row.slug, name: row.name },
      home: row.home,
      roles: row.roles,
      since: row.created_at,
    })),
    credentials: await readCredentials(tx, accountId),
    sessions: await readSessions(tx, accountId),
    consents: await readConsents(tx, accountId),
    auditEvents: await readEvents(tx, accountId),
    auditEventsLimit: maxExportedEvents,
  }
}

/** That they exist and since when; never what they are. */
async function readCredentials(tx: Tx, accountId: string) {
  const password = await tx
    .selectFrom('password_credentials')
    .select('changed_at')
    .where('account_id', '=', accountId)
    .executeTakeFirst()
  const authenticators = await tx
    .selectFrom('totp_credentials')
    .select(['name', 'confirmed_at'])
    .where('account_id', '=', accountId)
    .where('confirmed_at', 'is not', null)
    .orderBy('confirmed_at')
    .execute()
  const devices = await tx
    .selectFrom('known_devices')
    .select(['user_agent', 'first_seen_at', 'last_seen_at'])
    .where('account_id', '=', accountId)
    .orderBy('last_seen_at', 'desc')
    .execute()
  return {
    passwordChangedAt: password?.changed_at ?? null,
    authenticators: authenticators.map((row) => ({ name: row.name, since: row.confirmed_at })),
    knownDevices: devices.map((row) => ({
      userAgent: row.user_agent,
      firstSeenAt: row.first_seen_at,
      lastSeenAt: row.last_seen_at,
    })),
  }
}

async function readSessions(tx: Tx, accountId: string) {
  const rows = await tx
    .selectFrom('sessions')
    .select(['uid', 'ip', 'user_agent', 'signed_in_at', 'last_activity_at', 'ended_at', 'end_reason'])
    .where('account_id', '=', accountId)
    .orderBy('created_at', 'desc')
    .limit(maxExportedEvents)
    .execute()
  return rows.map((row) => ({
    id: row.uid,
    ip: row.ip,
    userAgent: row.user_agent,
    signedInAt: row.signed_in_at,
    lastActivityAt: row.last_activity_at,
    endedAt: row.ended_at,
    endReason: row.end_reason,
  }))
}

async function readConsents(tx: Tx, accountId: string) {
  const rows = await tx
    .selectFrom('consents as s')
    .innerJoin('clients as c', 'c.client_id', 's.client_id')
    .select(['s.client_id', 'c.name', 's.scopes', 's.granted_at'])
    .where('s.account_id', '=', accountId)
    .orderBy('s.granted_at')
    .execute()
  return rows.map((row) => ({
    clientId: row.client_id,
    clientName: row.name,
    scopes: row.scopes,
    grantedAt: row.granted_at,
  }))
}

async function readEvents(tx: Tx, accountId: string) {
  const rows = await runIn(tx, listEvents, [accountId, null, null, maxExportedEvents])
  return rows.map(toOwnEvent).map((event) => {
    const isOwn = !isBySomebodyElse(event, accountId)
    const details = Object.entries(Object(event.details)).filter(([name]) => !keptBack.has(name))
    return {
      at: event.occurredAt,
      name: event.name,
      outcome: event.outcome,
      by: event.actorType,
      clientId: event.clientId,
      sessionId: event.sessionUid,
      ip: isOwn ? event.ip : null,
      userAgent: isOwn ? event.userAgent : null,
      details: Object.fromEntries(details),
    }
  })
}

/** Whether another person did it, such as an administrator, whose address is theirs and not shown. */
export function isBySomebodyElse(event: Pick<AuditRecord, 'actorType' | 'actorId'>, accountId: string): boolean {
  return event.actorType === 'account' && event.actorId !== accountId
}

/** Gives an account another name: true when it had a different one. */
export async function setName(tx: Tx, accountId: string, name: string): Promise<boolean> {
  const result = await tx
    .updateTable('accounts')
    .set((eb) => ({ name, updated_at: eb.fn<Date>('now') }))
    .where('id', '=', accountId)
    .where('name', '<>', name)
    .executeTakeFirst()
  return result.numUpdatedRows === 1n
}

function textOf(value: unknown): string | undefined {
  return value === null || value === undefined ? undefined : String(value)
}

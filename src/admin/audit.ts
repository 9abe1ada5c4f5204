// The audit log as an organisation reads it, and the platform what belongs to none. Reading it is an event in it.
import { Readable } from 'node:stream'
import { z } from 'zod'
import { appendAudit } from '../audit/audit.ts'
import { type AuditEventName, auditEvents } from '../audit/events.ts'
import type { Database, Tx } from '../db/database.ts'
import { confineTo, transactFor } from '../db/organization-transaction.ts'
import { exportFormats, exportText, exportTypes } from './audit-export.ts'
import {
  type AuditFilter,
  type AuditOwner,
  type AuditPlace,
  countEvents,
  type ListedEvent,
  listEvents,
  placeOf,
  toEvent,
  untilNow,
} from './audit-store.ts'
import { type Call, noOrganization } from './call.ts'
import type { OrganizationRef } from './caller.ts'
import type { Kernel } from './kernel.ts'
import { idParam, instant, listQuery, operation, pageOf } from './operation.ts'

const group = 'Audit'
const maxNames = 10
const maxFilterLength = 256
/** What one export holds at most; the rest is asked for by time. */
export const maxExportRows = 100_000
const exportBatchSize = 1_000

const ofNone = `With platform:organizations, \`organization=${noOrganization.id}\` asks for the events that belong to no organisation, such as sign-ins with an unknown address; closed organisations are read as well.`

const eventNames = Object.keys(auditEvents) as [AuditEventName, ...AuditEventName[]]
const eventName = z.enum(eventNames)
const notANamedEvent = `must be the name of an event, such as login.failed, or at most ${maxNames} of them: name=…&name=…`
// Years and offsets beyond these are instants to JavaScript and not to PostgreSQL, nor is a fraction without end.
const time = z.iso
  .datetime({ offset: true })
  .regex(/^[12]\d{3}-/, 'must be between the years 1000 and 2999')
  .regex(
    /T[\d:]+(?:\.\d{1,6})?(?:Z|[+-](?:0\d|1[0-4]):\d\d)$/,
    'must be to the microsecond, and within 15 hours of UTC',
  )

const filter = {
  name: z
    .union([eventName, z.array(eventName).max(maxNames)], notANamedEvent)
    .transform((names) => [names].flat())
    .optional()
    .meta({ description: `names of events, one or up to ${maxNames}: name=…&name=…` }),
  accountId: idParam.optional().meta({ description: 'whom it was about' }),
  clientId: idParam.optional(),
  sessionUid: idParam.optional(),
  outcome: z.enum(['success', 'failure']).optional(),
  ip: z.union([z.ipv4(), z.ipv6()], 'must be a whole address, such as 192.0.2.7 or 2001:db8::7').optional(),
  from: time.optional().meta({ description: 'at this time or later' }),
  to: time.optional().meta({ description: 'before this time' }),
}

const eventSchema = z
  .strictObject({
    id: z.string(),
    occurredAt: instant,
    name: z.string(),
    outcome: z.string(),
    actorType: z.string(),
    actorId: z.string().nullable(),
    accountId: z.string().nullable(),
    organizationId: z.string().nullable(),
    sessionUid: z.string().nullable(),
    clientId: z.string().nullable(),
    ip: z.string().nullable(),
    userAgent: z.string().nullable(),
    requestId: z.string().nullable(),
    details: z.record(z.string(), z.unknown()),
  })
  .meta({ id: 'AuditEvent' })

export const operations = {
  list: operation({
    id: 'listAuditEvents',
    method: 'GET',
    path: '/api/audit/logs',
    group,
    permission: 'audit:read',
    pageKey: 2,
    summary: 'The audit log',
    description: `Newest first. Each reading is itself an event, audit.read, with its filter. ${ofNone}`,
    query: listQuery(filter),
    answer: { status: 200, description: 'A page of events.', schema: pageOf(eventSchema) },
  }),
  export: operation({
    id: 'exportAuditEvents',
    method: 'GET',
    path: '/api/audit/export',
    group,
    permission: 'audit:export',
    summary: 'The audit log as a file',
    description: `Newest first, at most ${maxExportRows} events: X-Export-Truncated says whether there are more, to be asked for with an earlier \`to\`. NDJSON, or CSV in which cells that a spreadsheet would run begin with an apostrophe. The event audit.exported is written before the first line is sent. ${ofNone}`,
    query: z.strictObject({ ...filter, format: z.enum(exportFormats).default('ndjson') }),
    answer: { status: 200, description: 'The events: application/x-ndjson or text/csv.' },
  }),
} as const

export interface AuditParts {
  readonly database: Pick<Database, 'kysely'>
}

export function addAudit({ on, stream }: Kernel, { database }: AuditParts): void {
  on(operations.list, async (tx, call) => {
    const { limit: _limit, cursor: _cursor, ...wanted } = call.query
    const [at, id] = call.page.after ?? []
    const after = at === undefined || id === undefined ? undefined : { at, id }
    const owner = await openLog(tx, call.organization)
    const rows = await listEvents(tx, owner, wanted, after, call.page.limit + 1)
    const body = call.page.answer(rows, toEvent, (row) => [placeOf(row).at, placeOf(row).id])
    await record(tx, call, 'audit.read', wanted, body.items.length)
    return { body }
  })

  stream(operations.export, async (call, _request, reply) => {
    const { format, ...wanted } = call.query
    const { organization } = call
    const { bounded, found } = await transactFor(database.kysely, organization.id, async (tx) => {
      const owner = await openLog(tx, organization)
      // What is written from now on, this export's own event before all, is not in it.
      const bounded = { ...wanted, to: await untilNow(tx, wanted.to) }
      const count = await countEvents(tx, owner, bounded, maxExportRows + 1)
      await record(tx, call, 'audit.exported', { ...wanted, format }, Math.min(count, maxExportRows))
      return { bounded, found: count }
    })
    const name = `audit-${organization.slug}-${bounded.to.slice(0, 10)}.${format}`
    return reply
      .type(exportTypes[format])
      .header('content-disposition', `attachment; filename="${name}"`)
      .header('x-export-truncated', String(found > maxExportRows))
      .send(Readable.from(exportText(format, readBatches(database, organization, bounded))))
  })
}

/**
 * Whose events a transaction reads, which is confined to them. The one place where the log is read beyond an organisation
 * (decision 5): what belongs to none is nobody's to see in the role of an organisation, and whoever may ask for it was
 * decided in call.ts.
 */
async function openLog(tx: Tx, { id }: OrganizationRef): Promise<AuditOwner> {
  if (id !== noOrganization.id) return id
  await confineTo(tx, undefined)
  return undefined
}

/** Each batch in a transaction of its own: a slow reader holds none open. */
async function* readBatches(
  database: Pick<Database, 'kysely'>,
  organization: OrganizationRef,
  filterOf: AuditFilter,
): AsyncGenerator<ListedEvent[]> {
  let after: AuditPlace | undefined
  for (let left = maxExportRows; left > 0; left -= exportBatchSize) {
    const size = Math.min(left, exportBatchSize)
    const place = after
    const rows = await transactFor(database.kysely, organization.id, async (tx) =>
      listEvents(tx, await openLog(tx, organization), filterOf, place, size),
    )
    const last = rows.at(-1)
    if (last === undefined) return
    yield rows.map(toEvent)
    if (rows.length < size) return
    after = placeOf(last)
  }
}

async function record(
  tx: Tx,
  call: Pick<Call, 'about' | 'caller' | 'organization'>,
  name: 'audit.read' | 'audit.exported',
  wanted: Readonly<Record<string, string | readonly string[] | undefined>>,
  count: number,
): Promise<void> {
  // Written elsewhere than where it was read, it says what was read.
  const organization = call.organization.id === call.about.organizationId ? undefined : call.organization.id
  const used = Object.entries({ ...wanted, organization }).filter(([, value]) => value !== undefined)
  await appendAudit(tx, {
    ...call.about,
    name,
    outcome: 'success',
    sessionUid: call.caller.sessionUid,
    details: {
      filter: Object.fromEntries(used.map(([key, value]) => [key, [value].flat().join(' ').slice(0, maxFilterLength)])),
      count,
    },
  })
}

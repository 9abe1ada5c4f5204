// Webhooks of one organisation and what was sent to them, in SQL. Every statement asks for the organisation.
import { type Row, runIn, type Tx } from '../db/database.ts'
import { ringForDeliveries } from '../deliveries/bell.ts'

/** How many an organisation may have. */
export const maxWebhooks = 20

export interface StoredWebhook {
  readonly id: string
  readonly url: string
  readonly events: readonly string[]
  readonly createdAt: Date
  readonly updatedAt: Date
  readonly disabledAt: Date | null
  readonly version: number
}

export interface StoredDelivery {
  /** The place in the list. */
  readonly row: string
  readonly id: string
  readonly type: string
  readonly data: Readonly<Record<string, unknown>>
  readonly attempts: number
  readonly lastError: string | null
  readonly createdAt: Date
  readonly nextAttemptAt: Date
  readonly deliveredAt: Date | null
  readonly failedAt: Date | null
}

const columns = 'id, url, events, created_at, updated_at, disabled_at, version'
const find = `select ${columns} from mlpipes_auth.webhooks where id = $1 and organization_id = $2`
const list = `select ${columns} from mlpipes_auth.webhooks
    where organization_id = $1 and ($2::text is null or id > $2) order by id limit $3::integer`
// Those who add one at the same time are counted one after another.
const lock = `select pg_advisory_xact_lock(hashtextextended('mlpipes_auth.webhooks:' || $1, 0))`
const insert = `insert into mlpipes_auth.webhooks (id, organization_id, url, events, sealed_secret)
    select $1, $2, $3, $4::text[], $5
    where (select count(*) from mlpipes_auth.webhooks where organization_id = $2) < ${maxWebhooks}
    returning ${columns}`
const update = `update mlpipes_auth.webhooks set url = coalesce($4, url), events = coalesce($5::text[], events), updated_at = now()
    where id = $1 and organization_id = $2 and version = $3::integer returning ${columns}`
const setDisabled = (wanted: boolean) => `update mlpipes_auth.webhooks
    set disabled_at = ${wanted ? 'now()' : 'null'}, updated_at = now()
    where id = $1 and organization_id = $2 and disabled_at is ${wanted ? '' : 'not '}null returning id`
const disable = setDisabled(true)
const enable = setDisabled(false)
const setSecret = `update mlpipes_auth.webhooks set sealed_secret = $3, updated_at = now()
    where id = $1 and organization_id = $2 returning id`
const remove =
  'delete from mlpipes_auth.webhooks where id = $1 and organization_id = $2 and version = $3::integer returning id'

/** One more than `limit`, if there are as many. */
export async function listWebhooks(
  tx: Tx,
  organizationId: string,
  page: { readonly limit: number; readonly after: readonly string[] | undefined },
): Promise<StoredWebhook[]> {
  return (await runIn(tx, list, [organizationId, page.after?.[0] ?? null, page.limit + 1])).map(toWebhook)
}

export async function findWebhook(tx: Tx, organizationId: string, id: string): Promise<StoredWebhook | undefined> {
  const [row] = await runIn(tx, find, [id, organizationId])
  return row && toWebhook(row)
}

/** Undefined when there are as many as there may be. */
export async function insertWebhook(
  tx: Tx,
  organizationId: string,
  given: {
    readonly id: string
    readonly url: string
    readonly events: readonly string[]
    readonly sealedSecret: string
  },
): Promise<StoredWebhook | undefined> {
  await runIn(tx, lock, [organizationId])
  const [row] = await runIn(tx, insert, [given.id, organizationId, given.url, [...given.events], given.sealedSecret])
  return row && toWebhook(row)
}

/** Undefined when it was changed since this version, or is not there. */
export async function updateWebhook(
  tx: Tx,
  organizationId: string,
  id: string,
  wanted: {
    readonly version: number
    readonly url?: string | undefined
    readonly events?: readonly string[] | undefined
  },
): Promise<StoredWebhook | undefined> {
  const { version, url = null, events } = wanted
  const [row] = await runIn(tx, update, [id, organizationId, version, url, events ? [...events] : null])
  return row && toWebhook(row)
}

/** True when this changed it. */
export async function switchWebhook(tx: Tx, organizationId: string, id: string, on: boolean): Promise<boolean> {
  return (await runIn(tx, on ? enable : disable, [id, organizationId])).length === 1
}

export async function setWebhookSecret(tx: Tx, organizationId: string, id: string, sealed: string): Promise<boolean> {
  return (await runIn(tx, setSecret, [id, organizationId, sealed])).length === 1
}

/** False when it was changed since this version, or is not there. */
export async function deleteWebhook(tx: Tx, organizationId: string, id: string, version: number): Promise<boolean> {
  return (await runIn(tx, remove, [id, organizationId, version])).length === 1
}

const deliveryColumns = `d.id::text as row, d.delivery_id, d.body, d.attempts, d.last_error, d.created_at, d.next_attempt_at,
      d.delivered_at, d.failed_at`
const ofWebhook = 'd.webhook_id = $1 and d.organization_id = $2'
const listSent = `select ${deliveryColumns} from mlpipes_auth.deliveries d
    where ${ofWebhook} and ($3::bigint is null or d.id < $3::bigint) order by d.id desc limit $4::integer`
const findSent = `select ${deliveryColumns} from mlpipes_auth.deliveries d where ${ofWebhook} and d.delivery_id = $3`
// Only what is settled: a worker may have the rest in its hands. The tries begin anew.
const repeat = `update mlpipes_auth.deliveries d
    set attempts = 0, last_error = null, delivered_at = null, failed_at = null, next_attempt_at = now()
    where ${ofWebhook} and d.delivery_id = $3 and (d.delivered_at is not null or d.failed_at is not null)
    returning ${deliveryColumns}`
const hold =
  'select id from mlpipes_auth.webhooks where id = $1 and organization_id = $2 and disabled_at is null for update'
const insertPing = `insert into mlpipes_auth.deliveries as d (delivery_id, kind, organization_id, webhook_id, body)
    select gen_random_uuid()::text, 'webhook', $2, $1, $3::jsonb
    where not exists (select from mlpipes_auth.deliveries d where ${ofWebhook} and d.body ->> 'type' = 'ping'
      and d.delivered_at is null and d.failed_at is null)
    returning ${deliveryColumns}`
const ping = JSON.stringify({ type: 'ping', data: {} })

/** One more than `limit`, if there are as many; newest first. */
export async function listDeliveries(
  tx: Tx,
  organizationId: string,
  webhookId: string,
  page: { readonly limit: number; readonly after: readonly string[] | undefined },
): Promise<StoredDelivery[]> {
  const rows = await runIn(tx, listSent, [webhookId, organizationId, page.after?.[0] ?? null, page.limit + 1])
  return rows.map(toDelivery)
}

export async function findDelivery(
  tx: Tx,
  organizationId: string,
  webhookId: string,
  deliveryId: string,
): Promise<StoredDelivery | undefined> {
  const [row] = await runIn(tx, findSent, [webhookId, organizationId, deliveryId])
  return row && toDelivery(row)
}

/** Whether a webhook is there and switched on, for as long as the transaction lasts. */
export async function holdWebhook(tx: Tx, organizationId: string, id: string): Promise<boolean> {
  return (await runIn(tx, hold, [id, organizationId])).length === 1
}

/** Undefined when it is under way, or not there. */
export async function repeatDelivery(
  tx: Tx,
  organizationId: string,
  webhookId: string,
  deliveryId: string,
): Promise<StoredDelivery | undefined> {
  return waiting(tx, await runIn(tx, repeat, [webhookId, organizationId, deliveryId]))
}

/** Undefined when one is under way. The webhook is held. */
export async function sendPing(tx: Tx, organizationId: string, webhookId: string): Promise<StoredDelivery | undefined> {
  return waiting(tx, await runIn(tx, insertPing, [webhookId, organizationId, ping]))
}

function waiting(tx: Tx, [row]: readonly Row[]): StoredDelivery | undefined {
  if (!row) return undefined
  ringForDeliveries(tx)
  return toDelivery(row)
}

function toWebhook(row: Row): StoredWebhook {
  return {
    id: String(row['id']),
    url: String(row['url']),
    events: row['events'] as string[],
    createdAt: row['created_at'] as Date,
    updatedAt: row['updated_at'] as Date,
    disabledAt: row['disabled_at'] as Date | null,
    version: Number(row['version']),
  }
}

function toDelivery(row: Row): StoredDelivery {
  const { type, data } = row['body'] as { type: string; data: Record<string, unknown> }
  return {
    row: String(row['row']),
    id: String(row['delivery_id']),
    type,
    data,
    attempts: Number(row['attempts']),
    lastError: row['last_error'] as string | null,
    createdAt: row['created_at'] as Date,
    nextAttemptAt: row['next_attempt_at'] as Date,
    deliveredAt: row['delivered_at'] as Date | null,
    failedAt: row['failed_at'] as Date | null,
  }
}

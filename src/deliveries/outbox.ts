// The outbox of deliveries: what waits, who takes it, how it went. Rows are written with the act (logouts.ts, webhooks.ts).
// What is due, leases and back-off follow the database's clock.
import { appendAudit } from '../audit/audit.ts'
import type { AuditEvent } from '../audit/events.ts'
import { createBatcher } from '../db/batcher.ts'
import { type Database, type Row, runIn, type Tx } from '../db/database.ts'
import { transact } from '../db/transaction.ts'

export type DeliveryKind = 'backchannel_logout' | 'webhook'

/** Seconds until the next try, by the number of tries so far. After the last there is none. */
export const retrySeconds: Readonly<Record<DeliveryKind, readonly number[]>> = {
  // Three hours: by then the app has asked us about its tokens.
  backchannel_logout: [1, 5, 15, 60, 300, 900, 1_800, 3_600, 3_600],
  // A day and a little.
  webhook: [5, 30, 120, 600, 1_800, 3_600, 7_200, 14_400, 28_800, 36_000],
}
/** How long a delivery is one worker's alone: longer than a call may take, with the time to write down how it went. */
export const leaseSeconds = 30
const sentDays = 7
const failedDays = 30

const receiver = 'coalesce(d.client_id, d.webhook_id)'
const waits = 'd.delivered_at is null and d.failed_at is null'
const nextReceiver = (of: string) =>
  `select ${receiver} from mlpipes_auth.deliveries d where ${waits} ${of} order by ${receiver} limit 1`
// From receiver to receiver along the index, and of each what there is room for, the first of each before the second of any:
// a receiver that is busy, or that has very many waiting, holds up no other. (Were the receiver not repeated in "order by",
// the planner would sort all that waits for it instead of reading the index in its order.) The attempt is counted and the
// lease taken in the statement that looks. Ids go from step to step as arrays, because a join of these steps was planned as a
// loop over everything that waits.
const take = `with recursive busy as (select name, calls from unnest($3::text[], $4::integer[]) as b (name, calls)),
  receivers as (
    select (${nextReceiver('')}) as name
    union all
    select (${nextReceiver(`and ${receiver} > r.name`)}) from receivers r where r.name is not null
  ), ready as (
    select d.id from receivers r cross join lateral (
      select d.id, d.next_attempt_at, row_number() over (order by ${receiver}, d.next_attempt_at, d.id) as place
      from mlpipes_auth.deliveries d
      where ${waits} and ${receiver} = r.name and d.next_attempt_at <= now() order by ${receiver}, d.next_attempt_at, d.id
      limit greatest(0, $2::integer - coalesce((select calls from busy where busy.name = r.name), 0))
    ) as d
    order by d.place, d.next_attempt_at, d.id limit $1::integer
  ), due as (
    select d.id from mlpipes_auth.deliveries d where ${waits} and d.next_attempt_at <= now() and d.id = any(array(select id from ready))
    for update skip locked
  ), taken as (
    update mlpipes_auth.deliveries d set attempts = d.attempts + 1, next_attempt_at = now() + make_interval(secs => $5::double precision)
    where d.id = any(array(select id from due))
    returning d.id, d.delivery_id, d.kind, d.organization_id, d.client_id, d.webhook_id, d.account_id, d.session_uid, d.sid,
      d.body, d.attempts, d.last_error, d.created_at
  )
  select t.id, t.delivery_id, t.kind, t.organization_id, t.client_id, t.webhook_id, t.account_id, t.session_uid, t.sid,
    t.body, t.attempts, t.last_error, t.created_at,
    coalesce(c.metadata ->> 'backchannel_logout_uri', w.url) as url,
    coalesce(c.metadata ->> 'id_token_signed_response_alg', 'RS256') as alg, w.sealed_secret
  from taken t left join mlpipes_auth.clients c on c.client_id = t.client_id and c.disabled_at is null
      and c.organization_id = t.organization_id
    left join mlpipes_auth.webhooks w on w.id = t.webhook_id and w.disabled_at is null`
// A worker whose lease ran out has no say any more: the number of tries is what it held.
const settleDelivered = `update mlpipes_auth.deliveries d set delivered_at = now(), last_error = null
    from unnest($1::bigint[], $2::integer[]) as held (id, attempts)
    where d.id = held.id and d.attempts = held.attempts and d.delivered_at is null and d.failed_at is null
    returning d.id`
// Not all at the same moment again: those that failed together would come back together.
const settleFailed = `update mlpipes_auth.deliveries set last_error = $3,
      next_attempt_at = now() + make_interval(secs => coalesce($4::double precision, 0) * (0.8 + 0.4 * random())),
      failed_at = case when $4::double precision is null then now() end
    where id = $1::bigint and attempts = $2::integer and delivered_at is null and failed_at is null returning id`
// Each with the time of the bundle, so that they come before the bundles after it: not all are unfolded at once.
const unfold = `with bundle as (
    delete from mlpipes_auth.deliveries d where d.id = $1::bigint and d.attempts = $2::integer and ${waits}
    returning d.kind, d.organization_id, d.client_id, d.body, d.created_at
  )
  insert into mlpipes_auth.deliveries (delivery_id, kind, organization_id, client_id, account_id, session_uid, sid, body,
      created_at, next_attempt_at)
    select gen_random_uuid()::text, b.kind, b.organization_id, b.client_id, s.account_id, s.uid, s.sid,
      jsonb_build_object('cause', s.cause), b.created_at, b.created_at
    from bundle b cross join lateral jsonb_to_recordset(b.body -> 'sessions')
      as s (account_id text, uid text, sid text, cause text)`
const giveUp = `update mlpipes_auth.deliveries d set failed_at = now(), last_error = 'ENOBODY'
    where ${waits} and ${receiver} = $1 and d.organization_id = $2 returning d.id`
const clean = `delete from mlpipes_auth.deliveries where id = any(array(select id from mlpipes_auth.deliveries
    where created_at < now() - make_interval(days => ${sentDays})
      and (delivered_at is not null or failed_at < now() - make_interval(days => ${failedDays}))
    order by created_at limit $1::integer for update skip locked)) returning id`

export interface DueDelivery {
  readonly id: string
  /** Said to the receiver, the same at each try. */
  readonly deliveryId: string
  readonly kind: DeliveryKind
  readonly organizationId: string
  readonly clientId: string | undefined
  readonly webhookId: string | undefined
  readonly accountId: string | undefined
  readonly sessionUid: string | undefined
  readonly sid: string | undefined
  readonly body: Readonly<Record<string, unknown>>
  /** It stands for many (`tellClientsInBundles`, logouts.ts): to be unfolded, not to be sent. */
  readonly isBundle: boolean
  /** Tries so far, this one included. */
  readonly attempts: number
  readonly lastError: string | undefined
  readonly createdAt: Date
  /** Undefined when there is nobody to tell any more. */
  readonly url: string | undefined
  readonly alg: string
  readonly sealedSecret: string | undefined
}

export interface Failure {
  /** A status or an error code. */
  readonly code: string
  /** Not to be tried again. */
  readonly permanent: boolean
  /** Nobody there could answer at this moment, whatever was to be said. */
  readonly isOutage?: boolean
}

export interface DeliveryOutbox {
  /**
   * Takes at most `limit` deliveries that are due, none to a receiver that would then have more than `perReceiver` calls.
   * @param calls what this worker has under way, by receiver
   */
  takeDue(limit: number, perReceiver: number, calls: ReadonlyMap<string, number>): Promise<DueDelivery[]>
  /** Calls made at the same time are one statement. A delivery that was not the caller's any more stays as it is. */
  markDelivered(delivery: DueDelivery): Promise<void>
  /** Writes the deliveries that a bundle stands for in its place. A bundle that was not the caller's any more stays as it is. */
  unfold(bundle: DueDelivery): Promise<void>
  /** Puts it back for a later try, or gives it up; 'lost' when it was not the caller's any more. */
  markFailed(delivery: DueDelivery, failure: Failure): Promise<'retry' | 'dead' | 'lost'>
  /** Deletes at most `limit` that were delivered a week or given up a month ago. Returns how many. */
  clean(limit: number): Promise<number>
}

export interface DeliveryOutboxParts {
  readonly database: Database
  readonly retrySeconds?: readonly number[]
  readonly leaseSeconds?: number
}

export function createDeliveryOutbox(parts: DeliveryOutboxParts): DeliveryOutbox {
  const { database } = parts
  const delaysOf = (kind: DeliveryKind) => parts.retrySeconds ?? retrySeconds[kind]
  return {
    async takeDue(limit, perReceiver, calls) {
      const lease = parts.leaseSeconds ?? leaseSeconds
      const rows = await database.run(take, [limit, perReceiver, [...calls.keys()], [...calls.values()], lease])
      return rows.map(toDue)
    },
    markDelivered: createBatcher<DueDelivery, void>({
      maxBatch: 100,
      maxInFlight: 1,
      maxWaiting: 10_000,
      async run(deliveries) {
        await transact(database.kysely, (tx) => deliver(tx, deliveries))
        return deliveries.map(() => undefined)
      },
    }),
    unfold: async ({ id, attempts }) => void (await database.run(unfold, [id, attempts])),
    markFailed: (delivery, { code, permanent }) =>
      transact(database.kysely, async (tx) => {
        const delay = permanent ? undefined : delaysOf(delivery.kind)[delivery.attempts - 1]
        const rows = await runIn(tx, settleFailed, [delivery.id, delivery.attempts, code, delay ?? null])
        if (rows.length === 0) return 'lost'
        if (delay !== undefined) return 'retry'
        await appendAudit(tx, {
          ...about(delivery),
          name: 'delivery.failed',
          outcome: 'failure',
          details: { ...facts(delivery), error: code },
        })
        return 'dead'
      }),
    clean: async (limit) => (await database.run(clean, [limit])).length,
  }
}

/** Gives up what waits for a client that is being removed. Belongs into the transaction that removes it. */
export async function giveUpDeliveries(tx: Tx, organizationId: string, clientId: string): Promise<void> {
  await runIn(tx, giveUp, [clientId, organizationId])
}

async function deliver(tx: Tx, deliveries: readonly DueDelivery[]): Promise<void> {
  const rows = await runIn(tx, settleDelivered, [
    deliveries.map(({ id }) => id),
    deliveries.map(({ attempts }) => attempts),
  ])
  const settled = new Set(rows.map((row) => String(row['id'])))
  const events = deliveries
    .filter(({ id }) => settled.has(id))
    .map(
      (delivery): AuditEvent => ({
        ...about(delivery),
        name: 'delivery.succeeded',
        outcome: 'success',
        details: facts(delivery),
      }),
    )
  if (events.length > 0) await appendAudit(tx, ...events)
}

function about({ accountId, organizationId, sessionUid, clientId }: DueDelivery) {
  return { actor: { type: 'system' as const }, accountId, organizationId, sessionUid, clientId, origin: {} }
}

function facts({ deliveryId, kind, attempts }: DueDelivery) {
  return { deliveryId, kind, attempts }
}

function toDue(row: Row): DueDelivery {
  const body = row['body'] as Record<string, unknown>
  return {
    id: String(row['id']),
    deliveryId: String(row['delivery_id']),
    kind: row['kind'] as DeliveryKind,
    organizationId: String(row['organization_id']),
    clientId: textOf(row['client_id']),
    webhookId: textOf(row['webhook_id']),
    accountId: textOf(row['account_id']),
    sessionUid: textOf(row['session_uid']),
    sid: textOf(row['sid']),
    body,
    isBundle: row['kind'] === 'backchannel_logout' && 'sessions' in body,
    attempts: Number(row['attempts']),
    lastError: textOf(row['last_error']),
    createdAt: row['created_at'] as Date,
    url: textOf(row['url']),
    alg: String(row['alg']),
    sealedSecret: textOf(row['sealed_secret']),
  }
}

function textOf(value: unknown): string | undefined {
  return value === null || value === undefined ? undefined : String(value)
}

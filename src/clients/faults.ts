// Recent faults of apps: gathered in memory, written a moment later in their own statements, and read for the page of an
// app and at the admin API. Nothing waits for it: what does not fit into the queue is dropped, and so is what the database
// does not take.
import type { FastifyBaseLogger } from 'fastify'
import { sha256 } from '../crypto/secrets.ts'
import { type Database, type Row, runIn, type Tx } from '../db/database.ts'
import { transactFor } from '../db/organization-transaction.ts'
import { type ClientFault, type FaultReason, faultEndpoints, faultReasons } from './fault-reasons.ts'

/** Rows of an app: as many as migration 0009 has slots for. */
export const maxFaults = 50
/** Of one reason, so that a flood of one kind leaves the others to be seen. */
export const maxFaultsOfReason = 10
/** Different faults that wait; more within a second are dropped. */
export const maxWaiting = 64
const writeAfterMs = 1_000

export interface SeenFault extends ClientFault {
  readonly count: number
  readonly at: Date
}

export interface Faults {
  /** Takes a fault down, soon. Never throws and never waits. */
  note(fault: ClientFault): void
  /** Writes what waits, as far as the database takes it. */
  write(): Promise<void>
  /** What an app of this organisation was refused for, the latest first. */
  recent(organizationId: string, clientId: string): Promise<SeenFault[]>
  stop(): Promise<void>
}

// Which row it goes to: its own of the last hour, or the oldest of its reason when that has its share, or a free slot, or
// the oldest of all. Two replicas that choose the same slot at once lose one of two faults, and no more.
const keep = `with wanted as (select $1::text as client_id, $2::text as endpoint, $3::text as error, $4::text as reason,
      $5::jsonb as facts, $6::text as digest, $7::bigint as count),
    app as (select c.client_id from mlpipes_auth.clients c join wanted using (client_id)),
    had as (select slot, f.reason, f.digest, first_at, occurred_at from mlpipes_auth.client_faults f join app using (client_id)),
    chosen as (select coalesce(
      (select slot from had join wanted using (digest) where first_at > now() - interval '1 hour' limit 1),
      (select slot from had join wanted using (reason)
        where (select count(*) from had same where same.reason = wanted.reason) >= ${maxFaultsOfReason}
        order by occurred_at limit 1),
      (select min(slot)::smallint from generate_series(0, ${maxFaults - 1}) slot where slot not in (select slot from had)),
      (select slot from had order by occurred_at limit 1)) as slot)
  insert into mlpipes_auth.client_faults as f (client_id, slot, endpoint, error, reason, facts, digest, count)
  select client_id, slot, endpoint, error, reason, facts, digest, count from wanted join app using (client_id), chosen
  on conflict (client_id, slot) do update set endpoint = excluded.endpoint, error = excluded.error,
    reason = excluded.reason, facts = excluded.facts, digest = excluded.digest, occurred_at = now(),
    count = excluded.count + case when f.digest = excluded.digest and f.first_at > now() - interval '1 hour'
      then f.count else 0 end,
    first_at = case when f.digest = excluded.digest and f.first_at > now() - interval '1 hour' then f.first_at else now() end`
const list = `select f.client_id, f.endpoint, f.error, f.reason, f.facts, f.count, f.occurred_at
  from mlpipes_auth.client_faults f join mlpipes_auth.clients c on c.client_id = f.client_id
  where f.client_id = $1 and c.organization_id = $2 order by f.occurred_at desc, f.slot limit ${maxFaults}`

interface Parts {
  readonly database: Database
  readonly logger: Pick<FastifyBaseLogger, 'warn'>
}

export function createFaults({ database, logger }: Parts): Faults {
  let waiting = new Map<string, { readonly fault: ClientFault; count: number }>()
  let timer: NodeJS.Timeout | undefined
  let writing = Promise.resolve()

  async function writeAll(batch: Iterable<{ readonly fault: ClientFault; readonly count: number }>): Promise<void> {
    for (const { fault, count } of batch) {
      const { clientId, endpoint, error, reason, facts } = fault
      const known = JSON.stringify(facts)
      const digest = sha256(JSON.stringify([endpoint, error, reason, facts]))
      await database.run(keep, [clientId, endpoint, error, reason, known, digest, count])
    }
  }

  const faults: Faults = {
    note(fault) {
      const key = JSON.stringify(fault)
      const same = waiting.get(key)
      if (same) same.count += 1
      else if (waiting.size < maxWaiting) waiting.set(key, { fault, count: 1 })
      timer ??= setTimeout(() => void faults.write(), writeAfterMs).unref()
    },
    write() {
      clearTimeout(timer)
      timer = undefined
      const batch = waiting
      waiting = new Map()
      writing = writing
        .then(() => writeAll(batch.values()))
        .catch((error: unknown) => logger.warn({ err: error }, 'faults of apps were not written down'))
      return writing
    },
    async recent(organizationId, clientId) {
      await faults.write()
      return transactFor(database.kysely, organizationId, (tx) => listFaults(tx, organizationId, clientId))
    },
    stop: () => faults.write(),
  }
  return faults
}

/** What is written down of an app of this organisation, the latest first. */
export async function listFaults(tx: Tx, organizationId: string, clientId: string): Promise<SeenFault[]> {
  return (await runIn(tx, list, [clientId, organizationId])).flatMap(toSeen)
}

/** None for an endpoint that this version does not know: a newer one wrote it. */
function toSeen(row: Row): SeenFault[] {
  const endpoint = faultEndpoints.find((known) => known === row['endpoint'])
  if (endpoint === undefined) return []
  return [
    {
      clientId: String(row['client_id']),
      endpoint,
      error: String(row['error']),
      reason: reasonIn(row['reason']),
      facts: row['facts'] as ClientFault['facts'],
      count: Number(row['count']),
      at: row['occurred_at'] as Date,
    },
  ]
}

/** One that this version does not know was written by a newer one. */
const reasonIn = (value: unknown): FaultReason => faultReasons.find((reason) => reason === value) ?? 'other'

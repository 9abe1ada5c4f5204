// oidc_payloads in SQL. Ids are stored as SHA-256 and taken out of the payload, so that a stolen database holds no
// token. What concurrent requests read or write in one turn of the event loop is one statement over arrays.

import { type AdapterPayload, errors } from 'oidc-provider'
import type { AuditEvent } from '../audit/events.ts'
import { auditInsert, auditValues } from '../audit/store.ts'
import { createBatcher } from '../db/batcher.ts'
import { coalesce } from '../db/coalesce.ts'
import { type Database, type Db, type Row, runIn, type Tx } from '../db/database.ts'
import { withOpenTransaction } from '../db/transaction.ts'

export interface PayloadRow {
  readonly model: string
  readonly idHash: string
  readonly payload: Record<string, unknown>
  readonly grantId: string | undefined
  readonly accountId: string | undefined
  readonly clientId: string | undefined
  /** The organisation that it was issued in, if it is a person's. */
  readonly organizationId: string | undefined
  /** Undefined: never expires. */
  readonly expiresInSeconds: number | undefined
}

export interface StoredPayload {
  readonly payload: Record<string, unknown>
  readonly consumed: boolean
  /** Seconds since it was consumed, by the database's clock. */
  readonly consumedSecondsAgo: number | undefined
}

interface Write {
  readonly row: PayloadRow
  readonly events: readonly AuditEvent[]
}

const columnCount = 8

// A row written again keeps consumed_at: an upsert must not make a spent code fresh. The order by keeps two batches
// that write the same rows from deadlocking.
const save = `with saved as (
    insert into mlpipes_auth.oidc_payloads as p (model, id_hash, payload, grant_id, account_id, client_id, organization_id, expires_at)
    select model, id_hash, payload::jsonb, grant_id, account_id, client_id, organization_id, now() + make_interval(secs => ttl)
    from unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::text[], $6::text[], $7::text[], $8::integer[])
      as row (model, id_hash, payload, grant_id, account_id, client_id, organization_id, ttl)
    order by model, id_hash
    on conflict (model, id_hash) do update set payload = excluded.payload, grant_id = excluded.grant_id,
      account_id = excluded.account_id, client_id = excluded.client_id, organization_id = excluded.organization_id,
      expires_at = excluded.expires_at
    returning 1
  ), logged as (${auditInsert(columnCount + 1)})
  select count(*) from saved`
const columns =
  'payload, consumed_at is not null as consumed, floor(extract(epoch from now() - consumed_at))::integer as consumed_seconds_ago'
const unexpired = '(expires_at is null or expires_at > now())'
const findMany = `select p.model, p.id_hash, ${columns} from unnest($1::text[], $2::text[]) as wanted (model, id_hash)
    join mlpipes_auth.oidc_payloads p on p.model = wanted.model and p.id_hash = wanted.id_hash where ${unexpired}`
const findLocked = `select ${columns} from mlpipes_auth.oidc_payloads where model = $1 and id_hash = $2 and ${unexpired} for update`
const findShared = `select ${columns} from mlpipes_auth.oidc_payloads where model = $1 and id_hash = $2 and ${unexpired} for share`
const insertOnce = `insert into mlpipes_auth.oidc_payloads (model, id_hash, payload, expires_at)
    values ($1, $2, $3::jsonb, now() + make_interval(secs => $4::integer))
    on conflict (model, id_hash) do update set expires_at = excluded.expires_at, payload = excluded.payload
      where oidc_payloads.expires_at <= now() returning 1 as inserted`
const prolong = `update mlpipes_auth.oidc_payloads set expires_at = now() + make_interval(secs => $3::integer),
      payload = payload || jsonb_build_object('exp', floor(extract(epoch from now()))::bigint + $3::integer)
    where model = $1 and id_hash = $2 and ${unexpired}`
const clean = `delete from mlpipes_auth.oidc_payloads where ctid = any(array(select ctid from mlpipes_auth.oidc_payloads
    where expires_at < now() - interval '1 day' order by expires_at limit $1::integer for update skip locked)) returning 1`

export interface PayloadStore {
  find(model: string, idHash: string): Promise<StoredPayload | undefined>
  /** Reads under a row lock: `update` for what is about to be spent, `share` for what must not vanish meanwhile. */
  findLocked(tx: Tx, lock: 'update' | 'share', model: string, idHash: string): Promise<StoredPayload | undefined>
  save(tx: Tx | undefined, row: PayloadRow, events: readonly AuditEvent[]): Promise<void>
  /** Inserts if no live row has this id; false when there is one (replay detection). In the request's transaction, if one is open. */
  insertOnce(
    model: string,
    idHash: string,
    payload: Record<string, unknown>,
    expiresInSeconds: number,
  ): Promise<boolean>
  /** Compare-and-set: true for the one caller who consumed it (D1). */
  consume(tx: Tx, model: string, idHash: string): Promise<boolean>
  /** Lets what is stored last for so many seconds from now. What was taken away meanwhile stays away. */
  prolong(model: string, idHash: string, seconds: number): Promise<void>
  destroy(db: Db, model: string, idHash: string): Promise<boolean>
  revokeByGrantId(tx: Tx, model: string, grantId: string): Promise<number>
  /** Deletes rows that expired more than a day ago, at most `limit` of them; returns how many. */
  clean(limit: number): Promise<number>
}

export function createPayloadStore(database: Database): PayloadStore {
  const findCoalesced = coalesce<{ model: string; idHash: string }, StoredPayload | undefined>(database, {
    statement: findMany,
    values: (items) => [items.map((item) => item.model), items.map((item) => item.idHash)],
    results(rows, items) {
      const byKey = new Map(
        rows.map((row) => [`${String(row['model'])} ${String(row['id_hash'])}`, toStoredPayload(row)]),
      )
      // Each asker gets a copy of its own: the provider writes into what it is given.
      return items.map((item) => {
        const stored = byKey.get(`${item.model} ${item.idHash}`)
        return stored && { ...stored, payload: { ...stored.payload } }
      })
    },
  })
  const saveBatched = createBatcher<Write, void>({
    maxBatch: 200,
    maxInFlight: 1,
    maxWaiting: 20_000,
    async run(writes) {
      const latest = new Map(writes.map((write) => [`${write.row.model} ${write.row.idHash}`, write.row]))
      await database.run(
        save,
        saveValues(
          [...latest.values()],
          writes.flatMap((write) => write.events),
        ),
      )
      return writes.map(() => undefined)
    },
  })
  return {
    find: (model, idHash) => findCoalesced({ model, idHash }),
    async findLocked(tx, lock, model, idHash) {
      const [row] = await runIn(tx, lock === 'update' ? findLocked : findShared, [model, idHash])
      return row && toStoredPayload(row)
    },
    async save(tx, row, events) {
      if (!tx) return saveBatched({ row, events })
      await runIn(tx, save, saveValues([row], events))
    },
    async insertOnce(model, idHash, payload, expiresInSeconds) {
      // A date may have a fraction (RFC 7519 §2), and what is remembered too long is remembered well enough.
      const values = [model, idHash, JSON.stringify(payload), Math.ceil(expiresInSeconds)]
      const rows = await withOpenTransaction((tx) =>
        tx ? runIn(tx, insertOnce, values) : database.run(insertOnce, values),
      )
      return rows.length === 1
    },
    async consume(tx, model, idHash) {
      const result = await tx
        .updateTable('oidc_payloads')
        .set((eb) => ({ consumed_at: eb.fn<Date>('now') }))
        .where('model', '=', model)
        .where('id_hash', '=', idHash)
        .where('consumed_at', 'is', null)
        .executeTakeFirst()
      return result.numUpdatedRows === 1n
    },
    async prolong(model, idHash, seconds) {
      await database.run(prolong, [model, idHash, seconds])
    },
    async destroy(db, model, idHash) {
      const result = await db
        .deleteFrom('oidc_payloads')
        .where('model', '=', model)
        .where('id_hash', '=', idHash)
        .executeTakeFirst()
      return result.numDeletedRows === 1n
    },
    async revokeByGrantId(tx, model, grantId) {
      const result = await tx
        .deleteFrom('oidc_payloads')
        .where('model', '=', model)
        .where('grant_id', '=', grantId)
        .executeTakeFirst()
      return Number(result.numDeletedRows)
    },
    clean: async (limit) => (await database.run(clean, [limit])).length,
  }
}

function saveValues(rows: readonly PayloadRow[], events: readonly AuditEvent[]): unknown[] {
  return [
    rows.map((row) => row.model),
    rows.map((row) => row.idHash),
    rows.map((row) => JSON.stringify(row.payload)),
    rows.map((row) => row.grantId ?? null),
    rows.map((row) => row.accountId ?? null),
    rows.map((row) => row.clientId ?? null),
    rows.map((row) => row.organizationId ?? null),
    rows.map((row) => row.expiresInSeconds ?? null),
    ...auditValues(events),
  ]
}

/** Maps a row with a payload; whether it was consumed may be left out. */
export function toStoredPayload(row: Row): StoredPayload {
  const ago = row['consumed_seconds_ago']
  return {
    payload: row['payload'] as Record<string, unknown>,
    consumed: row['consumed'] === true,
    consumedSecondsAgo: ago === null || ago === undefined ? undefined : Number(ago),
  }
}

// JSON writes both as escapes; a text that spells such an escape out has one backslash more.
const unstorable = /(?<!\\)(?:\\\\)*\\u(?:0000|d[89a-f][0-9a-f]{2})/
/**
 * PostgreSQL holds no text with a NUL character or half a surrogate pair. What a request brought is refused before it is put
 * among the writes of others.
 * @throws InvalidRequest
 */
export function assertStorable(payload: unknown): void {
  if (unstorable.test(JSON.stringify(payload)))
    throw new errors.InvalidRequest('the request holds a NUL character or half a character')
}

/** What is stored of a payload: without its id, and without the session id that an interaction copies. */
export function stripped(payload: AdapterPayload): Record<string, unknown> {
  const { jti, ...rest } = payload
  void jti
  if (rest.kind !== 'Interaction' || !rest.session) return rest
  const { cookie, ...session } = rest.session
  void cookie
  return { ...rest, session }
}

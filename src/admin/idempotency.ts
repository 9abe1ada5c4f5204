// Idempotency-Key: a creation that is sent again, because its answer was lost, is answered as before and not done again.
// Key, act and answer are written in one transaction, so that there is never one without the others.
import { ApiProblem } from '../api/problems.ts'
import { type Secrets, sha256 } from '../crypto/secrets.ts'
import { type Database, runIn, type Tx } from '../db/database.ts'

const keyPattern = /^[\x20-\x7e]{1,255}$/
const keptSeconds = 86_400

/** The header of an answer that was given before. */
export const replayed = 'idempotency-replayed'

/** An answer as it is kept: nothing in it can change meanwhile. */
export interface StoredAnswer {
  readonly status: number
  readonly body: string | undefined
  readonly headers: Readonly<Record<string, string>>
}

export interface IdempotentRequest {
  /** Who asks, in which organisation. */
  readonly callerId: string
  readonly organizationId: string | undefined
  readonly key: string
  /** What is asked for: operation, address and body. */
  readonly request: readonly unknown[]
}

// Whoever does it first holds this until the end of the transaction; others are told so at once instead of waiting.
const begin = 'select pg_try_advisory_xact_lock(hashtextextended($1, 0)) as mine'
const find = `select request_hash, status, sealed_answer from mlpipes_auth.idempotency_keys
    where key_hash = $1 and expires_at > now()`
const keep = `insert into mlpipes_auth.idempotency_keys (key_hash, organization_id, request_hash, status, sealed_answer, expires_at)
    values ($1, $2, $3, $4, $5, now() + make_interval(secs => $6::integer))
    on conflict (key_hash) do update set request_hash = excluded.request_hash, status = excluded.status,
      sealed_answer = excluded.sealed_answer, created_at = now(), expires_at = excluded.expires_at
    where idempotency_keys.expires_at <= now() returning 1`
const clean = `delete from mlpipes_auth.idempotency_keys where ctid = any(array(select ctid from mlpipes_auth.idempotency_keys
    where expires_at < now() order by expires_at limit $1::integer for update skip locked)) returning 1`

/** @throws ApiProblem for what is no key; undefined when there is none */
export function readIdempotencyKey(header: string | string[] | undefined): string | undefined {
  if (header === undefined) return undefined
  if (typeof header === 'string' && keyPattern.test(header)) return header
  throw new ApiProblem('input_invalid', [{ path: 'Idempotency-Key', message: 'must be 1 to 255 printable characters' }])
}

/**
 * Does `work` once per key within a day, and answers what it answered every other time.
 * @throws ApiProblem when the key is another request's, or its first use is under way
 */
export async function once(
  tx: Tx,
  secrets: Secrets,
  asked: IdempotentRequest,
  work: () => Promise<StoredAnswer>,
): Promise<StoredAnswer> {
  const keyHash = keyHashOf(asked)
  const requestHash = sha256(JSON.stringify(asked.request))
  const context = `idempotency:${keyHash}`
  const [lock] = await runIn(tx, begin, [keyHash])
  if (lock?.['mine'] !== true) throw new ApiProblem('idempotency_in_progress', [], { retryAfterSeconds: 1 })
  const [row] = await runIn(tx, find, [keyHash])
  if (row) {
    if (row['request_hash'] !== requestHash) throw new ApiProblem('idempotency_key_reused')
    const { headers, ...stored }: StoredAnswer = JSON.parse(secrets.open(String(row['sealed_answer']), context))
    return { ...stored, headers: { ...headers, [replayed]: 'true' } }
  }
  const answer = await work()
  const sealed = secrets.seal(JSON.stringify(answer), context)
  await runIn(tx, keep, [keyHash, asked.organizationId ?? null, requestHash, answer.status, sealed, keptSeconds])
  return answer
}

/** Whether the key has answered already, so that nothing has to be prepared for it. */
export async function isAnswered(
  database: Pick<Database, 'run'>,
  asked: Omit<IdempotentRequest, 'request'>,
): Promise<boolean> {
  return (await database.run(find, [keyHashOf(asked)])).length > 0
}

function keyHashOf({ callerId, organizationId, key }: Omit<IdempotentRequest, 'request'>): string {
  return sha256(JSON.stringify([callerId, organizationId ?? null, key]))
}

/** Deletes keys whose day is over, at most `limit` of them; returns how many. */
export async function cleanIdempotencyKeys(database: Pick<Database, 'run'>, limit: number): Promise<number> {
  return (await database.run(clean, [limit])).length
}

// Signing keys: encrypted in the database, made under a lock at the first start, and rotated by time alone. What a key
// does at a moment follows from its row: announced until promote_at, signing after it, kept for verification until
// retire_at. Every replica reads the rows every few seconds, so all agree without a message between them.
import { randomUUID } from 'node:crypto'
import { exportJWK, generateKeyPair, type JWK } from 'jose'
import { sql } from 'kysely'
import { appendAudit } from '../audit/audit.ts'
import type { Secrets } from '../crypto/secrets.ts'
import type { Db, Tx } from '../db/database.ts'
import { transact } from '../db/transaction.ts'

const algorithms = ['RS256', 'ES256'] as const
const rsaModulusBits = 3072

/** How long a new key is only published: relying parties cache our JWKS, and replicas poll. */
export const announceSeconds = 60
/** How long a replaced key still verifies: the longest ID token and then some. */
export const keepSeconds = 86_400

export interface SigningKey {
  readonly kid: string
  readonly alg: string
  readonly state: 'announced' | 'signing' | 'retiring' | 'retired'
  readonly createdAt: Date
  readonly promoteAt: Date
  readonly retireAt: Date | null
}

export interface Keys {
  /** Makes the first keys if there are none. Safe from several replicas at once. */
  ensure(): Promise<void>
  list(): Promise<SigningKey[]>
  /** Adds a key per algorithm, to be promoted and to replace today's at the times in the answer. */
  rotate(): Promise<SigningKey[]>
  /** Private keys as the provider wants them: the signing one of each algorithm first. `version` changes with the list. */
  load(): Promise<{ readonly version: string; readonly jwks: JWK[] }>
  /** Deletes the private part of keys that are past retirement. */
  purge(): Promise<number>
}

export function createKeys(db: Db, secrets: Secrets): Keys {
  const lock = (tx: Tx) => sql`select pg_advisory_xact_lock(hashtext('mlpipes_auth.signing_keys'))`.execute(tx)
  const list = async () => {
    const now = sql<Date>`now()`
    const rows = await db
      .selectFrom('signing_keys')
      .select(['kid', 'alg', 'created_at', 'promote_at', 'retire_at', now.as('now')])
      .orderBy('created_at')
      .execute()
    return rows.map((row) => ({
      kid: row.kid,
      alg: row.alg,
      createdAt: row.created_at,
      promoteAt: row.promote_at,
      retireAt: row.retire_at,
      state: stateOf(row, row.now),
    }))
  }
  return {
    async ensure() {
      const present = await db.selectFrom('signing_keys').select('kid').limit(1).executeTakeFirst()
      if (present) return
      // Making RSA keys takes a while, so it happens before the lock is taken; the loser of a race throws its own away.
      const made = await Promise.all(algorithms.map(makeKey))
      await transact(db, async (tx) => {
        await lock(tx)
        if (await tx.selectFrom('signing_keys').select('kid').limit(1).executeTakeFirst()) return
        for (const key of made) await insert(tx, secrets, key, new Date())
      })
    },
    list,
    async rotate() {
      const made = await Promise.all(algorithms.map(makeKey))
      await transact(db, async (tx) => {
        await lock(tx)
        const pending = await tx
          .selectFrom('signing_keys')
          .select('kid')
          .where('promote_at', '>', sql<Date>`now()`)
          .executeTakeFirst()
        if (pending) throw new RotationPending('a rotation is under way already; wait until its keys sign')
        const promoteAt = new Date(Date.now() + announceSeconds * 1000)
        await tx
          .updateTable('signing_keys')
          .set({ retire_at: new Date(promoteAt.getTime() + keepSeconds * 1000) })
          .where('retire_at', 'is', null)
          .execute()
        for (const key of made) await insert(tx, secrets, key, promoteAt)
      })
      return list()
    },
    async load() {
      const rows = await db
        .selectFrom('signing_keys')
        .select([
          'kid',
          'alg',
          'sealed_private_jwk',
          'promote_at',
          'retire_at',
          'created_at',
          sql<Date>`now()`.as('now'),
        ])
        .where((eb) => eb.or([eb('retire_at', 'is', null), eb('retire_at', '>', sql<Date>`now()`)]))
        .orderBy('created_at')
        .execute()
      const order = { signing: 0, announced: 1, retiring: 2, retired: 3 } as const
      const states = rows
        .map((row) => ({ row, state: stateOf(row, row.now) }))
        .sort((a, b) => order[a.state] - order[b.state])
      const jwks = states.map(({ row }): JWK => JSON.parse(secrets.open(row.sealed_private_jwk, sealContext(row.kid))))
      return { version: states.map(({ row, state }) => `${row.kid}:${state}`).join(' '), jwks }
    },
    async purge() {
      return transact(db, async (tx) => {
        const gone = await tx
          .deleteFrom('signing_keys')
          .where('retire_at', '<=', sql<Date>`now()`)
          .returning('kid')
          .execute()
        for (const { kid } of gone) {
          await appendAudit(tx, {
            name: 'keys.retired',
            outcome: 'success',
            actor: { type: 'system' },
            origin: {},
            details: { kid },
          })
        }
        return gone.length
      })
    },
  }
}

/** Thrown by `rotate` while the keys of an earlier rotation are only announced. */
export class RotationPending extends Error {}

function stateOf(row: { promote_at: Date; retire_at: Date | null }, now: Date): SigningKey['state'] {
  if (row.retire_at !== null && row.retire_at <= now) return 'retired'
  if (row.promote_at > now) return 'announced'
  const replacedAt = row.retire_at === null ? undefined : row.retire_at.getTime() - keepSeconds * 1000
  return replacedAt !== undefined && replacedAt <= now.getTime() ? 'retiring' : 'signing'
}

interface MadeKey {
  readonly kid: string
  readonly alg: (typeof algorithms)[number]
  readonly publicJwk: JWK
  readonly privateJwk: JWK
}

async function makeKey(alg: (typeof algorithms)[number]): Promise<MadeKey> {
  const pair = await generateKeyPair(alg, { extractable: true, modulusLength: rsaModulusBits })
  const kid = randomUUID()
  const named = { kid, alg, use: 'sig' }
  return {
    kid,
    alg,
    publicJwk: { ...(await exportJWK(pair.publicKey)), ...named },
    privateJwk: { ...(await exportJWK(pair.privateKey)), ...named },
  }
}

async function insert(tx: Tx, secrets: Secrets, key: MadeKey, promoteAt: Date): Promise<void> {
  await tx
    .insertInto('signing_keys')
    .values({
      kid: key.kid,
      alg: key.alg,
      public_jwk: JSON.stringify(key.publicJwk),
      sealed_private_jwk: secrets.seal(JSON.stringify(key.privateJwk), sealContext(key.kid)),
      promote_at: promoteAt,
    })
    .execute()
  await appendAudit(tx, {
    name: 'keys.created',
    outcome: 'success',
    actor: { type: 'system' },
    origin: {},
    details: { kid: key.kid, alg: key.alg, promoteAt: promoteAt.toISOString() },
  })
}

function sealContext(kid: string): string {
  return `signing-key:${kid}`
}

// Guessing at the secret of a client (F08): wrong ones are counted by client and network, in rows that all replicas share. Who
// sends the right one costs no statement: a replica learns of a limit that is reached from the last wrong one that it saw.
import type { Secrets } from '../crypto/secrets.ts'
import type { Database, Row } from '../db/database.ts'
import { addressGroup } from '../http/address.ts'
import { type Limit, throttleLimits } from './throttle.ts'

/** Pairs of client and network that a replica keeps in mind. Beyond them the oldest is forgotten, here and not in the database. */
export const maxRemembered = 10_000

export interface SecretGuesses {
  /** Whether nothing has to be looked up, because nobody was wrong lately. */
  isQuiet(): boolean
  /** In how many seconds secrets of this client are looked at again that come from there; undefined when they are now. */
  pauseSeconds(clientId: string, ip: string | undefined): number | undefined
  /** Counts a wrong one. Answer it afterwards. Never call it where a transaction is open: it must outlive a rollback. */
  count(clientId: string, ip: string | undefined): Promise<void>
}

interface Remembered {
  /** Wrong ones that the database is being told of. They count already, or many at once would get through. */
  pending: number
  failures: number
  /** When the window ends, by the database, and by our own clock. */
  windowEnd: number
  endsAtMs: number
}

const countWrong = `insert into mlpipes_auth.sign_in_attempts as a (key, failures, window_ends_at)
    values ($1, 1, now() + make_interval(secs => $2::integer))
    on conflict (key) do update set
      failures = case when a.window_ends_at <= now() then 1 else a.failures + 1 end,
      window_ends_at = case when a.window_ends_at <= now() then excluded.window_ends_at else a.window_ends_at end
    returning failures, extract(epoch from window_ends_at)::float8 as window_end,
      extract(epoch from window_ends_at - now())::float8 as left_seconds`

export function createSecretGuesses(parts: {
  readonly database: Database
  readonly secrets: Secrets
  now(): Date
  readonly limit?: Limit
  readonly mostRemembered?: number
}): SecretGuesses {
  const { database, secrets } = parts
  const { tries, windowSeconds } = parts.limit ?? throttleLimits.wrongSecretsPerClientAndAddress
  const mostRemembered = parts.mostRemembered ?? maxRemembered
  const remembered = new Map<string, Remembered>()
  const keyOf = (clientId: string, ip: string | undefined) => `${addressGroup(ip) ?? 'unknown'} ${clientId}`

  function remember(key: string): Remembered {
    const known = remembered.get(key)
    if (known) return known
    const nowMs = parts.now().getTime()
    for (const [oldest, { pending, endsAtMs }] of remembered) {
      const isOver = pending === 0 && endsAtMs <= nowMs
      if (!isOver && remembered.size < mostRemembered) break
      remembered.delete(oldest)
    }
    const entry = { pending: 0, failures: 0, windowEnd: 0, endsAtMs: 0 }
    remembered.set(key, entry)
    return entry
  }

  return {
    isQuiet: () => remembered.size === 0,

    pauseSeconds(clientId, ip) {
      const entry = remembered.size === 0 ? undefined : remembered.get(keyOf(clientId, ip))
      if (!entry) return undefined
      const leftMs = entry.endsAtMs - parts.now().getTime()
      const failures = leftMs > 0 ? entry.failures : 0
      if (failures >= tries) return Math.ceil(leftMs / 1_000)
      return failures + entry.pending >= tries ? 1 : undefined
    },

    async count(clientId, ip) {
      const key = keyOf(clientId, ip)
      const entry = remember(key)
      entry.pending += 1
      try {
        const [row] = await database.run(countWrong, [secrets.mac('attempts', `client_secret:${key}`), windowSeconds])
        if (row) note(entry, row, parts.now().getTime())
      } finally {
        entry.pending -= 1
      }
    },
  }
}

/** Answers come in any order: of one window the highest count holds, and of two windows the later. */
function note(entry: Remembered, row: Row, nowMs: number): void {
  const windowEnd = Number(row['window_end'])
  if (windowEnd < entry.windowEnd) return
  const failures = Number(row['failures'])
  entry.failures = windowEnd === entry.windowEnd ? Math.max(entry.failures, failures) : failures
  entry.windowEnd = windowEnd
  entry.endsAtMs = nowMs + Number(row['left_seconds']) * 1_000
}

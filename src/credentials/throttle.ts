// Throttling of guesses: a counter per account (whatever the spelling of its e-mail) and per address, counted before
// anything is compared, by one conditional update each (F36). Shared by all replicas, because it lives in the database.
import type { Database } from '../db/database.ts'

// At most one row per key: the update wins only below the limit or after the window, so that no number of parallel
// requests gets more tries than the limit.
const take = `insert into mlpipes_auth.sign_in_attempts as a (key, failures, window_ends_at)
    select key, 1, now() + make_interval(secs => $3::integer) from unnest($1::text[], $2::integer[]) as wanted (key, max_failures)
    order by key
    on conflict (key) do update set
      failures = case when a.window_ends_at <= now() then 1 else a.failures + 1 end,
      window_ends_at = case when a.window_ends_at <= now() then excluded.window_ends_at else a.window_ends_at end
    where a.window_ends_at <= now()
      or a.failures < (select max_failures from unnest($1::text[], $2::integer[]) as w (k, max_failures) where w.k = a.key)
    returning key, failures`
const settle = `with cleared as (delete from mlpipes_auth.sign_in_attempts where key = any($1::text[]))
    update mlpipes_auth.sign_in_attempts set failures = greatest(failures - 1, 0) where key = any($2::text[])`
const wait = `select ceil(extract(epoch from max(window_ends_at) - now()))::integer as seconds
    from mlpipes_auth.sign_in_attempts where key = any($1::text[]) and window_ends_at > now()`

export interface Budget {
  readonly key: string
  readonly maxFailures: number
}

export type Attempt =
  | { readonly ok: true; readonly count: number }
  | { readonly ok: false; readonly retryAfterSeconds: number }

const windowSeconds = 900

/** Counts one try against every budget. `count` is the number of tries on the first budget in this window. */
export async function takeAttempt(database: Database, budgets: readonly Budget[]): Promise<Attempt> {
  const keys = budgets.map((budget) => budget.key)
  const taken = await database.run(take, [keys, budgets.map((budget) => budget.maxFailures), windowSeconds])
  if (taken.length === budgets.length) {
    const first = taken.find((row) => row['key'] === keys[0])
    return { ok: true, count: Number(first?.['failures']) }
  }
  const [row] = await database.run(wait, [keys])
  return { ok: false, retryAfterSeconds: Number(row?.['seconds'] ?? windowSeconds) }
}

/**
 * Settles a success: forgets the tries of the account, and gives its one try back to the address. A hospital's people
 * share one address, so that only failures may count against it.
 */
export async function settleAttempts(
  database: Database,
  cleared: readonly string[],
  returned: readonly string[],
): Promise<void> {
  await database.run(settle, [cleared, returned])
}

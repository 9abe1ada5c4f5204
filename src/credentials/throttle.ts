// Throttling of guesses: every try is counted before anything is compared, in rows that all replicas share (F34–F36).
// Which devices are known is kept by devices.ts; failures that disable an authenticator, whenever they happened, are
// counted by failures.ts; what a refused person reads is the caller's.
import { randomInt } from 'node:crypto'
import type { Secrets } from '../crypto/secrets.ts'
import type { Database, Row } from '../db/database.ts'
import { addressGroup } from '../http/address.ts'

export {
  type AuthenticatorKind,
  clearFailures,
  disable,
  disabledKinds,
  type FailureContext,
  maxConsecutiveFailures,
  recordFailure,
  restore,
} from './failures.ts'

export interface Limit {
  readonly tries: number
  readonly windowSeconds: number
}

export const throttleLimits = {
  passwordsPerAccount: { tries: 10, windowSeconds: 900 },
  codesPerAccount: { tries: 10, windowSeconds: 900 },
  mailsPerAccount: { tries: 3, windowSeconds: 900 },
  // A hospital is one address; whoever succeeds gets the try back.
  guessesPerAddress: { tries: 300, windowSeconds: 900 },
  mailsPerAddress: { tries: 20, windowSeconds: 3_600 },
  signUpsPerAddress: { tries: 20, windowSeconds: 3_600 },
  // Apps that register or change themselves; whoever succeeds gets the try back.
  registrationsPerToken: { tries: 30, windowSeconds: 900 },
  registrationsPerAddress: { tries: 100, windowSeconds: 900 },
  // Counted by client-secrets.ts, when they were wrong.
  wrongSecretsPerClientAndAddress: { tries: 30, windowSeconds: 60 },
  // RFC 8628 §5.1. A browser gets a new budget with a new session, but not a new address.
  userCodesPerBrowser: { tries: 5, windowSeconds: 900 },
  userCodesPerAddress: { tries: 50, windowSeconds: 900 },
  platform: { tries: 5_000, windowSeconds: 60 },
  // The platform's count is spread over so many rows, or every sign-in would wait for the commit of the one before.
  platformRows: 8,
  // After so many failures the next try has to wait one second, then two, four and so on.
  freeFailures: 5,
  mostDelaySeconds: 60,
} as const satisfies Readonly<Record<string, Limit | number>>

export type ThrottleLimits = { readonly [Name in keyof typeof throttleLimits]: Widened<(typeof throttleLimits)[Name]> }
type Widened<T> = T extends number ? number : Limit

export type ThrottlePurpose =
  | 'password'
  | 'code'
  | 'user_code'
  | 'link'
  | 'sign_up'
  | 'reset'
  | 'invite'
  | 'registration'

interface Rule {
  readonly perAccount:
    | 'passwordsPerAccount'
    | 'codesPerAccount'
    | 'mailsPerAccount'
    | 'userCodesPerBrowser'
    | 'registrationsPerToken'
  readonly perAddress:
    | 'guessesPerAddress'
    | 'mailsPerAddress'
    | 'signUpsPerAddress'
    | 'userCodesPerAddress'
    | 'registrationsPerAddress'
  /** Whether a device that the account knows counts apart from all others. */
  readonly separatesDevices: boolean
  /** A guess slows the next one down and is settled by success; a mail was sent all the same (F56). */
  readonly isGuess: boolean
  /** Whether a success only gives its own try back, because it says nothing about the wrong ones before it. */
  readonly keepsFailures?: boolean
  /** A failure does not slow the next try down: programs make them, and may make several at once. */
  readonly neverSlows?: boolean
}

// F62: codes count together whatever the device. Each kind of mail counts apart, or asking for sign-in links would keep
// somebody else from resetting the password.
const rules: Readonly<Record<ThrottlePurpose, Rule>> = {
  password: {
    perAccount: 'passwordsPerAccount',
    perAddress: 'guessesPerAddress',
    separatesDevices: true,
    isGuess: true,
  },
  code: { perAccount: 'codesPerAccount', perAddress: 'guessesPerAddress', separatesDevices: false, isGuess: true },
  // Nobody is named by the code of a device: its account is the browser that it is typed in.
  user_code: {
    perAccount: 'userCodesPerBrowser',
    perAddress: 'userCodesPerAddress',
    separatesDevices: false,
    isGuess: true,
    neverSlows: true,
    keepsFailures: true,
  },
  link: { perAccount: 'mailsPerAccount', perAddress: 'mailsPerAddress', separatesDevices: true, isGuess: false },
  reset: { perAccount: 'mailsPerAccount', perAddress: 'mailsPerAddress', separatesDevices: true, isGuess: false },
  sign_up: { perAccount: 'mailsPerAccount', perAddress: 'signUpsPerAddress', separatesDevices: false, isGuess: false },
  invite: { perAccount: 'mailsPerAccount', perAddress: 'mailsPerAddress', separatesDevices: false, isGuess: false },
  registration: {
    perAccount: 'registrationsPerToken',
    perAddress: 'registrationsPerAddress',
    separatesDevices: false,
    isGuess: true,
    neverSlows: true,
  },
}

export interface ThrottleRequest {
  readonly purpose: ThrottlePurpose
  /** The normalised e-mail, or the account's id. Used where there is no account: unknown addresses count alike. */
  readonly identifier: string
  readonly ip: string | undefined
  /** SHA-256 of the device cookie. Whether the account knows it is looked up in the statement that counts. */
  readonly deviceHash: string | undefined
  readonly accountId?: string | undefined
  /**
   * Asked by an administrator, who is known and may have a hundred people to write to: the mailbox alone is held to it, and
   * what one organisation does is on no budget that others share.
   */
  readonly isByAdministrator?: boolean
}

type Scope = 'account' | 'address' | 'global'

/** A try that may be made. `attempts` counts it and those before it in the window, on the account's budget. */
export interface Taken {
  readonly ok: true
  readonly attempts: number
  /** What `settle` does with the counters of this try. */
  readonly keys: { readonly forgotten: readonly string[]; readonly returned: readonly string[] }
}

export interface Throttled {
  readonly ok: false
  readonly reason: Scope | 'delay'
  /** At least 1. The longest wait, when several budgets refuse. */
  readonly retryAfterSeconds: number
  readonly attempts: number
}

export interface Throttle {
  /**
   * Counts a try against the budgets of its account, its address and the platform, before the check. A known device
   * has a budget of its own and is held to no other, so that nobody can shut it out. Never call it, or `settle`, inside
   * a transaction: what a failure counts must outlive its rollback.
   */
  take(request: ThrottleRequest): Promise<Taken | Throttled>
  /** The guess was right: forgets the account's failures from this class of devices, gives the other tries back. */
  settle(taken: Taken): Promise<void>
}

interface Counter {
  readonly key: string
  readonly scope: Scope
  readonly limit: Limit
  readonly slows: boolean
  readonly devices: 'any' | 'known' | 'unknown'
}

const delayed = (failures: string, free: string) =>
  `case when ${failures} >= ${free} then now() + make_interval(secs => least(power(2, least(${failures} - ${free}, 30)), $9::integer)) end`
const nextCount = 'case when a.window_ends_at <= now() then 1 else a.failures + 1 end'
const ruleOfRow = (column: string) => `(select w.${column} from wanted w where w.key = a.key)`

// What holds:
// - No number of parallel tries gets more than a limit through: each row is counted under its own condition (F36).
// - A try that a budget refuses is counted nowhere and writes nothing, because `standing` sees it before anything is
//   counted. Only a try that loses a race for the last places may have been counted on another row for the moment until
//   it is given back below.
// - Rows are written in the order of their keys, so that two tries cannot wait for each other.
const count = `with wanted as materialized (
      select w.key, w.scope, w.tries, w.window_seconds, w.free_failures
      from unnest($3::text[], $4::text[], $5::integer[], $6::integer[], $7::integer[], $8::text[])
        as w (key, scope, tries, window_seconds, free_failures, devices)
      where w.devices in ('any', case when exists (select from mlpipes_auth.known_devices
        where account_id = $1::text and device_hash = $2::text) then 'known' else 'unknown' end)
    ), standing as materialized (
      select w.key, a.failures, a.failures >= w.tries and a.window_ends_at > now() as is_full, a.not_before > now() as is_early,
        a.window_ends_at, a.not_before
      from wanted w join mlpipes_auth.sign_in_attempts a on a.key = w.key
    ), taken as (
      insert into mlpipes_auth.sign_in_attempts as a (key, failures, window_ends_at, not_before)
      select key, 1, now() + make_interval(secs => window_seconds), ${delayed('1', 'free_failures')} from wanted
      where $10::boolean and not exists (select from standing where is_full or is_early)
      order by key
      on conflict (key) do update set
        failures = ${nextCount},
        window_ends_at = case when a.window_ends_at <= now() then excluded.window_ends_at else a.window_ends_at end,
        not_before = ${delayed(`(${nextCount})`, ruleOfRow('free_failures'))}
      where (a.window_ends_at <= now() or a.failures < ${ruleOfRow('tries')})
        and (a.not_before is null or a.not_before <= now())
      returning key, failures
    )
    select w.key, w.scope, t.failures as taken, coalesce(s.failures, 0) as failures, coalesce(s.is_full, false) as is_full,
      case when s.is_full or s.is_early then ceil(extract(epoch from
        greatest(case when s.is_full then s.window_ends_at end, s.not_before) - now()))::integer end as wait_seconds
    from wanted w left join taken t on t.key = w.key left join standing s on s.key = w.key`

// Locked in the order of the keys, as above.
const settleCounts = `with locked as materialized (select key from mlpipes_auth.sign_in_attempts
      where key = any($1::text[]) or key = any($2::text[]) order by key for update),
    forgotten as (delete from mlpipes_auth.sign_in_attempts
      where key = any(array(select key from locked)) and key = any($1::text[]))
    update mlpipes_auth.sign_in_attempts set failures = greatest(failures - 1, 0)
      where key = any(array(select key from locked)) and key = any($2::text[])`

export function createThrottle(parts: {
  readonly database: Database
  readonly secrets: Secrets
  readonly limits?: Partial<ThrottleLimits>
}): Throttle {
  const { database, secrets } = parts
  const limits: ThrottleLimits = { ...throttleLimits, ...parts.limits }
  const keyOf = (...words: string[]) => secrets.mac('attempts', words.join(':'))

  function budgetsOf(request: ThrottleRequest): Counter[] {
    const { purpose, deviceHash, accountId, isByAdministrator = false } = request
    const rule = rules[purpose]
    const account = ['account', purpose, accountId ?? request.identifier]
    const perAccount = {
      scope: 'account',
      limit: limits[rule.perAccount],
      slows: rule.isGuess && !rule.neverSlows,
    } as const
    return [
      { ...perAccount, key: keyOf(...account), devices: rule.separatesDevices ? 'unknown' : 'any' },
      ...(rule.separatesDevices && deviceHash !== undefined
        ? [{ ...perAccount, key: keyOf('device', deviceHash, ...account), devices: 'known' } as const]
        : []),
      ...(isByAdministrator ? [] : sharedBudgets(request.ip, rule)),
    ]
  }

  /** Of whoever comes from that address, and of everybody. */
  function sharedBudgets(ip: string | undefined, { perAddress }: Rule): Counter[] {
    const unknown = { slows: false, devices: 'unknown' } as const
    return [
      {
        ...unknown,
        scope: 'address',
        key: keyOf('address', perAddress, addressGroup(ip) ?? 'unknown'),
        limit: limits[perAddress],
      },
      {
        ...unknown,
        scope: 'global',
        key: keyOf('platform', String(randomInt(limits.platformRows))),
        limit: { ...limits.platform, tries: Math.floor(limits.platform.tries / limits.platformRows) },
      },
    ]
  }

  async function run(request: ThrottleRequest, budgets: readonly Counter[], counts: boolean): Promise<Counted[]> {
    const rows = await database.run(count, [
      request.accountId ?? null,
      request.deviceHash ?? null,
      budgets.map((budget) => budget.key),
      budgets.map((budget) => budget.scope),
      budgets.map((budget) => budget.limit.tries),
      budgets.map((budget) => budget.limit.windowSeconds),
      budgets.map((budget) => (budget.slows ? limits.freeFailures : null)),
      budgets.map((budget) => budget.devices),
      limits.mostDelaySeconds,
      counts,
    ])
    return rows.map(toCounted)
  }

  return {
    async take(request) {
      const budgets = budgetsOf(request)
      const rows = await run(request, budgets, true)
      const refused = longestWait(rows)
      if (refused) return refused
      const taken = rows.filter((row) => row.taken !== undefined)
      if (taken.length === rows.length) return accept(rows, rules[request.purpose])
      // Others were faster to the last place of some budget.
      await database.run(settleCounts, [[], taken.map((row) => row.key)])
      const lost = rows.find((row) => row.taken === undefined)
      return longestWait(await run(request, budgets, false)) ?? lostTo(lost)
    },
    async settle({ keys }) {
      if (keys.forgotten.length + keys.returned.length === 0) return
      await database.run(settleCounts, [keys.forgotten, keys.returned])
    },
  }
}

/** One budget after a try: counted (`taken` is its new count) or not, and how long it refuses. */
interface Counted {
  readonly key: string
  readonly scope: Scope
  readonly taken: number | undefined
  readonly failures: number
  readonly isFull: boolean
  readonly waitSeconds: number | undefined
}

function toCounted(row: Row): Counted {
  const scope = String(row['scope'])
  const number = (value: unknown) => (value === null ? undefined : Number(value))
  return {
    key: String(row['key']),
    scope: scope === 'address' || scope === 'global' ? scope : 'account',
    taken: number(row['taken']),
    failures: Number(row['failures']),
    isFull: row['is_full'] === true,
    waitSeconds: number(row['wait_seconds']),
  }
}

function accept(rows: readonly Counted[], { isGuess, keepsFailures }: Rule): Taken {
  const isForgotten = (row: Counted) => row.scope === 'account' && !keepsFailures
  const keysOf = (forgotten: boolean) =>
    isGuess ? rows.filter((row) => isForgotten(row) === forgotten).map((row) => row.key) : []
  const attempts = rows.find((row) => row.scope === 'account')?.taken ?? 1
  return { ok: true, attempts, keys: { forgotten: keysOf(true), returned: keysOf(false) } }
}

function longestWait(rows: readonly Counted[]): Throttled | undefined {
  const [first] = rows
    .filter((row) => row.waitSeconds !== undefined)
    .sort((a, b) => (b.waitSeconds ?? 0) - (a.waitSeconds ?? 0))
  if (!first) return undefined
  return {
    ok: false,
    reason: first.isFull ? first.scope : 'delay',
    retryAfterSeconds: Math.max(1, first.waitSeconds ?? 1),
    attempts: rows.find((row) => row.scope === 'account')?.failures ?? 0,
  }
}

/** The place was lost and is free again already, because somebody succeeded meanwhile. */
function lostTo(row: Counted | undefined): Throttled {
  return { ok: false, reason: row?.scope ?? 'account', retryAfterSeconds: 1, attempts: row?.failures ?? 0 }
}

/** Deletes counters that say nothing any more, at most `limit` of them. Safe on every replica at once. */
export async function sweepAttempts(database: Database, limit: number): Promise<number> {
  const rows = await database.run(
    `delete from mlpipes_auth.sign_in_attempts where key = any(array(
      select key from mlpipes_auth.sign_in_attempts
      where window_ends_at <= now() and (not_before is null or not_before <= now())
      order by key limit $1::integer for update skip locked)) returning key`,
    [limit],
  )
  return rows.length
}

// A policy that gets stricter over very many sessions: how long until the last of them has ended, with its audit row, and
// what people who sign in meanwhile notice of it.
import type pg from 'pg'
import type { Administrators } from './administrators.ts'
import type { Server } from './installation.ts'
import { medianOf, sharesOf } from './load.ts'
import { type Receiver, startReceiver } from './receiver.ts'
import { table, tenth, whole } from './table.ts'
import { call, expectOk, signIn } from './visit.ts'

/** People come at an even pace, whatever the server does, so that waiting shows. */
const arrivalMs = Number(process.env['BENCH_ARRIVAL_MS'] ?? 120)
const quietMs = Number(process.env['BENCH_QUIET_MS'] ?? 10_000)
const pollMs = 50
const patienceMs = 300_000
/** Telling the apps of all takes a quarter of an hour. */
const toldSample = 1_000

interface Setting {
  readonly server: Server
  readonly owner: pg.Pool
  readonly administrators: Administrators
  readonly sessions: number
  readonly rounds: number
  say(line: string): void
}

const large = `(select id from mlpipes_auth.organizations where slug = 'large')`
// As seed.ts made them.
export const revive = `update mlpipes_auth.sessions set ended_at = null, end_reason = null, idle_seconds = 1800, absolute_seconds = 43200,
    signed_in_at = now() - make_interval(secs => 7200 + abs(hashtext(uid)) % 21600), last_activity_at = now(),
    idle_expires_at = now() + interval '1800 s', absolute_expires_at = now() + interval '43200 s'
  where organization_id = ${large} and user_agent is not null`
const left = `select count(*)::integer as count from mlpipes_auth.sessions
  where organization_id = ${large} and user_agent is not null and ended_at is null`
/** What an earlier change left to housekeeping would be done to revived sessions. */
export const pending = 'select count(*)::integer as count from mlpipes_auth.session_tightenings'
const audited = `select count(*)::integer as count from mlpipes_auth.audit_events where organization_id = ${large}
    and name in ('session.ended', 'session.expired') and occurred_at >= $1`

const ways = [
  ['absolute limit, an hour', { session: { absoluteLifetime: 3_600 } }, false],
  // The generator's own connections stay allowed.
  ['networks, none of theirs', { network: { allowedCidrs: ['127.0.0.0/8'] } }, false],
  ['absolute limit, an hour, and every session has an app to be told', { session: { absoluteLifetime: 3_600 } }, true],
] as const

interface Outcome {
  readonly answerMs: number
  readonly endedMs: number
  readonly toldPerSecond: number | undefined
  readonly quiet: readonly number[]
  readonly meanwhile: readonly number[]
}

export async function measureTightening(setting: Setting): Promise<string[]> {
  const receiver = await startReceiver()
  const rows: string[][] = []
  for (const [name, patch, isTold] of ways) {
    const outcomes: Outcome[] = []
    for (let round = 0; round < setting.rounds; round += 1) {
      setting.say(`tightening: ${name}, round ${round + 1}`)
      outcomes.push(await tighten(setting, patch, isTold ? receiver : undefined))
    }
    const [quiet, meanwhile] = [outcomes.flatMap((one) => one.quiet), outcomes.flatMap((one) => one.meanwhile)]
    const worst = (of: (outcome: Outcome) => number) => Math.max(...outcomes.map(of)) / 1_000
    const row = [
      name,
      worst((one) => one.answerMs).toFixed(2),
      tenth(worst((one) => one.endedMs)),
      isTold ? whole(medianOf(outcomes, (one) => one.toldPerSecond ?? 0)) : '',
      `${whole(sharesOf(quiet)(0.99))} (${quiet.length})`,
      `${whole(sharesOf(meanwhile)(0.99))} (${meanwhile.length})`,
      (sharesOf(meanwhile)(0.99) / sharesOf(quiet)(0.99)).toFixed(2),
    ]
    rows.push(row)
    setting.say(row.join(' | '))
  }
  receiver.close()
  const head = [
    'stricter',
    'answered after s',
    'last session ended and audited after s',
    'logout tokens a second',
    'sign-in p99 ms before (sign-ins)',
    'meanwhile (sign-ins)',
    'ratio',
  ]
  return [
    `Policy tightened over ${whole(setting.sessions)} sessions, ${setting.rounds} times each, the worst of them; meanwhile somebody signs in every ${arrivalMs} ms:`,
    '',
    ...table(head, rows),
  ]
}

async function tighten(setting: Setting, patch: object, receiver: Receiver | undefined): Promise<Outcome> {
  const { server, owner, administrators } = setting
  const token = await administrators.tokenOf('admin@large.example')
  await administrators.putPolicy(token, {})
  const uri = receiver ? `jsonb_build_object('backchannel_logout_uri', '${receiver.url}/logout')` : `'{}'`
  await owner.query(
    `update mlpipes_auth.clients set metadata = metadata - 'backchannel_logout_uri' || ${uri} where client_id = 'large-app'`,
  )
  const count = async (sql: string, values: unknown[] = []) => Number((await owner.query(sql, values)).rows[0].count)
  await until(async () => (await count(pending)) === 0)
  await owner.query(revive)
  await owner.query('delete from mlpipes_auth.deliveries')
  for (const table of ['sessions', 'deliveries']) await owner.query(`vacuum (analyze) mlpipes_auth.${table}`)
  const open = await count(left)

  const signIns = startSignIns(server)
  await pause(quietMs)
  const quiet = signIns.take()
  const etag = expectOk(await call(server, token, '/api/admin/policy')).header('etag') ?? ''
  const { since } = (await owner.query('select clock_timestamp() as since')).rows[0]
  const begun = performance.now()
  expectOk(
    await call(server, token, '/api/admin/policy', { method: 'PATCH', body: patch, headers: { 'if-match': etag } }),
  )
  const answerMs = performance.now() - begun
  // Asked of the table that is nearly empty: counting sessions all the time would be a load of its own.
  await until(async () => (await count(pending)) === 0)
  const endedMs = performance.now() - begun
  const meanwhile = await signIns.stop()
  const [rows, stillOpen] = [await count(audited, [since]), await count(left)]
  if (stillOpen > 0) throw new Error(`${stillOpen} sessions were left`)
  if (rows !== open) throw new Error(`${open} sessions ended with ${rows} audit rows`)
  const toldPerSecond = receiver && (await rateOf(receiver, open))
  return { answerMs, endedMs, toldPerSecond, quiet, meanwhile }
}

/** Of those that are left when all sessions have ended. */
async function rateOf(receiver: Receiver, sessions: number): Promise<number> {
  const [from, begun] = [receiver.count(), performance.now()]
  const sample = Math.min(toldSample, sessions - from)
  await until(async () => receiver.count() - from >= sample)
  return sample / ((performance.now() - begun) / 1_000)
}

interface SignIns {
  /** Milliseconds of those that ended since the last time. */
  take(): number[]
  /** Those that ended since, and those under way when they have. */
  stop(): Promise<number[]>
}

function startSignIns(server: Server): SignIns {
  const done: number[] = []
  const underWay = new Set<Promise<void>>()
  let next = 0
  const timer = setInterval(() => {
    const begun = performance.now()
    const one = signIn(server, `p${next++ % 64}@bench.example`).then(() => {
      underWay.delete(one)
      done.push(performance.now() - begun)
    })
    underWay.add(one)
  }, arrivalMs)
  const take = () => done.splice(0)
  return {
    take,
    async stop() {
      clearInterval(timer)
      await Promise.all(underWay)
      return take()
    },
  }
}

const pause = (ms: number) => new Promise((resolve) => setTimeout(resolve, ms))

export async function until(claim: () => Promise<boolean>): Promise<void> {
  const end = performance.now() + patienceMs
  while (!(await claim())) {
    if (performance.now() > end) throw new Error('it takes too long')
    await pause(pollMs)
  }
}

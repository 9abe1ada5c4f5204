// node bench/time-to-dead.ts: how long a token still counts after whatever ends it. One token at a time is introspected
// without a pause on both of two replicas; what is measured goes from when the request of the act is sent, to either of
// them by turns, to the last answer that says "active": true; and to when the app has heard by back-channel logout.
// BENCH_TRIES is how often per cause, BENCH_LANES how many tokens are watched at once, BENCH_CAUSES=idle,disabled runs some.
import pg from 'pg'
import type { ApplyInput } from '../src/apply/apply.ts'
import { createDatabase, startPostgres } from '../tests/support/postgres.ts'
import { createAdministrators } from './administrators.ts'
import { type Cause, type Lane, lanes, makeCauses, type Sides, type Subject } from './endings.ts'
import { install, type Server, start, stop } from './installation.ts'
import { sharesOf } from './load.ts'
import { type Receiver, startReceiver } from './receiver.ts'
import { machine, table, whole } from './table.ts'
import {
  arrive,
  expectOk,
  finish,
  introspect,
  password,
  redeem,
  redirectUri,
  submitPassword,
  totpSecret,
  Visitor,
} from './visit.ts'

const tries = Number(process.env['BENCH_TRIES'] ?? 100)
const some = process.env['BENCH_CAUSES']?.split(',')
/** Hashing is not what is measured. */
const hashCost = { memoryKib: 1_024, passes: 2 }
const beforeMs = 50
/** A token that was dead on both must stay dead. */
const afterMs = 100
let unanswered = 0
const deadWithinMs = 15_000
const toldWithinMs = 30_000

const find = `select s.uid, s.account_id, s.payload -> 'authorizations' -> $2 ->> 'sid' as sid from mlpipes_auth.sessions s
    join mlpipes_auth.accounts a on a.id = s.account_id where a.email_normalized = $1 and s.ended_at is null
    order by s.created_at desc limit 1`
const findReasons = 'select end_reason from mlpipes_auth.sessions where uid = any($1::text[])'

const postgres = await startPostgres()
const receiver = await startReceiver()
const servers: Server[] = []
try {
  const installed = install()
  const database = await createDatabase(postgres.adminUrl)
  const first = await start({ installed, database, file: fileFor(receiver), hashCost })
  servers.push(first)
  servers.push(await start({ installed, database, issuer: first.url, hashCost }))
  const owner = new pg.Pool({ connectionString: database.ownerUrl })
  // It is there until the end; what stopped the bench has said so already.
  owner.on('error', () => undefined)
  const administrators = createAdministrators(first, owner)
  const causes = makeCauses({ owner, administrators, root: 'root@platform.example' })
  const rows: (string | number)[][] = []
  for (const [name, cause] of Object.entries(causes)) {
    if (some && !some.includes(name)) continue
    process.stderr.write(`${name}\n`)
    rows.push(rowOf(name, await measureCause({ name, cause, owner })))
  }
  await owner.end()
  const head = ['cause', 'tries', 'p50 ms', 'p99 ms', 'max ms', 'app told', 'p50 ms', 'p99 ms', 'max ms']
  const lines = [
    `${machine()}, two replicas over one PostgreSQL, ${lanes.length} tokens watched at once; ${unanswered} answers were errors.`,
    '',
    ...table(head, rows),
  ]
  process.stdout.write(`${lines.join('\n')}\n`)
} catch (error) {
  // At once, before what goes wrong because everything is being stopped.
  process.stderr.write(`${error instanceof Error ? error.stack : String(error)}\n`)
  for (const server of servers) server.process.kill('SIGKILL')
  process.exit(1)
} finally {
  for (const server of servers) await stop(server)
  receiver.close()
  await postgres.stop()
}
process.exit(0)

interface Outcome {
  readonly uid: string
  readonly deadMs: number
  /** Undefined when the app did not hear. */
  readonly told: Promise<number | undefined>
}

/** Milliseconds. */
interface Figures {
  readonly dead: readonly number[]
  readonly told: readonly number[]
}

interface Measuring {
  readonly name: string
  readonly cause: Cause
  readonly owner: pg.Pool
}

async function measureCause({ name, cause, owner }: Measuring): Promise<Figures> {
  const sidesOf = (index: number): Sides => {
    const [one, other] = servers
    if (!one || !other) throw new Error('a replica is missing')
    return index % 2 === 0 ? { here: one, there: other } : { here: other, there: one }
  }
  const each = Math.ceil(tries / lanes.length)
  const ofLanes = await Promise.all(
    lanes.map(async (lane) => {
      const outcomes: Outcome[] = []
      await cause.before?.(lane)
      for (let index = 0; index < each; index += 1) {
        const email = emailFor(cause, name, lane, index)
        outcomes.push(await tryOnce({ cause, lane, email, sides: sidesOf(index), owner }))
      }
      await cause.after?.(lane)
      return outcomes
    }),
  )
  const outcomes = ofLanes.flat()
  const told = await Promise.all(outcomes.map((outcome) => outcome.told))
  const { rows } = await owner.query(findReasons, [outcomes.map(({ uid }) => uid)])
  // Whatever else ended it was measured in its place.
  const expected = cause.reason === undefined ? name : cause.reason
  const others = rows.map((row) => row.end_reason).filter((reason) => reason !== expected)
  if (others.length > 0) throw new Error(`${name}: ${others.length} sessions ended by ${others.join()}`)
  return { dead: outcomes.map(({ deadMs }) => deadMs), told: told.filter((ms) => ms !== undefined) }
}

interface Try {
  readonly cause: Cause
  readonly lane: Lane
  readonly email: string
  readonly sides: Sides
  readonly owner: pg.Pool
}

/** Done when the token is dead. */
async function tryOnce({ cause, lane, email, sides, owner }: Try): Promise<Outcome> {
  await cause.ready?.(lane, email)
  const subject = await enter(lane, email, sides, owner)
  const act = await cause.prepare(subject)
  const watching = watch(sides, subject.token, lane)
  await pause(beforeMs)
  const sent = performance.now()
  const began = (await act()) ?? sent
  const { lastActive, isAlive } = await watching.dead()
  if (isAlive) throw new Error(`${email}: the token is still alive after ${deadWithinMs} ms`)
  await cause.undo?.(subject)
  const deadMs = Math.max(0, lastActive - began)
  const heard = cause.tells ? receiver.heard(subject.sid, toldWithinMs) : Promise.resolve(undefined)
  return { uid: subject.uid, deadMs, told: heard.then((at) => at && at - began) }
}

async function enter(lane: Lane, email: string, sides: Sides, owner: pg.Pool): Promise<Subject> {
  const visitor = new Visitor(sides.here)
  const asking = { clientId: lane.app, scope: 'openid profile', extra: { organization: lane.slug } }
  const visit = await arrive(sides.here, asking, visitor)
  const { access_token: token } = await redeem(
    sides.here,
    await finish(visit, await submitPassword(visit, email)),
    lane.app,
  )
  const [row] = (await owner.query(find, [email, lane.app])).rows
  return { lane, email, visitor, token, sides, uid: row.uid, accountId: row.account_id, sid: row.sid }
}

function watch({ here, there }: Sides, token: string, lane: Lane) {
  let lastActive = 0
  let isOver = false
  const lastSeen = new Map<Server, boolean>()
  const poll = async (server: Server) => {
    while (!isOver) {
      const answer = await introspect(server, token, lane.api)
      // Whoever gets no answer lets nobody in; how often that happened is said.
      if (answer.status >= 500) {
        unanswered += 1
        continue
      }
      const isActive = expectOk(answer).text.includes('"active":true')
      if (isActive) lastActive = performance.now()
      lastSeen.set(server, isActive)
    }
  }
  const polls = Promise.all([poll(here), poll(there)])
  // Whoever waits for them hears of it; an act that fails first is what went wrong.
  polls.catch(() => undefined)
  return {
    async dead() {
      const end = performance.now() + deadWithinMs
      const isDead = () => lastSeen.size === 2 && [...lastSeen.values()].every((isActive) => !isActive)
      while (!(isDead() && performance.now() - lastActive > afterMs) && performance.now() < end) await pause(5)
      isOver = true
      await polls
      return { lastActive, isAlive: !isDead() }
    },
  }
}

function rowOf(name: string, { dead, told }: Figures): (string | number)[] {
  const figures = (values: readonly number[]) => {
    const at = sharesOf(values)
    return values.length === 0 ? ['', '', '', ''] : [values.length, ...[at(0.5), at(0.99), at(1)].map(whole)]
  }
  return [name, ...figures(dead), ...figures(told)]
}

function emailFor(cause: Cause, name: string, lane: Lane, index: number): string {
  return `${name.replaceAll('_', '-')}-${index}@${cause.isGuest ? lane.home : lane.slug}.example`
}

function fileFor({ url }: Receiver): ApplyInput {
  const each = Math.ceil(tries / lanes.length)
  const names = Object.entries(makeCauses(undefined))
  return {
    organizations: [...lanes.flatMap((lane) => [lane.slug, lane.home]), 'platform'].map((slug) => ({
      slug,
      name: slug,
    })),
    accounts: [
      {
        email: 'root@platform.example',
        name: 'Root',
        password,
        organization: 'platform',
        roles: ['platform_admin'],
        emailVerified: true,
        totpSecret,
      },
      ...lanes.flatMap((lane) =>
        names.flatMap(([name, cause]) =>
          Array.from({ length: some && !some.includes(name) ? 0 : each }, (_, index) => ({
            email: emailFor(cause, name, lane, index),
            name: 'A Person',
            password,
            organization: cause.isGuest ? lane.home : lane.slug,
            emailVerified: !cause.isUnproven,
          })),
        ),
      ),
    ],
    clients: [
      ...lanes.flatMap((lane) => [
        {
          client_id: lane.app,
          client_secret: `${lane.app}-secret-0123456789`,
          client_name: lane.app,
          organization: lane.slug,
          redirect_uris: [redirectUri],
          grant_types: ['authorization_code' as const, 'refresh_token' as const],
          scope: 'openid profile',
          first_party: true,
          backchannel_logout_uri: `${url}/${lane.slug}`,
        },
        {
          client_id: lane.api,
          client_secret: `${lane.api}-secret-0123456789`,
          client_name: lane.api,
          organization: lane.slug,
          grant_types: ['client_credentials' as const],
          scope: 'openid',
          introspection: 'organization' as const,
          // Asked without a pause, no session would ever be idle.
          session_activity: false,
        },
      ]),
      {
        client_id: 'console',
        client_secret: 'console-secret-0123456789',
        client_name: 'Administration',
        organization: 'platform',
        redirect_uris: [redirectUri],
        grant_types: ['authorization_code', 'refresh_token'],
        scope: 'openid admin:read admin:write',
        first_party: true,
      },
    ],
  }
}

function pause(ms: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, ms))
}

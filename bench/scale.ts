// node bench/scale.ts: what a thousand organisations with a million people cost. One server over a database that seed.ts
// has filled, one over a database with the same few people and nobody else; what can be a ratio of the two in one run is.
// BENCH_SCALE=0.1 fills a tenth, BENCH_MS is how long each request is repeated, BENCH_PART names one part of it.
import pg from 'pg'
import type { ApplyInput } from '../src/apply/apply.ts'
import { createDatabase, startPostgres } from '../tests/support/postgres.ts'
import { createAdministrators } from './administrators.ts'
import { install, ofMemory, type Server, type Starting, start, stop } from './installation.ts'
import { measure, medianOf, type Result } from './load.ts'
import { seed, seededToken, sizesAt } from './seed.ts'
import { machine, table, tenth, whole } from './table.ts'
import { measureTightening, pending, revive, until } from './tightening.ts'
import { call, expectOk, introspect, password, redeem, redirectUri, signIn, totpSecret } from './visit.ts'

const scale = Number(process.env['BENCH_SCALE'] ?? 1)
const runMs = Number(process.env['BENCH_MS'] ?? 4_000)
const only = process.env['BENCH_PART']
const rounds = Number(process.env['BENCH_ROUNDS'] ?? 5)
/** Administrators who ask at once: one, and more than there are cores, so that some wait. */
const callers = [1, 4]
const introspectors = 64
const sizes = sizesAt(scale)

const say = (line: string) => void process.stderr.write(`${line}\n`)
const wants = (part: string) => only === undefined || only === part

const client = (client_id: string, organization: string, extra: object = {}) => ({
  client_id,
  client_secret: `${client_id}-secret-0123456789`,
  client_name: client_id,
  organization,
  redirect_uris: [redirectUri],
  grant_types: ['authorization_code' as const, 'refresh_token' as const],
  scope: 'openid profile',
  first_party: true,
  ...extra,
})
const resourceServer = (client_id: string, organization: string) => ({
  client_id,
  client_secret: `${client_id}-secret-0123456789`,
  client_name: client_id,
  organization,
  grant_types: ['client_credentials' as const],
  scope: 'openid',
  introspection: 'organization' as const,
})
const person = (name: string, organization: string, extra: object = {}) => ({
  email: `${name}@${organization}.example`,
  name: `Person ${name}`,
  password,
  organization,
  emailVerified: true,
  ...extra,
})
const administrator = { roles: ['org_admin'], totpSecret }

const file: ApplyInput = {
  organizations: ['bench', 'large', 'small', 'platform'].map((slug) => ({ slug, name: `The ${slug} one` })),
  accounts: [
    ...Array.from({ length: introspectors }, (_, index) => person(`p${index}`, 'bench')),
    person('admin', 'large', administrator),
    person('admin', 'small', administrator),
    ...Array.from({ length: 20 }, (_, index) => person(`p${index}`, 'small')),
    person('root', 'platform', { roles: ['platform_admin'], totpSecret }),
  ],
  clients: [
    client('app', 'bench'),
    resourceServer('api', 'bench'),
    client('large-app', 'large'),
    resourceServer('large-api', 'large'),
    client('console', 'platform', { scope: 'openid admin:read admin:write' }),
  ],
}

const postgres = await startPostgres(ofMemory)
const lines: string[] = []
const servers: Server[] = []
try {
  const installed = install()
  const launch = async (starting: Omit<Starting, 'installed'>) => {
    const server = await start({ installed, ...starting })
    servers.push(server)
    return server
  }
  const database = await createDatabase(postgres.adminUrl)
  const full = await launch({ database, file })
  await redeem(full, await signIn(full, 'p0@bench.example'))
  const ground = { ownerUrl: database.ownerUrl, patternEmail: 'p0@bench.example', largeClientId: 'large-app' }
  const seeded = await seed(ground, sizes, say)
  const counts = Object.entries(seeded.rows).map(([name, count]) => `${whole(count)} ${name}`)
  lines.push(`${machine()}, scale ${scale}.`, '', `Seeded in ${whole(seeded.seconds)} s: ${counts.join(', ')}.`, '')
  await settle()
  const owner = new pg.Pool({ connectionString: database.ownerUrl })
  // It is there until the end; what stopped the bench has said so already.
  owner.on('error', () => undefined)
  const administrators = createAdministrators(full, owner)
  const setting = { server: full, owner, administrators, say }
  // Said as they come too: the parts take half an hour together.
  const keep = (part: readonly string[]) => {
    lines.push(...part, '')
    say(part.join('\n'))
  }
  if (wants('api')) keep(await measureApi(full))
  if (wants('introspection')) {
    // Two processes that have done nothing else yet: what one did before costs it more than a million rows.
    const replica = await launch({ database, issuer: full.url })
    const empty = await launch({ database: await createDatabase(postgres.adminUrl), file })
    keep(await measureIntrospection(replica, empty))
    for (const server of [replica, empty]) await stop(server)
  }
  if (wants('policy')) keep(await measurePolicy(full))
  if (wants('tightening')) keep(await measureTightening({ ...setting, sessions: sizes.large, rounds }))
  await owner.end()

  /** What PostgreSQL still has to do because of the seeding is not what is measured. */
  async function settle(): Promise<void> {
    say('settling')
    const admin = new pg.Client({ connectionString: postgres.adminUrl })
    await admin.connect()
    await admin.query('checkpoint')
    const working = `select from pg_stat_activity where backend_type = 'autovacuum worker'`
    await until(async () => (await admin.query(working)).rowCount === 0)
    await admin.end()
  }

  /** Lists and searches, as an administrator of the large organisation asks for them. */
  async function measureApi(server: Server): Promise<string[]> {
    const results: [string, readonly Result[]][] = []
    const get = async (name: string, path: string, email = 'admin@large.example') => {
      say(name)
      const measured: Result[] = []
      for (const count of callers) {
        const token = await administrators.tokenOf(email)
        measured.push(await measure(server.pid, count, runMs, async () => expectOk(await call(server, token, path))))
      }
      results.push([name, measured])
    }
    const middle = async (path: string, items: number) => {
      const token = await administrators.tokenOf('admin@large.example')
      let cursor: string | null = null
      for (let passed = 0; passed < items / 2; passed += 100) {
        const address: string = `${path}?limit=100${cursor === null ? '' : `&cursor=${encodeURIComponent(cursor)}`}`
        const next: string | null = JSON.parse(expectOk(await call(server, token, address)).text).next
        if (next === null) break
        cursor = next
      }
      return cursor === null ? `${path}?limit=100` : `${path}?limit=100&cursor=${encodeURIComponent(cursor)}`
    }
    const users = '/api/admin/users'
    await get('people, first page', users)
    await get('people, a middle page of 100', await middle(users, sizes.large))
    await get('people, search: a common name', `${users}?q=moreno`)
    await get('people, search: one address', `${users}?q=.${Math.round(sizes.large * 0.9)}%40org-1.example`)
    await get('people, search: nobody', `${users}?q=zzzzzz`)
    await get('people, by a role that few have', `${users}?role=nurse`)
    await get('people, disabled', `${users}?disabled=true`)
    await get('guests', '/api/admin/guests')
    const sessions = '/api/admin/sessions'
    await get('sessions, first page', sessions)
    await get('sessions, a middle page of 100', await middle(sessions, sizes.large))
    await get('sessions, by app', `${sessions}?clientId=large-app`)
    const [{ id: accountId }] = (
      await owner.query(`select id from mlpipes_auth.accounts where organization_id =
        (select id from mlpipes_auth.organizations where slug = 'large') order by email_normalized offset 7 limit 1`)
    ).rows
    await get('sessions, by person', `${sessions}?accountId=${accountId}`)
    const logs = '/api/audit/logs'
    await get('audit, first page', logs)
    await get('audit, a middle page of 100', await middle(logs, sizes.auditEvents * 0.05))
    await get('audit, by person', `${logs}?accountId=${accountId}`)
    await get('audit, an event that is rare', `${logs}?name=policy.updated`)
    await get('clients', '/api/admin/clients')
    await get('organisations, first page', '/api/admin/organizations', 'root@platform.example')
    await get('organisations, search', '/api/admin/organizations?q=77', 'root@platform.example')
    const head = callers.flatMap((count) => ['p50', 'p95', 'p99'].map((share) => `${share} ms, ${count} at once`))
    return [
      `Lists and searches in the organisation of ${whole(sizes.large)}:`,
      '',
      ...table(
        ['request', ...head],
        results.map(([name, measured]) => [
          name,
          ...measured.flatMap(({ p50Ms, p95Ms, p99Ms }) => [p50Ms, p95Ms, p99Ms].map(tenth)),
        ]),
      ),
    ]
  }

  /** Reading, previewing and changing a policy, one after another. Changes that end nobody: those are in tightening.ts. */
  async function measurePolicy(server: Server): Promise<string[]> {
    const results: [string, Result][] = []
    const afterwards: string[] = []
    // What was measured before took minutes, and these changes are to end nobody.
    await owner.query(revive)
    await owner.query('vacuum (analyze) mlpipes_auth.sessions')
    for (const slug of ['small', 'large']) {
      const email = `admin@${slug}.example`
      const time = async (name: string, step: (token: string) => Promise<unknown>) => {
        say(`${name}, ${slug}`)
        const token = await administrators.tokenOf(email)
        results.push([`${name}, ${slug}`, await measure(server.pid, 1, runMs, () => step(token))])
      }
      const preview = { patch: { session: { absoluteLifetime: 3_600 }, mfa: 'required' } }
      await time('policy, preview', async (token) =>
        expectOk(await call(server, token, '/api/admin/policy/preview', { body: preview })),
      )
      let etag = ''
      for (const [name, patch] of [
        ['token lifetime', (times: number) => ({ tokens: { accessTokenTtl: times % 2 === 0 ? 600 : 900 } })],
        [
          'idle limit, a second less each time',
          (times: number) => ({ session: { idleTimeout: 1_800 - (times % 1_000) } }),
        ],
      ] as const) {
        let times = 0
        etag = (await administrators.putPolicy(await administrators.tokenOf(email), {})).header('etag') ?? ''
        await time(`policy, change: ${name}`, async (token) => {
          times += 1
          const sent = { method: 'PATCH', body: patch(times), headers: { 'if-match': etag } }
          etag = expectOk(await call(server, token, '/api/admin/policy', sent)).header('etag') ?? ''
        })
      }
      const from = performance.now()
      await until(async () => (await owner.query(pending)).rows[0].count === 0)
      afterwards.push(`${slug} ${tenth((performance.now() - from) / 1_000)} s`)
      await administrators.putPolicy(await administrators.tokenOf(email), {})
    }
    const wait = `Housekeeping had written the last limit into all sessions, after the last change: ${afterwards.join(', ')}.`
    return ['Policies, one request at a time:', '', ...latencies(results), '', wait]
  }
} catch (error) {
  // At once, before what goes wrong because everything is being stopped.
  process.stderr.write(`${error instanceof Error ? error.stack : String(error)}\n`)
  for (const server of servers) server.process.kill('SIGKILL')
  process.exit(1)
} finally {
  for (const server of servers) await stop(server)
  await postgres.stop()
}
process.stdout.write(`${lines.join('\n')}\n`)
process.exit(0)

/** The same sixty-four people at both servers, by turns; then all people of the large organisation at the full one. */
async function measureIntrospection(full: Server, empty: Server): Promise<string[]> {
  say('introspection')
  const tokensOf = (server: Server) =>
    Promise.all(
      Array.from({ length: introspectors }, async (_, index) => {
        const { access_token } = await redeem(server, await signIn(server, `p${index}@bench.example`))
        return access_token
      }),
    )
  const [atFull, atEmpty] = [await tokensOf(full), await tokensOf(empty)]
  const asking = (server: Server, clientId: string, tokenOf: (worker: number) => string) => async (worker: number) => {
    const answer = expectOk(await introspect(server, tokenOf(worker), clientId))
    if (!answer.text.includes('"active":true')) throw new Error('a token went inactive under the bench')
  }
  let next = 0
  const subjects = {
    empty: { server: empty, step: asking(empty, 'api', (worker) => atEmpty[worker] ?? '') },
    full: { server: full, step: asking(full, 'api', (worker) => atFull[worker] ?? '') },
    spread: { server: full, step: asking(full, 'large-api', () => seededToken((next++ % sizes.large) + 1)) },
  }
  const names = ['empty', 'full', 'spread'] as const
  const measured = new Map(names.map((name) => [name, [] as Result[]]))
  for (let round = 0; round < rounds; round += 1)
    for (const name of round % 2 === 0 ? names : names.toReversed()) {
      const { server, step } = subjects[name]
      measured.get(name)?.push(await measure(server.pid, introspectors, runMs, step))
    }
  const middleOf = (name: (typeof names)[number], of: (result: Result) => number) =>
    medianOf(measured.get(name) ?? [], of)
  const words = {
    empty: `an empty database, ${introspectors} tokens`,
    full: `the full database, ${introspectors} tokens`,
    spread: `the full database, ${whole(sizes.large)} tokens, each in its turn`,
  }
  const base = middleOf('empty', (result) => result.perSecond)
  return [
    `Introspection, ${introspectors} at once, medians of ${rounds} rounds in turns:`,
    '',
    ...table(
      ['', 'requests/s', 'p50 ms', 'p99 ms', 'CPU µs/request', 'ratio (requests/s)'],
      names.map((name) => {
        const perSecond = middleOf(name, (result) => result.perSecond)
        return [
          words[name],
          whole(perSecond),
          tenth(middleOf(name, (result) => result.p50Ms)),
          tenth(middleOf(name, (result) => result.p99Ms)),
          whole(middleOf(name, (result) => result.cpuMicros)),
          (perSecond / base).toFixed(2),
        ]
      }),
    ),
  ]
}

function latencies(results: readonly (readonly [string, Result])[]): string[] {
  return table(
    ['request', 'requests/s', 'p50 ms', 'p95 ms', 'p99 ms'],
    results.map(([name, { perSecond, p50Ms, p95Ms, p99Ms }]) => [
      name,
      whole(perSecond),
      tenth(p50Ms),
      tenth(p95Ms),
      tenth(p99Ms),
    ]),
  )
}

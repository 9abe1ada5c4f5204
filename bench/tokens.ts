// node bench/tokens.ts: what tokens cost while very many of them are stored. Three servers, each over a database of its own
// that holds none, a million and ten million of others' tokens, take turns; so do one process and two over one database, and
// a database that is being cleaned and the same one at rest. DPoP off and on, to see what a proof costs.
// BENCH_STORED=0,100000 says how many are stored, BENCH_MS how long each request is repeated, BENCH_ROUNDS how often;
// BENCH_PART (growth, processes, cleaning) runs one part.
import { generateKeyPairSync, type KeyObject, randomUUID, sign } from 'node:crypto'
import pg from 'pg'
import type { ApplyInput } from '../src/apply/apply.ts'
import { openPostgres } from '../src/db/database.ts'
import { cleanPayloads } from '../src/janitor.ts'
import { createPayloadStore } from '../src/oidc/store.ts'
import { createDatabase, startPostgres } from '../tests/support/postgres.ts'
import { install, ofMemory, type Server, start, startReference, stop } from './installation.ts'
import { measure, measureOnce, measurePaced, medianOf, type Result, send } from './load.ts'
import { machine, table, tenth, whole } from './table.ts'
import {
  askAgain,
  basic,
  expectOk,
  form,
  introspect,
  password,
  redeem,
  redemption,
  redirectUri,
  requestTokens,
  signIn,
  type Tokens,
  tokenAddress,
  type Visitor,
} from './visit.ts'

const stored = (process.env['BENCH_STORED'] ?? '0,1000000,10000000').split(',').map(Number)
const runMs = Number(process.env['BENCH_MS'] ?? 4_000)
const rounds = Number(process.env['BENCH_ROUNDS'] ?? 3)
const only = process.env['BENCH_PART']
const workers = 64
/** Codes last a minute. */
const codesPerRound = 640
/** About half of what one process can answer: more, and processes, database and generator wait for the same two cores. */
const pacedPerSecond = 1_200
const expiredTokens = 400_000
/** Hashing is not what is measured. */
const hashCost = { memoryKib: 1_024, passes: 2 }

const wants = (part: string) => only === undefined || only === part
const say = (line: string) => void process.stderr.write(`${line}\n`)

const app = (client_id: string, dpop: boolean) => ({
  client_id,
  client_secret: `${client_id}-secret-0123456789`,
  client_name: client_id,
  organization: 'bench',
  redirect_uris: [redirectUri],
  grant_types: ['authorization_code' as const, 'refresh_token' as const],
  scope: 'openid profile',
  first_party: true,
  ...(dpop ? { dpop_bound_access_tokens: true } : {}),
})
const file: ApplyInput = {
  organizations: [{ slug: 'bench', name: 'Bench' }],
  accounts: Array.from({ length: workers }, (_, index) => ({
    email: `p${index}@bench.example`,
    name: `Person ${index}`,
    password,
    organization: 'bench',
    emailVerified: true,
  })),
  clients: [
    app('app', false),
    app('bound', true),
    {
      client_id: 'api',
      client_secret: 'api-secret-0123456789',
      client_name: 'API',
      organization: 'bench',
      grant_types: ['client_credentials'],
      scope: 'openid',
      introspection: 'organization',
    },
  ],
}

/** Other people's tokens, as the adapter stores them, with ids that nobody knows. `$1` of the first, `$2` of the last. */
const fill = `insert into mlpipes_auth.oidc_payloads (model, id_hash, payload, grant_id, account_id, client_id, organization_id, expires_at)
    select 'AccessToken', encode(sha256(convert_to('filled ' || n, 'UTF8')), 'hex'),
      p.payload || jsonb_build_object('grantId', 'filled-' || n / 4, 'accountId', 'acc-filled-' || n / 16), 'filled-' || n / 4,
      'acc-filled-' || n / 16, p.client_id, p.organization_id, now() + make_interval(hours => 12, secs => n::integer % 3600)
    from generate_series($1::bigint, $2::bigint) as n cross join lateral (select payload, client_id, organization_id
      from mlpipes_auth.oidc_payloads where model = 'AccessToken' order by created_at limit 1) as p`
const expire = `update mlpipes_auth.oidc_payloads set expires_at = now() - interval '2 days' where id_hash in (
    select encode(sha256(convert_to('filled ' || n, 'UTF8')), 'hex') from generate_series(1, $1::bigint) as n) and model = 'AccessToken'`

interface Subject {
  readonly name: string
  readonly server: Server
  readonly database: { readonly ownerUrl: string; readonly appUrl: string }
  readonly visitors: readonly Visitor[]
  /** By whether they are bound to a key. */
  readonly tokens: Readonly<Record<'app' | 'bound', Tokens[]>>
}

const columns = ['requests/s', 'p50 ms', 'p99 ms', 'CPU µs/request', 'ratio (requests/s)']
const keys = generateKeyPairSync('ec', { namedCurve: 'P-256' })

const postgres = await startPostgres(ofMemory)
const servers: Server[] = []
const lines: string[] = []
try {
  const installed = install()
  const subjects: Subject[] = []
  for (const count of stored) subjects.push(await prepare(installed, count))
  const keep = (part: readonly string[]) => {
    lines.push(...part, '')
    say(part.join('\n'))
  }
  keep([`${machine()}, ${workers} at once, medians of ${rounds} rounds of ${runMs / 1_000} s in turns.`])
  if (wants('growth')) keep(await measureGrowth(subjects))
  const [first] = subjects
  if (first && wants('processes')) keep(await measureProcesses(installed, first))
  const filled = subjects.find((_, index) => (stored[index] ?? 0) >= expiredTokens)
  if (filled && wants('cleaning')) keep(await measureCleaning(filled))
} catch (error) {
  process.stderr.write(`${error instanceof Error ? error.stack : String(error)}\n`)
  for (const server of servers) server.process.kill('SIGKILL')
  process.exit(1)
} finally {
  for (const server of servers) await stop(server)
  await postgres.stop()
}
process.stdout.write(`${lines.join('\n')}\n`)
process.exit(0)

async function prepare(installed: string, count: number): Promise<Subject> {
  const database = await createDatabase(postgres.adminUrl)
  const server = await start({ installed, database, file, hashCost })
  servers.push(server)
  const people = Array.from({ length: workers }, (_, index) => `p${index}@bench.example`)
  const signedIn = await Promise.all(people.map((email) => signIn(server, email)))
  const app = await Promise.all(signedIn.map((one) => redeem(server, one)))
  const visitors = signedIn.map(({ visitor }) => visitor)
  const bound = await Promise.all(
    visitors.map(async (visitor) =>
      redeem(server, await askAgain(server, visitor, { clientId: 'bound' }), 'bound', proofFor(server)),
    ),
  )
  if (count > 0) await store(database.ownerUrl, count)
  return { name: `${whole(count)} stored`, server, database, visitors, tokens: { app, bound } }
}

async function store(ownerUrl: string, count: number): Promise<void> {
  const pool = new pg.Pool({ connectionString: ownerUrl, max: 2 })
  const begun = performance.now()
  const step = 250_000
  const from = Array.from({ length: Math.ceil(count / step) }, (_, index) => index * step + 1)
  await Promise.all(from.map((first) => pool.query(fill, [first, Math.min(count, first + step - 1)])))
  await pool.query('vacuum (analyze) mlpipes_auth.oidc_payloads')
  await pool.end()
  say(`${whole(count)} tokens stored in ${whole((performance.now() - begun) / 1_000)} s`)
}

/** A DPoP proof for the token endpoint (RFC 9449 §4.2). */
function proofFor(server: Server, key: KeyObject = keys.privateKey): string {
  const { crv, kty, x, y } = keys.publicKey.export({ format: 'jwk' })
  const encode = (part: object) => Buffer.from(JSON.stringify(part)).toString('base64url')
  const head = encode({ typ: 'dpop+jwt', alg: 'ES256', jwk: { crv, kty, x, y } })
  const claims = { jti: randomUUID(), htm: 'POST', htu: tokenAddress(server), iat: Math.floor(Date.now() / 1_000) }
  const signed = `${head}.${encode(claims)}`
  return `${signed}.${sign('sha256', Buffer.from(signed), { key, dsaEncoding: 'ieee-p1363' }).toString('base64url')}`
}

function asking(server: Server, tokens: readonly Tokens[]) {
  return async (worker: number): Promise<void> => {
    const answer = expectOk(await introspect(server, tokens[worker]?.access_token ?? ''))
    if (!answer.text.includes('"active":true')) throw new Error('a token went inactive under the bench')
  }
}

/** A refresh of the worker's token, which it replaces. */
function refreshing({ server, tokens }: Subject, clientId: 'app' | 'bound') {
  return async (worker: number): Promise<void> => {
    const current = tokens[clientId]
    const body = form({ grant_type: 'refresh_token', refresh_token: current[worker]?.refresh_token ?? '' })
    const proof = clientId === 'bound' ? proofFor(server) : undefined
    current[worker] = JSON.parse(expectOk(await requestTokens(server, basic(clientId), body, proof)).text)
  }
}

async function exchange({ server, visitors }: Subject, clientId: 'app' | 'bound'): Promise<Result> {
  const each = codesPerRound / workers
  const codes = await Promise.all(
    visitors.map(async (visitor) => {
      const own = []
      for (let count = 0; count < each; count += 1) own.push(await askAgain(server, visitor, { clientId }))
      return own
    }),
  )
  return measureOnce(server.pid, workers, codes.flat(), async (code) => {
    const proof = clientId === 'bound' ? proofFor(server) : undefined
    expectOk(await requestTokens(server, basic(clientId), redemption(code), proof))
  })
}

async function measureGrowth(subjects: readonly Subject[]): Promise<string[]> {
  const scenarios: readonly (readonly [string, (subject: Subject) => Promise<Result>])[] = [
    ...(['app', 'bound'] as const).flatMap((clientId) => {
      const words = clientId === 'bound' ? ', DPoP' : ''
      return [
        [
          `introspection${words}`,
          ({ server, tokens }: Subject) => measure(server.pid, workers, runMs, asking(server, tokens[clientId])),
        ],
        [`code exchange${words}`, (subject: Subject) => exchange(subject, clientId)],
        [
          `refresh${words}`,
          (subject: Subject) => measure(subject.server.pid, workers, runMs, refreshing(subject, clientId)),
        ],
      ] as const
    }),
  ]
  const rows: (string | number)[][] = []
  for (const [name, run] of scenarios) {
    say(name)
    const results = new Map(subjects.map((subject) => [subject, [] as Result[]]))
    for (let round = 0; round < rounds; round += 1)
      for (const subject of round % 2 === 0 ? subjects : subjects.toReversed())
        results.get(subject)?.push(await run(subject))
    const base = medianOf(results.get(subjects[0] as Subject) ?? [], (result) => result.perSecond)
    for (const [subject, own] of results) rows.push([name, subject.name, ...figures(own, base)])
  }
  return table(['request', 'tokens of others', ...columns], rows)
}

/**
 * One process and two over one database; beside them the memory adapter, whose two processes share nothing: what two cost
 * there is the machine's share.
 */
async function measureProcesses(installed: string, { server, database, tokens }: Subject): Promise<string[]> {
  say('two processes')
  const second = await start({ installed, database, issuer: server.url, hashCost })
  const references = [await startReference(), await startReference()]
  servers.push(second, ...references)
  const steps = new Map([server, second].map((one) => [one, asking(one, tokens.app)]))
  for (const one of references) steps.set(one, asking(one, await referenceTokens(one)))
  const pairs = { '': [server, second], ', memory adapter': references }
  const to = (used: readonly Server[]) => (turn: number) =>
    steps.get(used[turn % used.length] as Server)?.(turn % workers)
  const loads: readonly Load[] = [
    { words: `, ${workers} at once`, processes: 1, run: (pids, step) => measure(pids, workers, runMs, step) },
    { words: `, ${workers} at once`, processes: 2, run: (pids, step) => measure(pids, workers, runMs, step) },
    { words: `, ${workers} at once each`, processes: 2, run: (pids, step) => measure(pids, 2 * workers, runMs, step) },
    ...[1, 2].map((processes) => ({
      words: `, ${whole(pacedPerSecond)} a second`,
      processes,
      run: (pids: readonly number[], step: Step) => measurePaced(pids, pacedPerSecond, runMs, step),
    })),
  ]
  const results = new Map<string, Result[]>()
  for (let round = 0; round < rounds; round += 1)
    for (const [whose, pair] of Object.entries(pairs))
      for (const { words, processes, run } of loads) {
        const used = pair.slice(0, processes)
        const name = `${processes === 1 ? 'one process' : 'two processes'}${words}${whose}`
        const result = await run(
          used.map(({ pid }) => pid),
          async (turn) => to(used)(turn),
        )
        results.set(name, [...(results.get(name) ?? []), result])
      }
  for (const one of [second, ...references]) await stop(one)
  const rows = [...results].map(([name, own]) => [
    name,
    ...figures(
      own,
      medianOf(own, (result) => result.perSecond),
    ),
  ])
  return table(['introspection', ...columns], rows)
}

type Step = (turn: number) => Promise<void>
interface Load {
  readonly words: string
  readonly processes: number
  run(pids: readonly number[], step: Step): Promise<Result>
}

function referenceTokens(server: Server): Promise<Tokens[]> {
  const one = async () => JSON.parse((await send(`${server.url}/bench/tokens`)).text)
  return Promise.all(Array.from({ length: workers }, one))
}

/** Housekeeping that finds no end of expired tokens. */
async function measureCleaning({ server, database, tokens, name }: Subject): Promise<string[]> {
  say('cleaning')
  const owner = new pg.Client({ connectionString: database.ownerUrl })
  await owner.connect()
  await owner.query(expire, [expiredTokens])
  await owner.end()
  const cleaner = openPostgres({ url: database.appUrl, poolSize: 1, role: 'app', onIdleError: () => undefined })
  const payloads = createPayloadStore(cleaner)
  const [rest, cleaning]: [Result[], Result[]] = [[], []]
  let deleted = 0
  for (let round = 0; round < rounds; round += 1) {
    rest.push(await measure(server.pid, workers, runMs, asking(server, tokens.app)))
    let isOver = false
    const work = (async () => {
      while (!isOver) deleted += await cleanPayloads(payloads, () => !isOver)
    })()
    cleaning.push(await measure(server.pid, workers, runMs, asking(server, tokens.app)))
    isOver = true
    await work
  }
  await cleaner.close()
  const base = medianOf(rest, (result) => result.perSecond)
  const rows = [
    ['at rest', ...figures(rest, base)],
    [`while housekeeping deletes ${whole(deleted)} expired tokens`, ...figures(cleaning, base)],
  ]
  return table([`introspection, ${name}`, ...columns], rows)
}

function figures(results: readonly Result[], base: number): string[] {
  const perSecond = medianOf(results, (result) => result.perSecond)
  return [
    whole(perSecond),
    tenth(medianOf(results, (result) => result.p50Ms)),
    tenth(medianOf(results, (result) => result.p99Ms)),
    whole(medianOf(results, (result) => result.cpuMicros)),
    (perSecond / base).toFixed(2),
  ]
}

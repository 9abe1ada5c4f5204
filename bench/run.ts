// npm run bench: this server on PostgreSQL 18 and oidc-provider alone with its memory adapter, in one run on one machine.
// What counts is the ratio; absolute figures share two cores between server, database and this generator.
import { execFileSync } from 'node:child_process'
import { cpus, totalmem } from 'node:os'
import { join } from 'node:path'
import argon2 from 'argon2'
import type { ApplyInput } from '../src/apply/apply.ts'
import { defaultHashCost, type HashCost } from '../src/credentials/password.ts'
import { createDatabase, startPostgres } from '../tests/support/postgres.ts'
import { install, type Server, start, startReference, stop } from './installation.ts'
import { measure, type Result, send } from './load.ts'
import {
  arrive,
  basic,
  expectOk,
  form,
  introspect,
  password,
  redeem,
  redirectUri,
  requestTokens,
  signIn,
  signInWithTotp,
  totpSecret,
  type Visit,
} from './visit.ts'

const runMs = Number(process.env['BENCH_MS'] ?? 6_000)
const workers = 64
// BENCH_ONLY=refresh runs one scenario, time_to_dead and scale their own files, which can be run by themselves too; BENCH_PROFILE=folder writes a CPU profile of this server there.
const only = process.env['BENCH_ONLY']
const profileFolder = process.env['BENCH_PROFILE']
const discoveryPath = '/.well-known/openid-configuration'
/** People who do in a run what works once for each. */
const onceAccounts = 1_500
const emailOf = (worker: number) => `p${worker}@bench.example`

const person = (name: string, credential: string) => ({
  email: `${name}@bench.example`,
  name,
  password: credential,
  organization: 'bench',
  emailVerified: true,
})

/** @param credential a password, or a PHC string of it made at another cost than `apply` would */
const seed = (credential: string): ApplyInput => ({
  organizations: [{ slug: 'bench', name: 'Bench' }],
  accounts: [
    ...Array.from({ length: workers }, (_, index) => person(`p${index}`, credential)),
    // An authenticator's step works once, and an address gets three links in a quarter of an hour.
    ...Array.from({ length: onceAccounts }, (_, index) => ({ ...person(`t${index}`, credential), totpSecret })),
  ],
  clients: [
    {
      client_id: 'api',
      client_secret: 'api-secret-0123456789',
      client_name: 'API',
      organization: 'bench',
      grant_types: ['client_credentials'],
      scope: 'openid',
      introspection: 'organization',
    },
    {
      client_id: 'app',
      client_secret: 'app-secret-0123456789',
      client_name: 'App',
      organization: 'bench',
      grant_types: ['authorization_code', 'refresh_token'],
      redirect_uris: [redirectUri],
      scope: 'openid profile offline_access',
      first_party: true,
    },
  ],
})

/** @param hashCost other than the one people get */
async function startOurs(hashCost?: HashCost): Promise<Server> {
  const file = seed(await hashAt(hashCost ?? defaultHashCost))
  const database = await createDatabase(postgres.adminUrl)
  return start({ installed, database, file, profileFolder, ...(hashCost ? { hashCost } : {}) })
}

async function askForLink({ path, csrf, visitor }: Visit, index: number): Promise<void> {
  const from = { 'x-forwarded-for': `10.${index >> 16}.${(index >> 8) & 255}.${index & 255}` }
  const answer = await visitor.go(`${path}/link`, form({ csrf, email: `t${index}@bench.example` }), from)
  if (!answer.header('location')?.endsWith('/link/sent')) throw new Error(`no link: ${answer.status}`)
}

async function serviceToken(server: Server): Promise<string> {
  const answer = expectOk(await requestTokens(server, basic('api'), form({ grant_type: 'client_credentials' })))
  return String(JSON.parse(answer.text).access_token)
}

/** The tokens of one person per worker. */
async function personTokens(server: Server): Promise<{ access_token: string; refresh_token: string }[]> {
  return Promise.all(
    Array.from({ length: workers }, async (_, worker) => {
      if (server.isReference) return JSON.parse((await send(`${server.url}/bench/tokens`)).text)
      return redeem(server, await signIn(server, emailOf(worker)))
    }),
  )
}

const refreshTokens = async (server: Server) => (await personTokens(server)).map((tokens) => tokens.refresh_token)

/** One refresh of the worker's token, which it replaces. */
function refreshStep(server: Server, current: string[]) {
  const authorization = basic(server.isReference ? 'api' : 'app')
  return async (worker: number) => {
    const body = form({ grant_type: 'refresh_token', refresh_token: current[worker] ?? '' })
    const answer = expectOk(await requestTokens(server, authorization, body))
    current[worker] = String(JSON.parse(answer.text).refresh_token)
  }
}

function wants(scenario: string): boolean {
  return only === undefined || only === scenario
}

async function scenarios(server: Server): Promise<Record<string, Result>> {
  const results: Record<string, Result> = {}
  const prefix = server.isReference ? '' : '/oauth'
  const step = async (name: string, prepare: () => Promise<(worker: number) => Promise<unknown>>) => {
    if (wants(name)) results[name] = await measure(server.pid, workers, runMs, await prepare())
  }
  const introspecting = (tokens: readonly string[]) => async (worker: number) => {
    const answer = expectOk(await introspect(server, tokens[worker] ?? ''))
    if (!answer.text.includes('"active":true')) throw new Error('a token went inactive under the bench')
  }
  await step('discovery', async () => async () => expectOk(await send(`${server.url}${discoveryPath}`)))
  await step('jwks', async () => async () => expectOk(await send(`${server.url}${prefix}/jwks`)))
  await step('client_credentials', async () => () => serviceToken(server))
  await step('introspection', async () =>
    introspecting(await Promise.all(Array.from({ length: workers }, () => serviceToken(server)))),
  )
  await step('introspection_person', async () =>
    introspecting((await personTokens(server)).map((tokens) => tokens.access_token)),
  )
  await step('refresh', async () => refreshStep(server, await refreshTokens(server)))
  return results
}

const hashAt = ({ memoryKib, passes }: HashCost) =>
  argon2.hash(password, { type: argon2.argon2id, parallelism: 1, memoryCost: memoryKib, timeCost: passes })

/** How many verifies this machine does with nothing around them, as many at once as there are cores. */
async function bareArgon2(cost: HashCost): Promise<number> {
  const phc = await hashAt(cost)
  const end = performance.now() + runMs
  const begun = performance.now()
  let count = 0
  await Promise.all(
    cpus().map(async () => {
      while (performance.now() < end) {
        await argon2.verify(phc, password)
        count += 1
      }
    }),
  )
  return count / ((performance.now() - begun) / 1000)
}

const row = (cells: readonly (string | number)[]) => `| ${cells.join(' | ')} |`
const whole = (value: number) => Math.round(value).toLocaleString('en')
const tenth = (value: number) => value.toFixed(1)

const installed = install()
const postgres = await startPostgres()
const ours = await startOurs()
const lines: string[] = []
try {
  const mine = await scenarios(ours)
  const signIns = wants('sign_in')
    ? await measure(ours.pid, workers, runMs, (worker) => signIn(ours, emailOf(worker)))
    : undefined
  const factors = wants('factors') ? await measureFactors() : []
  const storm = wants('storm') ? await measureStorm() : []
  await stop(ours)
  const keycloak = wants('keycloak') ? await measureAtKeycloakCost() : []
  const reference = await startReference()
  const theirs = await scenarios(reference)
  const theirSignIns =
    signIns && (await measure(reference.pid, workers, runMs, (worker) => signIn(reference, emailOf(worker))))
  await stop(reference)
  lines.push(
    ...table(mine, theirs),
    '',
    ...(signIns && theirSignIns ? await signInLines(signIns, theirSignIns) : []),
    ...factors,
    ...storm,
    ...keycloak,
  )
} finally {
  ours.process.kill()
  await postgres.stop()
}
process.stdout.write(`${lines.join('\n')}\n`)
for (const [name, bench] of [
  ['time_to_dead', 'time-to-dead.ts'],
  ['scale', 'scale.ts'],
] as const)
  if (wants(name)) execFileSync(process.execPath, [join(import.meta.dirname, bench)], { stdio: 'inherit' })
process.exit(0)

async function signInLines(mine: Result, theirs: Result): Promise<string[]> {
  const bare = await bareArgon2({ memoryKib: 19_456, passes: 2 })
  const line = (who: string, result: Result) =>
    `${who}: ${tenth(result.perSecond)}/s, p99 ${whole(result.p99Ms)} ms, ${whole(result.cpuMicros)} µs CPU, RSS ${result.rssMib} MiB; ${(result.perSecond / bare).toFixed(2)} of ${tenth(bare)} bare argon2id verifies (19 MiB, t=2).`
  return [
    line('Password sign-ins, four requests each', mine),
    line('The same four requests at the memory adapter, without policy, counting or audit', theirs),
  ]
}

/** What each person does once: sign in with an authenticator (six requests), ask for a link (one request). */
async function measureFactors(): Promise<string[]> {
  let next = 0
  const totp = await measure(ours.pid, workers, runMs, () =>
    signInWithTotp(ours, `t${next++ % onceAccounts}@bench.example`),
  )
  const visits = await Promise.all(Array.from({ length: workers }, () => arrive(ours)))
  let asked = 0
  const links = await measure(ours.pid, workers, Math.min(runMs, 1_000), (worker) => {
    const visit = visits[worker]
    if (!visit) throw new Error('a worker without a browser')
    return askForLink(visit, asked++ % onceAccounts)
  })
  return [
    `Password sign-ins with TOTP, six requests each: ${tenth(totp.perSecond)}/s, p99 ${whole(totp.p99Ms)} ms, ${whole(totp.cpuMicros)} µs CPU. Requests for a sign-in link: ${whole(links.perSecond)}/s, p99 ${tenth(links.p99Ms)} ms, ${whole(links.cpuMicros)} µs CPU.`,
  ]
}

async function measureStorm(): Promise<string[]> {
  const token = await serviceToken(ours)
  let storming = true
  const storm = Promise.all(
    Array.from({ length: workers }, async (_, worker) => {
      while (storming) await signIn(ours, emailOf(worker))
    }),
  )
  const during = await measure(ours.pid, 4, runMs, () => introspect(ours, token))
  storming = false
  await storm
  return [
    `Introspection while ${workers} people sign in without a pause: p50 ${tenth(during.p50Ms)} ms, p99 ${tenth(during.p99Ms)} ms.`,
  ]
}

/** Keycloak's sizing guide counts per vCPU of the server alone, at its own Argon2 parameters. */
async function measureAtKeycloakCost(): Promise<string[]> {
  const server = await startOurs({ memoryKib: 7_168, passes: 5 })
  const signIns = await measure(server.pid, workers, runMs, (worker) => signIn(server, emailOf(worker)))
  const tokens = await measure(server.pid, workers, runMs, () => serviceToken(server))
  const current = await refreshTokens(server)
  const refreshes = await measure(server.pid, workers, runMs, refreshStep(server, current))
  await stop(server)
  const perCore = (result: Result) => whole(1e6 / result.cpuMicros)
  return [
    `At Argon2id m=7 MiB, t=5, per second and core of this process: ${perCore(signIns)} password sign-ins, ${perCore(tokens)} client_credentials, ${perCore(refreshes)} refreshes.`,
  ]
}

function table(mine: Record<string, Result>, theirs: Record<string, Result>): string[] {
  const head = [
    'scenario',
    'requests/s',
    'p50 ms',
    'p99 ms',
    'CPU µs/request',
    'RSS MiB',
    'memory adapter requests/s',
    'its CPU µs/request',
    'ratio (requests/s)',
  ]
  const rows = Object.entries(mine).map(([name, result]) => {
    const other = theirs[name]
    return row([
      name,
      whole(result.perSecond),
      tenth(result.p50Ms),
      tenth(result.p99Ms),
      whole(result.cpuMicros),
      result.rssMib,
      ...(other
        ? [whole(other.perSecond), whole(other.cpuMicros), (result.perSecond / other.perSecond).toFixed(2)]
        : ['', '', '']),
    ])
  })
  return [
    `${new Date().toISOString().slice(0, 10)}, ${cpus().length} × ${cpus()[0]?.model.trim()}, ${Math.round(totalmem() / 2 ** 30)} GiB, Node ${process.version}, ${workers} connections, ${runMs / 1000} s each.`,
    '',
    row(head),
    row(head.map(() => '---')),
    ...rows,
  ]
}

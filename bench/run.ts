// npm run bench: this server on PostgreSQL 18 and oidc-provider alone with its memory adapter, in one run on one machine.
// What counts is the ratio; absolute figures share two cores between server, database and this generator.
import { type ChildProcess, execFileSync, fork, spawn } from 'node:child_process'
import { createHash, randomBytes } from 'node:crypto'
import { mkdtempSync, writeFileSync } from 'node:fs'
import { cpus, tmpdir, totalmem } from 'node:os'
import { join } from 'node:path'
import argon2 from 'argon2'
import { freePort } from '../tests/support/free-port.ts'
import { createDatabase, startPostgres } from '../tests/support/postgres.ts'
import { measure, type Result, send } from './load.ts'

const runMs = Number(process.env['BENCH_MS'] ?? 6_000)
const workers = 64
const root = join(import.meta.dirname, '..')
const secret = 'a secret of the bench, long enough for anybody'
const redirectUri = 'http://localhost:9/callback'
const password = 'Bench-Password-2026'
const basic = `Basic ${Buffer.from('api:api-secret-0123456789').toString('base64')}`

const file = {
  organizations: [{ slug: 'bench', name: 'Bench' }],
  accounts: Array.from({ length: 64 }, (_, index) => ({
    email: `p${index}@bench.example`,
    name: `Person ${index}`,
    password,
    organization: 'bench',
  })),
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
}

interface Server {
  readonly url: string
  readonly process: ChildProcess
  readonly pid: number
}

async function startOurs(): Promise<Server> {
  const port = await freePort()
  const url = `http://localhost:${port}`
  const { ownerUrl, appUrl } = await createDatabase(postgres.adminUrl)
  const folder = mkdtempSync(join(tmpdir(), 'mlpipes-bench-'))
  writeFileSync(join(folder, 'bench.json'), JSON.stringify(file))
  const env = {
    ...process.env,
    MLPIPES_AUTH_URL: url,
    PORT: String(port),
    DATABASE_URL: appUrl,
    DATABASE_ADMIN_URL: ownerUrl,
    MLPIPES_AUTH_SECRET: secret,
    LOG_LEVEL: 'warn',
    DATA_DIR: folder,
  }
  const cli = join(root, 'bin/mlpipes-auth.js')
  execFileSync(process.execPath, [cli, 'migrate'], { env })
  execFileSync(process.execPath, [cli, 'apply', join(folder, 'bench.json')], { env })
  const child = spawn(process.execPath, [cli, 'start'], { env, stdio: 'inherit' })
  for (;;) {
    const answer = await send(`${url}/readyz`).catch(() => undefined)
    if (answer?.status === 200) return { url, process: child, pid: child.pid ?? 0 }
    await new Promise((resolve) => setTimeout(resolve, 100))
  }
}

async function startReference(): Promise<Server> {
  const port = await freePort()
  const child = fork(join(import.meta.dirname, 'reference.ts'), {
    env: { ...process.env, PORT: String(port) },
    silent: true,
  })
  await new Promise((resolve) => child.once('message', resolve))
  return { url: `http://localhost:${port}`, process: child, pid: child.pid ?? 0 }
}

/** A browser's way through a sign-in. Returns the code and its verifier. */
async function signIn(server: Server, person: number): Promise<{ code: string; verifier: string }> {
  const verifier = randomBytes(32).toString('base64url')
  const query = new URLSearchParams({
    client_id: 'app',
    response_type: 'code',
    redirect_uri: redirectUri,
    scope: 'openid profile',
    code_challenge: createHash('sha256').update(verifier).digest('base64url'),
    code_challenge_method: 'S256',
  })
  const cookies = new Map<string, string>()
  const go = async (path: string, body?: string) => {
    const cookie = [...cookies].map(([name, value]) => `${name}=${value}`).join('; ')
    const answer = await send(new URL(path, server.url).href, {
      headers: { cookie, accept: 'text/html' },
      ...(body === undefined ? {} : { method: 'POST', body }),
    })
    for (const line of [answer.headers['set-cookie'] ?? []].flat()) {
      const [name = '', value = ''] = line.split(';')[0]?.split('=') ?? []
      cookies.set(name, value)
    }
    return answer
  }
  const begun = await go(`/oauth/authorize?${query}`)
  const path = String(begun.headers['location'])
  const page = await go(path)
  const csrf = /name="csrf" value="([^"]+)"/.exec(page.text)?.[1] ?? ''
  const submitted = await go(
    `${path}/password`,
    new URLSearchParams({ csrf, email: `p${person}@bench.example`, password }).toString(),
  )
  const landing = await go(String(submitted.headers['location']))
  const code = new URL(String(landing.headers['location'])).searchParams.get('code')
  if (code === null) throw new Error(`sign-in failed: ${submitted.status} ${landing.status}`)
  return { code, verifier }
}

const form = (values: Record<string, string>) => new URLSearchParams(values).toString()

function expectOk(answer: { status: number; text: string }): typeof answer {
  if (answer.status !== 200) throw new Error(`${answer.status}: ${answer.text.slice(0, 200)}`)
  return answer
}

const tokenRequest = (server: Server, authorization: string, body: string) =>
  send(`${server.url}${server === ours ? '/oauth' : ''}/token`, { method: 'POST', headers: { authorization }, body })

async function refreshTokens(server: Server): Promise<string[]> {
  if (server !== ours)
    return Promise.all(
      Array.from({ length: workers }, async () => (await send(`${server.url}/bench/refresh-token`)).text),
    )
  const app = `Basic ${Buffer.from('app:app-secret-0123456789').toString('base64')}`
  return Promise.all(
    Array.from({ length: workers }, async (_, worker) => {
      const { code, verifier } = await signIn(server, worker)
      const answer = expectOk(
        await tokenRequest(
          server,
          app,
          form({ grant_type: 'authorization_code', code, redirect_uri: redirectUri, code_verifier: verifier }),
        ),
      )
      return String(JSON.parse(answer.text).refresh_token)
    }),
  )
}

async function scenarios(server: Server): Promise<Record<string, Result>> {
  const results: Record<string, Result> = {}
  const step = async (name: string, work: (worker: number) => Promise<unknown>) => {
    results[name] = await measure(server.pid, workers, runMs, work)
  }
  const prefix = server === ours ? '/oauth' : ''
  await step('discovery', async () => expectOk(await send(`${server.url}/.well-known/openid-configuration`)))
  await step('jwks', async () => expectOk(await send(`${server.url}${prefix}/jwks`)))
  await step('client_credentials', async () =>
    expectOk(await tokenRequest(server, basic, form({ grant_type: 'client_credentials' }))),
  )
  const tokens = await Promise.all(
    Array.from({ length: workers }, async () =>
      String(
        JSON.parse(expectOk(await tokenRequest(server, basic, form({ grant_type: 'client_credentials' }))).text)
          .access_token,
      ),
    ),
  )
  const introspection = server === ours ? '/oauth/introspect' : '/token/introspection'
  await step('introspection', async (worker) => {
    const answer = expectOk(
      await send(server.url + introspection, {
        method: 'POST',
        headers: { authorization: basic },
        body: form({ token: tokens[worker] ?? '' }),
      }),
    )
    if (!answer.text.includes('"active":true')) throw new Error('a token went inactive under the bench')
  })
  const current = await refreshTokens(server)
  const client = server === ours ? `Basic ${Buffer.from('app:app-secret-0123456789').toString('base64')}` : basic
  await step('refresh', async (worker) => {
    const answer = expectOk(
      await tokenRequest(server, client, form({ grant_type: 'refresh_token', refresh_token: current[worker] ?? '' })),
    )
    current[worker] = String(JSON.parse(answer.text).refresh_token)
  })
  return results
}

/** How many verifies this machine does with nothing around them, as many at once as there are cores. */
async function bareArgon2(options: { memoryCost: number; timeCost: number }): Promise<number> {
  const phc = await argon2.hash(password, { type: argon2.argon2id, parallelism: 1, ...options })
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

const postgres = await startPostgres()
const ours = await startOurs()
const lines: string[] = []
try {
  const mine = await scenarios(ours)
  const bare = await bareArgon2({ memoryCost: 19_456, timeCost: 2 })
  const signIns = await measure(ours.pid, workers, runMs, (worker) => signIn(ours, worker))
  const token = String(
    JSON.parse((await tokenRequest(ours, basic, form({ grant_type: 'client_credentials' }))).text).access_token,
  )
  let storming = true
  const storm = Promise.all(
    Array.from({ length: workers }, async (_, worker) => {
      while (storming) await signIn(ours, worker)
    }),
  )
  const during = await measure(ours.pid, 4, runMs, () =>
    send(`${ours.url}/oauth/introspect`, { method: 'POST', headers: { authorization: basic }, body: form({ token }) }),
  )
  storming = false
  await storm
  ours.process.kill('SIGTERM')
  await new Promise((resolve) => ours.process.once('exit', resolve))
  const reference = await startReference()
  const theirs = await scenarios(reference)
  reference.process.kill()

  lines.push(
    `${new Date().toISOString().slice(0, 10)}, ${cpus().length} × ${cpus()[0]?.model.trim()}, ${Math.round(totalmem() / 2 ** 30)} GiB, Node ${process.version}, ${workers} connections, ${runMs / 1000} s each.`,
    '',
  )
  lines.push(
    row([
      'scenario',
      'requests/s',
      'p50 ms',
      'p99 ms',
      'CPU µs/request',
      'RSS MiB',
      'memory adapter requests/s',
      'its CPU µs/request',
      'ratio (requests/s)',
    ]),
    row(Array(9).fill('---')),
  )
  for (const [name, result] of Object.entries(mine)) {
    const other = theirs[name]
    if (other)
      lines.push(
        row([
          name,
          whole(result.perSecond),
          tenth(result.p50Ms),
          tenth(result.p99Ms),
          whole(result.cpuMicros),
          result.rssMib,
          whole(other.perSecond),
          whole(other.cpuMicros),
          (result.perSecond / other.perSecond).toFixed(2),
        ]),
      )
  }
  lines.push(
    '',
    `Password sign-ins (four requests each): ${tenth(signIns.perSecond)}/s, p99 ${whole(signIns.p99Ms)} ms, RSS ${signIns.rssMib} MiB; bare argon2id verifies (19 MiB, t=2): ${tenth(bare)}/s; ratio ${(signIns.perSecond / bare).toFixed(2)}.`,
  )
  lines.push(
    `Introspection while 64 people sign in without a pause: p50 ${tenth(during.p50Ms)} ms, p99 ${tenth(during.p99Ms)} ms.`,
  )
} finally {
  ours.process.kill()
  await postgres.stop()
}
process.stdout.write(`${lines.join('\n')}\n`)
process.exit(0)

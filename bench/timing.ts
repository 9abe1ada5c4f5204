// node bench/timing.ts: does the time of an answer tell whether an account exists? Refused sign-ins of five kinds (F30),
// and requests for links and resets (F32), take turns, at a cheap hash, where a difference beside the hash shows most.
// Mann-Whitney against the first kind of each.
import { performance } from 'node:perf_hooks'
import { evenAnswerMs } from '../src/login/even.ts'
import { authorizationUrl, Browser } from '../tests/support/client.ts'
import { startPostgres } from '../tests/support/postgres.ts'
import { password, people, startServer } from '../tests/support/server.ts'

const triesPerAccount = 10
const accountsPerKind = 25
const warmUpAccounts = 5
const kinds = ['wrong password', 'unknown', 'disabled', 'no password', 'with TOTP'] as const
type Kind = (typeof kinds)[number]

const emailOf = (kind: Kind, index: number) => `${kind.replaceAll(' ', '-').toLowerCase()}-${index}@mercy.example`
const account = (kind: Kind, index: number) => ({
  email: emailOf(kind, index),
  name: 'A Person',
  organization: 'mercy',
  ...(kind === 'no password' ? {} : { password }),
  ...(kind === 'disabled' ? { disabled: true } : {}),
  ...(kind === 'with TOTP' ? { totpSecret: 'JBSWY3DPEHPK3PXPJBSWY3DPEHPK3PXP' } : {}),
})

const postgres = await startPostgres()
const server = await startServer('postgres', {
  adminUrl: postgres.adminUrl,
  evenAnswerMs,
  environment: { TRUSTED_PROXIES: '127.0.0.1', ENABLE_MAGIC_LINKS: 'true' },
  seed: {
    ...people,
    accounts: kinds
      .filter((kind) => kind !== 'unknown')
      .flatMap((kind) => Array.from({ length: accountsPerKind }, (_, index) => account(kind, index))),
  },
})
const times = new Map<Kind, number[]>(kinds.map((kind) => [kind, []]))
for (let index = 0; index < accountsPerKind; index += 1) {
  const browser = new Browser(server)
  const page = await browser.follow(await browser.request(authorizationUrl(server, 'first').url))
  const csrf = /name="csrf" value="([^"]+)"/.exec(page.text)?.[1] ?? ''
  const action = `${new URL(page.url).pathname}/password`
  for (let attempt = 0; attempt < triesPerAccount; attempt += 1) {
    for (let turn = 0; turn < kinds.length; turn += 1) {
      // The order changes, so that no kind always comes after the same other one.
      const kind = kinds[(turn + attempt) % kinds.length] ?? 'unknown'
      // Only the time of an answer is asked here, so nobody has to wait for the next try.
      await server.database.run('delete from mlpipes_auth.sign_in_attempts', [])
      const begun = performance.now()
      const answer = await browser.request(action, {
        form: { csrf, email: emailOf(kind, index), password: 'Wrong-Horse-9-Battery' },
        headers: { 'x-forwarded-for': `10.0.${index}.${attempt}` },
      })
      if (answer.status !== 401) throw new Error(`${kind}: ${answer.status}`)
      if (index >= warmUpAccounts) times.get(kind)?.push(performance.now() - begun)
    }
  }
}

const mailed = ['link', 'forgot'] as const
const mailedTimes = new Map(
  mailed.flatMap((path) => [
    [`${path}, known`, [] as number[]],
    [`${path}, unknown`, [] as number[]],
  ]),
)
for (let index = 0; index < accountsPerKind; index += 1) {
  const browser = new Browser(server)
  const page = await browser.follow(await browser.request(authorizationUrl(server, 'first').url))
  const csrf = /name="csrf" value="([^"]+)"/.exec(page.text)?.[1] ?? ''
  for (let attempt = 0; attempt < triesPerAccount; attempt += 1) {
    for (const path of mailed) {
      for (const isKnown of attempt % 2 === 0 ? [true, false] : [false, true]) {
        await server.database.run('delete from mlpipes_auth.sign_in_attempts', [])
        const email = emailOf(isKnown ? 'wrong password' : 'unknown', index)
        const begun = performance.now()
        const answer = await browser.request(`${new URL(page.url).pathname}/${path}`, { form: { csrf, email } })
        if (answer.status !== 303) throw new Error(`${path}: ${answer.status}`)
        if (index >= warmUpAccounts)
          mailedTimes.get(`${path}, ${isKnown ? 'known' : 'unknown'}`)?.push(performance.now() - begun)
      }
    }
  }
}
await server.close()
await postgres.stop()

process.stdout.write('| kind | tries | median ms | p95 ms | Mann-Whitney z |\n| --- | --- | --- | --- | --- |\n')
print(times, () => 'wrong password')
print(mailedTimes, (kind) => `${kind.split(',')[0]}, known`)

function print(samples: ReadonlyMap<string, readonly number[]>, referenceOf: (kind: string) => string): void {
  for (const [kind, list] of samples) {
    const sorted = [...list].sort((a, b) => a - b)
    const at = (share: number) => (sorted[Math.floor(sorted.length * share)] ?? 0).toFixed(2)
    const reference = referenceOf(kind)
    const z = kind === reference ? '' : mannWhitneyZ(list, samples.get(reference) ?? []).toFixed(2)
    process.stdout.write(`| ${kind} | ${list.length} | ${at(0.5)} | ${at(0.95)} | ${z} |\n`)
  }
}

/** How far apart two samples are, in standard deviations; within ±1.96 in 95 of 100 runs when they are alike. */
function mannWhitneyZ(a: readonly number[], b: readonly number[]): number {
  const ranked = [...a.map((value) => ({ value, isA: true })), ...b.map((value) => ({ value, isA: false }))].sort(
    (left, right) => left.value - right.value,
  )
  const rankSum = ranked.reduce((sum, entry, index) => (entry.isA ? sum + index + 1 : sum), 0)
  const [m, n] = [a.length, b.length]
  const u = rankSum - (m * (m + 1)) / 2
  return (u - (m * n) / 2) / Math.sqrt((m * n * (m + n + 1)) / 12)
}

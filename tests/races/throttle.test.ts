// Counters under 20 parallel tries over two replicas: two pools over one PostgreSQL database.
import { randomUUID } from 'node:crypto'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { listAudit } from '../../src/audit/audit.ts'
import { rememberDevice } from '../../src/credentials/devices.ts'
import { recordFailure } from '../../src/credentials/failures.ts'
import { createThrottle, type ThrottleLimits, type ThrottleRequest } from '../../src/credentials/throttle.ts'
import { createSecrets } from '../../src/crypto/secrets.ts'
import type { Database } from '../../src/db/database.ts'
import { transact } from '../../src/db/transaction.ts'
import { addAccount, barePostgres } from '../support/bare-database.ts'

const parallel = 20
const rounds = 5
const noDelay = { freeFailures: 1_000 }

let replicas: Database[]
let database: Database
beforeAll(async () => {
  replicas = await barePostgres(2)
  const [first] = replicas
  if (!first) throw new Error('no replica')
  database = first
  // A cold pool connects one by one and hides the race.
  await Promise.all(replicas.flatMap((one) => Array.from({ length: 12 }, () => one.run('select pg_sleep(0.05)', []))))
})
afterAll(() => Promise.all(replicas.map((one) => one.close())))

const together = <T>(work: (index: number) => Promise<T>) =>
  Promise.all(Array.from({ length: parallel }, (_, index) => work(index)))
const replica = (index: number) => replicas[index % replicas.length] ?? database

/** One throttle per replica, with the secret they share and no other test has. */
function throttles(limits: Partial<ThrottleLimits> = {}) {
  const secrets = createSecrets(`secret of one test ${randomUUID()}`)
  const made = replicas.map((one) => createThrottle({ database: one, secrets, limits }))
  return (index: number) => {
    const throttle = made[index % made.length]
    if (!throttle) throw new Error('no throttle')
    return throttle
  }
}

const guess = (rest: Partial<ThrottleRequest> = {}): ThrottleRequest => ({
  purpose: 'password',
  identifier: 'ada@mercy.example',
  ip: '192.0.2.1',
  deviceHash: undefined,
  ...rest,
})
const newAccount = async () => {
  const id = `acc_${randomUUID()}`
  await addAccount(database, id)
  return id
}

describe('F36: 20 parallel tries', () => {
  it('on one account are let through up to its limit, exactly', async () => {
    for (let round = 0; round < rounds; round += 1) {
      const throttle = throttles(noDelay)
      const answers = await together((index) => throttle(index).take(guess({ ip: `198.51.100.${index}` })))
      const passed = answers.filter((answer) => answer.ok)
      expect(passed).toHaveLength(10)
      expect(new Set(passed.map((answer) => answer.attempts)).size, 'each has a count of its own').toBe(10)
      for (const answer of answers) if (!answer.ok) expect(answer.reason).toBe('account')
    }
  })

  it('on one account are let through up to the first delay, exactly', async () => {
    for (let round = 0; round < rounds; round += 1) {
      const throttle = throttles()
      const answers = await together((index) => throttle(index).take(guess()))
      expect(answers.filter((answer) => answer.ok)).toHaveLength(5)
      for (const answer of answers) if (!answer.ok) expect(answer.reason).toBe('delay')
    }
  })

  it('from one address are let through up to its limit, and leave no mark on the accounts they were refused for', async () => {
    for (let round = 0; round < rounds; round += 1) {
      const throttle = throttles({ ...noDelay, guessesPerAddress: { tries: 7, windowSeconds: 900 } })
      const person = (index: number) => guess({ identifier: `person${index}@mercy.example`, ip: '2001:db8::1' })
      const answers = await together((index) => throttle(index).take(person(index)))
      expect(answers.filter((answer) => answer.ok)).toHaveLength(7)
      const later = await together((index) => throttle(index).take({ ...person(index), ip: `198.51.100.${index}` }))
      for (const [index, answer] of later.entries())
        expect(answer).toMatchObject({ ok: true, attempts: answers[index]?.ok ? 2 : 1 })
    }
  })

  it('on the platform are let through up to its limit', async () => {
    const throttle = throttles({ platform: { tries: 9, windowSeconds: 60 }, platformRows: 1 })
    const answers = await together((index) =>
      throttle(index).take(guess({ identifier: `n${index}@x.example`, ip: `198.51.100.${index}` })),
    )
    expect(answers.filter((answer) => answer.ok)).toHaveLength(9)
    for (const answer of answers) if (!answer.ok) expect(answer.reason).toBe('global')
  })

  it('never pass a limit when several budgets run out together', async () => {
    for (let round = 0; round < rounds; round += 1) {
      const limit = { tries: 6, windowSeconds: 900 }
      const throttle = throttles({
        ...noDelay,
        passwordsPerAccount: limit,
        guessesPerAddress: limit,
        platform: limit,
        platformRows: 1,
      })
      const answers = await together((index) => throttle(index).take(guess()))
      const passed = answers.filter((answer) => answer.ok).length
      expect(passed).toBeLessThanOrEqual(6)
      // What was refused was given back everywhere: what is left is exactly what was not used.
      let more = 0
      while ((await throttle(more).take(guess())).ok) more += 1
      expect(passed + more).toBe(6)
    }
  })

  it('with a known device have a budget of their own, exactly', async () => {
    const throttle = throttles(noDelay)
    const accountId = await newAccount()
    await transact(database.kysely, (tx) => rememberDevice(tx, accountId, 'known', undefined))
    const answers = await together((index) => throttle(index).take(guess({ accountId, deviceHash: 'known' })))
    const strange = await together((index) => throttle(index).take(guess({ accountId, deviceHash: 'strange' })))
    expect(answers.filter((answer) => answer.ok)).toHaveLength(10)
    expect(strange.filter((answer) => answer.ok)).toHaveLength(10)
  })
})

describe('parallel successes', () => {
  it('give every try back, and no two wait for each other', async () => {
    for (let round = 0; round < rounds; round += 1) {
      // Other keys each time, so that their order is another one too.
      const throttle = throttles({ platformRows: 1 })
      for (let turn = 0; turn < rounds; turn += 1) {
        await together(async (index) => {
          const taken = await throttle(index).take(guess({ identifier: `person${index}@mercy.example` }))
          if (!taken.ok) throw new Error(`refused: ${taken.reason}`)
          // Settled at the other replica, for it makes no difference.
          await throttle(index + 1).settle(taken)
        })
      }
      const probe = await throttle(0).take(guess({ identifier: 'probe@mercy.example' }))
      if (!probe.ok) throw new Error('refused')
      const rows = await database.run(
        'select key, failures from mlpipes_auth.sign_in_attempts where key = any($1::text[])',
        [[...probe.keys.forgotten, ...probe.keys.returned]],
      )
      expect(rows.map((row) => row['failures'])).toEqual([1, 1, 1])
    }
    // They would be tried again, and nothing above would tell.
    const [statistics] = await database.run(
      'select deadlocks::integer as deadlocks from pg_catalog.pg_stat_database where datname = current_database()',
      [],
    )
    expect(statistics?.['deadlocks']).toBe(0)
  })
})

describe('SP 800-63B-4 §3.2.2: the hundredth failure', () => {
  it('disables once, with one audit row, however many come at the same time', async () => {
    for (let round = 0; round < rounds; round += 1) {
      const accountId = await newAccount()
      await database.run(
        `insert into mlpipes_auth.authenticator_failures (account_id, kind, consecutive) values ($1, 'password', 95)`,
        [accountId],
      )
      const answers = await together((index) =>
        transact(replica(index).kysely, (tx) => recordFailure(tx, accountId, 'password', { origin: {} })),
      )
      expect(answers.filter((answer) => answer.disabledNow)).toHaveLength(1)
      expect(
        answers
          .map((answer) => answer.consecutive)
          .sort((a, b) => a - b)
          .slice(0, 5),
      ).toEqual([96, 97, 98, 99, 100])
      const events = await listAudit(database.kysely, 1_000)
      const mine = events.filter((event) => event.accountId === accountId && event.name === 'authenticator.disabled')
      expect(mine).toHaveLength(1)
      const [row] = await database.run(
        'select consecutive from mlpipes_auth.authenticator_failures where account_id = $1',
        [accountId],
      )
      expect(row?.['consecutive']).toBe(100)
    }
  })
})

describe('a device', () => {
  it('is new to one of 20 parallel sign-ins', async () => {
    for (let round = 0; round < rounds; round += 1) {
      const accountId = await newAccount()
      const seen = await together((index) =>
        transact(replica(index).kysely, (tx) => rememberDevice(tx, accountId, 'device', 'Firefox')),
      )
      expect(seen.filter((answer) => answer.isNew)).toHaveLength(1)
    }
  })
})

// Second factors under 20 parallel requests on a warm pool: whatever may happen once happens once, and counts stay true.
// Without `transact`, so that a deadlock fails the test instead of being tried again.
import { generate } from 'otplib'
import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest'
import { listAudit } from '../../src/audit/audit.ts'
import {
  backupCodeCount,
  countBackupCodes,
  createBackupCodes,
  type FactorChange,
  spendBackupCode,
} from '../../src/credentials/backup-codes.ts'
import {
  confirmTotp,
  findTotpMatch,
  listTotp,
  maxAuthenticators,
  maxOpenSetups,
  removeTotp,
  spendTotpStep,
  startTotpSetup,
} from '../../src/credentials/totp.ts'
import { createSecrets } from '../../src/crypto/secrets.ts'
import type { Database, Tx } from '../../src/db/database.ts'
import { addAccount, bareDatabase, barePostgres } from '../support/bare-database.ts'

const parallel = 20
const rounds = 5
const secrets = createSecrets('a secret of these tests, long enough')
const stepStart = 1_800_000_000
const at = (offsetSeconds: number) => new Date((stepStart + offsetSeconds) * 1_000)
const codeAt = (secret: string, offsetSeconds: number) => generate({ secret, epoch: stepStart + offsetSeconds })

async function warmPostgres(): Promise<Database> {
  const [database] = await barePostgres(1, parallel + 5)
  if (!database) throw new Error('no database')
  // A cold pool connects one by one and hides the race.
  await Promise.all(Array.from({ length: parallel + 5 }, () => database.run('select pg_sleep(0.05)', [])))
  return database
}

describe.each(['postgres', 'pglite'] as const)('on %s', (kind) => {
  let database: Database
  let count = 0
  let me: FactorChange
  beforeAll(async () => {
    database = kind === 'postgres' ? await warmPostgres() : await bareDatabase(kind)
  })
  afterAll(() => database.close())
  beforeEach(async () => {
    me = await somebody()
  })

  async function somebody(): Promise<FactorChange> {
    count += 1
    const accountId = `acc_${kind}_${count}`
    await addAccount(database, accountId)
    return { accountId, organizationId: 'org_test', actor: { type: 'account', id: accountId }, origin: {} }
  }

  const inTx = <T>(work: (tx: Tx) => Promise<T>) => database.kysely.transaction().execute(work)
  const together = <T>(work: (index: number) => Promise<T>, length = parallel) =>
    Promise.all(Array.from({ length }, (_, index) => work(index)))
  const begin = () =>
    inTx((tx) =>
      startTotpSetup(tx, secrets, { ...me, email: 'ada@mercy.example', organizationName: 'Mercy', name: 'Phone' }),
    )
  async function begun() {
    const setup = await begin()
    if (!setup.ok) throw new Error(setup.reason)
    return setup
  }
  const turnOn = async ({ totpId, secretBase32 }: { totpId: string; secretBase32: string }) => {
    const code = await codeAt(secretBase32, 0)
    return inTx((tx) => confirmTotp(tx, secrets, { ...me, totpId, code, now: at(0) }))
  }
  async function enrolled() {
    const setup = await begun()
    expect(await turnOn(setup)).toBe('confirmed')
    return setup
  }
  const signIn = (code: string, offsetSeconds: number) =>
    inTx(async (tx) => {
      const match = await findTotpMatch(tx, secrets, me.accountId, code, at(offsetSeconds))
      return match !== undefined && (await spendTotpStep(tx, match))
    })
  const newCodes = () => inTx((tx) => createBackupCodes(tx, secrets, me))
  const spend = (input: string) => inTx((tx) => spendBackupCode(tx, secrets, { ...me, input }))
  const audited = async (name: string) =>
    (await listAudit(database.kysely, 1_000)).filter((event) => event.name === name && event.accountId === me.accountId)

  describe('F60: a TOTP step', () => {
    it('is spent once, round after round', async () => {
      const { secretBase32 } = await enrolled()
      for (let round = 1; round <= rounds; round += 1) {
        const code = await codeAt(secretBase32, round * 30)
        const answers = await together(() => signIn(code, round * 30))
        expect(answers.filter(Boolean)).toHaveLength(1)
      }
    })

    it('is spent once whichever authenticator gives the code', async () => {
      const secretsOfMine = [await enrolled(), await enrolled(), await enrolled()].map((setup) => setup.secretBase32)
      for (let round = 1; round <= rounds; round += 1) {
        const codes = await Promise.all(secretsOfMine.map((secret) => codeAt(secret, round * 30)))
        const answers = await together((index) => signIn(codes[index % codes.length] ?? '', round * 30))
        expect(answers.filter(Boolean)).toHaveLength(1)
      }
    })
  })

  describe('an authenticator', () => {
    it('is turned on once, and its confirming code signs nobody in', async () => {
      for (let round = 0; round < rounds; round += 1) {
        me = await somebody()
        const setup = await begun()
        const code = await codeAt(setup.secretBase32, 0)
        const [confirmations, signIns] = await Promise.all([
          together(() => turnOn(setup), parallel / 2),
          together(() => signIn(code, 0), parallel / 2),
        ])
        expect(confirmations.filter((answer) => answer === 'confirmed')).toHaveLength(1)
        expect(confirmations.filter((answer) => answer === 'gone')).toHaveLength(parallel / 2 - 1)
        expect(signIns.filter(Boolean)).toHaveLength(0)
        expect(await audited('totp.enabled')).toHaveLength(1)
      }
    })

    it('is begun as often as one likes, and only the limit stays open', async () => {
      await together(begin)
      const rows = await database.run(
        'select count(*)::integer as open from mlpipes_auth.totp_credentials where account_id = $1',
        [me.accountId],
      )
      expect(rows).toEqual([{ open: maxOpenSetups }])
    })

    it('comes up to the limit and no further', async () => {
      for (let enrolments = 0; enrolments < maxAuthenticators - 1; enrolments += 1) await enrolled()
      const setups = [await begun(), await begun(), await begun()]
      const answers = await Promise.all(setups.map(turnOn))
      expect(answers.toSorted()).toEqual(['confirmed', 'gone', 'gone'])
      expect(await listTotp(database.kysely, me.accountId)).toHaveLength(maxAuthenticators)
    })

    it('stays when it is the last one that policy demands', async () => {
      const setups = [await enrolled(), await enrolled(), await enrolled()]
      const answers = await Promise.all(
        setups.map(({ totpId }) => inTx((tx) => removeTotp(tx, { ...me, totpId, by: 'self', mayBeLast: false }))),
      )
      expect(answers.filter((answer) => answer.ok)).toHaveLength(2)
      expect(answers).toContainEqual({ ok: false, reason: 'last' })
      expect(await listTotp(database.kysely, me.accountId)).toHaveLength(1)
    })
  })

  describe('F64: a backup code', () => {
    it('is spent once', async () => {
      const codes = await newCodes()
      for (const [round, code] of codes.slice(0, rounds).entries()) {
        const answers = await together(() => spend(code))
        expect(answers.filter((answer) => answer !== undefined)).toEqual([{ left: backupCodeCount - 1 - round }])
      }
      expect(await audited('backup_code.used')).toHaveLength(rounds)
    })

    it('counts down by one even when all are spent at once', async () => {
      const codes = await newCodes()
      const answers = await Promise.all(codes.map(spend))
      const left = answers.map((answer) => answer?.left ?? -1)
      expect(left.toSorted((a, b) => a - b)).toEqual([0, 1, 2, 3, 4, 5, 6, 7, 8, 9])
    })

    it('has nine fellows, however many sets are made at once', async () => {
      const sets = await together(newCodes)
      expect(await countBackupCodes(database.kysely, me.accountId)).toBe(backupCodeCount)
      const alive = await Promise.all(sets.map(([code = '']) => spend(code)))
      expect(alive.filter((answer) => answer !== undefined)).toHaveLength(1)
    })

    it('of an old set is spent before the new set or never', async () => {
      for (let round = 0; round < rounds; round += 1) {
        me = await somebody()
        const old = await newCodes()
        const [answers, fresh] = await Promise.all([
          together((index) => spend(old[index % old.length] ?? '')),
          newCodes(),
        ])
        expect(answers.filter((answer) => answer !== undefined).length).toBeLessThanOrEqual(old.length)
        expect(await Promise.all(old.map(spend))).toEqual(old.map(() => undefined))
        expect(await countBackupCodes(database.kysely, me.accountId)).toBe(backupCodeCount)
        expect(await spend(fresh[0] ?? '')).toEqual({ left: backupCodeCount - 1 })
        const used = (await audited('backup_code.used')).length
        expect(used).toBe(answers.filter((answer) => answer !== undefined).length + 1)
      }
    })
  })
})

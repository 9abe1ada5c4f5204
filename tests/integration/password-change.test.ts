// Changing a password over a real database with real argon2: history, one winner, what else happens with it, and F38 and
// F39 through to a sign-in.
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { parseConfig } from '../../src/config.ts'
import { createPasswords, isPasswordShaped, type Passwords } from '../../src/credentials/password.ts'
import { effectivePasswordRules } from '../../src/credentials/password-rules.ts'
import {
  createPasswordChange,
  isReused,
  maxHistory,
  type PasswordSetting,
  readPasswordState,
  setPassword,
} from '../../src/credentials/password-store.ts'
import type { Database } from '../../src/db/database.ts'
import { transact } from '../../src/db/transaction.ts'
import { effectivePolicy, type PolicyInput } from '../../src/organizations/policy.ts'
import { addAccount, bareDatabase } from '../support/bare-database.ts'
import { authorizationUrl, Browser, signIn } from '../support/client.ts'
import { cheapHash, mainDatabase, startServer } from '../support/server.ts'

const parallel = 20
const platform = parseConfig({ NODE_ENV: 'test', HIPAA_MODE: 'false' })
const rulesOf = (password: PolicyInput['password']) => effectivePasswordRules(effectivePolicy({ password }, platform))
const threeBefore = rulesOf({ profile: 'custom', minLength: 8, requireComplexity: false, historyCount: 3 })
const secret = (n: number) => `Violet-Teapot-${n}-Orchard`

describe.each(mainDatabase)('a password on %s', (kind) => {
  let database: Database
  let passwords: Passwords
  let count = 0
  beforeAll(async () => {
    database = await bareDatabase(kind)
    passwords = await createPasswords(cheapHash)
  })
  afterAll(() => database.close())

  const newAccount = async () => {
    count += 1
    const id = `acc_${kind}_${count}`
    await addAccount(database, id)
    return id
  }
  const about = (accountId: string) => ({
    accountId,
    by: 'self' as const,
    actor: { type: 'account' as const, id: accountId },
    organizationId: 'org_test',
    origin: {},
  })
  const set = (setting: Partial<PasswordSetting> & Pick<PasswordSetting, 'accountId' | 'hash' | 'expectedHash'>) =>
    transact(database.kysely, (tx) => setPassword(tx, { historyCount: 3, ...about(setting.accountId), ...setting }))
  const changeTo = (accountId: string, newPassword: string, extra: object = {}) =>
    createPasswordChange({ database, passwords }).change({
      ...about(accountId),
      newPassword,
      rules: threeBefore,
      context: { email: `${accountId}@test.example`, name: 'Somebody Else', organizationName: 'Test' },
      ...extra,
    })
  const codesOf = (verdict: Awaited<ReturnType<typeof changeTo>>) =>
    verdict.ok ? [] : verdict.problems.map((problem) => problem.code)
  const events = async (accountId: string) =>
    (await database.run('select name, details from mlpipes_auth.audit_events where account_id = $1 order by id', [
      accountId,
    ])) as { name: string; details: object }[]

  it('is set where none stood, once', async () => {
    const id = await newAccount()
    expect(await readPasswordState(database.kysely, id)).toEqual({
      hash: undefined,
      changedAt: undefined,
      mustChange: false,
      history: [],
    })
    expect(await set({ accountId: id, hash: 'one', expectedHash: undefined })).toBe(true)
    expect(await set({ accountId: id, hash: 'two', expectedHash: undefined })).toBe(false)
    expect(await readPasswordState(database.kysely, id)).toMatchObject({ hash: 'one', history: [] })
    expect(await events(id)).toEqual([{ name: 'password.changed', details: { by: 'self' } }])
  })

  it('that is not the expected one stays, and nothing else happens', async () => {
    const id = await newAccount()
    await set({ accountId: id, hash: 'one', expectedHash: undefined })
    await database.run(`insert into mlpipes_auth.authenticator_failures values ($1, 'password', 3, null)`, [id])
    const before = await readPasswordState(database.kysely, id)
    expect(await set({ accountId: id, hash: 'two', expectedHash: 'other' })).toBe(false)
    expect(await readPasswordState(database.kysely, id)).toEqual(before)
    expect(await events(id)).toHaveLength(1)
    expect(
      await database.run('select kind from mlpipes_auth.authenticator_failures where account_id = $1', [id]),
    ).toHaveLength(1)
  })

  it('goes into the history, which keeps as many as the policy says', async () => {
    const id = await newAccount()
    const history = async () => (await readPasswordState(database.kysely, id)).history
    await set({ accountId: id, hash: '0', expectedHash: undefined })
    for (let n = 1; n <= 5; n += 1) await set({ accountId: id, hash: `${n}`, expectedHash: `${n - 1}` })
    expect(await history()).toEqual(['4', '3', '2'])
    await set({ accountId: id, hash: '6', expectedHash: '5', historyCount: 1 })
    expect(await history()).toEqual(['5'])
    await set({ accountId: id, hash: '7', expectedHash: '6', historyCount: 2 })
    expect(await history()).toEqual(['6', '5'])
    await set({ accountId: id, hash: '8', expectedHash: '7', historyCount: 0 })
    expect(await history()).toEqual([])
    const rows = await database.run('select id from mlpipes_auth.password_history where account_id = $1', [id])
    expect(rows).toEqual([])
  })

  it('meets a demand to change it and is in use again after it was disabled, and the other kinds stay as they are', async () => {
    const id = await newAccount()
    await set({ accountId: id, hash: 'one', expectedHash: undefined })
    await database.run('update mlpipes_auth.password_credentials set must_change = true where account_id = $1', [id])
    await database.run(
      `insert into mlpipes_auth.authenticator_failures (account_id, kind, consecutive, disabled_at)
        values ($1, 'password', 100, now()), ($1, 'totp', 100, now())`,
      [id],
    )
    expect((await readPasswordState(database.kysely, id)).mustChange).toBe(true)
    expect(await set({ accountId: id, hash: 'two', expectedHash: 'one', by: 'administrator' })).toBe(true)
    expect((await readPasswordState(database.kysely, id)).mustChange).toBe(false)
    expect(
      await database.run('select kind from mlpipes_auth.authenticator_failures where account_id = $1', [id]),
    ).toEqual([{ kind: 'totp' }])
    expect((await events(id)).slice(1)).toEqual([
      { name: 'authenticator.restored', details: { kind: 'password' } },
      { name: 'password.changed', details: { by: 'administrator' } },
    ])
  })

  it('may not come back before as many others as the policy says', async () => {
    const id = await newAccount()
    for (let n = 0; n <= 4; n += 1) expect(await changeTo(id, secret(n))).toEqual({ ok: true })
    // The current one and the three before it; the one before those is free again.
    for (const n of [4, 3, 2, 1]) expect(codesOf(await changeTo(id, secret(n)))).toEqual(['reused'])
    expect(codesOf(await changeTo(id, secret(3).normalize('NFD')))).toEqual(['reused'])
    const none = rulesOf({ profile: 'nist-800-63b-4' })
    expect(codesOf(await changeTo(id, secret(4), { rules: none }))).toEqual(['reused'])
    expect(await changeTo(id, secret(0))).toEqual({ ok: true })
    expect((await events(id)).filter((event) => event.name === 'password.changed')).toHaveLength(6)
  })

  it('is compared with no more than the limit', async () => {
    const old = await passwords.hash(secret(1))
    const other = await passwords.hash(secret(2))
    const history = (position: number) => [...Array.from({ length: position - 1 }, () => other), old]
    expect(await isReused(passwords, secret(1), undefined, history(maxHistory))).toBe(true)
    expect(await isReused(passwords, secret(1), undefined, history(maxHistory + 1))).toBe(false)
    expect(await isReused(passwords, secret(1), undefined, [])).toBe(false)
  })

  it('is refused with all its problems before anything is hashed or written', async () => {
    const id = await newAccount()
    const rules = rulesOf({})
    expect(codesOf(await changeTo(id, 'else99', { rules }))).toEqual(['too_short', 'needs_classes', 'name'])
    expect(await readPasswordState(database.kysely, id)).toMatchObject({ hash: undefined })
    expect(await events(id)).toEqual([])
  })

  it('changes with what its caller does in the same transaction, or not at all', async () => {
    const id = await newAccount()
    await changeTo(id, secret(1))
    const before = await readPasswordState(database.kysely, id)
    const fail = () => Promise.reject(new Error('the caller failed'))
    await expect(changeTo(id, secret(2), { inTransaction: fail })).rejects.toThrow('the caller failed')
    expect(await readPasswordState(database.kysely, id)).toEqual(before)
    expect(await events(id)).toHaveLength(1)
    const rename: Parameters<ReturnType<typeof createPasswordChange>['change']>[0]['inTransaction'] = async (tx) => {
      await tx.updateTable('accounts').set({ name: 'Renamed' }).where('id', '=', id).execute()
    }
    expect(await changeTo(id, secret(2), { inTransaction: rename })).toEqual({ ok: true })
    const [row] = await database.run('select name from mlpipes_auth.accounts where id = $1', [id])
    expect(row).toEqual({ name: 'Renamed' })
  })

  it('that was changed since its owner proved it is not changed again', async () => {
    const id = await newAccount()
    await changeTo(id, secret(1))
    const { hash: provedHash } = await readPasswordState(database.kysely, id)
    await changeTo(id, secret(2))
    expect(codesOf(await changeTo(id, secret(3), { provedHash }))).toEqual(['changed_meanwhile'])
    const now = await readPasswordState(database.kysely, id)
    expect(await changeTo(id, secret(3), { provedHash: now.hash })).toEqual({ ok: true })
  })

  it.each([
    ['8 characters', 'vqz7 kor'],
    ['64', 'vqz7-'.repeat(13).slice(1)],
    ['73: bcrypt would cut the last', `${'vqz7korw'.repeat(9)}x`],
    ['256 emoji', '🐎🔋📎🏥'.repeat(64)],
    ['spaces at both ends', '  violet teapot  '],
    ['composed letters', 'Žluťoučký kůň pěl'.normalize('NFC')],
  ])('F38: all of it counts: %s', async (_, newPassword) => {
    // What repeats itself is refused as simple by the rules, so that the long ones are set as the operator would.
    const hash = await passwords.hash(newPassword)
    const matches = async (tried: string) => isPasswordShaped(tried) && (await passwords.check(tried, hash)).ok
    expect(await matches(newPassword)).toBe(true)
    expect(await matches(newPassword.normalize('NFD'))).toBe(true)
    expect(await matches([...newPassword].slice(0, -1).join(''))).toBe(false)
    expect(await matches(`${[...newPassword].slice(0, -1).join('')}é`)).toBe(false)
    expect(await matches(newPassword.trim())).toBe(newPassword.trim() === newPassword)
  })
})

describe('races on PostgreSQL', () => {
  let database: Database
  beforeAll(async () => {
    database = await bareDatabase('postgres')
    await addAccount(database, 'acc_race')
    // A cold pool connects one by one and hides the race.
    await Promise.all(Array.from({ length: 12 }, () => database.run('select pg_sleep(0.05)', [])))
  })
  afterAll(() => database.close())

  it('of 20 changes at once from one known hash exactly one wins', async () => {
    const set = (hash: string, expectedHash: string | undefined) =>
      transact(database.kysely, (tx) =>
        setPassword(tx, {
          accountId: 'acc_race',
          hash,
          expectedHash,
          historyCount: 12,
          by: 'self',
          actor: { type: 'account', id: 'acc_race' },
          organizationId: 'org_test',
          origin: {},
        }),
      )
    let current: string | undefined
    const winners: string[] = []
    for (let round = 0; round < 5; round += 1) {
      const wanted = Array.from({ length: parallel }, (_, n) => `hash-${round}-${n}`)
      const won = await Promise.all(wanted.map((hash) => set(hash, current)))
      expect(won.filter(Boolean)).toHaveLength(1)
      const state = await readPasswordState(database.kysely, 'acc_race')
      expect(state.hash).toBe(wanted[won.indexOf(true)])
      expect(state.history).toEqual(winners.toReversed())
      current = state.hash
      winners.push(current ?? '')
    }
    const audit = await database.run(`select name from mlpipes_auth.audit_events where name = 'password.changed'`, [])
    expect(audit).toHaveLength(5)
  })

  it('of 20 people with the same account every one is told, and what was told is what happened', async () => {
    await addAccount(database, 'acc_crowd')
    const passwords = await createPasswords(cheapHash)
    const { change } = createPasswordChange({ database, passwords })
    const verdicts = await Promise.all(
      Array.from({ length: parallel }, (_, n) =>
        change({
          accountId: 'acc_crowd',
          newPassword: secret(n),
          rules: threeBefore,
          context: { email: 'crowd@test.example', name: 'Somebody', organizationName: 'Test' },
          by: 'self',
          actor: { type: 'account', id: 'acc_crowd' },
          organizationId: 'org_test',
          origin: {},
        }),
      ),
    )
    const won = verdicts.filter((verdict) => verdict.ok).length
    const audit = await database.run(`select id from mlpipes_auth.audit_events where account_id = 'acc_crowd'`, [])
    expect(won).toBeGreaterThanOrEqual(1)
    expect(audit).toHaveLength(won)
    for (const verdict of verdicts)
      if (!verdict.ok) expect(verdict.problems.map((problem) => problem.code)).toEqual(['changed_meanwhile'])
    const { hash } = await readPasswordState(database.kysely, 'acc_crowd')
    const matching = await Promise.all(verdicts.map(async (_, n) => (await passwords.check(secret(n), hash)).ok))
    expect(matching.map((ok, n) => ok && verdicts[n]?.ok).filter(Boolean)).toHaveLength(1)
  })
})

it('F39: a password that would be refused today still signs in', async () => {
  const file = {
    organizations: [{ slug: 'mercy', name: 'Mercy Hospital' }],
    accounts: ['password', 'Mercy Hospital', 'old@mercy.example'].map((password, n) => ({
      email: n === 2 ? 'old@mercy.example' : `old${n}@mercy.example`,
      name: 'Old Timer',
      password,
      organization: 'mercy',
      emailVerified: true,
    })),
    clients: [
      {
        client_id: 'first',
        client_secret: 'first-secret-0123456789',
        client_name: 'First',
        organization: 'mercy',
        redirect_uris: ['http://localhost:9/callback'],
        grant_types: ['authorization_code' as const, 'refresh_token' as const],
        scope: 'openid profile email offline_access',
        first_party: true,
      },
    ],
  }
  const server = await startServer('pglite', { seed: file })
  try {
    for (const { email, password } of file.accounts) {
      const end = await signIn(new Browser(server), authorizationUrl(server, 'first'), email, password)
      expect(new URL(end.url).searchParams.get('code'), email).toBeTruthy()
    }
    // The operator's file leaves as much history as the organisation's policy says.
    const policy = { password: { profile: 'custom' as const, historyCount: 1 } }
    const [account] = file.accounts
    for (const n of [1, 2, 3])
      await server.apply({
        organizations: [{ slug: 'mercy', name: 'Mercy Hospital', policy }],
        accounts: [
          { ...account, email: 'old0@mercy.example', name: 'Old', organization: 'mercy', password: secret(n) },
        ],
      })
    const rows = await server.database.run(
      `select h.hash from mlpipes_auth.password_history h join mlpipes_auth.accounts a on a.id = h.account_id
        where a.email = 'old0@mercy.example'`,
      [],
    )
    expect(rows).toHaveLength(1)
    const check = await (await createPasswords(cheapHash)).check(secret(2), String(rows[0]?.['hash']))
    expect(check.ok).toBe(true)
  } finally {
    await server.close()
  }
})

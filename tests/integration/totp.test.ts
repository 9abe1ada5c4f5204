// Authenticators and backup codes as they stand in the database: set up, turned on, spent, taken away (F60, F61, F63, F64).
import fc from 'fast-check'
import { generate } from 'otplib'
import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest'
import { listAudit } from '../../src/audit/audit.ts'
import {
  backupCodeCount,
  countBackupCodes,
  createBackupCodes,
  type FactorChange,
  normalizeBackupCode,
  spendBackupCode,
  warnAt,
} from '../../src/credentials/backup-codes.ts'
import {
  cleanTotpSetups,
  confirmTotp,
  findTotpMatch,
  listTotp,
  matchTotpStep,
  maxAuthenticators,
  maxOpenSetups,
  parseTotpName,
  readTotpSetup,
  removeAllFactors,
  removeTotp,
  renameTotp,
  setupSeconds,
  spendTotpStep,
  startTotpSetup,
} from '../../src/credentials/totp.ts'
import { createSecrets } from '../../src/crypto/secrets.ts'
import type { Database } from '../../src/db/database.ts'
import { transact } from '../../src/db/transaction.ts'
import { addAccount, bareDatabase } from '../support/bare-database.ts'

const secrets = createSecrets('a secret of these tests, long enough')
const wrongSecret = 'A'.repeat(32)
/** The first second of a step, so that offsets from it are steps. */
const stepStart = 1_800_000_000
const at = (offsetSeconds: number) => new Date((stepStart + offsetSeconds) * 1_000)
const codeAt = (secret: string, offsetSeconds: number) => generate({ secret, epoch: stepStart + offsetSeconds })

describe.each(['postgres', 'pglite'] as const)('on %s', (kind) => {
  let database: Database
  let count = 0
  let me: FactorChange
  const owner = () => ({ accountId: me.accountId, email: 'ada@mercy.example', organizationName: 'Mercy Hospital' })

  beforeAll(async () => {
    database = await bareDatabase(kind)
  })
  afterAll(() => database.close())
  beforeEach(async () => {
    me = await somebody()
  })

  async function somebody(): Promise<FactorChange> {
    count += 1
    const accountId = `acc_${kind}_${count}`
    await addAccount(database, accountId)
    return {
      accountId,
      organizationId: 'org_test',
      actor: { type: 'account', id: accountId },
      origin: { ip: '192.0.2.7' },
    }
  }

  const begin = (name = 'Phone') =>
    transact(database.kysely, (tx) => startTotpSetup(tx, secrets, { ...me, ...owner(), name }))
  async function begun(name?: string) {
    const setup = await begin(name)
    if (!setup.ok) throw new Error(`refused: ${setup.reason}`)
    return setup
  }
  const turnOn = (totpId: string, code: string, now = at(0), by = me) =>
    transact(database.kysely, (tx) => confirmTotp(tx, secrets, { ...by, totpId, code, now }))
  async function enrolled(name?: string, offsetSeconds = 0) {
    const setup = await begun(name)
    const code = await codeAt(setup.secretBase32, offsetSeconds)
    expect(await turnOn(setup.totpId, code, at(offsetSeconds))).toBe('confirmed')
    return setup
  }
  /** What a sign-in does with a code. */
  const signIn = (code: string, offsetSeconds: number) =>
    transact(database.kysely, async (tx) => {
      const match = await findTotpMatch(tx, secrets, me.accountId, code, at(offsetSeconds))
      return match !== undefined && (await spendTotpStep(tx, match))
    })
  const age = (totpId: string, seconds: number) =>
    database.run(
      `update mlpipes_auth.totp_credentials set created_at = now() - make_interval(secs => $2::integer) where id = $1`,
      [totpId, seconds],
    )
  const idsOf = async (accountId: string) =>
    (
      await database.run('select id from mlpipes_auth.totp_credentials where account_id = $1 order by created_at', [
        accountId,
      ])
    ).map((row) => row['id'])
  const newCodes = (who = me) => transact(database.kysely, (tx) => createBackupCodes(tx, secrets, who))
  const spend = (input: string, who = me, with_ = secrets) =>
    transact(database.kysely, (tx) => spendBackupCode(tx, with_, { ...who, input }))
  const audited = async () =>
    (await listAudit(database.kysely, 1_000)).filter((event) => event.accountId === me.accountId).reverse()

  /** Every row that the server can read, as text. */
  async function dump(): Promise<string> {
    const tables = await database.run(
      `select c.relname as name from pg_class c join pg_namespace n on n.oid = c.relnamespace
        where n.nspname = 'mlpipes_auth' and c.relkind in ('r', 'p') and has_table_privilege(c.oid, 'select')`,
      [],
    )
    const texts: string[] = []
    for (const table of tables) {
      const rows = await database.run(`select to_jsonb(t)::text as row from mlpipes_auth."${table['name']}" t`, [])
      texts.push(...rows.map((row) => String(row['row'])))
    }
    return texts.join('\n')
  }

  describe('F60: a code', () => {
    it('signs in once, and no older one after it', async () => {
      const { secretBase32 } = await enrolled()
      const [older, newer] = [await codeAt(secretBase32, 60), await codeAt(secretBase32, 90)]
      expect(await signIn(newer, 90)).toBe(true)
      expect(await signIn(newer, 90)).toBe(false)
      expect(await signIn(newer, 119)).toBe(false)
      expect(await signIn(older, 90), 'in the window, but older').toBe(false)
      expect(await signIn(await codeAt(secretBase32, 120), 120)).toBe(true)
    })

    it('takes its step from every authenticator of the account', async () => {
      const [phone, tablet] = [await enrolled('Phone'), await enrolled('Tablet')]
      expect(await signIn(await codeAt(phone.secretBase32, 60), 60)).toBe(true)
      expect(await signIn(await codeAt(tablet.secretBase32, 60), 60)).toBe(false)
      expect(await signIn(await codeAt(tablet.secretBase32, 90), 90)).toBe(true)
    })

    it('leaves the steps of other accounts alone', async () => {
      const mine = await enrolled()
      const before = me
      me = await somebody()
      const theirs = await enrolled()
      expect(await signIn(await codeAt(theirs.secretBase32, 60), 60)).toBe(true)
      me = before
      expect(await signIn(await codeAt(mine.secretBase32, 60), 60)).toBe(true)
    })
  })

  it('F61: a code works in its own step and one either way, wherever in the step one stands', async () => {
    const { secretBase32 } = await begun()
    for (const second of [0, 15, 29]) {
      const steps = await Promise.all(
        [-60, -30, 0, 30, 60].map(async (offset) =>
          matchTotpStep(secretBase32, await codeAt(secretBase32, offset), at(second)),
        ),
      )
      const current = stepStart / 30
      expect(steps, `second ${second}`).toEqual([undefined, current - 1, current, current + 1, undefined])
    }
  })

  describe('F63: a set-up', () => {
    it('gives a secret of 160 bits in an address that apps read', async () => {
      const { secretBase32, uri } = await begun()
      expect(secretBase32).toMatch(/^[A-Z2-7]{32}$/)
      expect(uri).toBe(
        `otpauth://totp/MLPipes%20(Mercy%20Hospital):ada%40mercy.example?secret=${secretBase32}&issuer=MLPipes%20(Mercy%20Hospital)&algorithm=SHA1&digits=6&period=30`,
      )
    })

    it('shows the same secret again until it is confirmed, to its owner alone', async () => {
      const setup = await begun()
      const read = (accountId = me.accountId) =>
        readTotpSetup(database.kysely, secrets, { ...owner(), accountId, totpId: setup.totpId })
      const { ok, ...shown } = setup
      expect(ok).toBe(true)
      expect(await read()).toEqual(shown)
      expect(await read((await somebody()).accountId)).toBeUndefined()
      expect(await turnOn(setup.totpId, await codeAt(setup.secretBase32, 0))).toBe('confirmed')
      expect(await read()).toBeUndefined()
    })

    it('lapses after 15 minutes', async () => {
      const setup = await begun()
      const code = await codeAt(setup.secretBase32, 0)
      const read = () => readTotpSetup(database.kysely, secrets, { ...owner(), totpId: setup.totpId })
      await age(setup.totpId, setupSeconds)
      expect(await read()).toBeUndefined()
      expect(await turnOn(setup.totpId, code)).toBe('gone')
      await age(setup.totpId, setupSeconds - 60)
      expect(await read()).toBeDefined()
      expect(await turnOn(setup.totpId, code)).toBe('confirmed')
    })

    it('is no factor until its own code confirms it, and that code is spent', async () => {
      const { totpId, secretBase32 } = await begun()
      const code = await codeAt(secretBase32, 0)
      expect(await signIn(code, 0)).toBe(false)
      expect(await turnOn(totpId, await codeAt(wrongSecret, 0))).toBe('mismatch')
      expect(await turnOn(totpId, await codeAt(secretBase32, -60))).toBe('mismatch')
      expect(await turnOn(totpId, code, at(0), await somebody()), 'somebody else').toBe('gone')
      expect(await listTotp(database.kysely, me.accountId)).toEqual([])
      expect(await turnOn(totpId, code)).toBe('confirmed')
      expect(await turnOn(totpId, code)).toBe('gone')
      expect(await signIn(code, 0)).toBe(false)
      expect(await signIn(await codeAt(secretBase32, 30), 30)).toBe(true)
      const [listed, ...others] = await listTotp(database.kysely, me.accountId)
      expect(listed).toEqual({
        id: totpId,
        name: 'Phone',
        createdAt: expect.any(Date),
        confirmedAt: expect.any(Date),
      })
      expect(others).toEqual([])
      const events = await audited()
      expect(events.map((event) => [event.name, event.details])).toEqual([
        ['totp.setup_started', { totpId }],
        ['totp.enabled', { totpId }],
      ])
    })

    it('that was abandoned is cleaned away after an hour; an authenticator never is', async () => {
      const [kept, open, abandoned] = [await enrolled(), await begun(), await begun()]
      await age(kept.totpId, 1_000_000)
      await age(open.totpId, 3_500)
      await age(abandoned.totpId, 3_700)
      await cleanTotpSetups(database, 1_000)
      expect(await idsOf(me.accountId)).toEqual([kept.totpId, open.totpId])
    })

    it(`ends older ones beyond ${maxOpenSetups}`, async () => {
      const ids: string[] = []
      for (let round = 0; round <= maxOpenSetups; round += 1) ids.push((await begun()).totpId)
      expect(await idsOf(me.accountId)).toEqual(ids.slice(1))
    })

    it(`is refused beside ${maxAuthenticators} authenticators, and so is confirming one more`, async () => {
      for (let round = 0; round < maxAuthenticators - 1; round += 1) await enrolled()
      const [fifth, sixth] = [await begun(), await begun()]
      expect(await turnOn(fifth.totpId, await codeAt(fifth.secretBase32, 0))).toBe('confirmed')
      expect(await turnOn(sixth.totpId, await codeAt(sixth.secretBase32, 0))).toBe('gone')
      expect(await begin()).toEqual({ ok: false, reason: 'limit' })
      expect(await listTotp(database.kysely, me.accountId)).toHaveLength(maxAuthenticators)
    })

    it('is refused a name that is none', async () => {
      expect(await begin('\u202eenohP')).toEqual({ ok: false, reason: 'name' })
      expect(await idsOf(me.accountId)).toEqual([])
      expect(await audited()).toEqual([])
    })
  })

  describe('an authenticator', () => {
    const rename = (totpId: string, name: string) =>
      transact(database.kysely, (tx) => renameTotp(tx, { ...me, totpId, name }))
    const remove = (totpId: string, mayBeLast: boolean) =>
      transact(database.kysely, (tx) => removeTotp(tx, { ...me, totpId, by: 'self', mayBeLast }))

    it('is renamed by its owner, once it is one', async () => {
      const [phone, open] = [await enrolled(), await begun()]
      expect(await rename(phone.totpId, '  Ward phone ')).toBe('renamed')
      expect(await rename(phone.totpId, '\u0007')).toBe('name')
      expect(await rename(open.totpId, 'Open')).toBe('gone')
      me = { ...(await somebody()), origin: me.origin }
      expect(await rename(phone.totpId, 'Stolen')).toBe('gone')
      const { name } = await database.kysely
        .selectFrom('totp_credentials')
        .select('name')
        .where('id', '=', phone.totpId)
        .executeTakeFirstOrThrow()
      expect(name).toBe('Ward phone')
    })

    it('is removed, with the backup codes when it is the last', async () => {
      const [phone, tablet] = [await enrolled('Phone'), await enrolled('Tablet')]
      await newCodes()
      expect(await remove(phone.totpId, false)).toEqual({ ok: true, left: 1 })
      expect(await remove(phone.totpId, false)).toEqual({ ok: false, reason: 'gone' })
      expect(await remove(tablet.totpId, false)).toEqual({ ok: false, reason: 'last' })
      expect(await countBackupCodes(database.kysely, me.accountId)).toBe(backupCodeCount)
      expect(await signIn(await codeAt(phone.secretBase32, 60), 60)).toBe(false)
      expect(await remove(tablet.totpId, true)).toEqual({ ok: true, left: 0 })
      expect(await countBackupCodes(database.kysely, me.accountId)).toBe(0)
      const events = (await audited()).slice(-3)
      expect(events.map((event) => [event.name, event.details])).toEqual([
        ['totp.removed', { totpId: phone.totpId, by: 'self' }],
        ['totp.removed', { totpId: tablet.totpId, by: 'self' }],
        ['account.updated', { changed: ['backupCodes'] }],
      ])
    })

    it('of somebody else is out of reach', async () => {
      const { totpId } = await enrolled()
      const before = me
      me = await somebody()
      await enrolled()
      expect(await remove(totpId, true)).toEqual({ ok: false, reason: 'gone' })
      expect(await listTotp(database.kysely, before.accountId)).toHaveLength(1)
    })

    it('goes with everything else at an administrator’s reset, which ends set-ups under way too', async () => {
      const [phone, tablet, open] = [await enrolled('Phone'), await enrolled('Tablet'), await begun()]
      const [code = ''] = await newCodes()
      const removed = await transact(database.kysely, (tx) =>
        removeAllFactors(tx, { ...me, actor: { type: 'operator' } }, 'administrator'),
      )
      expect(removed).toBe(2)
      expect(await idsOf(me.accountId)).toEqual([])
      expect(await turnOn(open.totpId, await codeAt(open.secretBase32, 0))).toBe('gone')
      expect(await spend(code)).toBeUndefined()
      const removals = (await audited()).filter((event) => event.name === 'totp.removed')
      expect(removals.map((event) => event.details)).toEqual(
        expect.arrayContaining([phone, tablet].map(({ totpId }) => ({ totpId, by: 'administrator' }))),
      )
      expect(removals).toHaveLength(2)
    })
  })

  describe('F64: a backup code', () => {
    it('is one of ten, each six groups of four', async () => {
      const codes = await newCodes()
      expect(new Set(codes).size).toBe(backupCodeCount)
      for (const code of codes) expect(code).toMatch(/^(?:[0-9A-HJKMNP-TV-Z]{4}-){5}[0-9A-HJKMNP-TV-Z]{4}$/)
      expect(await countBackupCodes(database.kysely, me.accountId)).toBe(backupCodeCount)
      expect(warnAt).toBeLessThan(backupCodeCount)
    })

    it('works once, however it is typed, and says how many are left', async () => {
      const [first = '', second = '', third = ''] = await newCodes()
      expect(await spend(first)).toEqual({ left: 9 })
      expect(await spend(first)).toBeUndefined()
      expect(await spend(second.toLowerCase().replaceAll('-', ' '))).toEqual({ left: 8 })
      expect(await spend(third.replaceAll('0', 'o').replaceAll('1', 'l').replaceAll('V', 'u'))).toEqual({ left: 7 })
      expect(await spend('not a code')).toBeUndefined()
      expect(await countBackupCodes(database.kysely, me.accountId)).toBe(7)
      const events = await audited()
      expect(events.map((event) => [event.name, event.details])).toEqual([
        ['backup_codes.created', { count: 10 }],
        ['backup_code.used', { left: 9 }],
        ['backup_code.used', { left: 8 }],
        ['backup_code.used', { left: 7 }],
      ])
    })

    it('is of no use to another account', async () => {
      const [code = ''] = await newCodes()
      const other = await somebody()
      await newCodes(other)
      expect(await spend(code, other)).toBeUndefined()
      expect(await spend(code)).toEqual({ left: 9 })
    })

    it('is dead when a new set is made', async () => {
      const [used = '', unused = ''] = await newCodes()
      await spend(used)
      const [fresh = ''] = await newCodes()
      expect(await spend(used)).toBeUndefined()
      expect(await spend(unused)).toBeUndefined()
      expect(await spend(fresh)).toEqual({ left: 9 })
    })

    it('survives a rotation of the root secret, as long as the old one is given', async () => {
      const [first = '', second = ''] = await newCodes()
      const rotated = createSecrets('another secret, long enough as well', 'a secret of these tests, long enough')
      const forgotten = createSecrets('another secret, long enough as well')
      expect(await spend(first, me, forgotten)).toBeUndefined()
      expect(await spend(first, me, rotated)).toEqual({ left: 9 })
      expect(await spend(second, me, rotated)).toEqual({ left: 8 })
    })
  })

  it('F63: neither a secret nor a backup code can be read in a dump', async () => {
    const [open, confirmed] = [await begun(), await enrolled()]
    const [code = '', another = ''] = await newCodes()
    await spend(another)
    const text = await dump()
    // The dump does hold these accounts, their sealed secrets and their audit rows.
    expect(text).toContain(confirmed.totpId)
    expect(text).toContain('"sealed_secret": "v1.')
    expect(text).toContain('backup_code.used')
    for (const { secretBase32 } of [open, confirmed]) {
      const bytes = Buffer.from((secretBase32.match(/.{8}/g) ?? []).flatMap(base32Bytes))
      expect(bytes).toHaveLength(20)
      for (const form of [secretBase32, bytes.toString('hex'), bytes.toString('base64').slice(0, 26)])
        expect(text.toLowerCase()).not.toContain(form.toLowerCase())
    }
    for (const shown of [code, another]) {
      expect(text).not.toContain(shown)
      expect(text).not.toContain(shown.replaceAll('-', ''))
    }
  })
})

/** RFC 4648 §6: eight characters are five bytes. */
function base32Bytes(group: string): number[] {
  const bits = [...group].map((letter) =>
    'ABCDEFGHIJKLMNOPQRSTUVWXYZ234567'.indexOf(letter).toString(2).padStart(5, '0'),
  )
  return (bits.join('').match(/.{8}/g) ?? []).map((byte) => Number.parseInt(byte, 2))
}

describe('normalizeBackupCode', () => {
  const alphabet = [...'0123456789ABCDEFGHJKMNPQRSTVWXYZ']
  const spellings: Readonly<Record<string, readonly string[]>> = {
    '0': ['0', 'O', 'o'],
    '1': ['1', 'I', 'i', 'L', 'l'],
    V: ['V', 'v', 'U', 'u'],
  }
  const code = fc.array(fc.constantFrom(...alphabet), { minLength: 24, maxLength: 24 })
  const noise = fc.constantFrom('', ' ', '-', ' - ', '–', '\u00a0', '\u2011', '\t', '\u200b')

  it('finds the code in whatever was typed of it', () => {
    const typed = code.chain((letters) =>
      fc.tuple(
        fc.constant(letters.join('')),
        fc.tuple(
          ...letters.map((letter) =>
            fc.tuple(fc.constantFrom(...(spellings[letter] ?? [letter, letter.toLowerCase()])), noise),
          ),
        ),
      ),
    )
    fc.assert(
      fc.property(typed, ([letters, pieces]) => {
        expect(normalizeBackupCode(pieces.flat().join(''))).toBe(letters)
      }),
    )
  })

  it('is idempotent, and gives codes or nothing', () => {
    const anything = fc.oneof(
      fc.string({ unit: 'binary', maxLength: 40 }),
      fc.string({ unit: fc.constantFrom(...alphabet, ...'iloun -'), minLength: 20, maxLength: 30 }),
    )
    fc.assert(
      fc.property(anything, (text) => {
        const once = normalizeBackupCode(text)
        if (once === undefined) return
        expect(once).toMatch(/^[0-9A-HJKMNP-TV-Z]{24}$/)
        expect(normalizeBackupCode(once)).toBe(once)
      }),
    )
  })

  it('refuses what is shorter, longer or of other letters', () => {
    fc.assert(
      fc.property(code, fc.constantFrom(...alphabet), (letters, extra) => {
        expect(normalizeBackupCode(letters.slice(1).join(''))).toBeUndefined()
        expect(normalizeBackupCode([...letters, extra].join(''))).toBeUndefined()
        expect(normalizeBackupCode([...letters.slice(1), '!'].join(''))).toBeUndefined()
        expect(normalizeBackupCode(letters.join('') + ' '.repeat(300))).toBeUndefined()
      }),
    )
  })
})

describe('parseTotpName', () => {
  it.each(['Phone', 'Телефон', '電話', '👩‍⚕️ phone', 'x', 'a'.repeat(64), '😀'.repeat(64)])('takes %s', (name) =>
    expect(parseTotpName(name)).toBe(name),
  )
  it('takes the space around it away', () => expect(parseTotpName(' Ward\u00a07 \n')).toBe('Ward\u00a07'))
  it.each([
    '',
    '   ',
    '\u200b',
    'a'.repeat(65),
    'two\nlines',
    'nul\0',
    '\u202eenohP',
    'x\u2066',
    '\ud800',
    '\u2028x\u2028y',
  ])('refuses %j', (name) => expect(parseTotpName(name)).toBeUndefined())
})

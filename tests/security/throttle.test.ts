// Throttling by its limits: each at the limit and one past it; who is not locked out; what disables an authenticator.
import { randomUUID } from 'node:crypto'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { normalizeEmail } from '../../src/accounts/accounts.ts'
import { listAudit } from '../../src/audit/audit.ts'
import {
  createDeviceCookie,
  forgetDevices,
  maxDevicesPerAccount,
  rememberDevice,
} from '../../src/credentials/devices.ts'
import {
  clearFailures,
  disabledKinds,
  maxConsecutiveFailures,
  recordFailure,
  restore,
} from '../../src/credentials/failures.ts'
import {
  createThrottle,
  sweepAttempts,
  type Throttle,
  type ThrottleLimits,
  type ThrottlePurpose,
  type ThrottleRequest,
  throttleLimits,
} from '../../src/credentials/throttle.ts'
import { createSecrets, sha256 } from '../../src/crypto/secrets.ts'
import type { Database, Tx } from '../../src/db/database.ts'
import { addAccount, bareDatabase } from '../support/bare-database.ts'

/** Where delays are not what is tested. */
const noDelay = { freeFailures: 1_000 }

describe.each(['postgres', 'pglite'] as const)('throttling on %s', (kind) => {
  let database: Database
  beforeAll(async () => {
    database = await bareDatabase(kind)
  })
  afterAll(() => database.close())

  // Each throttle has keys of its own, so that no test sees another one's counters.
  const throttleWith = (limits: Partial<ThrottleLimits> = {}) =>
    createThrottle({ database, secrets: createSecrets(`secret of one test ${randomUUID()}`), limits })
  const inTransaction = <T>(work: (tx: Tx) => Promise<T>) => database.kysely.transaction().execute(work)
  const newAccount = async () => {
    const id = `acc_${randomUUID()}`
    await addAccount(database, id)
    return id
  }
  const guess = (rest: Partial<ThrottleRequest> = {}): ThrottleRequest => ({
    purpose: 'password',
    identifier: 'ada@mercy.example',
    ip: '192.0.2.1',
    deviceHash: undefined,
    ...rest,
  })
  const knownDevice = async (accountId: string) => {
    const deviceHash = sha256(randomUUID())
    await inTransaction((tx) => rememberDevice(tx, accountId, deviceHash, 'Firefox'))
    return deviceHash
  }
  /** Takes until something is refused. Returns how many tries were let through, and what refused the next. */
  const exhaust = async (throttle: Throttle, request: (index: number) => ThrottleRequest) => {
    for (let passed = 0; ; passed += 1) {
      const answer = await throttle.take(request(passed))
      if (!answer.ok) return { passed, reason: answer.reason, retryAfterSeconds: answer.retryAfterSeconds }
    }
  }
  /** Lets `seconds` pass for every counter. */
  const pass = (seconds: number) =>
    database.run(
      `update mlpipes_auth.sign_in_attempts set window_ends_at = window_ends_at - make_interval(secs => $1::integer),
        not_before = not_before - make_interval(secs => $1::integer)`,
      [seconds],
    )

  it('F34: allows 10 passwords per account in 15 minutes, whatever the addresses', async () => {
    const throttle = throttleWith(noDelay)
    const from = (index: number) => guess({ ip: `198.51.100.${index}` })
    const end = await exhaust(throttle, from)
    expect(end).toMatchObject({ passed: 10, reason: 'account' })
    expect(end.retryAfterSeconds).toBeGreaterThan(800)
    expect(end.retryAfterSeconds).toBeLessThanOrEqual(900)
    expect(await throttle.take(guess({ identifier: 'lee@mercy.example', ip: '198.51.100.1' }))).toMatchObject({
      ok: true,
      attempts: 1,
    })
    await pass(899)
    expect(await throttle.take(from(20))).toMatchObject({ ok: false, reason: 'account', attempts: 10 })
    await pass(1)
    expect(await throttle.take(from(20))).toMatchObject({ ok: true, attempts: 1 })
  })

  it('F34: allows 300 failures per address in 15 minutes, whatever the accounts', async () => {
    const throttle = throttleWith()
    const end = await exhaust(throttle, (index) => guess({ identifier: `nobody${index}@mercy.example` }))
    expect(end).toMatchObject({ passed: 300, reason: 'address' })
    expect((await throttle.take(guess({ ip: '192.0.2.2' }))).ok).toBe(true)
    expect(await throttle.take(guess({ purpose: 'code', identifier: 'acc_other' }))).toMatchObject({
      reason: 'address',
    })
    await pass(900)
    expect((await throttle.take(guess())).ok).toBe(true)
  })

  it('F34: counts no success against an address or the platform', async () => {
    const few = { tries: 3, windowSeconds: 900 }
    const throttle = throttleWith({ guessesPerAddress: few, platform: few, platformRows: 1 })
    for (let person = 0; person < 6; person += 1) {
      const taken = await throttle.take(guess({ identifier: `person${person}@mercy.example` }))
      if (!taken.ok) throw new Error(`person ${person} was refused`)
      await throttle.settle(taken)
    }
    const end = await exhaust(throttle, (index) => guess({ identifier: `nobody${index}@mercy.example` }))
    expect(end.passed).toBe(3)
  })

  it('F34: allows so many failures on the whole platform in a minute, and no more over its rows together', async () => {
    const one = throttleWith({ platform: { tries: 5, windowSeconds: 60 }, platformRows: 1 })
    const request = (index: number) => guess({ identifier: `n${index}@x.example`, ip: `198.51.100.${index}` })
    const end = await exhaust(one, request)
    expect(end).toMatchObject({ passed: 5, reason: 'global' })
    expect(end.retryAfterSeconds).toBeLessThanOrEqual(60)
    await pass(60)
    expect((await one.take(request(9))).ok).toBe(true)

    const several = throttleWith({ platform: { tries: 10, windowSeconds: 60 }, platformRows: 4 })
    const answers = []
    for (let index = 0; index < 60; index += 1) answers.push(await several.take(request(index)))
    const passed = answers.filter((answer) => answer.ok).length
    expect(passed).toBeLessThanOrEqual(10)
    expect(passed).toBeGreaterThan(0)
    expect(throttleLimits.platform).toEqual({ tries: 5_000, windowSeconds: 60 })
  })

  it('C3: takes a /64 for one client, and a mapped address for the one it carries', async () => {
    const few = { guessesPerAddress: { tries: 4, windowSeconds: 900 } }
    const spread = (ips: readonly string[]) => {
      const throttle = throttleWith(few)
      return exhaust(throttle, (index) =>
        guess({ identifier: `nobody${index}@x.example`, ip: ips[index % ips.length] }),
      )
    }
    expect(await spread(['2001:db8:1:2::1', '2001:db8:1:2:ffff::2', '2001:DB8:1:2::3'])).toMatchObject({
      passed: 4,
      reason: 'address',
    })
    expect(await spread(['192.0.2.1', '::ffff:192.0.2.1', '::FFFF:c000:201'])).toMatchObject({ passed: 4 })
    expect((await spread(['2001:db8:1:2::1', '2001:db8:1:3::1'])).passed).toBe(8)
  })

  it('C3: counts requests without a readable address together', async () => {
    const throttle = throttleWith({ guessesPerAddress: { tries: 2, windowSeconds: 900 } })
    const ips = [undefined, 'unknown', '']
    const end = await exhaust(throttle, (index) => guess({ identifier: `n${index}@x.example`, ip: ips[index % 3] }))
    expect(end).toMatchObject({ passed: 2, reason: 'address' })
  })

  it('F37: counts every spelling of an e-mail as one', async () => {
    const throttle = throttleWith(noDelay)
    const spellings = ['ada@mercy.example', 'ADA@Mercy.Example', ' ada@mercy.example ', 'ａｄａ@mercy.example']
    const end = await exhaust(throttle, (index) => guess({ identifier: normalizeEmail(spellings[index % 4] ?? '') }))
    expect(end).toMatchObject({ passed: 10, reason: 'account' })
  })

  it('C6: counts an account as one, whatever it is named by', async () => {
    const throttle = throttleWith(noDelay)
    const accountId = await newAccount()
    const names = ['ada@mercy.example', 'ada.moreno@mercy.example', accountId]
    const end = await exhaust(throttle, (index) => guess({ identifier: names[index % 3] ?? '', accountId }))
    expect(end).toMatchObject({ passed: 10, reason: 'account' })
  })

  it('F35: leaves a known device its own tries when everything else is used up', async () => {
    const few = { tries: 12, windowSeconds: 900 }
    const throttle = throttleWith({ ...noDelay, guessesPerAddress: few, platform: few, platformRows: 1 })
    const accountId = await newAccount()
    const deviceHash = await knownDevice(accountId)
    const second = await knownDevice(accountId)
    const attack = (index: number) => guess({ accountId, deviceHash: sha256(`of the attacker ${index}`) })
    expect(await exhaust(throttle, attack)).toMatchObject({ passed: 10, reason: 'account' })
    expect(
      await exhaust(throttle, (index) => guess({ identifier: `n${index}@x.example`, accountId: undefined })),
      'the address is used up as well',
    ).toMatchObject({ passed: 2 })

    const own = await throttle.take(guess({ accountId, deviceHash }))
    expect(own).toMatchObject({ ok: true, attempts: 1 })
    expect(await exhaust(throttle, () => guess({ accountId, deviceHash }))).toMatchObject({
      passed: 9,
      reason: 'account',
    })
    expect(await throttle.take(guess({ accountId, deviceHash: second }))).toMatchObject({ ok: true, attempts: 1 })
  })

  it('F35: believes no device that the account does not know', async () => {
    const throttle = throttleWith(noDelay)
    const [victim, attacker] = [await newAccount(), await newAccount()]
    const deviceHash = await knownDevice(attacker)
    const end = await exhaust(throttle, (index) =>
      guess({ accountId: victim, deviceHash: index % 2 === 0 ? deviceHash : undefined }),
    )
    expect(end).toMatchObject({ passed: 10, reason: 'account' })
    const nobody = throttleWith(noDelay)
    expect(await exhaust(nobody, () => guess({ deviceHash }))).toMatchObject({ passed: 10 })
    const forgotten = await knownDevice(victim)
    await inTransaction((tx) => forgetDevices(tx, victim))
    expect((await throttle.take(guess({ accountId: victim, deviceHash: forgotten }))).ok).toBe(false)
  })

  it('F35: counts a refused try nowhere, so that nobody uses up what others need', async () => {
    const throttle = throttleWith({ ...noDelay, guessesPerAddress: { tries: 12, windowSeconds: 900 } })
    await exhaust(throttle, () => guess())
    for (let index = 0; index < 20; index += 1)
      expect(await throttle.take(guess())).toMatchObject({ reason: 'account' })
    const left = await exhaust(throttle, (index) => guess({ identifier: `n${index}@x.example` }))
    expect(left).toMatchObject({ passed: 2, reason: 'address' })
    // Refused by its address, an account of somebody else keeps its tries.
    for (let index = 0; index < 20; index += 1)
      expect(await throttle.take(guess({ identifier: 'lee@mercy.example' }))).toMatchObject({ reason: 'address' })
    expect(await throttle.take(guess({ identifier: 'lee@mercy.example', ip: '198.51.100.9' }))).toMatchObject({
      ok: true,
      attempts: 1,
    })
  })

  it('F35: forgets the failures of one class of devices at its success, and not of the other', async () => {
    const throttle = throttleWith(noDelay)
    const accountId = await newAccount()
    const deviceHash = await knownDevice(accountId)
    for (let index = 0; index < 5; index += 1) await throttle.take(guess({ accountId }))
    for (let index = 0; index < 5; index += 1) await throttle.take(guess({ accountId, deviceHash }))
    const taken = await throttle.take(guess({ accountId, deviceHash }))
    if (!taken.ok) throw new Error('refused')
    expect(taken.attempts).toBe(6)
    await throttle.settle(taken)
    expect(await throttle.take(guess({ accountId, deviceHash }))).toMatchObject({ attempts: 1 })
    expect(await throttle.take(guess({ accountId }))).toMatchObject({ attempts: 6 })
  })

  it('makes the next try wait after the fifth failure: 1, 2, 4 seconds and so on, and never more than a minute', async () => {
    const throttle = throttleWith({ passwordsPerAccount: { tries: 40, windowSeconds: 86_400 } })
    const expected = [0, 0, 0, 0, 1, 2, 4, 8, 16, 32, 60, 60, 60]
    for (const [index, seconds] of expected.entries()) {
      expect(await throttle.take(guess()), `failure ${index + 1}`).toMatchObject({ ok: true, attempts: index + 1 })
      if (seconds === 0) continue
      const early = { ok: false, reason: 'delay', retryAfterSeconds: seconds, attempts: index + 1 }
      expect(await throttle.take(guess())).toEqual(early)
      await pass(seconds - 1)
      expect(await throttle.take(guess()), 'one second early, and not counted').toEqual({
        ...early,
        retryAfterSeconds: 1,
      })
      await pass(1)
    }
  })

  it('delays each class of devices for itself, and keeps no delay after a success', async () => {
    const throttle = throttleWith()
    const accountId = await newAccount()
    const deviceHash = await knownDevice(accountId)
    expect(await exhaust(throttle, () => guess({ accountId }))).toMatchObject({ passed: 5, reason: 'delay' })
    expect(await throttle.take(guess({ accountId, deviceHash }))).toMatchObject({ ok: true, attempts: 1 })
    expect(await throttle.take(guess({ accountId, deviceHash }))).toMatchObject({ ok: true, attempts: 2 })
    const third = await throttle.take(guess({ accountId, deviceHash }))
    if (!third.ok) throw new Error('refused')
    await throttle.settle(third)
    expect(await throttle.take(guess({ accountId, deviceHash }))).toMatchObject({ ok: true, attempts: 1 })
  })

  it('F62: allows 10 codes per account in 15 minutes, over all devices and addresses', async () => {
    const throttle = throttleWith(noDelay)
    const accountId = await newAccount()
    const devices = [undefined, await knownDevice(accountId), await knownDevice(accountId)]
    const end = await exhaust(throttle, (index) => {
      const place = { ip: `198.51.100.${index}`, deviceHash: devices[index % 3] }
      return guess({ purpose: 'code', identifier: accountId, accountId, ...place })
    })
    expect(end).toMatchObject({ passed: 10, reason: 'account' })
    expect((await throttle.take(guess({ accountId }))).ok, 'passwords count apart').toBe(true)
  })

  it.each(['link', 'reset', 'sign_up'] as const)(
    'F56: allows 3 mails of the kind %s per address in 15 minutes',
    async (purpose) => {
      const throttle = throttleWith()
      for (let sent = 1; sent <= 3; sent += 1) {
        const taken = await throttle.take(guess({ purpose, ip: `198.51.100.${sent}` }))
        if (!taken.ok) throw new Error('refused')
        await throttle.settle(taken)
      }
      expect(await throttle.take(guess({ purpose, ip: '198.51.100.4' }))).toMatchObject({
        reason: 'account',
        attempts: 3,
      })
      await pass(900)
      expect((await throttle.take(guess({ purpose, ip: '198.51.100.4' }))).ok).toBe(true)
    },
  )

  it('F56: allows one client 20 mails and 20 sign-ups in an hour', async () => {
    const throttle = throttleWith()
    const mails: readonly ThrottlePurpose[] = ['link', 'reset']
    const of = (purpose: ThrottlePurpose, index: number) => guess({ purpose, identifier: `n${index}@x.example` })
    const sent = await exhaust(throttle, (index) => of(mails[index % 2] ?? 'link', index))
    expect(sent).toMatchObject({ passed: 20, reason: 'address' })
    expect(sent.retryAfterSeconds).toBeGreaterThan(3_500)
    expect(await exhaust(throttle, (index) => of('sign_up', index))).toMatchObject({ passed: 20, reason: 'address' })
    expect((await throttle.take(guess())).ok, 'passwords count apart').toBe(true)
    await pass(3_600)
    expect((await throttle.take(of('link', 99))).ok).toBe(true)
  })

  it('F35: lets a known device ask for mails when strangers have used up theirs', async () => {
    const throttle = throttleWith()
    const accountId = await newAccount()
    const deviceHash = await knownDevice(accountId)
    await exhaust(throttle, () => guess({ purpose: 'link', accountId }))
    expect((await throttle.take(guess({ purpose: 'reset', accountId }))).ok, 'another kind of mail').toBe(true)
    const end = await exhaust(throttle, () => guess({ purpose: 'link', accountId, deviceHash }))
    expect(end).toMatchObject({ passed: 3, reason: 'account' })
  })

  it('keeps neither e-mails nor addresses, and drops what says nothing any more', async () => {
    const throttle = throttleWith()
    await throttle.take(guess({ identifier: 'secret.person@mercy.example', ip: '203.0.113.77' }))
    const counters = () => database.run('select key from mlpipes_auth.sign_in_attempts', [])
    const keys = await counters()
    expect(keys.length).toBeGreaterThan(2)
    for (const { key } of keys) expect(String(key)).toMatch(/^[\w-]{43}$/)
    await pass(100_000)
    await throttle.take(guess())
    expect(await sweepAttempts(database, 1)).toBe(1)
    await sweepAttempts(database, 10_000)
    expect(await counters(), 'those of the last try').toHaveLength(3)
    // A delay may outlast the window that it began in.
    await database.run(
      `update mlpipes_auth.sign_in_attempts set window_ends_at = now(), not_before = now() + interval '9 s'`,
      [],
    )
    expect(await sweepAttempts(database, 10_000)).toBe(0)
    await pass(9)
    expect(await sweepAttempts(database, 10_000)).toBe(3)
  })

  describe('consecutive failures of an authenticator', () => {
    const about = { organizationId: 'org_test', origin: { ip: '192.0.2.1' } }
    const fail = (accountId: string) => inTransaction((tx) => recordFailure(tx, accountId, 'password', about))
    const failTo = (accountId: string, consecutive: number) =>
      database.run(
        `insert into mlpipes_auth.authenticator_failures (account_id, kind, consecutive) values ($1, 'password', $2)`,
        [accountId, consecutive],
      )
    const audited = async (accountId: string, name: string) =>
      (await listAudit(database.kysely, 1_000)).filter((event) => event.accountId === accountId && event.name === name)

    it('disable it at the hundredth, once, and no later success brings it back', async () => {
      expect(maxConsecutiveFailures).toBe(100)
      const accountId = await newAccount()
      expect(await fail(accountId)).toEqual({ consecutive: 1, disabledNow: false })
      await inTransaction((tx) => clearFailures(tx, accountId, 'password'))
      await failTo(accountId, 98)
      expect(await fail(accountId)).toEqual({ consecutive: 99, disabledNow: false })
      expect(await disabledKinds(database.kysely, accountId)).toEqual(new Set())
      expect(await fail(accountId)).toEqual({ consecutive: 100, disabledNow: true })
      expect(await fail(accountId)).toEqual({ consecutive: 100, disabledNow: false })
      await inTransaction((tx) => clearFailures(tx, accountId, 'password'))
      expect(await inTransaction((tx) => disabledKinds(tx, accountId))).toEqual(new Set(['password']))
      const [event, ...more] = await audited(accountId, 'authenticator.disabled')
      expect(event).toMatchObject({ details: { kind: 'password', failures: 100 }, organizationId: 'org_test' })
      expect(more).toEqual([])
    })

    it('are forgotten at success, and count per kind', async () => {
      const accountId = await newAccount()
      await failTo(accountId, 99)
      await inTransaction((tx) => recordFailure(tx, accountId, 'totp', about))
      await inTransaction((tx) => clearFailures(tx, accountId, 'password'))
      expect(await fail(accountId)).toEqual({ consecutive: 1, disabledNow: false })
      expect(await inTransaction((tx) => recordFailure(tx, accountId, 'totp', about))).toMatchObject({ consecutive: 2 })
    })

    it('undo themselves with the transaction they belong to', async () => {
      const accountId = await newAccount()
      await failTo(accountId, 99)
      const undone = inTransaction(async (tx) => {
        await recordFailure(tx, accountId, 'password', about)
        throw new Error('undone')
      })
      await expect(undone).rejects.toThrow('undone')
      expect(await disabledKinds(database.kysely, accountId)).toEqual(new Set())
      expect(await audited(accountId, 'authenticator.disabled')).toEqual([])
    })

    it('are over with a recovery, which is audited when it brought something back', async () => {
      const accountId = await newAccount()
      const recover = () =>
        inTransaction((tx) =>
          restore(tx, accountId, 'password', { ...about, actor: { type: 'account', id: accountId } }),
        )
      expect(await recover()).toBe(false)
      await failTo(accountId, 50)
      expect(await recover()).toBe(false)
      await failTo(accountId, 99)
      await fail(accountId)
      expect(await recover()).toBe(true)
      expect(await recover()).toBe(false)
      expect(await disabledKinds(database.kysely, accountId)).toEqual(new Set())
      expect(await fail(accountId)).toMatchObject({ consecutive: 1 })
      expect(await audited(accountId, 'authenticator.restored')).toMatchObject([
        { details: { kind: 'password' }, actorId: accountId },
      ])
    })
  })

  describe('known devices', () => {
    const remember = (accountId: string, deviceHash: string, agent?: string) =>
      inTransaction((tx) => rememberDevice(tx, accountId, deviceHash, agent))
    const devicesOf = (accountId: string) =>
      database.kysely
        .selectFrom('known_devices')
        .select(['device_hash', 'user_agent'])
        .where('account_id', '=', accountId)
        .execute()

    it('are new once, and the first of an account is its first', async () => {
      const accountId = await newAccount()
      expect(await remember(accountId, 'a')).toEqual({ isNew: true, isFirst: true })
      expect(await remember(accountId, 'a', 'Fire\nfox')).toEqual({ isNew: false, isFirst: false })
      expect(await remember(accountId, 'b')).toEqual({ isNew: true, isFirst: false })
      expect(await devicesOf(accountId)).toContainEqual({ device_hash: 'a', user_agent: 'Fire fox' })
      expect(await remember(await newAccount(), 'a'), 'of another account').toEqual({ isNew: true, isFirst: true })
      expect(await inTransaction((tx) => forgetDevices(tx, accountId))).toBe(2)
      expect(await devicesOf(accountId)).toEqual([])
    })

    it('are 20 at most, and the one not seen for longest goes', async () => {
      const accountId = await newAccount()
      for (let index = 0; index < maxDevicesPerAccount; index += 1) await remember(accountId, `device ${index}`)
      await database.run(
        `update mlpipes_auth.known_devices
          set last_seen_at = now() - make_interval(days => 30 - substring(device_hash from 8)::integer)
          where account_id = $1`,
        [accountId],
      )
      expect(await devicesOf(accountId)).toHaveLength(20)
      await remember(accountId, 'device 0')
      expect(await devicesOf(accountId)).toHaveLength(20)
      expect(await remember(accountId, 'one more')).toEqual({ isNew: true, isFirst: false })
      const left = (await devicesOf(accountId)).map((row) => row.device_hash)
      expect(left).toHaveLength(20)
      expect(left).toEqual(expect.arrayContaining(['device 0', 'one more', 'device 2']))
      expect(left).not.toContain('device 1')
    })
  })
})

describe('the device cookie', () => {
  const issued = (issuer: string) => {
    const cookie = createDeviceCookie(issuer)
    const calls: { name: string; value: string; options: object }[] = []
    const hash = cookie.issue({ setCookie: (name, value, options) => void calls.push({ name, value, options }) })
    return { cookie, hash, ...calls[0], count: calls.length }
  }

  it('is for our host alone, over https only where there is https, and out of reach of scripts', () => {
    const options = { path: '/', httpOnly: true, sameSite: 'lax', maxAge: 31_536_000 }
    expect(issued('https://auth.example')).toMatchObject({
      name: '__Host-mlpipes_device',
      options: { ...options, secure: true },
      count: 1,
    })
    expect(issued('http://localhost:3001')).toMatchObject({
      name: 'mlpipes_device',
      options: { ...options, secure: false },
    })
  })

  it('has 256 random bits, and is known by its digest', () => {
    const first = issued('https://auth.example')
    expect(first.value).toMatch(/^[\w-]{43}$/)
    expect(issued('https://auth.example').value).not.toBe(first.value)
    expect(first.hash).toBe(sha256(first.value ?? ''))
    expect(first.hash).not.toContain(first.value)
    expect(first.cookie.read({ '__Host-mlpipes_device': first.value })).toBe(first.hash)
  })

  it('is not read from another name or in another shape', () => {
    const { cookie, value = '' } = issued('https://auth.example')
    for (const cookies of [{}, { mlpipes_device: value }, { [cookie.name]: `${value}x` }, { [cookie.name]: '' }])
      expect(cookie.read(cookies)).toBeUndefined()
  })
})

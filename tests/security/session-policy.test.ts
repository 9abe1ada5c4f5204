// Sessions under their organisation's policy: F26, tightening that acts at once, activity, and what nobody comes back to.
import { sql } from 'kysely'
import { afterAll, beforeAll, describe, expect, it, vi } from 'vitest'
import { type AuditEventName, auditEvents } from '../../src/audit/events.ts'
import { transact } from '../../src/db/transaction.ts'
import { effectivePolicy } from '../../src/organizations/policy.ts'
import { finishTightenings, holdNewSessions, holdToPlatform } from '../../src/sessions/tightening.ts'
import {
  authorizationUrl,
  Browser,
  introspect,
  introspectBothWays,
  obtainTokens,
  post,
  signIn,
} from '../support/client.ts'
import { databaseKinds, people, startServer, type TestServer, testPlatform } from '../support/server.ts'

const policy = (session: Record<string, unknown>) => ({
  organizations: [{ slug: 'mercy', name: 'Mercy Hospital', policy: { session } }],
})
const seed = {
  ...people,
  clients: [
    ...(people.clients ?? []),
    {
      client_id: 'poller',
      client_secret: 'poller-secret-0123456789',
      client_name: 'Poller',
      organization: 'mercy',
      grant_types: ['client_credentials' as const],
      scope: 'openid',
      introspection: 'organization' as const,
      session_activity: false,
    },
  ],
}

describe.each(databaseKinds)('sessions under a policy on %s', (kind) => {
  let server: TestServer
  beforeAll(async () => {
    server = await startServer(kind, { seed })
  })
  afterAll(() => server.close())

  const kysely = () => server.database.kysely
  async function open(email = 'lee@mercy.example') {
    const browser = new Browser(server)
    await signIn(browser, authorizationUrl(server, 'first'), email)
    const tokens = await obtainTokens(server, 'first', {}, browser)
    const { uid } = await kysely()
      .selectFrom('sessions')
      .select('uid')
      .orderBy('created_at', 'desc')
      .limit(1)
      .executeTakeFirstOrThrow()
    return { browser, tokens, uid }
  }
  /** As if the session had been used last, and signed in to, so many seconds ago. */
  async function age(uid: string, idleFor: number, signedIn = idleFor) {
    const back = (seconds: number) => new Date(Date.now() - seconds * 1000)
    await kysely()
      .updateTable('sessions')
      .set({ last_activity_at: back(idleFor), signed_in_at: back(signedIn) })
      .where('uid', '=', uid)
      .execute()
  }
  const hope = async () => {
    const find = kysely().selectFrom('organizations').select('id').where('slug', '=', 'hope')
    return (await find.executeTakeFirstOrThrow()).id
  }
  const isActive = async (token: string, caller = 'api') => (await introspectBothWays(server, token, caller))['active']
  const read = (uid: string) =>
    kysely()
      .selectFrom('sessions')
      .select(['last_activity_at', 'idle_expires_at', 'absolute_expires_at', 'ended_at', 'end_reason'])
      .where('uid', '=', uid)
      .executeTakeFirstOrThrow()

  it.each([
    ['idle', { idleTimeout: 60 }, 120],
    ['absolute', { absoluteLifetime: 100 }, 120],
  ])(
    'a stricter %s limit ends open sessions and their tokens at once, and a looser one revives nothing',
    async (_name, stricter, seconds) => {
      await server.apply(policy({}))
      const { browser, tokens, uid } = await open()
      await age(uid, seconds)
      expect(await isActive(tokens.access_token, 'poller')).toBe(true)
      await server.apply(policy(stricter))
      expect(await isActive(tokens.access_token)).toBe(false)
      const silent = await browser.request(authorizationUrl(server, 'first', { prompt: 'none' }).url)
      expect(silent.headers.get('location')).toContain('error=login_required')
      const refreshed = await post(server, '/oauth/token', 'first', {
        grant_type: 'refresh_token',
        refresh_token: tokens.refresh_token ?? '',
      })
      expect(refreshed.body['error']).toBe('invalid_grant')
      await server.apply(policy({}))
      expect(await isActive(tokens.access_token)).toBe(false)
    },
  )

  /** Nothing is ended by housekeeping until the answer is called. */
  async function holdHousekeeping(): Promise<() => Promise<void>> {
    const { promise: released, resolve: release } = Promise.withResolvers<void>()
    const { promise: held, resolve: hold } = Promise.withResolvers<void>()
    const holding = kysely()
      .transaction()
      .execute(async (tx) => {
        await sql`select pg_advisory_xact_lock(hashtext('mlpipes_auth.session_tightening'))`.execute(tx)
        hold()
        await released
      })
    await held
    return async () => {
      release()
      await holding
    }
  }

  it.runIf(kind === 'postgres').each([
    ['idle', { session: { idleTimeout: 60 } }],
    ['absolute', { session: { absoluteLifetime: 100 } }],
    ['network', { network: { allowedCidrs: ['192.0.2.0/24'] } }],
    ['max_concurrent', { session: { maxConcurrent: 1 } }],
  ])(
    'a stricter policy (%s) acts at every door while housekeeping cannot, and after it is taken back',
    async (reason, stricter) => {
      await server.apply(policy({}))
      const { browser, tokens, uid } = await open()
      const other = await open('ada@mercy.example')
      await age(uid, 120)
      const later = reason === 'max_concurrent' ? await open() : undefined
      const release = await holdHousekeeping()
      const doors = async () => ({
        introspection: await isActive(tokens.access_token),
        userinfo: (
          await fetch(new URL('/oauth/userinfo', server.issuer), {
            headers: { authorization: `Bearer ${tokens.access_token}` },
          })
        ).status,
        silent: (await browser.request(authorizationUrl(server, 'first', { prompt: 'none' }).url)).headers
          .get('location')
          ?.match(/error=(\w+)/)?.[1],
        account: (await browser.request('/account')).status,
        refresh: (
          await post(server, '/oauth/token', 'first', {
            grant_type: 'refresh_token',
            refresh_token: tokens.refresh_token ?? '',
          })
        ).body['error'],
      })
      await server.apply({ organizations: [{ slug: 'mercy', name: 'Mercy Hospital', policy: stricter }] })
      const shut = {
        introspection: false,
        userinfo: 401,
        silent: 'login_required',
        account: 303,
        refresh: 'invalid_grant',
      }
      expect(await doors()).toEqual(shut)
      await server.apply(policy({}))
      expect(await doors(), 'taken back').toEqual(shut)
      expect(await read(uid)).toMatchObject({ ended_at: null })
      if (reason !== 'network') expect(await isActive(other.tokens.access_token), 'one in use').toBe(true)
      if (later) expect(await isActive(later.tokens.access_token), 'the last one that was begun').toBe(true)
      await release()
      await finishTightenings(server.database)
      await nothingIsLeft()
      expect(await read(uid)).toMatchObject({ end_reason: reason })
      const rows = (await server.audit()).filter(
        (event) => event.sessionUid === uid && ['session.ended', 'session.expired'].includes(event.name),
      )
      expect(rows.map(({ name, details }) => auditEvents[name as AuditEventName].parse(details))).toEqual([{ reason }])
    },
  )

  /** Another session like that one, as a request writes it that has read the policy of before. */
  const copy = (uid: string, of: string, createdAt: string, ip = '127.0.0.1') =>
    server.database.run(
      `insert into mlpipes_auth.sessions (uid, id_hash, payload, account_id, organization_id, ip, created_at, signed_in_at,
          idle_seconds, absolute_seconds, idle_expires_at, absolute_expires_at)
        select $2, $2, payload, account_id, organization_id, $3::inet, ${createdAt}, ${createdAt},
          idle_seconds, absolute_seconds, idle_expires_at, absolute_expires_at from mlpipes_auth.sessions where uid = $1`,
      [of, uid, ip],
    )
  const policyOf = async (session: Record<string, unknown>) => {
    const find = kysely().selectFrom('organizations').select('id').where('slug', '=', 'mercy')
    return [{ id: (await find.executeTakeFirstOrThrow()).id, policy: effectivePolicy({ session }, testPlatform) }]
  }

  it.runIf(kind === 'postgres')(
    'fewer sessions at once are counted of those that were there at the change, and that its networks leave there',
    async () => {
      await server.apply(policy({}))
      const older = await open()
      await copy('outside', older.uid, 'clock_timestamp()', '192.0.2.1')
      const release = await holdHousekeeping()
      const stricter = { session: { maxConcurrent: 1 }, network: { allowedCidrs: ['127.0.0.0/8'] } }
      await server.apply({ organizations: [{ slug: 'mercy', name: 'Mercy Hospital', policy: stricter }] })
      expect(await isActive(older.tokens.access_token), 'beside one that the networks leave out').toBe(true)
      await copy('begun-later', older.uid, 'clock_timestamp()')
      expect(await isActive(older.tokens.access_token), 'beside one that was begun since').toBe(true)
      await release()
      await nothingIsLeft()
      expect(await read('outside')).toMatchObject({ end_reason: 'network' })
      expect(await read(older.uid)).toMatchObject({ ended_at: null })
      await server.database.run(`delete from mlpipes_auth.sessions where uid = 'begun-later'`, [])
      await server.apply(policy({}))
    },
  )

  it.runIf(kind === 'postgres')(
    'one that a request began by the policy of before makes room a moment later',
    async () => {
      await server.apply(policy({}))
      const older = await open()
      await server.apply(policy({ maxConcurrent: 1 }))
      await nothingIsLeft()
      await copy('escaped', older.uid, 'clock_timestamp()')
      expect(await isActive(older.tokens.access_token)).toBe(true)
      const held = await policyOf({ maxConcurrent: 1 })
      await transact(kysely(), (tx) => holdNewSessions(tx, held, 300))
      expect(await isActive(older.tokens.access_token)).toBe(false)
      await finishTightenings(server.database)
      await nothingIsLeft()
      expect(await read(older.uid)).toMatchObject({ end_reason: 'max_concurrent' })
      expect(await read('escaped')).toMatchObject({ ended_at: null })
      await transact(kysely(), (tx) => holdNewSessions(tx, held, 300))
      expect(await leftToDo(), 'nobody has too many any more').toEqual([])
      await server.database.run(`delete from mlpipes_auth.sessions where uid = 'escaped'`, [])
      await server.apply(policy({}))
    },
  )

  it.runIf(kind === 'postgres').each([
    ['a stricter one', { maxConcurrent: 2 }, [{ maxConcurrent: 1 }]],
    ['the same one', { maxConcurrent: 2 }, [{}, { maxConcurrent: 2 }]],
    ['a shorter idle limit', { maxConcurrent: 2 }, [{ maxConcurrent: 2, idleTimeout: 60 }]],
  ])('one that was too many stays over when the newer ones end and %s follows', async (_name, first, then) => {
    await server.apply(policy({}))
    const all = [await open(), await open(), await open()]
    const [oldest] = all
    const states = () => Promise.all(all.map(({ tokens }) => isActive(tokens.access_token)))
    const release = await holdHousekeeping()
    await server.apply(policy(first))
    expect(await states()).toEqual([false, true, true])
    for (const { uid } of all.slice(1))
      await sql`update mlpipes_auth.sessions set ended_at = clock_timestamp(), end_reason = 'sign_out' where uid = ${uid}`.execute(
        kysely(),
      )
    for (const next of then) await server.apply(policy(next))
    expect(await states()).toEqual([false, false, false])
    await release()
    await nothingIsLeft()
    expect(await read(oldest?.uid ?? '')).toMatchObject({ end_reason: 'max_concurrent' })
    await server.apply(policy({}))
  })

  it.runIf(kind === 'postgres')('what fails for one organisation keeps no other waiting', async () => {
    await server.apply(policy({}))
    const { uid } = await open()
    const mercy = (await policyOf({}))[0]?.id
    await server.database.run(
      `insert into mlpipes_auth.session_tightenings (organization_id, idle_seconds, absolute_seconds, changed_at)
        values ($1, 600, 3600, now() - interval '1 hour'), ($2, 600, 3600, now())`,
      [await hope(), mercy],
    )
    const { run } = server.database
    const failing = {
      ...server.database,
      run: async (statement: string, values: readonly unknown[]) => {
        if (statement.includes('delete from mlpipes_auth.session_tightenings') && values[0] !== mercy)
          throw new Error('broken')
        return run(statement, values)
      },
    }
    await expect(finishTightenings(failing)).rejects.toThrow('broken')
    expect(await limitsOf(uid)).toBe(600)
    await finishTightenings(server.database)
    await nothingIsLeft()
  })

  it.runIf(kind === 'postgres').each([
    [
      'ends',
      (uid: string) =>
        sql`update mlpipes_auth.sessions set ended_at = clock_timestamp(), end_reason = 'logout' where uid = ${uid}`,
    ],
    [
      'runs out',
      (uid: string) => sql`update mlpipes_auth.sessions set idle_expires_at = clock_timestamp() where uid = ${uid}`,
    ],
  ])(
    'one that was too many at the change stays over when a newer one %s before housekeeping comes',
    async (_how, end) => {
      await server.apply(policy({}))
      const [older, newer] = [await open(), await open()]
      const release = await holdHousekeeping()
      await server.apply(policy({ maxConcurrent: 1 }))
      expect(await isActive(older.tokens.access_token)).toBe(false)
      await end(newer.uid).execute(kysely())
      expect(await isActive(newer.tokens.access_token)).toBe(false)
      expect(await isActive(older.tokens.access_token)).toBe(false)
      const last = await open()
      expect(await isActive(older.tokens.access_token), 'beside one that was begun since').toBe(false)
      await release()
      await nothingIsLeft()
      expect(await read(older.uid)).toMatchObject({ end_reason: 'max_concurrent' })
      expect(await isActive(last.tokens.access_token)).toBe(true)
      await server.apply(policy({}))
    },
  )

  const leftToDo = () => kysely().selectFrom('session_tightenings').select('id').execute()
  /** The server's own housekeeping may be at it, and then goes on. */
  const nothingIsLeft = () =>
    vi.waitFor(async () => expect(await leftToDo()).toEqual([]), { timeout: 20_000, interval: 20 })
  const limitsOf = async (uid: string) => {
    const { last_activity_at, idle_expires_at } = await read(uid)
    return Math.round((idle_expires_at.getTime() - last_activity_at.getTime()) / 1_000)
  }

  it('a stricter limit is written into what lives on by housekeeping, whatever the policy is by then, and into no session begun since', async () => {
    await server.apply(policy({ updateAge: 60 }))
    const far = await open()
    await server.apply(policy({ updateAge: 60, idleTimeout: 900 }))
    await server.apply(policy({ updateAge: 60 }))
    await age(far.uid, 61)
    await introspect(server, far.tokens.access_token)
    const since = await open()
    await finishTightenings(server.database)
    await nothingIsLeft()
    expect([await limitsOf(far.uid), await limitsOf(since.uid)]).toEqual([900, 1_800])
    await age(far.uid, 61)
    await introspect(server, far.tokens.access_token)
    expect(await limitsOf(far.uid), 'its use does not bring the looser one back').toBe(900)
  })

  it('a platform that is configured more strictly holds the sessions that are open when it starts, once', async () => {
    await server.apply(policy({}))
    const { uid } = await open()
    const { id } = await kysely()
      .selectFrom('organizations')
      .select('id')
      .where('slug', '=', 'mercy')
      .executeTakeFirstOrThrow()
    const stricter = [{ id, policy: effectivePolicy({}, { ...testPlatform, sessionTimeoutSeconds: 600 }) }]
    const hold = () => transact(kysely(), (tx) => holdToPlatform(tx, stricter))
    await hold()
    await finishTightenings(server.database)
    await nothingIsLeft()
    expect(await limitsOf(uid)).toBe(600)
    await hold()
    expect(await leftToDo()).toEqual([])
  })

  it('what stops housekeeping between two batches loses nothing, also of sessions of others', async () => {
    await server.apply(policy({}))
    const { uid } = await open()
    const ours = await kysely()
      .selectFrom('sessions')
      .select('organization_id')
      .where('uid', '=', uid)
      .executeTakeFirst()
    // More than a batch each.
    await server.database.run(
      `with many as (
         insert into mlpipes_auth.sessions (uid, id_hash, payload, account_id, organization_id, signed_in_at, last_activity_at,
           idle_expires_at, absolute_expires_at, idle_seconds, absolute_seconds)
         select 'many-' || n, 'many-' || n, payload, account_id, case when n % 2 = 0 then organization_id else $2 end, now(), now(),
           now() + interval '1800 s', now() + interval '43200 s', 1800, 43200
         from mlpipes_auth.sessions, generate_series(1, 2200) as n where uid = $1 returning uid, organization_id)
       insert into mlpipes_auth.session_organizations (session_uid, organization_id) select uid, $3 from many where organization_id = $2`,
      [uid, await hope(), ours?.organization_id],
    )
    const count = async () => {
      const [row] = await server.database.run(
        "select count(*)::integer as count from mlpipes_auth.sessions where uid like 'many-%' and idle_seconds > 900",
        [],
      )
      return Number(row?.['count'])
    }
    await server.apply(policy({ idleTimeout: 900 }))
    let batches = 0
    await finishTightenings(server.database, () => ++batches <= 2)
    const left = await count()
    if (left > 0) expect(await leftToDo()).not.toEqual([])
    await Promise.all([finishTightenings(server.database), finishTightenings(server.database)])
    await nothingIsLeft()
    expect(await count()).toBe(0)
    await server.database.run("delete from mlpipes_auth.sessions where uid like 'many-%'", [])
  })

  it('a session lasts as long as its policy says, however long that is', async () => {
    const { uid } = await open()
    const [row] = await server.database.run(
      "select (payload ->> 'exp')::bigint > extract(epoch from now()) + 360 * 86400 as long from mlpipes_auth.sessions where uid = $1",
      [uid],
    )
    // What the provider itself compares.
    expect(row).toEqual({ long: true })
  })

  it('introspection, userinfo and refresh extend the session, at most once per updateAge, with one audit row', async () => {
    await server.apply(policy({ idleTimeout: 1_800, updateAge: 300 }))
    const uses: ((tokens: { access_token: string; refresh_token?: string }) => Promise<unknown>)[] = [
      (tokens) => introspect(server, tokens.access_token),
      (tokens) =>
        fetch(new URL('/oauth/userinfo', server.issuer), {
          headers: { authorization: `Bearer ${tokens.access_token}` },
        }),
      (tokens) =>
        post(server, '/oauth/token', 'first', {
          grant_type: 'refresh_token',
          refresh_token: tokens.refresh_token ?? '',
        }),
    ]
    for (const use of uses) {
      const { tokens, uid } = await open()
      const extended = async () =>
        (await server.audit('session.extended')).filter((event) => event.sessionUid === uid).length
      await introspect(server, tokens.access_token)
      expect(await extended(), 'used a moment ago').toBe(0)
      await age(uid, 301)
      const before = await read(uid)
      await use(tokens)
      const after = await read(uid)
      expect(after.last_activity_at.getTime()).toBeGreaterThan(before.last_activity_at.getTime())
      expect(after.idle_expires_at.getTime()).toBeGreaterThanOrEqual(before.idle_expires_at.getTime())
      expect(after.absolute_expires_at).toEqual(before.absolute_expires_at)
      expect(await extended()).toBe(1)
      await introspect(server, tokens.access_token)
      expect(await extended(), 'once per updateAge').toBe(1)
    }
  })

  it('a resource server that only polls keeps nobody signed in, nor does any where activity does not extend', async () => {
    await server.apply(policy({ updateAge: 300 }))
    const polled = await open()
    await age(polled.uid, 301)
    expect(await isActive(polled.tokens.access_token, 'poller')).toBe(true)
    await server.apply(policy({ updateAge: 300, extendOnActivity: false }))
    const strict = await open('ada@mercy.example')
    await age(strict.uid, 301)
    expect(await isActive(strict.tokens.access_token)).toBe(true)
    const before = await read(strict.uid)
    await strict.browser.follow(await strict.browser.request(authorizationUrl(server, 'first').url))
    const after = await read(strict.uid)
    expect(after.last_activity_at, 'not by another app either').toEqual(before.last_activity_at)
    expect(after.idle_expires_at.getTime()).toBeLessThanOrEqual(before.idle_expires_at.getTime())
    const events = await server.audit('session.extended')
    expect(events.filter((event) => [polled.uid, strict.uid].includes(event.sessionUid ?? ''))).toEqual([])
  })

  it('activity never carries a session past its absolute limit', async () => {
    await server.apply(policy({ idleTimeout: 1_800, absoluteLifetime: 3_600, updateAge: 300 }))
    const { tokens, uid } = await open()
    await age(uid, 400, 3_500)
    await server.apply(policy({ idleTimeout: 1_801, absoluteLifetime: 3_600, updateAge: 300 }))
    await introspect(server, tokens.access_token)
    const { idle_expires_at, absolute_expires_at } = await read(uid)
    expect(idle_expires_at.getTime()).toBeLessThanOrEqual(absolute_expires_at.getTime())
  })
})

describe('20 uses at once', () => {
  it('extend a session once', async () => {
    const server = await startServer('postgres', { seed, poolSize: 25 })
    await server.apply(policy({ updateAge: 300 }))
    const { access_token } = await obtainTokens(server, 'first')
    await server.database.kysely
      .updateTable('sessions')
      .set({ last_activity_at: new Date(Date.now() - 301_000) })
      .execute()
    const answers = await Promise.all(Array.from({ length: 20 }, () => introspect(server, access_token)))
    expect(answers.every((answer) => answer['active'] === true)).toBe(true)
    expect(await server.audit('session.extended')).toHaveLength(1)
    await server.close()
  })
})

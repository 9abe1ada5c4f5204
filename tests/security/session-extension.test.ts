// What extends a session, door by door: written at most once per updateAge, and never without its row in the audit log.
import { sql } from 'kysely'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { type AuditEventName, auditEvents } from '../../src/audit/events.ts'
import { transact } from '../../src/db/transaction.ts'
import { createSessions } from '../../src/sessions/sessions.ts'
import { ApiClient } from '../api/support.ts'
import { authorizationUrl, Browser, introspect, obtainTokens, post, signIn } from '../support/client.ts'
import { databaseKinds, people, startServer, type TestServer } from '../support/server.ts'

const updateAge = 300
const seed = {
  ...people,
  organizations: [
    { slug: 'mercy', name: 'Mercy Hospital', policy: { session: { idleTimeout: 1_800, updateAge } } },
    { slug: 'hope', name: 'Hope Clinic' },
  ],
}

describe.each(databaseKinds)('a session on %s', (kind) => {
  let server: TestServer
  beforeAll(async () => {
    server = await startServer(kind, { seed })
  })
  afterAll(() => server.close())

  async function open(client = 'first', browser = new Browser(server)) {
    const tokens = await obtainTokens(server, client, {}, browser)
    const [row] = await server.database.run(
      'select uid from mlpipes_auth.sessions order by created_at desc limit 1',
      [],
    )
    return { browser, tokens, uid: String(row?.['uid']) }
  }
  type Opened = Awaited<ReturnType<typeof open>>
  const timesOf = async (uid: string) => {
    const columns = 'last_activity_at, idle_expires_at, absolute_expires_at'
    const [row] = await server.database.run(`select ${columns} from mlpipes_auth.sessions where uid = $1`, [uid])
    return row
  }
  const lastUsedAt = async (uid: string) => Number((await timesOf(uid))?.['last_activity_at'])
  /** As if the session had been used last so many seconds ago. */
  const setBack = `update mlpipes_auth.sessions set last_activity_at = now() - make_interval(secs => $2::double precision),
      idle_expires_at = now() + make_interval(secs => idle_seconds - $2::double precision) where uid = $1`
  const age = (uid: string, seconds: number) => server.database.run(setBack, [uid, seconds])
  const extensions = async (uid: string) =>
    (await server.audit('session.extended')).filter((event) => event.sessionUid === uid)
  const silently = async ({ browser }: Pick<Opened, 'browser'>) => {
    const answer = await browser.request(authorizationUrl(server, 'spa', { prompt: 'none', scope: 'openid' }).url)
    expect(answer.headers.get('location')).toContain('code=')
  }

  const doors: Record<string, (opened: Opened) => Promise<unknown>> = {
    introspection: ({ tokens }) => introspect(server, tokens.access_token),
    userinfo: ({ tokens }) =>
      fetch(`${server.issuer}/oauth/userinfo`, { headers: { authorization: `Bearer ${tokens.access_token}` } }),
    refresh: ({ tokens }) =>
      post(server, '/oauth/token', 'first', {
        grant_type: 'refresh_token',
        refresh_token: tokens.refresh_token ?? '',
      }),
    authorization: silently,
  }
  it.each(Object.entries(doors))('is extended by %s once per updateAge, with one audit row', async (_name, use) => {
    const opened = await open()
    const { uid } = opened
    // A machine that is busy may take its time between this and the use: the limit itself is met below.
    await age(uid, updateAge - 30)
    const before = await timesOf(uid)
    await use(opened)
    expect([await timesOf(uid), await extensions(uid)], 'before the limit').toEqual([before, []])
    const again = await open()
    await age(again.uid, updateAge + 1)
    const aged = await timesOf(again.uid)
    const since = await lastUsedAt(again.uid)
    await use(again)
    expect(await lastUsedAt(again.uid)).toBeGreaterThanOrEqual(since + (updateAge + 1) * 1_000)
    const after = await timesOf(again.uid)
    expect(after?.['absolute_expires_at']).toEqual(aged?.['absolute_expires_at'])
    const [row, ...more] = await extensions(again.uid)
    const [account] = await server.database.run(
      'select id, organization_id from mlpipes_auth.accounts where email = $1',
      ['lee@mercy.example'],
    )
    expect(row).toMatchObject({
      outcome: 'success',
      actorType: 'account',
      actorId: account?.['id'],
      accountId: account?.['id'],
      organizationId: account?.['organization_id'],
    })
    expect(auditEvents[row?.name as AuditEventName].parse(row?.details)).toEqual({})
    expect(more).toEqual([])
    await silently(again)
    await introspect(server, again.tokens.access_token)
    expect([await timesOf(again.uid), (await extensions(again.uid)).length], 'again at once').toEqual([after, 1])
  })

  const held = (session: object) =>
    server.apply({ organizations: [{ slug: 'mercy', name: 'Mercy Hospital', policy: { session } }] })
  it.each(Object.entries(doors))(
    'whose idle limit is shorter than updateAge is extended by %s in half of it',
    async (_name, use) => {
      await held({ idleTimeout: 200, updateAge })
      const [early, due, elsewhere] = [await open(), await open(), await open()]
      await age(early.uid, 70)
      await use(early)
      expect(await extensions(early.uid)).toEqual([])
      await age(due.uid, 101)
      await use(due)
      expect(await extensions(due.uid)).toHaveLength(1)
      // The session stays held to what another organisation, or an earlier policy, made of it.
      await held({ idleTimeout: 1_800, updateAge })
      await age(elsewhere.uid, 101)
      await use(elsewhere)
      expect(await extensions(elsewhere.uid)).toHaveLength(1)
    },
  )

  it('has what the provider keeps of it written all the same', async () => {
    const opened = await open()
    await silently(opened)
    const [row] = await server.database.run(
      "select payload -> 'authorizations' -> 'spa' ->> 'sid' as sid from mlpipes_auth.sessions where uid = $1",
      [opened.uid],
    )
    expect(row?.['sid']).toEqual(expect.any(String))
    expect(await extensions(opened.uid)).toEqual([])
  })

  // The clock stands still in a transaction.
  it.each([
    ['one microsecond before updateAge has passed', updateAge - 0.000_001, 0],
    ['when it has', updateAge, 1],
    ['one second later', updateAge + 1, 1],
  ])('that a browser comes back to %s is extended or not', async (_name, seconds, count) => {
    const { uid } = await open()
    const sessions = createSessions(server.database)
    const stored = await sessions.findByUid(uid)
    const row = (isUse: boolean, every: number | undefined = updateAge) => ({
      uid,
      idHash: uid,
      payload: stored?.payload ?? {},
      accountId: stored?.accountId,
      organizationId: stored?.organizationId,
      usedFor: [],
      ip: undefined,
      userAgent: undefined,
      signedIn: true,
      limits: { idleSeconds: 1_800, absoluteSeconds: 43_200 },
      activityStepSeconds: every,
      isUse,
    })
    await transact(server.database.kysely, async (tx) => {
      await sql`update mlpipes_auth.sessions set last_activity_at = now() - make_interval(secs => ${seconds}::double precision),
        idle_expires_at = now() + make_interval(secs => 1800 - ${seconds}::double precision) where uid = ${uid}`.execute(
        tx,
      )
      await sessions.save(tx, row(false), undefined)
      await sessions.save(tx, { ...row(true), activityStepSeconds: undefined }, undefined)
      const { rows: none } = await sql`select from mlpipes_auth.audit_events
        where name = 'session.extended' and session_uid = ${uid}`.execute(tx)
      expect(none, 'refused, or where activity does not extend').toHaveLength(0)
      await sessions.save(tx, row(true), undefined)
      await sessions.save(tx, row(true), undefined)
      const { rows } = await sql`select last_activity_at = now() as extended,
        idle_expires_at = last_activity_at + interval '1800 seconds' as whole
        from mlpipes_auth.sessions where uid = ${uid}`.execute(tx)
      expect(rows).toEqual([{ extended: count === 1, whole: true }])
    })
    expect(await extensions(uid)).toHaveLength(count)
  })

  it('is begun by a sign-in, not extended: not with the consent that follows, nor when the person signs in anew', async () => {
    const opened = await open('ehr')
    expect(await extensions(opened.uid)).toEqual([])
    // The provider tells sign-ins apart by their second.
    await server.database.run(
      `update mlpipes_auth.sessions set payload = jsonb_set(payload, '{loginTs}', to_jsonb((payload ->> 'loginTs')::integer - 1))`,
      [],
    )
    await age(opened.uid, updateAge + 1)
    const before = await lastUsedAt(opened.uid)
    const anew = await signIn(opened.browser, authorizationUrl(server, 'first', { prompt: 'login' }))
    expect(anew.url).toContain('code=')
    expect(await lastUsedAt(opened.uid)).toBeGreaterThan(before)
    expect(await extensions(opened.uid)).toEqual([])
  })

  it('is extended whenever its person says so, and each time that is in the log', async () => {
    const { browser, uid } = await open()
    const client = new ApiClient(server, browser)
    await age(uid, 10)
    const before = await lastUsedAt(uid)
    for (const count of [1, 2]) {
      const { body } = await client.post('/session/extend')
      expect(body).toMatchObject({ extended: true })
      // All of it, which the page counts down from.
      expect((body['session'] as Record<string, unknown>)['idleSecondsLeft']).toBeGreaterThan(1_795)
      expect(await extensions(uid)).toHaveLength(count)
    }
    expect(await lastUsedAt(uid)).toBeGreaterThan(before)
    await client.call('/session')
    expect(await extensions(uid), 'looking is none').toHaveLength(2)
  })

  it('that is over is extended by nobody, and nothing says that it was', async () => {
    const opened = await open()
    await age(opened.uid, 1_801)
    for (const use of Object.values(doors)) await use(opened).catch(() => undefined)
    expect((await new ApiClient(server, opened.browser).post('/session/extend')).status).toBe(401)
    expect(await extensions(opened.uid)).toEqual([])
  })

  it.runIf(kind === 'postgres')('that a browser comes back to 20 times at once is extended once', async () => {
    const opened = await open()
    await age(opened.uid, updateAge + 1)
    await Promise.all(Array.from({ length: 20 }, () => silently(opened)))
    expect(await extensions(opened.uid)).toHaveLength(1)
  })
})

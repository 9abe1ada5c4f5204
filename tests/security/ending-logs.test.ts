// In whose log the end of a session stands. It stood in the log of whoever ended it, or of the organisation that the session
// was for at last: an organisation that had let somebody in could not see in its own log that they were out again.
import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest'
import { type AuditEventName, auditEvents } from '../../src/audit/events.ts'
import { transact } from '../../src/db/transaction.ts'
import { endOrganizationAccess, finishClosing } from '../../src/sessions/closing.ts'
import { enterWithin } from '../../src/sessions/concurrency.ts'
import { endAccess, endSession } from '../../src/sessions/ending.ts'
import { endOrganizationSessions } from '../../src/sessions/ending-all.ts'
import { endExpiredSessions } from '../../src/sessions/expiry.ts'
import { endMembershipAccess } from '../../src/sessions/parting.ts'
import { finishTightenings } from '../../src/sessions/tightening.ts'
import { authorizationUrl, Browser, obtainTokens, signIn } from '../support/client.ts'
import { databaseKinds, password, people, startServer, type TestServer } from '../support/server.ts'

const hopeful = {
  client_id: 'hopeful',
  client_secret: 'hopeful-secret-0123456789',
  client_name: 'Hopeful',
  organization: 'hope',
  redirect_uris: ['http://localhost:9/callback'],
  scope: 'openid profile email',
  first_party: true,
}
const email = 'gail@mercy.example'
const gail = { email, name: 'Gail', organization: 'mercy', password, emailVerified: true }
const seed = {
  ...people,
  accounts: [...(people.accounts ?? []), gail],
  clients: [...(people.clients ?? []), hopeful],
}

describe.each(databaseKinds)('the end of the session of a guest on %s', (kind) => {
  let server: TestServer
  let ids: { mercy: string; hope: string; gail: string }
  const run = (statement: string, values: unknown[] = []) => server.database.run(statement, values)
  const inTransaction = <T>(work: Parameters<typeof transact<T>>[1]) => transact(server.database.kysely, work)
  beforeAll(async () => {
    server = await startServer(kind, { seed })
    const idOf = async (slug: string) =>
      String((await run('select id from mlpipes_auth.organizations where slug = $1', [slug]))[0]?.['id'])
    const [account] = await run('select id from mlpipes_auth.accounts where email = $1', [email])
    ids = { mercy: await idOf('mercy'), hope: await idOf('hope'), gail: String(account?.['id']) }
  })
  afterAll(() => server.close())
  beforeEach(async () => {
    await run('update mlpipes_auth.organizations set closed_at = null')
    await run(
      `insert into mlpipes_auth.memberships (account_id, organization_id, home, roles) values ($1, $2, false, '{visitor}')
        on conflict do nothing`,
      [ids.gail, ids.hope],
    )
  })

  const newest = async () =>
    String(
      (
        await run(
          'select uid from mlpipes_auth.sessions where account_id = $1 and ended_at is null order by created_at desc limit 1',
          [ids.gail],
        )
      )[0]?.['uid'],
    )
  const clientOf = { mercy: 'first', hope: 'hopeful' } as const
  type Slug = keyof typeof clientOf
  async function begin(organization: Slug) {
    const browser = new Browser(server)
    const page = await signIn(browser, authorizationUrl(server, clientOf[organization], { organization }), email)
    expect(page.url).toContain('code=')
    return { browser, uid: await newest() }
  }
  /** Begun for Mercy, and used for Hope without another sign-in. */
  async function beginAndUse() {
    const opened = await begin('mercy')
    await obtainTokens(server, 'hopeful', { organization: 'hope' }, opened.browser)
    return opened
  }
  /** Begun for Mercy, and signed in anew for Hope: from then on it is Hope's. */
  async function beginAndMove() {
    const opened = await begin('mercy')
    // The provider tells sign-ins apart by their second.
    await run(
      `update mlpipes_auth.sessions set payload = jsonb_set(payload, '{loginTs}', to_jsonb((payload ->> 'loginTs')::integer - 1))
        where uid = $1`,
      [opened.uid],
    )
    await signIn(opened.browser, authorizationUrl(server, 'hopeful', { organization: 'hope', prompt: 'login' }), email)
    const [row] = await run('select organization_id from mlpipes_auth.sessions where uid = $1', [opened.uid])
    expect(row).toEqual({ organization_id: ids.hope })
    return opened
  }
  /** What the two logs say of the session by its id, newest last. */
  async function logs(uid: string) {
    const rows = await run(
      `select name, organization_id, details from mlpipes_auth.audit_events
        where session_uid = $1 and name in ('session.created', 'session.extended', 'session.expired', 'session.ended', 'access.ended', 'logout.succeeded')
        order by id`,
      [uid],
    )
    for (const row of rows) auditEvents[row['name'] as AuditEventName].parse(row['details'])
    const of = (id: string) => rows.filter((row) => row['organization_id'] === id).map((row) => row['name'])
    expect(of(ids.mercy).length + of(ids.hope).length).toBe(rows.length)
    return { mercy: of(ids.mercy), hope: of(ids.hope) }
  }
  /** What the endings since then in this organisation's log add up to. */
  async function counted(organizationId: string, since: string) {
    const [row] = await run(
      `select sum((details ->> 'sessions')::integer)::integer as sessions from mlpipes_auth.audit_events
        where name = 'access.ended' and organization_id = $1 and id > $2::bigint`,
      [organizationId, since],
    )
    return row?.['sessions']
  }
  const last = async () => String((await run('select max(id)::text as id from mlpipes_auth.audit_events'))[0]?.['id'])
  const by = { actor: { type: 'system' as const }, origin: {} }
  const cause = 'ended_by_administrator' as const

  interface Case {
    readonly begin: () => Promise<{ readonly uid: string }>
    readonly end: (uid: string) => Promise<unknown>
    readonly by: Slug
    readonly logs: { readonly mercy: readonly string[]; readonly hope: readonly string[] }
  }
  const here = ['session.created', 'session.ended']
  const cases: Record<string, Case> = {
    'that its home ends with all access of the person': {
      begin: () => begin('hope'),
      end: () =>
        inTransaction((tx) =>
          endAccess(tx, { ...by, accountId: ids.gail, organizationId: ids.mercy, cause: 'disabled' }),
        ),
      by: 'mercy',
      logs: { mercy: ['access.ended'], hope: here },
    },
    'that its home ends alone': {
      begin: () => begin('hope'),
      end: (uid) =>
        inTransaction((tx) => endSession(tx, { ...by, uid, accountId: ids.gail, organizationId: ids.mercy, cause })),
      by: 'mercy',
      logs: { mercy: ['access.ended'], hope: here },
    },
    'that ends with its home': {
      begin: () => begin('hope'),
      end: async () => {
        await run('update mlpipes_auth.organizations set closed_at = now() where id = $1', [ids.mercy])
        await inTransaction((tx) => endOrganizationAccess(tx, { ...by, organizationId: ids.mercy }))
        await finishClosing(server.database, ids.mercy)
      },
      by: 'mercy',
      logs: { mercy: ['access.ended'], hope: here },
    },
    'that was begun there ends with the place': {
      begin: () => begin('hope'),
      end: async () => {
        await run('delete from mlpipes_auth.memberships where account_id = $1 and not home', [ids.gail])
        await inTransaction((tx) => endMembershipAccess(tx, { ...by, accountId: ids.gail, organizationId: ids.hope }))
      },
      by: 'hope',
      logs: { mercy: [], hope: here },
    },
    'that was used there ends with all of the organisation': {
      begin: beginAndUse,
      end: () =>
        endOrganizationSessions(server.database, { ...by, organizationId: ids.hope, exceptSessionUid: undefined }),
      by: 'hope',
      logs: { mercy: here, hope: ['access.ended'] },
    },
    'that was used there makes room for another': {
      begin: beginAndUse,
      end: async () => {
        const entering = { accountId: ids.gail, organizationId: ids.hope, maxConcurrent: 1, origin: {} }
        const { uid } = await begin('hope')
        await inTransaction((tx) => enterWithin(tx, { ...entering, uid }, () => Promise.resolve()))
      },
      by: 'hope',
      logs: { mercy: here, hope: ['access.ended'] },
    },
    'that was used there is over by the policy there': {
      begin: beginAndUse,
      end: async (uid) => {
        await run(`update mlpipes_auth.sessions set last_activity_at = now() - interval '2 minutes' where uid = $1`, [
          uid,
        ])
        const policy = (session: object) =>
          server.apply({ organizations: [{ slug: 'hope', name: 'Hope Clinic', policy: { session } }] })
        await policy({ idleTimeout: 60 })
        await expect
          .poll(async () => {
            await finishTightenings(server.database)
            return (await run('select uid from mlpipes_auth.sessions where uid = $1 and ended_at is null', [uid]))
              .length
          })
          .toBe(0)
        await policy({})
      },
      by: 'hope',
      logs: { mercy: ['session.created', 'session.expired'], hope: ['access.ended'] },
    },
    'that was moved there is over': {
      begin: beginAndMove,
      end: async (uid) => {
        await run('update mlpipes_auth.sessions set idle_expires_at = now() where uid = $1', [uid])
        await endExpiredSessions(server.database)
        // Housekeeping may have been faster.
        await expect.poll(async () => (await logs(uid)).hope).toHaveLength(1)
      },
      by: 'hope',
      logs: { mercy: ['session.created', 'session.expired'], hope: ['access.ended'] },
    },
    'that was moved there ends with all access': {
      begin: beginAndMove,
      end: () =>
        inTransaction((tx) =>
          endAccess(tx, { ...by, accountId: ids.gail, organizationId: ids.mercy, cause: 'disabled' }),
        ),
      by: 'mercy',
      logs: { mercy: here, hope: ['access.ended'] },
    },
  }
  it.each(Object.entries(cases))('%s', async (_name, one) => {
    await inTransaction((tx) =>
      endAccess(tx, { ...by, accountId: ids.gail, organizationId: ids.mercy, cause: 'disabled' }),
    )
    const { uid } = await one.begin()
    const since = await last()
    await one.end(uid)
    expect(await logs(uid)).toEqual(one.logs)
    expect(await counted(ids[one.by], since), 'in the log of whoever ended it').toBe(1)
  })

  it('that was moved and signs out stands in one log from beginning to end', async () => {
    const { browser, uid } = await beginAndMove()
    await run(`update mlpipes_auth.sessions set last_activity_at = now() - interval '10 minutes' where uid = $1`, [uid])
    await obtainTokens(server, 'hopeful', { organization: 'hope' }, browser)
    const page = await browser.follow(await browser.request('/oauth/logout'))
    await browser.submit(page, '/oauth/logout/confirm', { logout: 'yes' })
    expect(await logs(uid)).toEqual({
      mercy: ['session.created', 'session.extended', 'session.ended'],
      hope: ['logout.succeeded'],
    })
  })
})

// Sessions that nobody comes back to, on several replicas at once: each ends once, is audited once and its apps hear once; and
// an organisation that closes with many sessions open leaves none to come back.
import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest'
import type { Database } from '../../src/db/database.ts'
import { transact } from '../../src/db/transaction.ts'
import { endOrganizationAccess, finishClosing } from '../../src/sessions/closing.ts'
import { batchSize, endExpiredSessions } from '../../src/sessions/expiry.ts'
import { barePostgres } from '../support/bare-database.ts'

describe('a backlog of sessions that are over', () => {
  let here: Database
  let there: Database
  beforeAll(async () => {
    const [first, second] = await barePostgres(2)
    if (!first || !second) throw new Error('no databases')
    here = first
    there = second
    await here.run(`insert into mlpipes_auth.organizations (id, slug, name) values ('org_test', 'test', 'Test')`, [])
    await here.run(
      `insert into mlpipes_auth.clients (client_id, organization_id, name, metadata)
        values ('app', 'org_test', 'App', '{"backchannel_logout_uri": "https://app.example/logout"}')`,
      [],
    )
    await here.run(
      `insert into mlpipes_auth.accounts (id, email, email_normalized, name, organization_id)
        select 'acc_' || n, n || '@test.example', n || '@test.example', 'Somebody', 'org_test' from generate_series(1, 100) n`,
      [],
    )
  })
  afterAll(async () => {
    await here.close()
    await there.close()
  })
  beforeEach(async () => {
    await here.run('delete from mlpipes_auth.deliveries', [])
    await here.run('delete from mlpipes_auth.sessions', [])
  })

  /** Sessions of 100 people: over for so many seconds, or going on if that is less than none. */
  const addSessions = (count: number, prefix: string, overForSeconds: number) =>
    here.run(
      `insert into mlpipes_auth.sessions (uid, id_hash, payload, account_id, organization_id, signed_in_at, idle_expires_at, absolute_expires_at)
        select $2::text || n, $2::text || n, '{"authorizations": {"app": {"sid": "s", "grantId": "g"}}}', 'acc_' || (n % 100 + 1), 'org_test', now(),
          now() - make_interval(secs => $3::integer), now() + interval '1 hour'
        from generate_series(1, $1::integer) n`,
      [count, prefix, overForSeconds],
    )
  const count = async (what: string) =>
    Number((await here.run(`select count(*) as n from mlpipes_auth.${what}`, []))[0]?.['n'])

  it('of 5,000 ends by whichever replica is first, each once', async () => {
    await addSessions(5_000, 'old-', 60)
    await addSessions(100, 'new-', -600)
    let ended = 0
    // A replica that finds another at it leaves it alone, as it would until its next round.
    while ((await count('sessions where ended_at is null')) > 100) {
      const both = await Promise.all([here, there, here, there].map((database) => endExpiredSessions(database)))
      ended += both.reduce((sum, one) => sum + one, 0)
    }
    expect(ended).toBe(5_000)
    expect(await count(`sessions where end_reason = 'idle'`)).toBe(5_000)
    expect(await count(`audit_events where name = 'session.expired' and session_uid like 'old-%'`)).toBe(5_000)
    const [distinct] = await here.run(
      `select count(distinct session_uid) as n from mlpipes_auth.audit_events where name = 'session.expired'`,
      [],
    )
    expect(Number(distinct?.['n'])).toBe(5_000)
    const [told] = await here.run(
      `select count(*) as n, count(distinct s ->> 'uid') as uids
        from mlpipes_auth.deliveries, jsonb_array_elements(body -> 'sessions') as s`,
      [],
    )
    expect([Number(told?.['n']), Number(told?.['uids'])]).toEqual([5_000, 5_000])
  })

  it('is left when the server stops', async () => {
    await addSessions(2_000, 'stop-', 60)
    let batches = 0
    await endExpiredSessions(here, () => ++batches <= 2)
    expect(await count('sessions where ended_at is null')).toBe(2_000 - 2 * batchSize)
  })

  it('a session that is used at that very moment is not ended', async () => {
    await addSessions(1, 'used-', 1)
    await transact(here.kysely, async (tx) => {
      await tx
        .updateTable('sessions')
        .set({ idle_expires_at: new Date(Date.now() + 60_000) })
        .execute()
      expect(await endExpiredSessions(there)).toBe(0)
    })
    expect(await endExpiredSessions(there)).toBe(0)
    expect(await count('sessions where ended_at is null')).toBe(1)
  })

  it('an organisation that closes ends its own in steps, and others not at all', async () => {
    await addSessions(1_200, 'closing-', -600)
    await here.run(`insert into mlpipes_auth.organizations (id, slug, name) values ('org_other', 'other', 'Other')`, [])
    await here.run(
      `update mlpipes_auth.sessions set organization_id = 'org_other', account_id = null where uid = 'closing-7'`,
      [],
    )
    const closing = { organizationId: 'org_test', actor: { type: 'system' as const }, origin: {} }
    const first = await transact(here.kysely, (tx) => endOrganizationAccess(tx, closing))
    expect(first).toMatchObject({ sessions: 500, isDone: false })
    await Promise.all([finishClosing(here, 'org_test'), finishClosing(there, 'org_test')])
    expect(await count(`sessions where ended_at is null`)).toBe(1)
    expect(await count(`audit_events where name = 'session.ended' and session_uid like 'closing-%'`)).toBe(1_199)
    expect(await count('deliveries')).toBe(1_199)
  })
})

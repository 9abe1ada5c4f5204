// The adapters that the provider is given for sessions and clients, against a model, on both databases.
import fc from 'fast-check'
import { sql } from 'kysely'
import type { Adapter } from 'oidc-provider'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { createAccounts } from '../../src/accounts/accounts.ts'
import { createClients } from '../../src/clients/clients.ts'
import { parseConfig } from '../../src/config.ts'
import { createAdapterFactory } from '../../src/oidc/adapter.ts'
import { createIntrospected } from '../../src/oidc/introspected.ts'
import { createPayloadStore } from '../../src/oidc/store.ts'
import { createPolicies } from '../../src/organizations/organizations.ts'
import { createSessions } from '../../src/sessions/sessions.ts'
import { databaseKinds, startServer, type TestServer } from '../support/server.ts'

interface ModelSession {
  id: string
  value: number
  live: boolean
}

const uids = ['u1', 'u2'] as const
const ids = ['a', 'b', 'c'] as const
const command = fc.oneof(
  fc.record({
    do: fc.constant('upsert' as const),
    uid: fc.constantFrom(...uids),
    id: fc.constantFrom(...ids),
    value: fc.nat(99),
  }),
  fc.record({ do: fc.constant('find' as const), id: fc.constantFrom(...ids) }),
  fc.record({ do: fc.constant('findByUid' as const), uid: fc.constantFrom(...uids) }),
  fc.record({ do: fc.constant('destroy' as const), id: fc.constantFrom(...ids) }),
  fc.record({ do: fc.constant('expire' as const), uid: fc.constantFrom(...uids), absolute: fc.boolean() }),
)

describe.each(databaseKinds)('adapters on %s', (kind) => {
  let server: TestServer
  let sessions: Adapter
  let clients: Adapter
  let accountId: string
  beforeAll(async () => {
    server = await startServer(kind)
    const { database } = server
    const factory = createAdapterFactory({
      db: database.kysely,
      payloads: createPayloadStore(database),
      sessions: createSessions(database),
      clients: createClients(database),
      introspected: createIntrospected(database, createPolicies(parseConfig({ NODE_ENV: 'test' }))).find,
      accounts: createAccounts(database, createPolicies(parseConfig({ NODE_ENV: 'test' }))),
    })
    sessions = factory('Session')
    clients = factory('Client')
    const row = await database.kysely
      .selectFrom('accounts')
      .select('id')
      .where('email', '=', 'lee@mercy.example')
      .executeTakeFirstOrThrow()
    accountId = row.id
  })
  afterAll(() => server.close())

  it('Session: does what the model does', async () => {
    let run = 0
    await fc.assert(
      fc.asyncProperty(fc.array(command, { maxLength: 20 }), async (commands) => {
        run += 1
        const named = (name: string) => `${run}-${name}`
        const model = new Map<string, ModelSession>()
        const byId = (id: string) => [...model].find(([, session]) => session.id === id)
        for (const step of commands) {
          if (step.do === 'upsert') {
            // An id belongs to one session: the provider draws it at random.
            const owner = byId(step.id)
            if (owner && owner[0] !== step.uid) continue
            const payload = {
              kind: 'Session',
              uid: named(step.uid),
              accountId,
              loginTs: 1_000,
              value: step.value,
              jti: named(step.id),
            }
            await sessions.upsert(named(step.id), payload, 60)
            const known = model.get(step.uid)
            // A session that ended stays ended, whatever is written after it.
            if (known && !known.live) continue
            model.set(step.uid, { id: step.id, value: step.value, live: true })
          } else if (step.do === 'destroy') {
            await sessions.destroy(named(step.id))
            const found = byId(step.id)
            if (found) found[1].live = false
          } else if (step.do === 'expire') {
            const column = step.absolute ? 'absolute_expires_at' : 'idle_expires_at'
            const expired = await server.database.kysely
              .updateTable('sessions')
              .set({ [column]: sql`now()`, ended_at: sql<Date>`coalesce(ended_at, now())` })
              .where('uid', '=', named(step.uid))
              .executeTakeFirst()
            expect(expired.numUpdatedRows === 1n).toBe(model.has(step.uid))
            const found = model.get(step.uid)
            if (found) found.live = false
          } else if (step.do === 'find') {
            const found = await sessions.find(named(step.id))
            const expected = byId(step.id)
            expect(found ? { value: found['value'], jti: found.jti, uid: found.uid } : undefined).toEqual(
              expected?.[1].live
                ? { value: expected[1].value, jti: named(step.id), uid: named(expected[0]) }
                : undefined,
            )
          } else {
            const found = await sessions.findByUid(named(step.uid))
            const expected = model.get(step.uid)
            expect(found?.['value']).toBe(expected?.live ? expected.value : undefined)
            expect(found?.jti, 'the id is nowhere in the database').toBeUndefined()
          }
        }
      }),
      { numRuns: 60 },
    )
  })

  it('Session: past either limit it is nothing, to the second, before anybody sweeps', async () => {
    for (const column of ['idle_expires_at', 'absolute_expires_at'] as const) {
      const payload = { kind: 'Session', uid: `limit-${column}`, accountId, loginTs: 1_000, jti: `id-${column}` }
      await sessions.upsert(`id-${column}`, payload, 60)
      expect(await sessions.find(`id-${column}`)).toBeDefined()
      await server.database.kysely
        .updateTable('sessions')
        .set({ [column]: sql`now()` })
        .where('uid', '=', payload.uid)
        .execute()
      expect(await sessions.find(`id-${column}`)).toBeUndefined()
      expect(await sessions.findByUid(payload.uid)).toBeUndefined()
    }
  })

  it('Session: 20 that end it at once leave one row in the audit log', async () => {
    await sessions.upsert('once', { kind: 'Session', uid: 'once', accountId, loginTs: 1_000, jti: 'once' }, 60)
    const before = (await server.audit('logout.succeeded')).length
    await Promise.all(Array.from({ length: 20 }, () => sessions.destroy('once')))
    expect(await server.audit('logout.succeeded')).toHaveLength(before + 1)
  })

  it('Session: one of an account that may not act is kept without it', async () => {
    await sessions.upsert('nobody', { kind: 'Session', uid: 'nobody', accountId: 'acc_none', jti: 'nobody' }, 60)
    const row = await server.database.kysely
      .selectFrom('sessions')
      .select(['account_id', 'organization_id'])
      .where('uid', '=', 'nobody')
      .executeTakeFirst()
    expect(row).toEqual({ account_id: null, organization_id: null })
  })

  it('Client: is found by its id, and by nothing else', async () => {
    expect(await clients.find('ehr')).toMatchObject({ client_id: 'ehr', client_name: 'Test EHR' })
    for (const id of ['EHR', 'ehr ', 'nobody', '', '\0', 'e\0hr', 'x'.repeat(10_000), "' or 1=1 --"])
      expect(await clients.find(id), JSON.stringify(id.slice(0, 20))).toBeUndefined()
  })

  it('Client: carries no secret, and stops being found when it is disabled', async () => {
    const found = JSON.stringify(await clients.find('ehr'))
    expect(found).not.toContain('ehr-secret-0123456789')
    const set = (disabled_at: Date | null) =>
      server.database.kysely.updateTable('clients').set({ disabled_at }).where('client_id', '=', 'ehr').execute()
    await set(new Date())
    expect(await clients.find('ehr')).toBeUndefined()
    await set(null)
    expect(await clients.find('ehr')).toBeDefined()
  })

  it('what the provider never asks for is refused, not pretended', async () => {
    await expect(clients.upsert('x', {}, 1)).rejects.toThrow(TypeError)
    await expect(clients.destroy('x')).rejects.toThrow(TypeError)
    await expect(sessions.consume('x')).rejects.toThrow(TypeError)
    expect(await sessions.findByUserCode('x')).toBeUndefined()
    expect(await clients.findByUid('x')).toBeUndefined()
  })
})

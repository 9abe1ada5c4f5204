// The payload store against a model, on both databases: any sequence of commands gives what a map in memory gives.
import fc from 'fast-check'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { createPayloadStore, type PayloadStore } from '../../src/oidc/store.ts'
import { databaseKinds, startServer, type TestServer } from '../support/server.ts'

interface ModelRow {
  value: number
  grantId: string | undefined
  consumed: boolean
  live: boolean
}

const models = ['AccessToken', 'AuthorizationCode'] as const
const ids = ['a', 'b', 'c'] as const
const key = fc.record({ model: fc.constantFrom(...models), id: fc.constantFrom(...ids) })
const command = fc.oneof(
  fc.record({
    do: fc.constant('save' as const),
    key,
    value: fc.nat(99),
    grantId: fc.option(fc.constantFrom('g1', 'g2'), { nil: undefined }),
    ttl: fc.constantFrom(undefined, 60, -1),
  }),
  fc.record({ do: fc.constant('find' as const), key }),
  fc.record({ do: fc.constant('consume' as const), key }),
  fc.record({ do: fc.constant('destroy' as const), key }),
  fc.record({
    do: fc.constant('revoke' as const),
    model: fc.constantFrom(...models),
    grantId: fc.constantFrom('g1', 'g2'),
  }),
)

describe.each(databaseKinds)('payload store on %s', (kind) => {
  let server: TestServer
  let store: PayloadStore
  beforeAll(async () => {
    server = await startServer(kind)
    store = createPayloadStore(server.database)
  })
  afterAll(() => server.close())

  it('does what the model does', async () => {
    const inTx = server.database.kysely
    let run = 0
    await fc.assert(
      fc.asyncProperty(fc.array(command, { maxLength: 25 }), async (commands) => {
        run += 1
        const hash = (id: string) => `${run}-${id}`
        const grant = (id: string | undefined) => id && `${run}-${id}`
        const model = new Map<string, ModelRow>()
        for (const step of commands) {
          if (step.do === 'revoke') {
            await inTx.transaction().execute((tx) => store.revokeByGrantId(tx, step.model, `${run}-${step.grantId}`))
            for (const [name, row] of model)
              if (name.startsWith(step.model) && row.grantId === `${run}-${step.grantId}`) model.delete(name)
            continue
          }
          const { model: kindOf, id } = step.key
          const name = `${kindOf} ${id}`
          const row = model.get(name)
          if (step.do === 'save') {
            await store.save(
              undefined,
              {
                model: kindOf,
                idHash: hash(id),
                payload: { value: step.value, odd: 'é"\\' },
                grantId: grant(step.grantId),
                accountId: undefined,
                clientId: undefined,
                organizationId: undefined,
                expiresInSeconds: step.ttl,
              },
              [],
            )
            model.set(name, {
              value: step.value,
              grantId: grant(step.grantId),
              consumed: row?.consumed ?? false,
              live: step.ttl !== -1,
            })
          } else if (step.do === 'find') {
            const found = await store.find(kindOf, hash(id))
            const seen = found && { value: found.payload['value'], consumed: found.consumed }
            expect(seen).toEqual(row?.live ? { value: row.value, consumed: row.consumed } : undefined)
          } else if (step.do === 'consume') {
            const won = await inTx.transaction().execute((tx) => store.consume(tx, kindOf, hash(id)))
            expect(won).toBe(row !== undefined && !row.consumed)
            if (row) row.consumed = true
          } else {
            const gone = await inTx.transaction().execute((tx) => store.destroy(tx, kindOf, hash(id)))
            expect(gone).toBe(model.delete(name))
          }
        }
      }),
      { numRuns: 60 },
    )
  })

  it('keeps models apart: an id of one is nothing in another', async () => {
    await store.save(
      undefined,
      {
        model: 'Session',
        idHash: 'same',
        payload: {},
        grantId: undefined,
        accountId: undefined,
        clientId: undefined,
        organizationId: undefined,
        expiresInSeconds: 60,
      },
      [],
    )
    expect(await store.find('AuthorizationCode', 'same')).toBeUndefined()
  })

  it('inserts a replayed id once', async () => {
    const won = await Promise.all(Array.from({ length: 20 }, () => store.insertOnce('ReplayDetection', 'jti', {}, 60)))
    expect(won.filter(Boolean)).toHaveLength(1)
  })
})

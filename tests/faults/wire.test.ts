// What a transaction sends: its begin goes out with the first statement, and nothing at all when nothing is asked.
import { afterAll, beforeAll, expect, it } from 'vitest'
import { transact } from '../../src/db/transaction.ts'
import { startServer, type TestServer } from '../support/server.ts'

let server: TestServer
beforeAll(async () => {
  // One connection: what one test leaves behind on it would show in the next.
  server = await startServer('postgres', { poolSize: 1 })
})
afterAll(() => server.close())

const nameOf = (slug: string) =>
  server.database.kysely
    .selectFrom('organizations')
    .select('name')
    .where('slug', '=', slug)
    .executeTakeFirst()
    .then((row) => row?.name)
const rename = (db: Parameters<Parameters<typeof transact>[1]>[0], name: string) =>
  db.updateTable('organizations').set({ name }).where('slug', '=', 'mercy').execute()

it('commits from its first statement on', async () => {
  await transact(server.database.kysely, (tx) => rename(tx, 'Mercy General'))
  expect(await nameOf('mercy')).toBe('Mercy General')
})

it('rolls its first statement back with the rest', async () => {
  const failing = transact(server.database.kysely, async (tx) => {
    await rename(tx, 'Nobody')
    throw new Error('changed my mind')
  })
  await expect(failing).rejects.toThrow('changed my mind')
  expect(await nameOf('mercy')).toBe('Mercy General')
})

it('leaves the connection fit for others when its first statement fails', async () => {
  const failing = transact(server.database.kysely, (tx) =>
    tx.insertInto('organizations').values({ id: 'org_x', slug: 'mercy', name: 'Again', policy: '{}' }).execute(),
  )
  await expect(failing).rejects.toThrow('duplicate key')
  expect(await nameOf('mercy')).toBe('Mercy General')
  await transact(server.database.kysely, (tx) => rename(tx, 'Mercy Hospital'))
  expect(await nameOf('mercy')).toBe('Mercy Hospital')
})

it('may be empty', async () => {
  expect(await transact(server.database.kysely, async () => 'nothing')).toBe('nothing')
  await expect(transact(server.database.kysely, () => Promise.reject(new Error('no')))).rejects.toThrow('no')
  expect(await nameOf('mercy')).toBe('Mercy Hospital')
})

// Registration under 20 parallel requests on a warm pool of a real PostgreSQL: a token is good for as many apps as it says.
import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest'
import { type AdminServer, seed, startAdmin } from '../admin/support.ts'
import { asUpdate, issueToken, knowsSecret, register, send } from './support.ts'

const parallel = 20
let server: AdminServer
beforeAll(async () => {
  server = await startAdmin('postgres', seed, { poolSize: 25 })
  await Promise.all(Array.from({ length: 25 }, () => server.database.run('select pg_sleep(0.05)', [])))
})
afterAll(() => server.close())
beforeEach(() => server.database.run('delete from mlpipes_auth.sign_in_attempts', []))

const together = <T>(work: (index: number) => Promise<T>) =>
  Promise.all(Array.from({ length: parallel }, (_, index) => work(index)))
const count = async (table: 'clients' | 'client_registrations') =>
  Number((await server.database.run(`select count(*)::integer as count from mlpipes_auth.${table}`, []))[0]?.['count'])

describe('a registration token', () => {
  it.each([1, 3])('registers %i of 20 apps that come at once', async (maxUses) => {
    for (let round = 0; round < 3; round += 1) {
      const before = await count('clients')
      const { id, token } = await issueToken(server, {}, { maxUses })
      const answers = await together(() => register(server, token))
      expect(answers.filter(({ status }) => status === 201)).toHaveLength(maxUses)
      expect(answers.filter(({ status }) => status === 401)).toHaveLength(parallel - maxUses)
      expect(await count('clients')).toBe(before + maxUses)
      const [row] = await server.database.run('select uses from mlpipes_auth.registration_tokens where id = $1', [id])
      expect(row).toEqual({ uses: maxUses })
    }
  })

  it('registers nothing after it was taken back, whatever was under way', async () => {
    const { id, token } = await issueToken(server, {}, { maxUses: parallel })
    const admin = await server.tokenOf('admin@mercy.example')
    const before = await count('clients')
    const [answers] = await Promise.all([
      together(() => register(server, token)),
      server.call(admin, `/api/admin/registration-tokens/${id}`, { method: 'DELETE' }),
    ])
    expect(await count('clients')).toBe(before + answers.filter(({ status }) => status === 201).length)
    expect((await register(server, token)).status).toBe(401)
  })
})

describe('the token of a registration', () => {
  it('is exchanged once by 20 changes, and the one who won goes on', async () => {
    const registered = await register(server, (await issueToken(server)).token)
    const uri = String(registered.body['registration_client_uri'])
    const token = String(registered.body['registration_access_token'])
    const answers = await together((index) =>
      send(server, 'PUT', uri, token, asUpdate(registered, { client_name: `App ${index}` })),
    )
    const winners = answers.filter(({ status }) => status === 200)
    expect(winners).toHaveLength(1)
    expect(answers.filter(({ status }) => status === 401)).toHaveLength(parallel - 1)
    const read = await send(server, 'GET', uri, String(winners[0]?.body['registration_access_token']))
    expect(read.body['client_name']).toBe(winners[0]?.body['client_name'])
  })

  it('makes one new secret for 20 who ask at once, and one after another when an administrator asks too', async () => {
    const admin = await server.tokenOf('admin@mercy.example')
    for (const share of [0, 10]) {
      await server.database.run('delete from mlpipes_auth.sign_in_attempts', [])
      const registered = await register(server, (await issueToken(server)).token)
      const { registration_client_uri: uri, registration_access_token: token, client_id: id } = registered.body
      const replaced = { method: 'POST', body: { overlapSeconds: 3_600 } }
      const answers = await together((index) =>
        index < share
          ? server.call(admin, `/api/admin/clients/${id}/replace-secret`, replaced)
          : send(server, 'POST', `${uri}/secret`, String(token)),
      )
      const done = answers.filter(({ status }) => status === 200)
      expect(done).toHaveLength(share + 1)
      expect(answers.filter(({ status }) => status === 401)).toHaveLength(parallel - share - 1)
      const secrets = [registered, ...done].map(({ body }) => body['client_secret'])
      const known = await Promise.all(secrets.map((secret) => knowsSecret(server, id, secret)))
      expect(known.filter(Boolean), 'the one of now and the one before it').toHaveLength(2)
      const events = (await server.audit('client.secret_replaced')).filter((row) => row.clientId === id)
      expect(events).toHaveLength(done.length)
    }
  })

  it('ends with the client when changes, removals and an administrator meet', async () => {
    const admin = await server.tokenOf('admin@mercy.example')
    for (let round = 0; round < 3; round += 1) {
      await server.database.run('delete from mlpipes_auth.sign_in_attempts', [])
      const registered = await register(server, (await issueToken(server)).token)
      const { registration_client_uri: uri, registration_access_token: token, client_id: id } = registered.body
      const answers = await Promise.all([
        ...Array.from({ length: 5 }, () => send(server, 'PUT', String(uri), String(token), asUpdate(registered, {}))),
        ...Array.from({ length: 5 }, () => send(server, 'DELETE', String(uri), String(token))),
        server.call(admin, `/api/admin/clients/${id}`, { method: 'DELETE', headers: { 'if-match': '"1"' } }),
      ])
      for (const { status } of answers) expect([200, 204, 401, 404, 412]).toContain(status)
      expect(answers.slice(0, 10).filter(({ status }) => status < 300).length).toBeLessThanOrEqual(1)
    }
    expect(await count('client_registrations')).toBeLessThanOrEqual(await count('clients'))
  })
})

// Attacks in time: somebody uses what they hold at the very moment in which the owner ends it. On PostgreSQL, because PGlite
// has one connection and runs one statement after another.
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { createAccounts } from '../../src/accounts/accounts.ts'
import { createClients } from '../../src/clients/clients.ts'
import { parseConfig } from '../../src/config.ts'
import { createPasswords, type Passwords } from '../../src/credentials/password.ts'
import { transact } from '../../src/db/transaction.ts'
import { createAdapterFactory } from '../../src/oidc/adapter.ts'
import { createIntrospected } from '../../src/oidc/introspected.ts'
import { createPayloadStore } from '../../src/oidc/store.ts'
import { createPolicies } from '../../src/organizations/organizations.ts'
import { type EndingCause, endAccess } from '../../src/sessions/ending.ts'
import { createSessions } from '../../src/sessions/sessions.ts'
import { authorizationUrl, Browser, introspect, obtainTokens, post } from '../support/client.ts'
import { cheapHash, password, startServer, type TestServer } from '../support/server.ts'

const rounds = 3
const parallel = 20

describe('access ended while it is being used', () => {
  let server: TestServer
  let passwords: Passwords
  beforeAll(async () => {
    server = await startServer('postgres', { poolSize: 40 })
    passwords = await createPasswords(cheapHash)
  })
  afterAll(() => server.close())

  async function person() {
    const email = `p${crypto.randomUUID()}@mercy.example`
    await server.apply({ accounts: [{ email, name: 'Pat', organization: 'mercy', password, emailVerified: true }] })
    const { id } = await server.database.kysely
      .selectFrom('accounts')
      .select('id')
      .where('email_normalized', '=', email)
      .executeTakeFirstOrThrow()
    return { email, id }
  }
  async function signedIn(email: string) {
    const browser = new Browser(server)
    const page = await browser.follow(await browser.request(authorizationUrl(server, 'first').url))
    await browser.submit(page, '/password', { email, password })
    return browser
  }
  const end = (accountId: string, cause: EndingCause, exceptSessionUid?: string) =>
    transact(server.database.kysely, (tx) =>
      endAccess(tx, {
        accountId,
        organizationId: undefined,
        cause,
        exceptSessionUid,
        actor: { type: 'account', id: accountId },
        origin: {},
      }),
    )
  const live = async (accountId: string) =>
    server.database.run(
      `select model, id_hash from mlpipes_auth.oidc_payloads where account_id = $1 and consumed_at is null
        and model in ('AccessToken', 'RefreshToken', 'AuthorizationCode')`,
      [accountId],
    )

  it.each([
    ['everything', undefined],
    ['all but the session of the owner', 'the session in which the owner does it'],
  ])('20 refreshes at once beside an end of %s leave nothing that lives', async (_name, spared) => {
    for (let round = 0; round < rounds; round += 1) {
      const { email, id } = await person()
      const held: Awaited<ReturnType<typeof obtainTokens>>[] = []
      while (held.length < parallel)
        held.push(await obtainTokens(server, 'first', { scope: 'openid offline_access' }, await signedIn(email)))
      const uses = held.map(({ refresh_token = '' }) =>
        post(server, '/oauth/token', 'first', { grant_type: 'refresh_token', refresh_token }),
      )
      const [answers] = await Promise.all([Promise.all(uses), end(id, 'disowned', spared)])
      expect(await live(id), `round ${round}`).toEqual([])
      for (const { body } of answers) {
        const { access_token: token } = body
        if (typeof token === 'string') expect((await introspect(server, token))['active']).toBe(false)
      }
    }
  })

  it('20 sign-ins with the password at once beside a change of it leave no session and no way to one', async () => {
    for (let round = 0; round < rounds; round += 1) {
      const { email, id } = await person()
      const tries = await Promise.all(
        Array.from({ length: parallel }, async () => {
          const browser = new Browser(server)
          const { url } = authorizationUrl(server, 'first')
          const page = await browser.follow(await browser.request(url))
          const csrf = /name="csrf" value="([^"]+)"/.exec(page.text)?.[1] ?? ''
          return { browser, path: new URL(page.url).pathname, csrf }
        }),
      )
      const finished = Promise.all(
        tries.map(({ browser, path, csrf }) =>
          browser.request(`${path}/password`, { form: { csrf, email, password } }),
        ),
      )
      const other = await passwords.hash('Marble-Canoe-71-Thistle')
      const changed = transact(server.database.kysely, async (tx) => {
        await tx
          .updateTable('password_credentials')
          .set((eb) => ({ hash: other, changed_at: eb.fn<Date>('clock_timestamp') }))
          .where('account_id', '=', id)
          .execute()
        await endAccess(tx, {
          accountId: id,
          organizationId: undefined,
          cause: 'password_reset',
          actor: { type: 'account', id },
          origin: {},
        })
      })
      const [answers] = await Promise.all([finished, changed])
      expect(answers.filter(({ status }) => status >= 500)).toEqual([])
      const landings = await Promise.all(
        tries.map(({ browser }, index) => browser.follow(answers[index] ?? expect.fail())),
      )
      expect(
        landings.filter(({ url }) => url.includes('code=')),
        `round ${round}`,
      ).toEqual([])
      const flows = await server.database.run('select 1 from mlpipes_auth.sign_in_flows where account_id = $1', [id])
      expect(flows).toEqual([])
    }
  })

  it('a sign-in is taken by one of 20 resumes, and by none once access was ended', async () => {
    const { database } = server
    const sessions = createSessions(database)
    const clients = createClients(database)
    const policies = createPolicies(parseConfig({ NODE_ENV: 'test' }))
    const accounts = createAccounts(database, policies)
    const payloads = createPayloadStore(database)
    const { find: introspected } = createIntrospected(database, policies)
    const parts = { db: database.kysely, payloads, sessions, clients, accounts, introspected }
    const store = createAdapterFactory(parts)('Interaction')
    const { id: accountId } = await person()
    const finished = { kind: 'Interaction', result: { login: { accountId } } }
    const take = (id: string) => Promise.allSettled(Array.from({ length: parallel }, () => store.destroy(id)))
    await store.upsert('one', finished, 60)
    expect((await take('one')).filter(({ status }) => status === 'fulfilled')).toHaveLength(1)
    await store.upsert('other', finished, 60)
    await end(accountId, 'disowned')
    expect((await take('other')).filter(({ status }) => status === 'fulfilled')).toEqual([])
  })

  it('authorization requests without a pause beside an end of everything give nothing that can be redeemed', async () => {
    for (let round = 0; round < rounds; round += 1) {
      const { email, id } = await person()
      const browser = await signedIn(email)
      const requests = Array.from({ length: parallel }, () =>
        authorizationUrl(server, 'first', { scope: 'openid offline_access' }),
      )
      const asked = Promise.all(requests.map(({ url }) => browser.request(url)))
      const [answers] = await Promise.all([asked, end(id, 'disowned')])
      const redeemed = await Promise.all(
        answers.map(({ headers }, index) =>
          post(server, '/oauth/token', 'first', {
            grant_type: 'authorization_code',
            code: new URL(headers.get('location') ?? '/', server.issuer).searchParams.get('code') ?? 'none',
            redirect_uri: 'http://localhost:9/callback',
            code_verifier: requests[index]?.verifier ?? '',
          }),
        ),
      )
      expect(
        redeemed.filter(({ status }) => status === 200),
        `round ${round}`,
      ).toEqual([])
    }
  })
})

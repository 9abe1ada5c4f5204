// A grant is shared by all codes of an app in one session: what a late one gives must not end with the first.
import { afterAll, beforeAll, expect, it } from 'vitest'
import { createPayloadStore } from '../../src/oidc/store.ts'
import { authorizationUrl, Browser, introspectBothWays, obtainTokens, signIn } from '../support/client.ts'
import { startServer, type TestServer } from '../support/server.ts'

let server: TestServer
beforeAll(async () => {
  server = await startServer('postgres')
})
afterAll(() => server.close())

const isActive = async (token: string) => (await introspectBothWays(server, token))['active']
/** Lets stored tokens and grants grow older. */
const pass = (seconds: number) =>
  server.database.run(
    `update mlpipes_auth.oidc_payloads set expires_at = expires_at - make_interval(secs => $1::integer),
      payload = payload || jsonb_build_object('iat', (payload ->> 'iat')::integer - $1::integer, 'exp', (payload ->> 'exp')::integer - $1::integer)
      where payload ? 'exp'`,
    [seconds],
  )
const grants = async () =>
  await server.database.run(
    `select id_hash, (payload ->> 'exp')::integer as exp from mlpipes_auth.oidc_payloads where model = 'Grant'`,
    [],
  )

it('tokens of a code that was given late in a session last as long as promised', async () => {
  const policy = { tokens: { refreshTokenTtl: 450, accessTokenTtl: 300 } }
  await server.apply({ organizations: [{ slug: 'mercy', name: 'Mercy Hospital', policy }] })
  const browser = new Browser(server)
  await signIn(browser, authorizationUrl(server, 'first'))
  const [first] = await grants()
  await obtainTokens(server, 'first', {}, browser)
  expect(await grants(), 'long enough for these').toEqual([first])
  await pass(800)
  const late = await obtainTokens(server, 'first', {}, browser)
  const after = await grants()
  expect(after).toHaveLength(1)
  expect(Number(after[0]?.['exp'])).toBeGreaterThan(Date.now() / 1000 + 2 * 450 - 60)
  await pass(290)
  expect(await isActive(late.access_token)).toBe(true)
  await pass(20)
  expect(await isActive(late.access_token)).toBe(false)
})

it('what was taken away meanwhile is not brought back', async () => {
  const store = createPayloadStore(server.database)
  await store.save(undefined, { model: 'Grant', idHash: 'brief', payload: {}, expiresInSeconds: 60 } as never, [])
  await store.prolong('Grant', 'brief', 120)
  expect((await store.find('Grant', 'brief'))?.payload['exp']).toBeGreaterThan(Date.now() / 1000 + 100)
  await store.destroy(server.database.kysely, 'Grant', 'brief')
  await store.prolong('Grant', 'brief', 120)
  expect(await store.find('Grant', 'brief')).toBeUndefined()
})

// How many statements an introspection sends: what is asked at the same moment is one, whoever asks and about whatever.
import pg from 'pg'
import { afterAll, beforeAll, expect, it } from 'vitest'
import { sha256 } from '../../src/crypto/secrets.ts'
import { createIntrospected } from '../../src/oidc/introspected.ts'
import { createPolicies } from '../../src/organizations/organizations.ts'
import { introspect, obtainTokens } from '../support/client.ts'
import { startServer, type TestServer, testPlatform } from '../support/server.ts'

const texts: string[] = []
const { query } = pg.Client.prototype
let server: TestServer
const tokens: string[] = []

beforeAll(async () => {
  // Before the first connection: each binds what it finds here.
  Object.defineProperty(pg.Client.prototype, 'query', {
    configurable: true,
    value(this: pg.Client, ...args: unknown[]) {
      const [first] = args
      texts.push(typeof first === 'string' ? first : String(Reflect.get(Object(first), 'text')))
      return Reflect.apply(query, this, args)
    },
  })
  server = await startServer('postgres')
  for (let count = 0; count < 20; count += 1) tokens.push((await obtainTokens(server, 'first')).access_token)
})
afterAll(async () => {
  Object.defineProperty(pg.Client.prototype, 'query', { configurable: true, value: query })
  await server.close()
})

/** How many statements some work sends. Housekeeping asks things of its own when it likes: the fewest of several tries. */
async function fewestDuring(work: () => Promise<unknown>): Promise<number> {
  const counts: number[] = []
  for (let tries = 0; tries < 5; tries += 1) {
    const from = texts.length
    await work()
    counts.push(texts.length - from)
  }
  return Math.min(...counts)
}

it('reads twenty tokens and whoever asks about them, asked for in one turn, with one statement', async () => {
  const { find, findCaller } = createIntrospected(server.database, createPolicies(testPlatform))
  const sent = await fewestDuring(async () => {
    const callers = ['api', 'nobody', 'api'].map((id) => findCaller(id))
    const answers = await Promise.all(tokens.map((token) => find(sha256(token))))
    const [first, unknown, again] = await Promise.all(callers)
    expect([first?.['client_id'], unknown, again?.['client_id']]).toEqual(['api', undefined, 'api'])
    expect(answers.map((answer) => answer?.model)).toEqual(tokens.map(() => 'AccessToken'))
  })
  expect(sent).toBe(1)
})

it('asks for the caller and for all about the token at once, and nothing else', async () => {
  const [token = ''] = tokens
  await introspect(server, token)
  const sent = await fewestDuring(async () => expect((await introspect(server, token))['active']).toBe(true))
  expect(sent).toBe(1)
})

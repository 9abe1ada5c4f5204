// Several requests of one browser at the same moment, such as the tabs of a restored window: each is answered, and there is
// one session. With the session's id held unique beside its uid, some of them were answered 500.
import { afterAll, beforeAll, expect, it } from 'vitest'
import { authorizationUrl, Browser, signIn } from '../support/client.ts'
import { startServer, type TestServer } from '../support/server.ts'

const rounds = 10
const parallel = 20

let server: TestServer
beforeAll(async () => {
  server = await startServer('postgres')
})
afterAll(() => server.close())

it('one browser opens an app in 20 tabs at once', async () => {
  const browser = new Browser(server)
  await signIn(browser, authorizationUrl(server, 'first'))
  const cookie = browser.cookies.map(({ name, value }) => `${name}=${value}`).join('; ')
  for (let round = 0; round < rounds; round += 1) {
    const answers = await Promise.all(
      Array.from({ length: parallel }, () =>
        fetch(authorizationUrl(server, 'first').url, { redirect: 'manual', headers: { cookie, accept: 'text/html' } }),
      ),
    )
    expect(answers.map((answer) => answer.status)).toEqual(Array.from({ length: parallel }, () => 303))
    for (const answer of answers) expect(answer.headers.get('location')).toContain('code=')
  }
  const [live] = await server.database.run(
    'select count(*)::integer as sessions from mlpipes_auth.sessions where ended_at is null',
    [],
  )
  expect(live).toEqual({ sessions: 1 })
})

// F98: the process is killed again and again under load, and what must be true of the database is true each time.
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { authorizationUrl, Browser, introspect, obtainTokens, post, signIn } from '../support/client.ts'
import { type Doomed, startDoomed } from '../support/doomed.ts'
import { violations } from '../support/invariants.ts'

const kills = 50

let doomed: Doomed
beforeAll(async () => {
  doomed = await startDoomed()
})
afterAll(() => doomed.close())

describe('F98: killed again and again under load', () => {
  it(`${kills} times, and the invariants hold each time`, async () => {
    let done = 0
    const worker = async (until: { stopped: boolean }) => {
      while (!until.stopped) {
        try {
          const tokens = await obtainTokens(doomed, 'first')
          await introspect(doomed, tokens.access_token)
          await post(doomed, '/oauth/token', 'api', { grant_type: 'client_credentials' })
          const form = { grant_type: 'refresh_token', refresh_token: tokens.refresh_token ?? '' }
          await post(doomed, '/oauth/token', 'first', form)
          done += 1
        } catch {
          await new Promise((resolve) => setTimeout(resolve, 10))
        }
      }
    }
    const until = { stopped: false }
    const load = Promise.all(Array.from({ length: 4 }, () => worker(until)))
    for (let kill = 1; kill <= kills; kill += 1) {
      await doomed.dieAt(1 + ((kill * 97) % 200))
      await doomed.revive()
      // Tries whose process died stay counted; the load goes on without waiting for that.
      await doomed.database.kysely.deleteFrom('sign_in_attempts').execute()
      expect(await violations(doomed.database), `after kill ${kill}`).toEqual([])
    }
    until.stopped = true
    await load
    expect(done, 'work was done between the kills').toBeGreaterThan(kills / 10)
    expect((await signIn(new Browser(doomed), authorizationUrl(doomed, 'first'))).url).toContain('code=')
  })
}, 480_000)

// F13 and F28: nobody is signed out, and nobody is sent anywhere, by somebody else.
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { authorizationUrl, Browser, introspect, obtainTokens } from '../support/client.ts'
import { password, startServer, type TestServer } from '../support/server.ts'

let server: TestServer
beforeAll(async () => {
  server = await startServer('postgres')
})
afterAll(() => server.close())

const isSignedIn = async (browser: Browser) =>
  (await browser.request(authorizationUrl(server, 'first', { prompt: 'none' }).url)).headers
    .get('location')
    ?.includes('code=') ?? false

describe('F13: logout', () => {
  it('by a link asks first, and ends nothing before the answer', async () => {
    const { browser, access_token, id_token } = await obtainTokens(server, 'first')
    for (const query of ['', `?id_token_hint=${id_token}`, '?client_id=first', '?logout=yes', '?xsrf=x&logout=yes']) {
      const page = await browser.follow(await browser.request(`/oauth/logout${query}`))
      expect(page.text).toContain('Sign out')
      expect(await isSignedIn(browser)).toBe(true)
    }
    expect((await introspect(server, access_token))['active']).toBe(true)
  })

  it('by a form of another site ends nothing: it lacks what our page holds', async () => {
    const { browser } = await obtainTokens(server, 'first')
    const headers = { origin: 'https://evil.example', 'sec-fetch-site': 'cross-site' }
    for (const form of [{ logout: 'yes' }, { logout: 'yes', xsrf: '' }, { logout: 'yes', xsrf: 'x'.repeat(43) }]) {
      const answer = await browser.request('/oauth/logout/confirm', { form, headers })
      expect(answer.status).toBe(400)
      expect(answer.text).toContain('Request id')
    }
    const posted = await browser.follow(await browser.request('/oauth/logout', { form: { logout: 'yes' }, headers }))
    expect(posted.status).toBeLessThan(500)
    expect(await isSignedIn(browser)).toBe(true)
  })

  it('by POST from the app (RP-Initiated Logout 1.0 §2) asks as a link does, and leads back to the app', async () => {
    const { browser, access_token, id_token } = await obtainTokens(server, 'first')
    const form = { id_token_hint: id_token, post_logout_redirect_uri: 'http://localhost:9/', state: 'of the app' }
    const headers = { origin: 'http://localhost:9', 'sec-fetch-site': 'cross-site' }
    const sent = await browser.request('/oauth/logout', { form, headers })
    expect(sent.status).toBe(303)
    expect(sent.headers.get('location')).not.toContain(id_token)
    const page = await browser.follow(sent)
    expect(page.text).toContain('Sign out')
    const landing = await browser.submit(page, '/confirm', { logout: 'yes' })
    expect(landing.url).toBe('http://localhost:9/?state=of+the+app')
    expect((await introspect(server, access_token))['active']).toBe(false)
    const tooLong = await browser.request('/oauth/logout', { form: { state: 'x'.repeat(16_384) }, headers })
    expect(tooLong.status).toBe(413)
  })

  it('with what belongs to another session, client or person ends nothing and redirects nowhere', async () => {
    const mine = await obtainTokens(server, 'first')
    const other = await obtainTokens(server, 'ehr', {}, new Browser(server))
    const theirs = await other.browser.follow(await other.browser.request('/oauth/logout'))
    const xsrf = /name="xsrf" value="([^"]+)"/.exec(theirs.text)?.[1] ?? ''
    expect(xsrf).not.toBe('')
    await mine.browser.request('/oauth/logout')
    expect((await mine.browser.request('/oauth/logout/confirm', { form: { logout: 'yes', xsrf } })).status).toBe(400)
    const query = new URLSearchParams({
      id_token_hint: other.id_token,
      client_id: 'first',
      post_logout_redirect_uri: 'http://localhost:9/',
    })
    const mixed = await mine.browser.request(`/oauth/logout?${query}`)
    expect(mixed.status).toBe(400)
    expect(mixed.headers.get('location')).toBeNull()
    for (const uri of [
      'https://evil.example/',
      'http://localhost:9/?next=1',
      '//evil.example',
      'javascript:alert(1)',
    ]) {
      const answer = await mine.browser.request(
        `/oauth/logout?${new URLSearchParams({ id_token_hint: mine.id_token, post_logout_redirect_uri: uri })}`,
      )
      expect(answer.status, uri).toBe(400)
      expect(answer.headers.get('location')).toBeNull()
    }
    expect(await isSignedIn(mine.browser)).toBe(true)
    expect(await isSignedIn(other.browser)).toBe(true)
  })
})

describe('F28: nothing in a request says where a sign-in leads but the registered redirect_uri', () => {
  const evil = 'https://evil.example/'
  const lures = new URLSearchParams({
    next: evil,
    returnTo: evil,
    return_to: evil,
    redirect: evil,
    url: evil,
  }).toString()

  it.each(['password', 'cancel'])('%s goes back to the provider', async (action) => {
    const browser = new Browser(server)
    const page = await browser.follow(
      await browser.request(`${authorizationUrl(server, 'first', { state: evil }).url}&${lures}`),
    )
    const csrf = /name="csrf" value="([^"]+)"/.exec(page.text)?.[1] ?? ''
    const path = new URL(page.url).pathname
    const shown = await browser.request(`${path}?${lures}`)
    expect(shown.status).toBe(200)
    expect(shown.text).not.toContain('evil.example')
    const form: Record<string, string> = action === 'cancel' ? { csrf } : { csrf, email: 'lee@mercy.example', password }
    // Unknown fields are refused rather than ignored.
    expect((await browser.request(`${path}/${action}`, { form: { ...form, returnTo: evil } })).status).toBe(400)
    const answer = await browser.request(`${path}/${action}?${lures}`, { form })
    expect(answer.status).toBe(303)
    expect(answer.headers.get('location')).toMatch(new RegExp(`^${server.issuer}/oauth/authorize/[\\w-]+$`))
    const landing = new URL((await browser.follow(answer)).url)
    expect(landing.origin + landing.pathname).toBe('http://localhost:9/callback')
    expect(landing.searchParams.get('state')).toBe(evil)
  })
})

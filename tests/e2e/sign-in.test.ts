// A person in a real browser, in the demo EHR app: with and without JavaScript, wrong password, deny, back, sign-out; and
// in an app that takes its answer by post.
import { createServer } from 'node:http'
import { text } from 'node:stream/consumers'
import type { Browser } from 'playwright-core'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { startEhr } from '../../examples/ehr/app.ts'
import { axe, launchBrowser, newPage, shot, type WatchedPage } from '../support/browser.ts'
import { authorizationUrl, obtainTokens } from '../support/client.ts'
import { freePort } from '../support/free-port.ts'
import { password, people, secretOf, startServer, type TestServer } from '../support/server.ts'

let server: TestServer
let browser: Browser
let ehr: Awaited<ReturnType<typeof startEhr>>
/** An app that is answered with response_mode=form_post, and says how. */
const archive = createServer(async (request, response) => {
  const answer = new URLSearchParams(await text(request))
  response.setHeader('content-type', 'text/html')
  response.end(`<h1>${request.method} ${[...answer.keys()].sort().join(' ')} ${answer.get('state')}</h1>`)
})
let archiveUrl: string
const toArchive = (extra: Record<string, string>) =>
  authorizationUrl(server, 'archive', { redirect_uri: archiveUrl, response_mode: 'form_post', ...extra }).url

beforeAll(async () => {
  const port = await freePort()
  const archivePort = await freePort()
  archiveUrl = `http://localhost:${archivePort}/callback`
  archive.listen(archivePort)
  const url = `http://localhost:${port}`
  const clients = [
    {
      client_id: 'harbor',
      client_secret: 'harbor-secret-0123456789',
      client_name: 'Harbor EHR',
      organization: 'mercy',
      redirect_uris: [`${url}/callback`],
      post_logout_redirect_uris: [`${url}/`],
      grant_types: ['authorization_code' as const, 'refresh_token' as const],
      scope: 'openid profile email offline_access',
    },
    {
      client_id: 'archive',
      client_secret: secretOf('archive'),
      client_name: 'Harbor Archive',
      organization: 'mercy',
      redirect_uris: [archiveUrl],
      first_party: true,
    },
  ]
  server = await startServer('postgres', { seed: { ...people, clients: [...(people.clients ?? []), ...clients] } })
  ehr = await startEhr({
    issuer: server.issuer,
    port,
    clientId: 'harbor',
    clientSecret: 'harbor-secret-0123456789',
    apiClientId: 'api',
    apiClientSecret: 'api-secret-0123456789',
  })
  browser = await launchBrowser()
})
afterAll(async () => {
  await browser.close()
  await ehr.close()
  archive.close()
  await server.close()
})

async function arrive(watched: WatchedPage): Promise<void> {
  await watched.page.goto(ehr.url)
  await watched.page.getByRole('link', { name: 'Sign in with MLPipes' }).click()
  await watched.page.getByRole('heading', { name: 'Sign in' }).waitFor()
}

async function fillIn(watched: WatchedPage, email: string, secret: string): Promise<void> {
  await watched.page.getByRole('textbox', { name: 'Email' }).fill(email)
  await watched.page.getByRole('textbox', { name: 'Password' }).fill(secret)
  await watched.page.getByRole('button', { name: 'Sign in' }).click()
}

describe.each([true, false])('with JavaScript %s', (javaScriptEnabled) => {
  // Consent is remembered, so each run is somebody else.
  const email = javaScriptEnabled ? 'lee@mercy.example' : 'ada@mercy.example'
  const suffix = javaScriptEnabled ? '' : '-nojs'

  it('goes from the app through sign-in and consent back into the app, and out again', async () => {
    const watched = await newPage(browser, { javaScriptEnabled })
    const { page } = watched
    await arrive(watched)
    await shot(page, `sign-in${suffix}`)

    await fillIn(watched, email, 'not the password')
    await page.getByRole('alert').waitFor()
    expect(await page.getByRole('alert').textContent()).toContain('not right')
    expect(await page.getByRole('textbox', { name: 'Email' }).inputValue()).toBe(email)
    expect(await page.getByRole('textbox', { name: 'Password' }).inputValue()).toBe('')
    await shot(page, `sign-in-wrong${suffix}`)

    await fillIn(watched, email, password)
    await page.getByRole('heading', { name: 'Allow Harbor EHR?' }).waitFor()
    await shot(page, `consent${suffix}`)
    await page.getByRole('button', { name: 'Allow' }).click()
    await page.getByRole('heading', { name: 'Ward list' }).waitFor()
    expect(await page.getByRole('cell', { name: 'Rosalind Okafor' }).count()).toBe(1)
    await shot(page, `ehr-ward${suffix}`)

    await page.getByRole('link', { name: 'Sign out' }).click()
    await page.getByRole('heading', { name: 'Sign out?' }).waitFor()
    await shot(page, `sign-out${suffix}`)
    await page.getByRole('button', { name: 'Sign out' }).click()
    await page.getByRole('link', { name: 'Sign in with MLPipes' }).waitFor()
    expect(watched.complaints).toEqual([])
    await watched.close()
  })

  it('goes back to an app that takes its answer by post, by itself or by a button', async () => {
    const watched = await newPage(browser, { javaScriptEnabled })
    const { page } = watched
    await page.goto(toArchive({ state: 'here' }))
    await fillIn(watched, email, password)
    if (!javaScriptEnabled) {
      await page.getByRole('heading', { name: 'Going back to Harbor Archive' }).waitFor()
      await shot(page, 'going-back')
      await page.getByRole('button', { name: 'Continue to Harbor Archive' }).click()
    }
    await page.getByRole('heading', { name: 'POST code iss state here' }).waitFor()
    expect(page.url()).toBe(archiveUrl)
    expect(watched.complaints).toEqual([])
    await watched.close()
  })
})

describe('the API of the app', () => {
  it('takes neither another app’s access token nor a refresh token, active though both are', async () => {
    const tokens = await obtainTokens(server, 'first')
    for (const token of [tokens.access_token, tokens.refresh_token ?? '', 'nonsense']) {
      const answer = await fetch(`${ehr.url}/api/patients`, { headers: { authorization: `Bearer ${token}` } })
      expect(answer.status).toBe(401)
      expect(answer.headers.get('www-authenticate')).toContain('invalid_token')
    }
  })
})

describe('the other ways a visit goes', () => {
  it('takes a denial back to the app', async () => {
    const watched = await newPage(browser)
    await arrive(watched)
    await fillIn(watched, 'hugo@hope.example', password)
    await watched.page.getByRole('button', { name: 'Deny' }).click()
    await watched.page.getByRole('heading', { name: 'You were not signed in' }).waitFor()
    expect(watched.complaints).toEqual([])
    await watched.close()
  })

  it('cancels back to the app', async () => {
    const watched = await newPage(browser)
    await arrive(watched)
    await watched.page.getByRole('button', { name: 'Cancel and return to Harbor EHR' }).click()
    await watched.page.getByRole('heading', { name: 'You were not signed in' }).waitFor()
    await watched.close()
  })

  it('says what to do when the back button leads to a finished sign-in', async () => {
    const watched = await newPage(browser)
    await arrive(watched)
    const interaction = watched.page.url()
    await fillIn(watched, 'lee@mercy.example', password)
    await watched.page.getByRole('heading', { name: 'Ward list' }).waitFor()
    await watched.page.goto(interaction)
    await watched.page.getByRole('heading', { name: 'This sign-in has expired' }).waitFor()
    expect(await watched.page.getByText('Request id').count()).toBe(1)
    await shot(watched.page, 'error')
    await watched.close()
  })

  it('asks for a code where the account has an authenticator', async () => {
    const watched = await newPage(browser)
    await arrive(watched)
    await fillIn(watched, 'totp@mercy.example', password)
    await watched.page.getByRole('textbox', { name: 'Authentication code' }).fill('000000')
    await shot(watched.page, 'second-factor')
    await watched.page.getByRole('button', { name: 'Verify' }).click()
    expect(await watched.page.getByRole('alert').textContent()).toContain('code is not right')
    await watched.close()
  })

  it('shows that the person is signed out when no app asked for it', async () => {
    const watched = await newPage(browser)
    await watched.page.goto(`${server.issuer}/oauth/logout`)
    await watched.page.getByRole('heading', { name: 'You are signed out' }).waitFor()
    await shot(watched.page, 'signed-out')
    expect(watched.complaints).toEqual([])
    await watched.close()
  })
})

describe.each(['light', 'dark'] as const)('accessibility in %s', (colorScheme) => {
  it.each([1280, 320])('finds nothing at %i pixels', async (width) => {
    const watched = await newPage(browser, { colorScheme, viewport: { width, height: 900 } })
    const { page } = watched
    await arrive(watched)
    const at = async (name: string) => {
      expect(await axe(page), name).toEqual([])
      const overflow = await page.evaluate(
        'document.documentElement.scrollWidth - document.documentElement.clientWidth',
      )
      expect(overflow, `${name} scrolls sideways`).toBe(0)
      await shot(page, `${name}-${colorScheme}-${width}`)
    }
    await at('sign-in')
    await fillIn(watched, 'hugo@hope.example', 'wrong')
    await at('sign-in-wrong')
    await fillIn(watched, 'hugo@hope.example', password)
    await page.getByRole('button', { name: 'Allow' }).waitFor()
    await at('consent')
    await page.goto(`${server.issuer}/`)
    await at('home')
    await page.goto(`${server.issuer}/nowhere`)
    await at('not-found')
    await page.goto(`${server.issuer}/oauth/logout`)
    await page.getByRole('button', { name: 'Sign out' }).waitFor()
    await at('sign-out')
    // Without its script, so that it stays.
    await page.route('**/going-back.js*', (route) => route.abort())
    await page.goto(toArchive({ prompt: 'none' }))
    await at('going-back')
    await watched.close()
  })
})

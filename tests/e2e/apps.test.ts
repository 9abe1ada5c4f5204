// Somebody connects an app to their organisation in a real browser: registers it, sees its secret once, reads what it was
// refused for, replaces the secret. On a phone in light, at a desk in dark.
import type { Browser } from 'playwright-core'
import { afterAll, beforeAll, expect, it } from 'vitest'
import { manage, startIntegrators } from '../integrators/support.ts'
import { axe, launchBrowser, newPage, shot } from '../support/browser.ts'
import { authorizationUrl, Browser as PlainBrowser } from '../support/client.ts'
import { password, type TestServer } from '../support/server.ts'
import { codeFor } from '../support/totp.ts'

let server: TestServer
let browser: Browser
beforeAll(async () => {
  server = await startIntegrators()
  browser = await launchBrowser()
})
afterAll(async () => {
  await browser.close()
  await server.close()
})

it.each([
  [320, 'light', 'all', 0],
  [1280, 'dark', 'look', 30],
] as const)('connects an app at %d px, %s', async (width, colorScheme, rules, later) => {
  const watched = await newPage(browser, { viewport: { width, height: 800 }, colorScheme })
  const { page } = watched
  const heading = (name: string) => page.getByRole('heading', { level: 1, name, exact: true }).waitFor()
  const click = (role: 'link' | 'button', name: string | RegExp) => page.getByRole(role, { name }).first().click()
  const look = async (name: string) => {
    const overflow = await page.evaluate('document.documentElement.scrollWidth - document.documentElement.clientWidth')
    await shot(page, `apps-${name}-${width}-${colorScheme}`)
    expect(overflow, `${name} is wider than the window`).toBe(0)
    expect(await axe(page, rules), name).toEqual([])
  }

  await page.goto(`${server.issuer}/account/apps`)
  await page.getByRole('textbox', { name: 'Email' }).fill('ida@mercy.example')
  await page.getByRole('textbox', { name: 'Password' }).fill(password)
  await click('button', 'Sign in')
  await page.getByRole('textbox', { name: 'Authentication code' }).fill(await codeFor(server, undefined, later))
  await click('button', 'Verify')
  await heading('Apps with access')
  await click('link', 'Manage apps of Mercy Hospital')
  await heading('Apps of Mercy Hospital')
  await look('list')

  await click('link', 'Register an app')
  await page.getByRole('textbox', { name: 'Name' }).fill(`Ward Round ${width}`)
  await page.getByRole('radio', { name: 'Web app with a server' }).check()
  await page.getByRole('textbox', { name: 'Redirect URIs' }).fill('http://ward.example/callback')
  await click('button', 'Register')
  await page.getByRole('alert').getByRole('link', { name: 'Redirect URIs' }).waitFor()
  const field = page.getByRole('textbox', { name: 'Redirect URIs' })
  expect(await field.evaluate('document.activeElement.id')).toBe('redirectUris')
  await look('refused')
  await field.fill('https://ward.example/callback')
  await click('button', 'Register')
  await heading(`Ward Round ${width} is registered`)
  const secret = page.getByRole('main').getByLabel('Client secret')
  const first = await secret.textContent()
  const clientId = (await page.getByText(/^client_/).textContent()) ?? ''
  await look('registered')
  await page.reload()
  await page.getByRole('alert').getByText(`“Ward Round ${width}” is registered already`).waitFor()
  await look('registered-again')

  await new PlainBrowser(server).request(authorizationUrl(server, clientId).url)
  await click('link', 'Go on to the app')
  await page.getByText('The app sent redirect_uri “http://localhost:9/callback”').waitFor()
  await page.getByText('Node.js, openid-client').click()
  await look('app')
  const other = await page.context().newPage()
  await other.goto(`${page.url()}/edit`)
  await page.goto(`${page.url()}/edit`)
  for (const tab of [other, page]) {
    await tab.getByRole('textbox', { name: 'Name' }).fill(`Ward Round ${width} of ${tab === page ? 'one' : 'another'}`)
    await tab.getByRole('button', { name: /Save/ }).click()
    await tab.waitForLoadState()
  }
  await heading('The app was changed meanwhile')
  await look('stale')
  await other.close()
  await page.goto(`${server.issuer}${manage}/${clientId}`)
  await click('link', 'Replace the secret')
  await heading('Replace the secret')
  await look('secret')
  await click('button', 'Make a new secret')
  await page.getByText('works beside it for one day').waitFor()
  expect(await secret.textContent()).not.toBe(first)
  await look('new-secret')
  expect(page.url()).not.toContain(String(await secret.textContent()))
  await page.goto(`${server.issuer}${manage}/${clientId}`)
  expect(await page.content()).not.toContain(first)
  expect(watched.complaints).toEqual([])
  await watched.close()
})

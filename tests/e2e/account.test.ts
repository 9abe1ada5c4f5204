// A person on the pages of /account in a real browser: at phone and desk width, in light and dark.
import type { Browser, Page } from 'playwright-core'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { visit } from '../self-service/support.ts'
import { axe, launchBrowser, newPage, shot } from '../support/browser.ts'
import { obtainTokens } from '../support/client.ts'
import { password, people, startServer, type TestServer } from '../support/server.ts'
import { codeFor } from '../support/totp.ts'

const looks = [
  { width: 360, colorScheme: 'light', javaScriptEnabled: true },
  { width: 360, colorScheme: 'dark', javaScriptEnabled: true },
  { width: 1280, colorScheme: 'light', javaScriptEnabled: true },
  { width: 1280, colorScheme: 'dark', javaScriptEnabled: true },
  { width: 420, colorScheme: 'light', javaScriptEnabled: false },
] as const
const emailOf = (width: number, scheme: string) => `p${width}${scheme}@mercy.example`

let server: TestServer
let browser: Browser

beforeAll(async () => {
  server = await startServer('postgres', {
    seed: {
      ...people,
      accounts: [
        ...(people.accounts ?? []),
        ...looks.map(({ width, colorScheme }) => ({
          email: emailOf(width, colorScheme),
          name: 'Rosalind Okafor-Lindqvist',
          password,
          organization: 'mercy',
          roles: ['org_admin', 'charge_nurse'],
          emailVerified: true,
        })),
      ],
    },
  })
  browser = await launchBrowser()
})
afterAll(async () => {
  await browser.close()
  await server.close()
})

async function signIn(page: Page, email: string, secret: string): Promise<void> {
  await page.getByRole('textbox', { name: 'Email' }).fill(email)
  await page.getByRole('textbox', { name: 'Password' }).fill(secret)
  await page.getByRole('button', { name: 'Sign in' }).click()
}

describe.each(looks)('at $width px, $colorScheme, JavaScript $javaScriptEnabled', (look) => {
  const { width, colorScheme, javaScriptEnabled } = look
  const email = emailOf(width, colorScheme)

  it('walks the account from the name to the last session', async () => {
    const elsewhere = await visit(server, '/account', email)
    await obtainTokens(server, 'ehr', { scope: 'openid email offline_access', prompt: 'consent' }, elsewhere.browser)
    const watched = await newPage(browser, { viewport: { width, height: 800 }, colorScheme, javaScriptEnabled })
    const { page } = watched
    const heading = (name: string) => page.getByRole('heading', { level: 1, name, exact: true }).waitFor()
    const click = (role: 'link' | 'button', name: string | RegExp) => page.getByRole(role, { name }).first().click()
    const part = async (name: string) => {
      await page.getByRole('navigation', { name: 'Your account' }).getByRole('link', { name, exact: true }).click()
    }
    /** The page is whole: nothing sticks out, axe finds nothing, and a picture is kept. */
    const look = async (name: string) => {
      const overflow = await page.evaluate(
        'document.documentElement.scrollWidth - document.documentElement.clientWidth',
      )
      expect(overflow, `${name} is wider than the window`).toBe(0)
      // axe itself needs the page's own timers, which do not run without JavaScript.
      if (!javaScriptEnabled) return
      expect(await axe(page), name).toEqual([])
      await shot(page, `account-${name}-${width}-${colorScheme}`)
    }

    await page.goto(`${server.issuer}/account`)
    await signIn(page, email, password)
    await heading('Your account')
    await look('overview')

    await part('Profile')
    await page.getByRole('textbox', { name: 'Name' }).fill('Rosalind Okafor')
    await click('button', 'Save')
    await page.getByRole('status').getByText('Your name is changed.').waitFor()
    await look('profile')

    await part('E-mail')
    await heading('E-mail address')
    await page.getByRole('textbox', { name: 'New e-mail address' }).fill(`new.${email}`)
    await click('button', 'Send a link to the new address')
    await page.getByRole('status').getByText('A link is on its way').waitFor()
    await look('email')

    await part('Password')
    await heading('Password')
    await page.getByRole('textbox', { name: 'Current password' }).fill(password)
    await page.getByRole('textbox', { name: 'New password' }).fill('short')
    await click('button', 'Change password')
    await page.getByRole('alert').waitFor()
    await look('password-refused')

    await part('Sessions')
    await heading('Sessions')
    await look('sessions')
    await click('button', 'Sign out there')
    await page.getByRole('status').getByText('That session is signed out.').waitFor()

    await part('Apps')
    await heading('Apps with access')
    await page.getByRole('heading', { name: 'Test EHR' }).waitFor()
    await look('apps')
    await click('button', 'Remove access')
    await page.getByText('No app has access.').waitFor()

    const wanted = 'Quiet-Harbour-31-Lantern'
    await part('Password')
    await page.getByRole('textbox', { name: 'Current password' }).fill(password)
    await page.getByRole('textbox', { name: 'New password' }).fill(wanted)
    await click('button', 'Change password')
    await page.getByRole('status').getByText('Your password is changed').waitFor()

    await part('Second factor')
    await heading('Second factor')
    await click('link', 'Add an authenticator')
    await heading('Add an authenticator')
    await look('factor-add')
    await page.getByRole('textbox', { name: 'Name of the authenticator' }).fill('Phone')
    await click('button', 'Continue')
    await page.getByRole('img', { name: /QR code/ }).waitFor()
    await look('factor-set-up')
    const secret = ((await page.locator('.secret').textContent()) ?? '').replace(/\s/g, '')
    await page.getByRole('textbox', { name: 'Authentication code' }).fill(await codeFor(server, secret))
    await click('button', 'Turn on')
    await heading('Save your backup codes')
    expect(await page.getByRole('list', { name: 'Backup codes' }).getByRole('listitem').count()).toBe(10)
    await look('backup-codes')
    await click('button', 'I have saved them')
    await heading('Second factor')
    await look('factors-locked')

    await click('link', 'Sign in again to make changes')
    await page.getByRole('textbox', { name: 'Authentication code' }).fill(await codeFor(server, secret, 30))
    await click('button', 'Verify')
    await heading('Second factor')
    await page.getByRole('button', { name: 'Remove Phone' }).waitFor()
    await look('factors')

    await part('Activity')
    await heading('Activity')
    await page.getByText('You turned an authenticator on.').waitFor()
    await look('activity')
    await part('Your data')
    await heading('Your data')
    await look('data')

    await click('link', 'Sign out')
    await page.getByRole('button', { name: 'Sign out' }).click()
    await page.getByRole('heading', { name: 'You are signed out' }).waitFor()
    expect(watched.complaints).toEqual([])
    await watched.close()
  })
})

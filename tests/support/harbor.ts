// A server, the demo EHR app and a Chromium for one file of journeys, and what a person does in all of them. What is
// looked at on every page of a journey is here too: both schemes, a phone and a desk, axe-core, nothing sideways.
import type { Browser, BrowserContextOptions, Page } from 'playwright-core'
import { expect } from 'vitest'
import { startEhr } from '../../examples/ehr/app.ts'
import type { ApplyInput } from '../../src/apply/apply.ts'
import { axe, launchBrowser, newPage, shot, type WatchedPage } from './browser.ts'
import { freePort } from './free-port.ts'
import { linkIn, mailTo } from './mails.ts'
import { password, startServer, type TestServer } from './server.ts'

/** Every journey is walked twice, by somebody else each time: consents, devices and used codes are remembered. */
export const runs = [
  { javaScriptEnabled: true, who: 'js' },
  { javaScriptEnabled: false, who: 'nojs' },
] as const

/** One account for each run, such as lina-js@mercy.example, with the password of support/server.ts. */
export const accountsOf = (name: string, extra: Partial<Account> = {}): Account[] =>
  runs.map(({ who }) => ({
    email: `${name}-${who}@mercy.example`,
    name: `${name} ${who}`,
    password,
    organization: 'mercy',
    emailVerified: true,
    ...extra,
  }))
type Account = NonNullable<ApplyInput['accounts']>[number]

const phone = { width: 360, height: 780 }
const desk = { width: 1280, height: 900 }
/** WCAG 2.2 SC 1.4.10: a page reads without scrolling sideways down to this width, in CSS pixels. */
const leastWidth = 320

export interface Harbor {
  readonly server: TestServer
  readonly url: string
  /** A browser profile of its own: no cookies, and nobody knows it. */
  visit(options?: BrowserContextOptions): Promise<WatchedPage>
  close(): Promise<void>
}

/** @param seed with an organisation `mercy`, whose app Harbor is */
export async function startHarbor(seed: ApplyInput): Promise<Harbor> {
  const port = await freePort()
  const url = `http://localhost:${port}`
  const [clientSecret, apiClientSecret] = ['harbor-secret-0123456789', 'api-secret-0123456789']
  const server = await startServer('postgres', {
    environment: { ENABLE_MAGIC_LINKS: 'true', ENABLE_SIGNUP: 'true' },
    seed: {
      ...seed,
      clients: [
        {
          client_id: 'harbor',
          client_secret: clientSecret,
          client_name: 'Harbor EHR',
          organization: 'mercy',
          redirect_uris: [`${url}/callback`],
          post_logout_redirect_uris: [`${url}/`],
          grant_types: ['authorization_code', 'refresh_token'],
          scope: 'openid profile email offline_access',
        },
        {
          client_id: 'api',
          client_secret: apiClientSecret,
          client_name: 'Mercy API',
          organization: 'mercy',
          grant_types: ['client_credentials'],
          scope: 'openid',
          introspection: 'organization',
        },
      ],
    },
  })
  const ehr = await startEhr({
    issuer: server.issuer,
    port,
    clientId: 'harbor',
    clientSecret,
    apiClientId: 'api',
    apiClientSecret,
  })
  const browser: Browser = await launchBrowser()
  return {
    server,
    url,
    // Colours that are still moving have no contrast to measure.
    visit: (options = {}) => newPage(browser, { viewport: desk, reducedMotion: 'reduce', ...options }),
    async close() {
      await browser.close()
      await ehr.close()
      await server.close()
    },
  }
}

/** The pages' accessible names are a contract: each is asked for by role and its whole name. */
export const field = ({ page }: WatchedPage, name: string) => page.getByRole('textbox', { name, exact: true })
export const button = ({ page }: WatchedPage, name: string) => page.getByRole('button', { name, exact: true })
export const link = ({ page }: WatchedPage, name: string) => page.getByRole('link', { name, exact: true })
export const heading = ({ page }: WatchedPage, name: string) =>
  page.getByRole('heading', { name, exact: true }).waitFor()

/** From the app to the sign-in page. */
export async function arrive({ url }: Harbor, watched: WatchedPage): Promise<void> {
  await watched.page.goto(url)
  await link(watched, 'Sign in with MLPipes').click()
  await heading(watched, 'Sign in')
}

export async function enterPassword(watched: WatchedPage, email: string, secret = password): Promise<void> {
  await field(watched, 'Email').fill(email)
  await field(watched, 'Password').fill(secret)
  await button(watched, 'Sign in').click()
}

export async function enterCode(watched: WatchedPage, code: string, press = 'Verify'): Promise<void> {
  await field(watched, 'Authentication code').fill(code)
  await button(watched, press).click()
}

/** From the sign-in page to a mail with a link to a new password, if there may be one. */
export async function forget(watched: WatchedPage, email: string): Promise<void> {
  await link(watched, 'Forgot password?').click()
  await heading(watched, 'Forgot your password?')
  await field(watched, 'Email').fill(email)
  await button(watched, 'Email me a link').click()
}

/** The link in the newest mail to an address, once `count` have come. */
export async function linkFor({ server }: Harbor, email: string, count = 1): Promise<string> {
  return `${server.issuer}${linkIn(await mailTo(server, email, count))}`
}

/** Allows the app if it is new to this person, and sees that the app has them. Returns the acr it was told. */
export async function reachApp(watched: WatchedPage): Promise<string> {
  const allow = button(watched, 'Allow')
  const ward = watched.page.getByRole('heading', { name: 'Ward list' })
  await allow.or(ward).waitFor()
  if (await allow.isVisible()) await allow.click()
  await ward.waitFor()
  return (await watched.page.getByText('urn:mlpipes:acr:').textContent()) ?? ''
}

/** Nothing was complained about, neither by a policy nor by a script; then the windows close. */
export async function finish(...visits: readonly WatchedPage[]): Promise<void> {
  for (const { complaints, close } of visits) {
    expect(complaints).toEqual([])
    await close()
  }
}

/** The words of the alert on the page; waits for it. */
export async function alertOf({ page }: WatchedPage): Promise<string> {
  const alert = page.getByRole('alert')
  await alert.waitFor()
  return (await alert.textContent()) ?? ''
}

/** Looks at the page as it stands, on a phone and at a desk, in light and in dark; keeps four pictures of it if wanted. */
export async function look({ page }: WatchedPage, name: string): Promise<void> {
  const before = page.viewportSize() ?? desk
  for (const [size, word] of [
    [phone, 'phone'],
    [desk, 'desk'],
  ] as const) {
    await page.setViewportSize(size)
    expect(await sideways(page), `${name} scrolls sideways on a ${word}`).toBe(0)
    for (const colorScheme of ['light', 'dark'] as const) {
      await page.emulateMedia({ colorScheme })
      await shot(page, `${name}-${word}-${colorScheme}`)
      // Everything on a phone in light, and at a desk in dark what these two can change.
      if (word === 'phone' && colorScheme === 'light') expect(await axe(page), `${name} on a phone`).toEqual([])
      if (word === 'desk' && colorScheme === 'dark') expect(await axe(page, 'look'), `${name} at a desk`).toEqual([])
    }
  }
  await page.setViewportSize({ ...phone, width: leastWidth })
  expect(await sideways(page), `${name} scrolls sideways at ${leastWidth} pixels`).toBe(0)
  await page.setViewportSize(before)
  await page.emulateMedia({ colorScheme: 'light' })
}

const sideways = (page: Page) =>
  page.evaluate('document.documentElement.scrollWidth - document.documentElement.clientWidth')

interface Focus {
  readonly name: string
  readonly describedBy: string
  readonly ring: string
}

/** Where the keyboard is, by id or by what it says; refuses a place that nobody would see. */
async function focusOf({ page }: WatchedPage): Promise<Focus> {
  // A page focuses its field when it is first drawn, which is a moment after it can be read.
  await expect.poll(() => page.evaluate('document.activeElement !== document.body')).toBe(true)
  const focus = await page.evaluate<Focus>(`(() => {
    const at = document.activeElement
    const { outlineStyle, outlineWidth } = getComputedStyle(at)
    return {
      name: at.id || at.getAttribute('aria-label') || at.textContent.trim(),
      describedBy: at.getAttribute('aria-describedby') ?? '',
      ring: outlineStyle + ' ' + outlineWidth,
    }
  })()`)
  expect(focus.ring, `${focus.name} shows that it is focused`).toBe('solid 3px')
  return focus
}

export const focused = async (watched: WatchedPage) => (await focusOf(watched)).name

/** A screen reader speaks the description of what is focused when the page opens, which an alert alone would miss. */
export async function describedAndFocused(watched: WatchedPage): Promise<string> {
  const { name, describedBy } = await focusOf(watched)
  expect(describedBy.split(' ')).toContain('form-error')
  return name
}

// The field for a new password in a real browser: under the edge's own policy for scripts and styles, by keyboard and
// assistive technology, in both colour schemes, and without JavaScript.
import pino from 'pino'
import type { Browser } from 'playwright-core'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { parseConfig } from '../../src/config.ts'
import {
  checkNewPassword,
  describePasswordRules,
  effectivePasswordRules,
} from '../../src/credentials/password-rules.ts'
import { createApp } from '../../src/http/app.ts'
import { createViews } from '../../src/http/views.ts'
import { effectivePolicy } from '../../src/organizations/policy.ts'
import { axe, launchBrowser, newPage, shot } from '../support/browser.ts'
import { freePort } from '../support/free-port.ts'

const rules = effectivePasswordRules(effectivePolicy({}, parseConfig({ NODE_ENV: 'test' })))
const context = { email: 'ada@mercy.example', name: 'Ada Moreno', organizationName: 'Mercy Hospital' }

let url: string
let browser: Browser
let close: () => Promise<void>

beforeAll(async () => {
  const port = await freePort()
  url = `http://localhost:${port}`
  const views = createViews({ cache: true })
  const logger = pino({ level: 'silent' })
  const { app } = await createApp({ issuer: url, trustedProxies: [], logger, views })
  app.get<{ Querystring: { tried?: string } }>('/new-password', async (request, reply) => {
    const { tried } = request.query
    const verdict = tried === undefined ? { ok: true as const } : checkNewPassword(tried, rules, context)
    const newPassword = { rules: describePasswordRules(rules), problems: verdict.ok ? [] : verdict.problems }
    // The partial stands in a page and a form as its users have them.
    const part = views.render('partials/new-password', { newPassword }, request.id)
    const page = views.render('home', { title: 'New password', issuer: url, demo: undefined }, request.id)
    const form = `<h1>New password</h1><form class="form" method="post" action="/new-password">${part}<button class="button" type="submit">Save</button></form>`
    return reply
      .type('text/html; charset=utf-8')
      .send(page.replace(/(<main[^>]*>)[\s\S]*<\/main>/, (_, main: string) => `${main}${form}</main>`))
  })
  await app.listen({ host: '127.0.0.1', port })
  browser = await launchBrowser()
  close = async () => {
    await browser.close()
    await app.close()
  }
})
afterAll(() => close())

describe.each(['light', 'dark'] as const)('the new password field in a %s scheme', (colorScheme) => {
  it('says which rules are met while somebody types, and hides and shows what they typed', async () => {
    const watched = await newPage(browser, { colorScheme })
    const { page } = watched
    await page.goto(`${url}/new-password`)
    const field = page.getByRole('textbox', { name: 'New password' })
    const met = () => page.locator('[data-met=yes]').count()
    const words = page.locator('[aria-live=polite]')
    expect(await words.textContent()).toBe('')
    await field.fill('vqzkoru')
    expect(await met()).toBe(0)
    await page.getByText('7 characters. 0 of 2 rules met so far.').waitFor()
    await field.fill('Vqzkoru-hetx')
    expect(await met()).toBe(2)
    await page.getByText('12 characters. Length and characters are right.', { exact: false }).waitFor()
    expect(await axe(page)).toEqual([])
    await page.getByRole('button', { name: 'Show what you typed' }).click()
    expect(await field.getAttribute('type')).toBe('text')
    await shot(page, `new-password-${colorScheme}`)
    await field.fill('')
    await words.filter({ hasText: /^$/ }).waitFor({ state: 'attached' })
    expect(watched.complaints).toEqual([])
    await watched.close()
  })

  it('says everything that is wrong in an alert, which describes the field', async () => {
    const watched = await newPage(browser, { colorScheme })
    const { page } = watched
    await page.goto(`${url}/new-password?tried=moreno`)
    const alert = await page.getByRole('alert').textContent()
    expect(alert).toContain('Use at least 12 characters; this has 6.')
    expect(alert).toContain('This is your name')
    const field = page.getByRole('textbox', { name: 'New password' })
    const described = ((await field.getAttribute('aria-describedby')) ?? '').split(' ')
    expect(described).toHaveLength(2)
    for (const id of described) expect(await page.locator(`#${id}`).isVisible()).toBe(true)
    expect(await axe(page)).toEqual([])
    await shot(page, `new-password-wrong-${colorScheme}`)
    expect(watched.complaints).toEqual([])
    await watched.close()
  })
})

it('without JavaScript shows the rules, takes a password and promises no feedback', async () => {
  const watched = await newPage(browser, { javaScriptEnabled: false })
  const { page } = watched
  await page.goto(`${url}/new-password`)
  await page.getByText('At least 12 characters.', { exact: false }).waitFor()
  await page.getByRole('textbox', { name: 'New password' }).fill('Vqzkoru-hetx')
  expect(await page.locator('.strength').isVisible()).toBe(false)
  await watched.close()
})

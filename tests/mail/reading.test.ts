// Mails as a narrow screen shows them, in both colour schemes: nothing to scroll sideways, contrast and structure by axe.

import type { Browser } from 'playwright-core'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { createMailViews } from '../../src/mail/views.ts'
import { axe, launchBrowser, newPage, shot } from '../support/browser.ts'
import { issuer, samples } from './support.ts'

const { render } = createMailViews({ issuer, cache: true })
const token = 'abcdefghijklmnopqrstuvwxyzabcdefghijklmnopq'

let browser: Browser
beforeAll(async () => {
  browser = await launchBrowser()
})
afterAll(() => browser.close())

describe.each(['light', 'dark'] as const)('on a screen of 320 px, %s', (colorScheme) => {
  it('every mail fits and passes axe', async () => {
    const { page, complaints, close } = await newPage(browser, { viewport: { width: 320, height: 640 }, colorScheme })
    for (const message of samples) {
      const { html, subject } = render(message)
      await page.setContent(html.replaceAll('t0ken', `${token}${token}`))
      const widths = await page.evaluate('[document.documentElement.scrollWidth, window.innerWidth]')
      expect(widths, subject).toEqual([320, 320])
      expect(await axe(page), subject).toEqual([])
      if (message.template === 'invitation') await shot(page, `mail-invitation-${colorScheme}`)
      if (subject === 'A backup code was used') await shot(page, `mail-notice-${colorScheme}`)
    }
    expect(complaints).toEqual([])
    await close()
  })
})

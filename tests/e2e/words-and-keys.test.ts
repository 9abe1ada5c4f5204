// What a person reads when something is wrong, too often or too late; and that a keyboard alone is enough, shows where it
// is, and is led to what has to be mended.
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import type { WatchedPage } from '../support/browser.ts'
import {
  accountsOf,
  alertOf,
  arrive,
  button,
  describedAndFocused,
  enterPassword,
  field,
  finish,
  focused,
  forget,
  type Harbor,
  heading,
  link,
  look,
  reachApp,
  runs,
  startHarbor,
} from '../support/harbor.ts'
import { password } from '../support/server.ts'
import { codeFor, seededSecret } from '../support/totp.ts'

let harbor: Harbor
beforeAll(async () => {
  harbor = await startHarbor({
    organizations: [{ slug: 'mercy', name: 'Mercy Hospital', policy: { loginMethods: ['password', 'magic_link'] } }],
    accounts: [...accountsOf('theo'), ...accountsOf('kay', { totpSecret: seededSecret })],
  })
})
afterAll(() => harbor.close())

describe.each(runs)('with JavaScript $javaScriptEnabled', ({ javaScriptEnabled, who }) => {
  const visit = () => harbor.visit({ javaScriptEnabled })
  // Axe-core is a script itself.
  const seen = async (watched: WatchedPage, name: string) => {
    if (javaScriptEnabled) await look(watched, name)
  }

  it('says what happened and what to do: too many tries, no address, a sign-in that is over', async () => {
    const watched = await visit()
    const email = `theo-${who}@mercy.example`
    await arrive(harbor, watched)
    await field(watched, 'Email').fill('theo')
    await button(watched, 'Email me a sign-in link').click()
    // This button sends the form past the checks of the browser, so the words are ours.
    expect(await alertOf(watched)).toContain('not an e-mail address')
    expect(await describedAndFocused(watched)).toBe('email')
    await seen(watched, 'sign-in-no-address')

    let words = ''
    // The tenth try at the latest is one too many; most often the fourth comes too soon.
    for (let tries = 0; tries <= 10 && !words.includes('Too many tries'); tries += 1) {
      await enterPassword(watched, email, 'not the password')
      words = await alertOf(watched)
    }
    expect(words).toMatch(/Too many tries.*please wait .*(second|minute)s? and try again/s)
    await seen(watched, 'sign-in-throttled')

    for (let mails = 0; mails < 3; mails += 1) {
      await forget(watched, email)
      await heading(watched, 'Check your email')
      await link(watched, 'Back to sign in').click()
    }
    await forget(watched, email)
    expect(await alertOf(watched)).toContain('Too many tries')
    await seen(watched, 'forgot-throttled')

    await watched.page.context().clearCookies()
    await button(watched, 'Email me a link').click()
    await heading(watched, 'This sign-in has expired')
    await watched.page.getByText('Request id').waitFor()
    await seen(watched, 'expired')
    await finish(watched)
  })

  it('needs no mouse, shows where the keyboard is, and reads an error with its field', async () => {
    const watched = await visit()
    const { page } = watched
    const { keyboard } = page
    const email = `kay-${who}@mercy.example`
    await page.goto(harbor.url)
    await link(watched, 'Sign in with MLPipes').focus()
    await keyboard.press('Enter')
    await heading(watched, 'Sign in')
    expect(await focused(watched), 'typing can begin at once').toBe('email')
    await keyboard.type(email)
    await keyboard.press('Tab')
    await keyboard.type('not the password')
    await keyboard.press('Enter')
    expect(await alertOf(watched)).toContain('not right')
    expect(await describedAndFocused(watched)).toBe('password')
    await keyboard.type(password)
    if (javaScriptEnabled) {
      await keyboard.press('Tab')
      expect(await focused(watched)).toBe('Show what you typed')
    }
    await keyboard.press('Tab')
    expect(await focused(watched)).toBe('Sign in')
    await keyboard.press('Enter')

    await heading(watched, 'Confirm it is you')
    expect(await focused(watched)).toBe('code')
    await keyboard.type('000000')
    await keyboard.press('Enter')
    expect(await alertOf(watched)).toContain('code is not right')
    expect(await describedAndFocused(watched)).toBe('code')
    for (const name of ['Verify', 'Use a backup code', 'Cancel and return to Harbor EHR']) {
      await keyboard.press('Tab')
      expect(await focused(watched)).toBe(name)
    }
    await keyboard.press('Shift+Tab')
    await keyboard.press('Enter')
    await heading(watched, 'Use a backup code')
    await link(watched, 'Use your authenticator app').press('Enter')
    await heading(watched, 'Confirm it is you')
    expect(await focused(watched)).toBe('code')
    await keyboard.type(await codeFor(harbor.server))
    await keyboard.press('Enter')
    await button(watched, 'Allow').press('Enter')
    expect(await reachApp(watched)).toBe('urn:mlpipes:acr:mfa')
    await finish(watched)
  })
})

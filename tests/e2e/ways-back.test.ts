// The ways back, walked in Chromium: a forgotten password, with a second factor too, "this was not me", an invitation; and
// what a person reads when something is wrong, too late or too often. The keyboard alone is enough for all of it.
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import type { ApplyInput } from '../../src/apply/apply.ts'
import { invitePerson } from '../../src/cli/people.ts'
import { createSecrets } from '../../src/crypto/secrets.ts'
import type { WatchedPage } from '../support/browser.ts'
import {
  alertOf,
  arrive,
  button,
  describedAndFocused,
  enterCode,
  enterPassword,
  field,
  finish,
  focused,
  type Harbor,
  heading,
  link,
  look,
  reachApp,
  startHarbor,
} from '../support/harbor.ts'
import { linkIn, mailTo } from '../support/mails.ts'
import { password, testSecret } from '../support/server.ts'
import { codeFor, seededSecret } from '../support/totp.ts'

const runs = [
  { javaScriptEnabled: true, who: 'js' },
  { javaScriptEnabled: false, who: 'nojs' },
] as const
const good = 'Lavender-Kayak-93-Moss'
const periodSeconds = 30

const account = (name: string, extra = {}) =>
  runs.map(({ who }) => ({
    email: `${name}-${who}@mercy.example`,
    name: `${name} ${who}`,
    password,
    organization: 'mercy',
    emailVerified: true,
    ...extra,
  }))
const seed: ApplyInput = {
  organizations: [
    { slug: 'mercy', name: 'Mercy Hospital', policy: { loginMethods: ['password', 'magic_link'] } },
    { slug: 'hope', name: 'Hope Clinic' },
  ],
  accounts: [
    ...account('rita'),
    ...account('otto', { totpSecret: seededSecret }),
    ...account('nora'),
    ...account('gus'),
    ...account('theo'),
    ...account('kay', { totpSecret: seededSecret }),
  ],
}

let harbor: Harbor
beforeAll(async () => {
  harbor = await startHarbor(seed)
})
afterAll(() => harbor.close())

async function linkFor(email: string, count = 1): Promise<string> {
  return `${harbor.server.issuer}${linkIn(await mailTo(harbor.server, email, count))}`
}

async function forget(watched: WatchedPage, email: string): Promise<void> {
  await link(watched, 'Forgot password?').click()
  await heading(watched, 'Forgot your password?')
  await field(watched, 'Email').fill(email)
  await button(watched, 'Email me a link').click()
}

describe.each(runs)('with JavaScript $javaScriptEnabled', ({ javaScriptEnabled, who }) => {
  const visit = () => harbor.visit({ javaScriptEnabled })
  // Axe-core is a script itself.
  const seen = async (watched: WatchedPage, name: string) => {
    if (javaScriptEnabled) await look(watched, name)
  }

  it('replaces a forgotten password and ends what was signed in with it', async () => {
    const [before, watched] = [await visit(), await visit()]
    const email = `rita-${who}@mercy.example`
    await arrive(harbor, before)
    await enterPassword(before, email)
    await reachApp(before)

    await arrive(harbor, watched)
    await link(watched, 'Forgot password?').click()
    await heading(watched, 'Forgot your password?')
    await seen(watched, 'forgot')
    await link(watched, 'Back to sign in').click()
    await forget(watched, email)
    await heading(watched, 'Check your email')
    await seen(watched, 'forgot-sent')
    const address = await linkFor(email)
    await watched.page.goto(address)
    await heading(watched, 'Choose a new password')
    expect(watched.page.url(), 'the token leaves the address bar').not.toContain('token')
    await seen(watched, 'recover')
    await choose(watched, email)
    expect(await alertOf(watched)).toContain('Choose another password')
    await seen(watched, 'recover-weak')
    await choose(watched, good)
    await heading(watched, 'Your password is changed')
    await seen(watched, 'recovered')

    await before.page.reload()
    await before.page.getByText('Your session has ended').waitFor()
    await arrive(harbor, watched)
    await enterPassword(watched, email)
    expect(await alertOf(watched)).toContain('not right')
    await enterPassword(watched, email, good)
    expect(await reachApp(watched)).toBe('urn:mlpipes:acr:password')
    await watched.page.goto(address)
    await heading(watched, 'This link no longer works')
    await watched.page.getByText('Request id').waitFor()
    await seen(watched, 'recover-dead')
    await finish(before, watched)
  })

  it('asks for a second factor before it replaces the password of an account that has one', async () => {
    const watched = await visit()
    const email = `otto-${who}@mercy.example`
    await arrive(harbor, watched)
    await forget(watched, email)
    await watched.page.goto(await linkFor(email))
    const code = field(watched, 'Authentication code or backup code')
    await code.fill('000000')
    await choose(watched, good)
    expect(await alertOf(watched)).toContain('code is not right')
    expect(await describedAndFocused(watched)).toBe('code')
    await seen(watched, 'recover-code')
    await code.fill(await codeFor(harbor.server))
    await choose(watched, good)
    await heading(watched, 'Your password is changed')
    await arrive(harbor, watched)
    await enterPassword(watched, email, good)
    await enterCode(watched, await codeFor(harbor.server, seededSecret, periodSeconds))
    expect(await reachApp(watched)).toBe('urn:mlpipes:acr:mfa')
    await finish(watched)
  })

  it('signs everybody out when a notice was answered with "this was not me"', async () => {
    const [mine, theirs] = [await visit(), await visit()]
    const email = `nora-${who}@mercy.example`
    for (const watched of [mine, theirs]) {
      await arrive(harbor, watched)
      await enterPassword(watched, email)
      await reachApp(watched)
    }
    await mine.page.goto(await linkFor(email))
    await heading(mine, 'Was this not you?')
    await seen(mine, 'not-me')
    await button(mine, 'Sign out everywhere').click()
    await heading(mine, 'Everything is signed out')
    await seen(mine, 'not-me-done')
    await theirs.page.reload()
    await theirs.page.getByText('Your session has ended').waitFor()
    await finish(theirs)

    await arrive(harbor, mine)
    await enterPassword(mine, email)
    await heading(mine, 'Choose a new password')
    await seen(mine, 'change-password')
    await field(mine, 'New password').fill(good)
    await button(mine, 'Change password').click()
    expect(await reachApp(mine)).toBe('urn:mlpipes:acr:password')
    await finish(mine)
  })

  it('takes an invitation, of somebody new and of somebody with an account', async () => {
    const parts = { database: harbor.server.database, secrets: createSecrets(testSecret), issuer: harbor.server.issuer }
    const invite = async (email: string) => {
      await invitePerson(parts, { email, organizationSlug: 'hope', roles: ['member'] })
      return linkFor(email)
    }
    const watched = await visit()
    await watched.page.goto(await invite(`ina-${who}@new.example`))
    await heading(watched, 'Join Hope Clinic')
    await seen(watched, 'invitation')
    await field(watched, 'Full name').fill('Ina Vited')
    await field(watched, 'Password').fill(good)
    await button(watched, 'Accept invitation').click()
    await heading(watched, 'Welcome to Hope Clinic')
    await seen(watched, 'invitation-accepted')
    await watched.page.goto(await invite(`gus-${who}@mercy.example`))
    await heading(watched, 'Join Hope Clinic')
    await seen(watched, 'invitation-known')
    await button(watched, 'Accept invitation').click()
    await heading(watched, 'Welcome to Hope Clinic')
    await finish(watched)
  })

  it('says what happened and what to do: too many tries, no address, a sign-in that is over', async () => {
    const watched = await visit()
    const email = `theo-${who}@mercy.example`
    await arrive(harbor, watched)
    await field(watched, 'Email').fill('theo')
    await button(watched, 'Email me a sign-in link').click()
    // A browser with an opinion of its own about addresses is told that this button does not need the password.
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

  async function choose(watched: WatchedPage, secret: string): Promise<void> {
    await field(watched, 'New password').fill(secret)
    await button(watched, 'Set new password').click()
  }
})

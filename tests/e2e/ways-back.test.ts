// The ways back, walked in Chromium: a forgotten password, with a second factor too, "this was not me", a password that
// has to be replaced, an invitation. With scripts every page is also looked at (support/harbor.ts).
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import type { ApplyInput } from '../../src/apply/apply.ts'
import { invitePerson } from '../../src/cli/people.ts'
import { createSecrets } from '../../src/crypto/secrets.ts'
import type { WatchedPage } from '../support/browser.ts'
import {
  accountsOf,
  alertOf,
  arrive,
  button,
  describedAndFocused,
  enterCode,
  enterPassword,
  field,
  finish,
  forget,
  type Harbor,
  heading,
  link,
  linkFor,
  look,
  reachApp,
  runs,
  startHarbor,
} from '../support/harbor.ts'
import { mailsTo } from '../support/mails.ts'
import { password, testSecret } from '../support/server.ts'
import { codeFor, seededSecret } from '../support/totp.ts'

const good = 'Lavender-Kayak-93-Moss'
const periodSeconds = 30

const seed: ApplyInput = {
  organizations: [
    { slug: 'mercy', name: 'Mercy Hospital', policy: { loginMethods: ['password', 'magic_link'] } },
    { slug: 'hope', name: 'Hope Clinic' },
  ],
  accounts: [
    ...accountsOf('rita'),
    ...accountsOf('otto', { totpSecret: seededSecret }),
    ...accountsOf('nora'),
    ...accountsOf('olga'),
    ...accountsOf('gus'),
  ],
}

let harbor: Harbor
beforeAll(async () => {
  harbor = await startHarbor(seed)
})
afterAll(() => harbor.close())

/** What an import or the age of a password leads to. */
const mustChange = (email: string) =>
  harbor.server.database.kysely
    .updateTable('password_credentials')
    .set({ must_change: true })
    .where('account_id', 'in', (eb) => eb.selectFrom('accounts').select('id').where('email_normalized', '=', email))
    .execute()

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
    const address = await linkFor(harbor, email)
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
    await watched.page.goto(await linkFor(harbor, email))
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
    await mine.page.goto(await linkFor(harbor, email))
    await heading(mine, 'Was this not you?')
    await seen(mine, 'not-me')
    await button(mine, 'Sign out everywhere').click()
    await heading(mine, 'Everything is signed out')
    await seen(mine, 'not-me-done')
    await theirs.page.reload()
    await theirs.page.getByText('Your session has ended').waitFor()
    await finish(theirs)

    // Whoever it was may know the password, so it opens nothing any more; a mail does.
    await arrive(harbor, mine)
    await enterPassword(mine, email)
    expect(await alertOf(mine)).toContain('not right')
    const mailsBefore = mailsTo(harbor.server, email).length
    await forget(mine, email)
    await heading(mine, 'Check your email')
    await mine.page.goto(await linkFor(harbor, email, mailsBefore + 1))
    await choose(mine, good)
    await heading(mine, 'Your password is changed')
    await arrive(harbor, mine)
    await enterPassword(mine, email, good)
    expect(await reachApp(mine)).toBe('urn:mlpipes:acr:password')
    await finish(mine)
  })

  it('has a password replaced that has to be, before the app is reached', async () => {
    const watched = await visit()
    const email = `olga-${who}@mercy.example`
    await mustChange(email)
    await arrive(harbor, watched)
    await enterPassword(watched, email)
    await heading(watched, 'Choose a new password')
    await seen(watched, 'change-password')
    await field(watched, 'New password').fill(password)
    await button(watched, 'Change password').click()
    expect(await alertOf(watched), 'the same again is no change').toContain('Choose another password')
    await field(watched, 'New password').fill(good)
    await button(watched, 'Change password').click()
    expect(await reachApp(watched)).toBe('urn:mlpipes:acr:password')
    await finish(watched)
  })

  it('takes an invitation, of somebody new and of somebody with an account', async () => {
    const parts = { database: harbor.server.database, secrets: createSecrets(testSecret), issuer: harbor.server.issuer }
    const invite = async (email: string) => {
      await invitePerson(parts, { email, organizationSlug: 'hope', roles: ['member'] })
      return linkFor(harbor, email)
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

  async function choose(watched: WatchedPage, secret: string): Promise<void> {
    await field(watched, 'New password').fill(secret)
    await button(watched, 'Set new password').click()
  }
})

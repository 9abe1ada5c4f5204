// The ways in, each walked in Chromium from the demo app and back into it: signing up, a link by mail, on another device
// too, and a second factor that has to be set up first. With scripts every page is also looked at (support/harbor.ts).
import { readFile } from 'node:fs/promises'
import { generate } from 'otplib'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import type { ApplyInput } from '../../src/apply/apply.ts'
import { qrDataUri } from '../../src/credentials/qr.ts'
import { shot, type WatchedPage } from '../support/browser.ts'
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
  type Harbor,
  heading,
  link,
  linkFor,
  look,
  reachApp,
  runs,
  startHarbor,
} from '../support/harbor.ts'
import { mailTo } from '../support/mails.ts'
import { codeFor, seededSecret } from '../support/totp.ts'

const good = 'Lavender-Kayak-93-Moss'

const seed: ApplyInput = {
  organizations: [
    { slug: 'mercy', name: 'Mercy Hospital', policy: { signup: 'open', loginMethods: ['password', 'magic_link'] } },
    { slug: 'vale', name: 'Vale Hospice', policy: { mfa: 'required' } },
  ],
  accounts: [
    ...accountsOf('lina'),
    ...accountsOf('toni', { totpSecret: seededSecret }),
    ...accountsOf('vera', { organization: 'vale' }),
  ],
}

let harbor: Harbor
beforeAll(async () => {
  harbor = await startHarbor(seed)
})
afterAll(() => harbor.close())

describe.each(runs)('with JavaScript $javaScriptEnabled', ({ javaScriptEnabled, who }) => {
  const visit = () => harbor.visit({ javaScriptEnabled })
  // Axe-core is a script itself.
  const seen = async (watched: WatchedPage, name: string) => {
    if (javaScriptEnabled) await look(watched, name)
  }

  it('signs up: a weak password is explained, the address is confirmed, the app has the person', async () => {
    const watched = await visit()
    const { page } = watched
    const email = `nia-${who}@new.example`
    await arrive(harbor, watched)
    await seen(watched, 'sign-in')
    await link(watched, 'Create an account').click()
    await heading(watched, 'Create an account')
    await seen(watched, 'sign-up')
    const fill = async (secret: string) => {
      await field(watched, 'Full name').fill('Nia New')
      await field(watched, 'Email').fill(email)
      await field(watched, 'Password').fill(secret)
      await button(watched, 'Create account').click()
    }
    await page.getByText('Professional details').click()
    await field(watched, 'National Provider Identifier (NPI)').fill('1234567890')
    await fill(good)
    expect(await alertOf(watched)).toContain('not an NPI')
    expect(await describedAndFocused(watched)).toBe('npi')
    await seen(watched, 'sign-up-npi')
    await field(watched, 'National Provider Identifier (NPI)').fill('1234567893')
    await fill('short')
    await page.getByText('Use at least 12 characters').waitFor()
    expect(await alertOf(watched)).toContain('Use at least 12 characters')
    expect(await field(watched, 'Full name').inputValue()).toBe('Nia New')
    expect(await field(watched, 'Password').inputValue()).toBe('')
    await seen(watched, 'sign-up-weak')
    await fill(good)
    await heading(watched, 'Check your email')
    await seen(watched, 'sign-up-sent')

    await page.goto(await linkFor(harbor, email))
    await heading(watched, 'Confirm your address')
    expect(page.url(), 'the token leaves the address bar').not.toContain('token')
    await seen(watched, 'sign-up-landing')
    await button(watched, 'Confirm my address').click()
    await button(watched, 'Allow').waitFor()
    await seen(watched, 'consent')
    expect(await reachApp(watched)).toBe('urn:mlpipes:acr:password')
    await finish(watched)
  })

  it('confirms a sign-up with the code that the link shows on another device', async () => {
    const [desk, phone] = [await visit(), await visit()]
    const email = `paul-${who}@new.example`
    await arrive(harbor, desk)
    await link(desk, 'Create an account').click()
    await field(desk, 'Full name').fill('Paul Phone')
    await field(desk, 'Email').fill(email)
    await field(desk, 'Password').fill(good)
    await button(desk, 'Create account').click()
    await heading(desk, 'Check your email')

    const code = await codeShownOn(phone, await linkFor(harbor, email))
    await seen(phone, 'elsewhere')
    await typeCode(desk, 'AAAA-AAAA')
    expect(await alertOf(desk)).toContain('did not work')
    expect(await desk.page.getByText(email).count(), 'the page still says which address').toBe(1)
    await seen(desk, 'sign-up-sent-wrong')
    await typeCode(desk, code.toLowerCase())
    expect(await reachApp(desk)).toBe('urn:mlpipes:acr:password')
    await finish(desk, phone)
  })

  it('signs in with a link from the mail, in the browser that asked', async () => {
    const watched = await visit()
    const { page } = watched
    const email = `lina-${who}@mercy.example`
    await askForLink(watched, email)
    await seen(watched, 'link-sent')
    const older = await linkFor(harbor, email)
    await link(watched, 'Back to sign in').click()
    await field(watched, 'Email').fill(email)
    await button(watched, 'Email me a sign-in link').click()
    await heading(watched, 'Check your email')
    await mailTo(harbor.server, email, 2)
    await page.goto(older)
    await heading(watched, 'This link no longer works')
    await link(watched, 'Back to sign in').waitFor()
    await page.getByText('Request id').waitFor()
    await seen(watched, 'link-superseded')
    await page.goto(await linkFor(harbor, email))
    await heading(watched, 'Continue signing in')
    await seen(watched, 'link-landing')
    await button(watched, 'Continue signing in').click()
    expect(await reachApp(watched)).toBe('urn:mlpipes:acr:link')

    await page.goto(await linkFor(harbor, email))
    await heading(watched, 'This link no longer works')
    await seen(watched, 'link-dead')
    await finish(watched)
  })

  it('asks for the code of an account with an authenticator after its link, opened elsewhere', async () => {
    const [desk, phone] = [await visit(), await visit()]
    const email = `toni-${who}@mercy.example`
    await askForLink(desk, email)
    await typeCode(desk, await codeShownOn(phone, await linkFor(harbor, email)))
    await field(desk, 'Authentication code').waitFor()
    await seen(desk, 'second-factor')
    await enterCode(desk, '000000')
    expect(await alertOf(desk)).toContain('code is not right')
    await seen(desk, 'second-factor-wrong')
    await enterCode(desk, await codeFor(harbor.server))
    expect(await reachApp(desk), 'a link and a code are not multi-factor').toBe('urn:mlpipes:acr:link')
    await finish(desk, phone)
  })

  it('sets up a second factor where the organisation requires one, and takes a backup code the next time', async () => {
    const watched = await visit()
    const { page } = watched
    const email = `vera-${who}@mercy.example`
    await arrive(harbor, watched)
    await enterPassword(watched, email)
    await heading(watched, 'Set up a second factor')
    await seen(watched, 'set-up')
    const picture = page.getByRole('img', { name: 'QR code' })
    const uri = (await link(watched, 'Open in authenticator app').getAttribute('href')) ?? ''
    expect(await picture.getAttribute('src'), 'the picture says what the link says').toBe(qrDataUri(uri))
    expect(await picture.evaluate((image) => 'naturalWidth' in image && Number(image.naturalWidth) > 0)).toBe(true)
    const secret = (await page.getByText(/^([A-Z2-7]{4} ?){8}$/).innerText()).replace(/\s/g, '')
    expect(secret).toMatch(/^[A-Z2-7]{32}$/)
    expect(new URL(uri).searchParams.get('secret')).toBe(secret)
    const now = () => ({ epoch: Math.floor(Date.now() / 1000) })

    await enterCode(watched, '000000', 'Turn on')
    expect(await alertOf(watched)).toContain('code is not right')
    await seen(watched, 'set-up-wrong')
    await enterCode(watched, await generate({ secret, ...now() }), 'Turn on')
    const list = page.getByRole('list', { name: 'Backup codes' })
    await list.waitFor()
    await seen(watched, 'backup-codes')
    const codes = await list.getByRole('listitem').allInnerTexts()
    expect(new Set(codes).size).toBe(10)
    if (javaScriptEnabled) expect(await downloaded(watched)).toEqual(codes)
    await page.emulateMedia({ media: 'print' })
    expect(await page.getByText(email).isVisible(), 'the paper says whose codes they are').toBe(true)
    expect(await list.isVisible()).toBe(true)
    expect(await page.getByRole('button').filter({ visible: true }).count(), 'paper has no buttons').toBe(0)
    await shot(page, `backup-codes-print-${who}`)
    await page.emulateMedia({ media: 'screen' })
    await button(watched, 'I have saved them').click()
    expect(await reachApp(watched)).toBe('urn:mlpipes:acr:mfa')
    await finish(watched)

    const next = await visit()
    await useBackupCode(next, email, codes[3] ?? '')
    expect(await reachApp(next)).toBe('urn:mlpipes:acr:mfa')
    const third = await visit()
    await useBackupCode(third, email, codes[3] ?? '')
    expect(await alertOf(third)).toContain('backup code is not right')
    await seen(third, 'backup-code-spent')
    await finish(next, third)
  })

  async function downloaded(watched: WatchedPage): Promise<string[]> {
    const saved = watched.page.waitForEvent('download')
    await button(watched, 'Download').click()
    return (await readFile(await (await saved).path(), 'utf8')).trim().split('\n')
  }

  async function askForLink(watched: WatchedPage, email: string): Promise<void> {
    await arrive(harbor, watched)
    await field(watched, 'Email').fill(email)
    await button(watched, 'Email me a sign-in link').click()
    await heading(watched, 'Check your email')
  }

  async function codeShownOn(watched: WatchedPage, address: string): Promise<string> {
    await watched.page.goto(address)
    await heading(watched, 'Go on where you began')
    expect(await watched.page.locator('form, button, input').count(), 'nothing to press there').toBe(0)
    return (await watched.page.getByText(/^[A-Z2-9]{4}-[A-Z2-9]{4}$/).textContent()) ?? ''
  }

  async function typeCode(watched: WatchedPage, code: string): Promise<void> {
    await field(watched, 'Code from the link').fill(code)
    await button(watched, 'Continue').click()
  }

  async function useBackupCode(watched: WatchedPage, email: string, code: string): Promise<void> {
    await arrive(harbor, watched)
    await enterPassword(watched, email)
    await field(watched, 'Authentication code').waitFor()
    await link(watched, 'Use a backup code').click()
    await heading(watched, 'Use a backup code')
    await seen(watched, 'backup-code')
    await field(watched, 'Backup code').fill(code)
    await button(watched, 'Verify').click()
  }
})

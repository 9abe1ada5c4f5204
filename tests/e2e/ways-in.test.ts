// The ways in, each walked in Chromium from the demo app and back into it: signing up, a link by mail, on another device
// too, and a second factor that has to be set up first. With scripts every page is also looked at (support/harbor.ts).
import { generate } from 'otplib'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import type { ApplyInput } from '../../src/apply/apply.ts'
import { qrDataUri } from '../../src/credentials/qr.ts'
import type { WatchedPage } from '../support/browser.ts'
import {
  alertOf,
  arrive,
  enterCode,
  enterPassword,
  type Harbor,
  heading,
  look,
  reachApp,
  startHarbor,
} from '../support/harbor.ts'
import { linkIn, mailTo } from '../support/mails.ts'
import { password } from '../support/server.ts'
import { codeFor, seededSecret } from '../support/totp.ts'

const runs = [
  { javaScriptEnabled: true, who: 'js' },
  { javaScriptEnabled: false, who: 'nojs' },
] as const
const good = 'Lavender-Kayak-93-Moss'

const account = (name: string, organization: string, extra = {}) =>
  runs.map(({ who }) => ({
    email: `${name}-${who}@mercy.example`,
    name: `${name} ${who}`,
    password,
    organization,
    emailVerified: true,
    ...extra,
  }))
const seed: ApplyInput = {
  organizations: [
    { slug: 'mercy', name: 'Mercy Hospital', policy: { signup: 'open', loginMethods: ['password', 'magic_link'] } },
    { slug: 'vale', name: 'Vale Hospice', policy: { mfa: 'required' } },
  ],
  accounts: [
    ...account('lina', 'mercy'),
    ...account('toni', 'mercy', { totpSecret: seededSecret }),
    ...account('vera', 'vale'),
  ],
}

let harbor: Harbor
beforeAll(async () => {
  harbor = await startHarbor(seed)
})
afterAll(() => harbor.close())

const linkFor = async (email: string) => `${harbor.server.issuer}${linkIn(await mailTo(harbor.server, email))}`

describe.each(runs)('with JavaScript $javaScriptEnabled', ({ javaScriptEnabled, who }) => {
  const visit = () => harbor.visit({ javaScriptEnabled })
  // Axe-core is a script itself.
  const seen = async (watched: WatchedPage, name: string) => {
    if (javaScriptEnabled) await look(watched, name)
  }
  const closed = async (...watched: WatchedPage[]) => {
    for (const each of watched) {
      expect(each.complaints).toEqual([])
      await each.close()
    }
  }

  it('signs up: a weak password is explained, the address is confirmed, the app has the person', async () => {
    const watched = await visit()
    const { page } = watched
    const email = `nia-${who}@new.example`
    await arrive(harbor, watched)
    await seen(watched, 'sign-in')
    await page.getByRole('link', { name: 'Create an account' }).click()
    await heading(watched, 'Create an account')
    await seen(watched, 'sign-up')
    const fill = async (secret: string) => {
      await page.getByRole('textbox', { name: 'Full name' }).fill('Nia New')
      await page.getByRole('textbox', { name: 'Email' }).fill(email)
      await page.getByRole('textbox', { name: 'Password', exact: true }).fill(secret)
      await page.getByRole('button', { name: 'Create account' }).click()
    }
    await fill('short')
    expect(await alertOf(page)).toContain('Use at least 12 characters')
    expect(await page.getByRole('textbox', { name: 'Full name' }).inputValue()).toBe('Nia New')
    expect(await page.getByRole('textbox', { name: 'Password', exact: true }).inputValue()).toBe('')
    await seen(watched, 'sign-up-weak')
    await fill(good)
    await heading(watched, 'Check your email')
    await seen(watched, 'sign-up-sent')

    await page.goto(await linkFor(email))
    await heading(watched, 'Confirm your address')
    expect(page.url(), 'the token leaves the address bar').not.toContain('token')
    await seen(watched, 'sign-up-landing')
    await page.getByRole('button', { name: 'Confirm my address' }).click()
    await page.getByRole('button', { name: 'Allow' }).waitFor()
    await seen(watched, 'consent')
    expect(await reachApp(watched)).toBe('urn:mlpipes:acr:password')
    await closed(watched)
  })

  it('confirms a sign-up with the code that the link shows on another device', async () => {
    const [desk, phone] = [await visit(), await visit()]
    const email = `paul-${who}@new.example`
    await arrive(harbor, desk)
    await desk.page.getByRole('link', { name: 'Create an account' }).click()
    await desk.page.getByRole('textbox', { name: 'Full name' }).fill('Paul Phone')
    await desk.page.getByRole('textbox', { name: 'Email' }).fill(email)
    await desk.page.getByRole('textbox', { name: 'Password', exact: true }).fill(good)
    await desk.page.getByRole('button', { name: 'Create account' }).click()
    await heading(desk, 'Check your email')

    const code = await codeShownOn(phone, await linkFor(email))
    await seen(phone, 'elsewhere')
    await typeCode(desk, 'AAAA-AAAA')
    expect(await alertOf(desk.page)).toContain('did not work')
    expect(await desk.page.getByText(email).count(), 'the page still says which address').toBe(1)
    await seen(desk, 'sign-up-sent-wrong')
    await typeCode(desk, code.toLowerCase())
    expect(await reachApp(desk)).toBe('urn:mlpipes:acr:password')
    await closed(desk, phone)
  })

  it('signs in with a link from the mail, in the browser that asked', async () => {
    const watched = await visit()
    const { page } = watched
    const email = `lina-${who}@mercy.example`
    await askForLink(watched, email)
    await seen(watched, 'link-sent')
    await page.goto(await linkFor(email))
    await heading(watched, 'Continue signing in')
    await seen(watched, 'link-landing')
    await page.getByRole('button', { name: 'Continue signing in' }).click()
    expect(await reachApp(watched)).toBe('urn:mlpipes:acr:link')

    await page.goto(await linkFor(email))
    await heading(watched, 'This link no longer works')
    await seen(watched, 'link-dead')
    await closed(watched)
  })

  it('asks for the code of an account with an authenticator after its link, opened elsewhere', async () => {
    const [desk, phone] = [await visit(), await visit()]
    const email = `toni-${who}@mercy.example`
    await askForLink(desk, email)
    await typeCode(desk, await codeShownOn(phone, await linkFor(email)))
    await desk.page.getByRole('textbox', { name: 'Authentication code' }).waitFor()
    await seen(desk, 'second-factor')
    await enterCode(desk, '000000')
    expect(await alertOf(desk.page)).toContain('code is not right')
    await seen(desk, 'second-factor-wrong')
    await enterCode(desk, await codeFor(harbor.server))
    expect(await reachApp(desk), 'a link and a code are not multi-factor').toBe('urn:mlpipes:acr:link')
    await closed(desk, phone)
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
    const uri = (await page.getByRole('link', { name: 'Open in authenticator app' }).getAttribute('href')) ?? ''
    expect(await picture.getAttribute('src'), 'the picture says what the link says').toBe(qrDataUri(uri))
    expect(await picture.evaluate((image) => 'naturalWidth' in image && Number(image.naturalWidth) > 0)).toBe(true)
    const secret = (await page.getByText(/^([A-Z2-7]{4} ?){8}$/).innerText()).replace(/\s/g, '')
    expect(secret).toMatch(/^[A-Z2-7]{32}$/)
    expect(new URL(uri).searchParams.get('secret')).toBe(secret)
    const now = () => ({ epoch: Math.floor(Date.now() / 1000) })

    await enterCode(watched, '000000', 'Turn on')
    expect(await alertOf(page)).toContain('code is not right')
    await seen(watched, 'set-up-wrong')
    await enterCode(watched, await generate({ secret, ...now() }), 'Turn on')
    const list = page.getByRole('list', { name: 'Backup codes' })
    await list.waitFor()
    await seen(watched, 'backup-codes')
    const codes = await list.getByRole('listitem').allInnerTexts()
    expect(new Set(codes).size).toBe(10)
    await page.getByRole('button', { name: 'I have saved them' }).click()
    expect(await reachApp(watched)).toBe('urn:mlpipes:acr:mfa')
    await closed(watched)

    const next = await visit()
    await useBackupCode(next, email, codes[3] ?? '')
    expect(await reachApp(next)).toBe('urn:mlpipes:acr:mfa')
    const third = await visit()
    await useBackupCode(third, email, codes[3] ?? '')
    expect(await alertOf(third.page)).toContain('backup code is not right')
    await seen(third, 'backup-code-spent')
    await closed(next, third)
  })

  async function askForLink(watched: WatchedPage, email: string): Promise<void> {
    await arrive(harbor, watched)
    await watched.page.getByRole('textbox', { name: 'Email' }).fill(email)
    await watched.page.getByRole('button', { name: 'Email me a sign-in link' }).click()
    await heading(watched, 'Check your email')
  }

  async function codeShownOn(watched: WatchedPage, link: string): Promise<string> {
    await watched.page.goto(link)
    await heading(watched, 'Go on where you began')
    expect(await watched.page.locator('form, button, input').count(), 'nothing to press there').toBe(0)
    return (await watched.page.getByText(/^[A-Z2-9]{4}-[A-Z2-9]{4}$/).textContent()) ?? ''
  }

  async function typeCode({ page }: WatchedPage, code: string): Promise<void> {
    await page.getByRole('textbox', { name: 'Code from the link' }).fill(code)
    await page.getByRole('button', { name: 'Continue', exact: true }).click()
  }

  async function useBackupCode(watched: WatchedPage, email: string, code: string): Promise<void> {
    const { page } = watched
    await arrive(harbor, watched)
    await enterPassword(watched, email)
    await page.getByRole('textbox', { name: 'Authentication code' }).waitFor()
    await page.getByRole('link', { name: 'Use a backup code' }).click()
    await heading(watched, 'Use a backup code')
    if (code && javaScriptEnabled) await seen(watched, 'backup-code')
    await page.getByRole('textbox', { name: 'Backup code' }).fill(code)
    await page.getByRole('button', { name: 'Verify' }).click()
  }
})

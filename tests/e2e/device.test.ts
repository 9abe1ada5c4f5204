// A device is connected in Chromium: the code typed or in the link, the page that says whom it lets in, sign-in, consent,
// and the ends of it.
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { deviceGrant } from '../../src/clients/clients.ts'
import type { WatchedPage } from '../support/browser.ts'
import { post } from '../support/client.ts'
import {
  accountsOf,
  alertOf,
  button,
  enterPassword,
  field,
  finish,
  focused,
  type Harbor,
  heading,
  look,
  runs,
  startHarbor,
} from '../support/harbor.ts'
import { secretOf } from '../support/server.ts'

let harbor: Harbor
beforeAll(async () => {
  harbor = await startHarbor({
    organizations: [{ slug: 'mercy', name: 'Mercy Hospital' }],
    accounts: [...accountsOf('dora'), ...accountsOf('dan')],
  })
  await harbor.server.apply({
    clients: [
      {
        client_id: 'bedside',
        client_secret: secretOf('bedside'),
        client_name: 'Bedside Monitor',
        organization: 'mercy',
        grant_types: [deviceGrant],
        scope: 'openid profile',
      },
    ],
  })
})
afterAll(() => harbor.close())

interface Device {
  readonly device_code: string
  readonly user_code: string
  readonly verification_uri: string
  readonly verification_uri_complete: string
}
const begin = async () =>
  (await post(harbor.server, '/oauth/device', 'bedside', { scope: 'openid profile' })).body as unknown as Device
const poll = async ({ device_code }: Device) =>
  (await post(harbor.server, '/oauth/token', 'bedside', { grant_type: deviceGrant, device_code })).body

describe.each(runs)('with JavaScript $javaScriptEnabled', ({ javaScriptEnabled, who }) => {
  const visit = () => harbor.visit({ javaScriptEnabled })
  // Axe-core is a script itself.
  const seen = async (watched: WatchedPage, name: string) => {
    if (javaScriptEnabled) await look(watched, name)
  }

  it('is connected by a code that somebody types, after a wrong one', async () => {
    const device = await begin()
    const watched = await visit()
    await watched.page.goto(device.verification_uri)
    await heading(watched, 'Connect a device')
    await seen(watched, 'device-code')
    expect(await focused(watched)).toBe('code')
    await field(watched, 'Code').fill('BCDF-GHJK')
    await button(watched, 'Continue').click()
    expect(await alertOf(watched)).toContain('This code is not right')
    await seen(watched, 'device-code-wrong')
    await field(watched, 'Code').fill(device.user_code.toLowerCase().replace('-', ''))
    await button(watched, 'Continue').click()
    await heading(watched, 'Connect this device?')
    for (const words of ['Bedside Monitor', 'Mercy Hospital', device.user_code])
      await watched.page.getByText(words).first().waitFor()
    await seen(watched, 'device-confirm')
    await button(watched, 'Connect').click()
    await enterPassword(watched, `dora-${who}@mercy.example`)
    await heading(watched, 'Allow Bedside Monitor?')
    await seen(watched, 'device-consent')
    await button(watched, 'Allow').click()
    await heading(watched, 'Your device is connected')
    await seen(watched, 'device-connected')
    expect(await poll(device)).toHaveProperty('access_token')
    await finish(watched)
  })

  it('is denied by somebody who followed a link with the code in it', async () => {
    const device = await begin()
    const watched = await visit()
    await watched.page.goto(device.verification_uri_complete)
    await heading(watched, 'Connect a device')
    expect(await field(watched, 'Code').inputValue()).toBe(device.user_code)
    await button(watched, 'Continue').click()
    await heading(watched, 'Connect this device?')
    await button(watched, 'Deny').click()
    await heading(watched, 'The device was not connected')
    await seen(watched, 'device-denied')
    expect(await poll(device)).toMatchObject({ error: 'access_denied' })
    await finish(watched)
  })

  it('is not connected when the person turns back at the sign-in', async () => {
    const device = await begin()
    const watched = await visit()
    await watched.page.goto(device.verification_uri_complete)
    await button(watched, 'Continue').click()
    await button(watched, 'Connect').click()
    await heading(watched, 'Sign in')
    await button(watched, 'Cancel and return to Bedside Monitor').click()
    await heading(watched, 'The device was not connected')
    expect(await poll(device)).toMatchObject({ error: 'access_denied' })
    await finish(watched)
  })

  it('asks to wait after too many wrong codes', async () => {
    const watched = await visit()
    await watched.page.goto((await begin()).verification_uri)
    for (const letter of 'BCDFG') {
      await field(watched, 'Code').fill(`XXXX-XXX${letter}`)
      await button(watched, 'Continue').click()
      expect(await alertOf(watched)).toContain('This code is not right')
    }
    await field(watched, 'Code').fill((await begin()).user_code)
    await button(watched, 'Continue').click()
    expect(await alertOf(watched)).toContain('Too many codes')
    await seen(watched, 'device-throttled')
    await finish(watched)
  })
})

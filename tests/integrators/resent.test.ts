// Forms that come again: reloaded, sent twice at once, or from a tab that is older than the app. Each is answered in words, and
// changes nothing; and the list of apps, in the order in which people look for them.
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { visit } from '../self-service/support.ts'
import type { Browser } from '../support/client.ts'
import type { TestServer } from '../support/server.ts'
import {
  alertOf,
  clientIdOf,
  manage,
  provesItself,
  register,
  registered,
  secretOn,
  send,
  startIntegrators,
  tidy,
  webApp,
} from './support.ts'

let server: TestServer
let browser: Browser
beforeAll(async () => {
  server = await startIntegrators()
  browser = (await visit(server, manage, 'ida@mercy.example')).browser
})
afterAll(() => server.close())

const { name, redirectUris, signOutUris, scope } = webApp
const editing = { name, redirectUris, signOutUris, scope }
const appsCalled = async (called: string) =>
  (await server.database.run('select client_id from mlpipes_auth.clients where name = $1', [called])).length
const works = (clientId: string, secret: string) => provesItself(server, clientId, secret)

describe('a secret', () => {
  // "One day more" was chosen, and the page with the new secret reloaded: a third was made, and the first, in production, was
  // dead at once, although the page said that it works for a day.
  it('is replaced once by a form that is sent twice, and the one of before works on', async () => {
    const { clientId, secret } = await registered(browser)
    const path = `${manage}/${clientId}/secret`
    const form = await browser.request(path)
    const second = secretOn(await send(browser, form, path, { overlap: 'day' })) ?? ''
    const again = await send(browser, form, path, { overlap: 'day' })
    expect(again.status).toBe(409)
    expect(secretOn(again)).toBeUndefined()
    expect(alertOf(again)).toBe(
      'The secret was not replaced It was replaced already, or the app was changed after this page was opened. Nothing was changed now. A new secret is shown once: if you did not keep it, replace it once more.',
    )
    expect(again.text).toContain(`href="${path}">Replace it once more</a>`)
    expect(await Promise.all([secret, second].map((one) => works(clientId, one)))).toEqual([true, true])
    const third = secretOn(await send(browser, await browser.request(path), path, { overlap: 'day' })) ?? ''
    expect(await Promise.all([secret, second, third].map((one) => works(clientId, one)))).toEqual([false, true, true])
  })

  it('is replaced once by a form that is sent twice at once', async () => {
    const { clientId, secret } = await registered(browser)
    const path = `${manage}/${clientId}/secret`
    const form = await browser.request(path)
    const answers = await Promise.all([1, 2, 3].map(() => send(browser, form, path, { overlap: 'week' })))
    expect(answers.map(({ status }) => status).sort()).toEqual([200, 409, 409])
    expect(await works(clientId, secret)).toBe(true)
  })

  it('is said to be one of two for as long as the one of before works', async () => {
    const { clientId } = await registered(browser)
    const path = `${manage}/${clientId}/secret`
    const pages = () =>
      Promise.all([`${manage}/${clientId}`, path].map(async (each) => (await browser.request(each)).text))
    for (const page of await pages()) expect(page).not.toContain('Two secrets')
    await send(browser, await browser.request(path), path, { overlap: 'day' })
    const until = 'select previous_secret_until as until from mlpipes_auth.clients where client_id = $1'
    const [row] = await server.database.run(until, [clientId])
    const iso = new Date(row?.['until'] as Date).toISOString()
    for (const page of await pages()) {
      expect(page).toContain(`<time datetime="${iso}">`)
      expect(page).toMatch(/ends the older (?:one|of them) at once/)
    }
    await server.database.run('update mlpipes_auth.clients set previous_secret_until = now() where client_id = $1', [
      clientId,
    ])
    for (const page of await pages()) expect(page).not.toContain('Two secrets')
  })
})

describe('an app', () => {
  it('is registered once by a form that is sent twice, and a second time by whoever means another', async () => {
    const form = await browser.request(register)
    const typed = { ...webApp, name: 'Twice' }
    const first = await send(browser, form, register, typed)
    const again = await send(browser, form, register, typed)
    expect(again.status).toBe(409)
    expect(alertOf(again)).toContain('“Twice” is registered already')
    expect(alertOf(again)).toContain('was shown once: if you did not keep it, replace it on the page of the app')
    expect(again.text).toContain(`href="${manage}/${clientIdOf(first)}"`)
    expect(again.text).toContain('value="Twice"')
    expect(await appsCalled('Twice')).toBe(1)
    expect((await send(browser, again, register, typed)).status).toBe(201)
    expect(await appsCalled('Twice')).toBe(2)
  })

  it('is registered once by a form that comes again when it was renamed meanwhile', async () => {
    const form = await browser.request(register)
    const typed = { ...webApp, name: 'Before', redirectUris: 'https://renamed.example/callback' }
    const path = `${manage}/${clientIdOf(await send(browser, form, register, typed))}/edit`
    await send(browser, await browser.request(path), path, {
      ...editing,
      name: 'After',
      redirectUris: typed.redirectUris,
    })
    expect((await send(browser, form, register, typed)).status).toBe(409)
    expect(await appsCalled('Before')).toBe(0)
  })

  it('is registered once by a form that is sent with other words in it, by somebody who went back', async () => {
    const form = await browser.request(register)
    await send(browser, form, register, { ...webApp, name: 'Went' })
    const again = await send(browser, form, register, { ...webApp, name: 'Back' })
    expect(again.status).toBe(409)
    expect(alertOf(again)).toContain('This form was sent before')
    expect(again.text).toContain('value="Back"')
    expect((await send(browser, again, register, { ...webApp, name: 'Back' })).status).toBe(201)
    expect([await appsCalled('Went'), await appsCalled('Back')]).toEqual([1, 1])
  })

  it('is registered once by a form that was refused first', async () => {
    const form = await browser.request(register)
    expect((await send(browser, form, register, { ...webApp, name: '' })).status).toBe(400)
    expect((await send(browser, form, register, { ...webApp, name: 'Mended' })).status).toBe(201)
  })

  it('is registered once by a form that is sent twice at once', async () => {
    const form = await browser.request(register)
    const answers = await Promise.all(
      [1, 2, 3].map(() => send(browser, form, register, { ...webApp, name: 'At once' })),
    )
    expect(answers.map(({ status }) => status).sort()).toEqual([201, 409, 409])
    expect(await appsCalled('At once')).toBe(1)
  })

  // Two tabs: the second was told to "send the change with the new ETag", and failed however often it was sent.
  it('is not changed by a form that is older than the last change, which leads to the form as it is now', async () => {
    const { clientId } = await registered(browser)
    const path = `${manage}/${clientId}/edit`
    const form = await browser.request(path)
    await send(browser, form, path, { ...editing, name: 'First tab' })
    const mine = { ...editing, name: 'Second\u200btab', redirectUris: 'https://second.example/callback' }
    const stale = await send(browser, form, path, mine)
    expect(stale.status).toBe(409)
    expect(alertOf(stale)).toContain('Your change was not saved')
    expect(stale.text).not.toContain('ETag')
    expect(stale.text).toContain(`href="${path}">Open the form as it is now</a>`)
    for (const text of [
      'First tab',
      'Second‹U+200B›tab',
      'https://ward.example/callback',
      'https://second.example/callback',
    ])
      expect(stale.text).toContain(`<code class="line">${text}</code>`)
    expect(tidy(stale.text)).not.toContain('Addresses after sign-out')
    expect((await send(browser, await browser.request(path), path, { ...editing, name: 'Second tab' })).status).toBe(
      303,
    )
    expect(await appsCalled('Second tab')).toBe(1)
  })
})

describe('the list of apps', () => {
  it('is in the order of names, page by page', async () => {
    const names = Array.from({ length: 60 }, (_, index) => `Order ${index + 1}`)
    await server.apply({
      clients: names.map((client_name, index) => ({
        // By id they would be the other way round.
        client_id: `order-${String(100 - index)}`,
        client_name,
        organization: 'mercy',
        token_endpoint_auth_method: 'none' as const,
        redirect_uris: ['https://ward.example/callback'],
      })),
    })
    const namesOn = (text: string) => [...text.matchAll(/<h2><a href="[^"]+">([^<]+)</g)].map(([, each = '']) => each)
    const first = await browser.request(`${manage}?q=Order`)
    expect(namesOn(first.text)).toEqual(names.slice(0, 50))
    const next = tidy(/<a href="([^"]+)">More apps/.exec(first.text)?.[1] ?? '')
    const second = await browser.request(next)
    expect(namesOn(second.text)).toEqual(names.slice(50))
    expect(second.text).not.toContain('More apps')
    const all = namesOn((await browser.request(manage)).text)
    expect(all).toEqual([...all].sort(new Intl.Collator('en', { numeric: true }).compare))
  })
})

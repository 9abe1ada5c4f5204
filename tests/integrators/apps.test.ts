// Pages of apps for the people who connect them: who sees them, what a form says that is refused, secrets that are shown
// once, and that all of it is done by the rules of the admin API and stands in the audit log.
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { ageSignIn, csrfOf, visit } from '../self-service/support.ts'
import { Browser } from '../support/client.ts'
import { password, type TestServer } from '../support/server.ts'
import { codeFor } from '../support/totp.ts'
import {
  manage,
  provesItself,
  register,
  registered,
  secretOn,
  send,
  startIntegrators,
  tidy,
  webApp,
  wrongsOf,
} from './support.ts'

let server: TestServer
/** An administrator, signed in a moment ago with the second factor. */
let browser: Browser
beforeAll(async () => {
  server = await startIntegrators()
  browser = (await visit(server, manage, 'ida@mercy.example')).browser
})
afterAll(() => server.close())

const confirmed = '/account/apps/confirmed'
const { name, redirectUris, signOutUris, scope } = webApp
const editing = { name, redirectUris, signOutUris, scope }
const stored = async (clientId: string) =>
  (
    await server.database.run(
      'select organization_id, name, metadata, introspection, secret_digest, disabled_at from mlpipes_auth.clients where client_id = $1',
      [clientId],
    )
  )[0]
const mayIntrospect = (clientId: string, secret: string) => provesItself(server, clientId, secret)

describe('who comes in', () => {
  it('shows the way from the apps with access to whoever may see apps, and to nobody else', async () => {
    const link = `href="${manage}"`
    expect((await visit(server, '/account/apps', 'aud@mercy.example')).page.text).toContain(link)
    expect((await visit(server, '/account/apps')).page.text).not.toContain('Apps of')
  })

  it('has nothing for who may not, page by page, writes that down, and tells it from a missing path by nothing', async () => {
    const member = (await visit(server, '/account')).browser
    const reader = (await visit(server, manage, 'aud@mercy.example')).browser
    const missing = await member.request('/account/apps/nothing')
    const bare = (text: string) => text.replace(/[0-9a-f-]{36}/g, '')
    for (const path of [manage, register, `${manage}/ehr`, `${manage}/ehr/edit`]) {
      const answer = await member.request(path)
      expect(answer.status, path).toBe(404)
      expect(bare(answer.text), path).toBe(bare(missing.text))
    }
    for (const path of [register, `${manage}/ehr/edit`, `${manage}/ehr/secret`, `${manage}/foreign`, `${manage}/x`])
      expect((await reader.request(path)).status, path).toBe(404)
    const own = await reader.request(`${manage}/ehr`)
    expect(own.text).toContain('Test EHR')
    expect(own.text).not.toMatch(/Switch off|\/edit|\/secret/)
    // With a token of a page of theirs, too.
    const page = await reader.request('/account/profile')
    for (const [path, form] of [
      [register, { ...webApp, key: 'x'.repeat(22) }],
      [`${manage}/ehr/disable`, {}],
      [`${manage}/foreign/disable`, {}],
      [`${manage}/ehr/edit`, { ...editing, version: '1' }],
    ] as const)
      expect((await send(reader, page, path, form)).status, path).toBe(404)
    const denied = await server.audit('admin.access_denied')
    expect(denied.map(({ details }) => Object(details)['reason'])).toContain('other_organization')
    expect(denied.map(({ details }) => Object(details)['operation'])).toContain('createClient')
    expect(await stored('ehr')).toMatchObject({ disabled_at: null })
  })

  it('lists what the organisation has and nothing of others, finds by name, and goes on page by page', async () => {
    const page = await browser.request(manage)
    expect(page.text).toContain('Test EHR')
    expect(page.text).not.toContain('Hope API')
    const found = await browser.request(`${manage}?q=nosy`)
    expect(found.text).toContain('Nosy')
    expect(found.text).not.toContain('Test EHR')
    expect((await browser.request(`${manage}?page=1000`)).status).toBe(303)
    expect((await browser.request(`${manage}?page=nothing`)).status).toBe(200)
    expect((await browser.request(`${manage}?q=${'x'.repeat(200)}`)).status).toBe(200)
  })
})

describe('registering', () => {
  it('registers by the rules of the API, shows the secret once, keeps only a digest, and writes down who did it', async () => {
    const { answer, clientId, secret } = await registered(browser)
    expect(answer.headers.get('cache-control')).toBe('no-store')
    expect(answer.url).not.toContain(secret)
    expect(secret).toMatch(/^[\w-]{43}$/)
    expect(await mayIntrospect(clientId, secret)).toBe(true)
    const row = await stored(clientId)
    expect(row).toMatchObject({
      name: 'Ward Round',
      introspection: 'own',
      metadata: {
        grant_types: ['authorization_code', 'refresh_token'],
        redirect_uris: ['https://ward.example/callback', 'http://localhost:9/callback'],
        scope: 'openid profile offline_access',
        token_endpoint_auth_method: 'client_secret_basic',
      },
    })
    expect(JSON.stringify(row)).not.toContain(secret)
    expect((await browser.request(`${manage}/${clientId}`)).text).not.toContain(secret)
    const [event] = (await server.audit('client.created')).filter((entry) => entry.clientId === clientId)
    const [person] = await server.database.run('select id from mlpipes_auth.accounts where email = $1', [
      'ida@mercy.example',
    ])
    expect(event).toMatchObject({ actorType: 'account', actorId: person?.['id'] })
    expect(JSON.stringify(await server.audit())).not.toContain(secret)
    expect(server.logs.join('')).not.toContain(secret)
  })

  it.each([
    ['spa', { kind: 'spa', authentication: 'none', introspection: 'none' }, { token_endpoint_auth_method: 'none' }],
    ['native', { kind: 'native', authentication: 'none', introspection: 'none' }, { application_type: 'native' }],
    ['service', { kind: 'service', redirectUris: '', scope: ['openid'] }, { grant_types: ['client_credentials'] }],
    [
      'device',
      { kind: 'device', redirectUris: '', authentication: 'none', introspection: 'none' },
      { grant_types: ['urn:ietf:params:oauth:grant-type:device_code', 'refresh_token'] },
    ],
    [
      'fapi2',
      { authentication: 'private_key_jwt', jwksUri: 'https://ward.example/jwks', profile: 'fapi2' },
      { jwks_uri: 'https://ward.example/jwks', require_pushed_authorization_requests: true },
    ],
  ])('registers %s', async (_, form, metadata) => {
    const { clientId } = await registered(browser, { ...webApp, ...form })
    expect(await stored(clientId)).toMatchObject({ metadata })
  })

  it('names every refused field with what was sent and what may be, beside it, and keeps what was typed', async () => {
    const page = await browser.request(register)
    const before = (await server.audit('client.created')).length
    const bad = {
      ...webApp,
      name: 'Ward\u202eRound',
      redirectUris: 'https://ward.example/callback\nhttp://ward.example/<b>',
      scope: ['openid', 'everything'],
      profile: 'own',
    }
    const answer = await send(browser, page, register, bad)
    expect(answer.status).toBe(400)
    expect(wrongsOf(answer)).toMatchObject({
      name: 'You sent “Ward‹U+202E›Round”. What is shown as ‹U+…› cannot be seen, or turns the text around. Type the name anew, without it.',
      redirectUris: expect.stringMatching(/You sent “http:\/\/ward\.example\/<b>”\. It must be an https URI/),
      scope: expect.stringMatching(/You sent “openid everything”\. It must be .*: openid offline_access/),
      profile: 'You sent “own”. Choose one of: Standard, FAPI 2.0.',
    })
    expect(tidy(answer.text)).toContain('http://ward.example/<b>')
    expect(answer.text).not.toContain('/<b>')
    for (const field of ['name', 'redirectUris'])
      expect(answer.text).toMatch(
        new RegExp(`id="${field}"[^>]*aria-describedby="${field}-hint ${field}-wrong" aria-invalid="true"`),
      )
    expect(answer.text).toMatch(/<div class="alert" role="alert"[\s\S]*href="#redirectUris"/)
    expect(answer.text.match(/ autofocus/g)).toHaveLength(1)

    expect((await send(browser, page, register, { ...webApp, more: 'x' })).status).toBe(400)
    expect((await server.audit('client.created')).length).toBe(before)
  })

  it('asks for the second factor where the API does, and has no form from elsewhere', async () => {
    const { browser: without, page } = await visit(server, register, 'ada@mercy.example')
    const powerful = { ...webApp, introspection: 'organization' }
    expect(wrongsOf(await send(without, page, register, powerful))).toEqual({
      introspection: expect.stringContaining('second factor'),
    })
    const { clientId } = await registered(browser, powerful)
    expect(await stored(clientId)).toMatchObject({ introspection: 'organization' })
    await ageSignIn(server, 'ida@mercy.example', 301)
    const form = await browser.request(register)
    const again = await send(browser, form, register, powerful)
    expect(wrongsOf(again)).toEqual({ introspection: expect.stringContaining('last five minutes') })
    // In another tab, which leads back to the form as it was filled in.
    expect(again.text).toContain(`href="${confirmed}" target="_blank"`)
    await server.database.run('update mlpipes_auth.totp_credentials set last_step = 0', [])
    const asked = await browser.follow(await browser.request(confirmed))
    const next = await browser.submit(asked, '/password', { email: 'ida@mercy.example', password })
    const proven = await browser.submit(next, '/totp', { code: await codeFor(server) })
    expect(proven.text).toContain('You have confirmed that it is you')
    expect((await send(browser, form, register, { ...powerful, name: 'After all' })).status).toBe(201)
    expect((await visit(server, confirmed, 'ada@mercy.example')).page.text).toContain('A second factor is needed')
    const foreign = await without.request(register, {
      form: { csrf: csrfOf(page), key: 'x'.repeat(22), name: 'x' },
      headers: { origin: 'https://evil.example' },
    })
    expect(foreign.status).toBe(403)
  })
})

describe('one app', () => {
  it('changes what is said of it, and refuses a change of what somebody else changed meanwhile', async () => {
    const { clientId } = await registered(browser)
    const path = `${manage}/${clientId}/edit`
    const page = await browser.request(path)
    const version = /name="version" value="(\d+)"/.exec(page.text)?.[1] ?? ''
    const changed = await send(browser, page, path, { ...editing, name: 'Night Round', version })
    expect(changed.headers.get('location')).toBe(`${manage}/${clientId}?done=app_changed`)
    expect(await stored(clientId)).toMatchObject({ name: 'Night Round', introspection: 'own' })
    const stale = await send(browser, page, path, { ...editing, name: 'Third', version })
    expect(stale.status).toBe(409)
    expect(await stored(clientId)).toMatchObject({ name: 'Night Round' })
    const now = await browser.request(path)
    const bad = await send(browser, now, path, { ...editing, redirectUris: '*', version: String(Number(version) + 1) })
    expect(wrongsOf(bad)['redirectUris']).toContain('You sent “*”')
  })

  it('has redirect URIs of an app that skips the consent page for the platform alone', async () => {
    const page = await browser.request(`${manage}/first/edit`)
    const version = /name="version" value="(\d+)"/.exec(page.text)?.[1] ?? ''
    const answer = await send(browser, page, `${manage}/first/edit`, { ...editing, version })
    expect(wrongsOf(answer)['redirectUris']).toContain('Only somebody of the platform may set this.')
  })

  it('replaces the secret with both good for a while, or the old one dead at once', async () => {
    const { clientId, secret } = await registered(browser)
    const path = `${manage}/${clientId}/secret`
    const second = await send(browser, await browser.request(path), path, { overlap: 'day' })
    expect(second.headers.get('cache-control')).toBe('no-store')
    const newer = secretOn(second) ?? ''
    expect([await mayIntrospect(clientId, secret), await mayIntrospect(clientId, newer)]).toEqual([true, true])
    const newest = secretOn(await send(browser, await browser.request(path), path, { overlap: 'now' })) ?? ''
    const each = await Promise.all([secret, newer, newest].map((one) => mayIntrospect(clientId, one)))
    expect(each).toEqual([false, false, true])
    expect((await server.audit('client.secret_replaced')).filter((event) => event.clientId === clientId)).toHaveLength(
      2,
    )
    expect((await send(browser, await browser.request(path), path, { overlap: 'year' })).status).toBe(400)
  })

  it('wants a fresh sign-in with the second factor for that, comes back to the same app, and says what is missing', async () => {
    const { clientId } = await registered(browser)
    const path = `${manage}/${clientId}/secret`
    const form = await browser.request(path)
    await ageSignIn(server, 'ida@mercy.example', 301)
    expect((await send(browser, form, path, { overlap: 'day' })).headers.get('location')).toContain('/oauth/authorize')
    await server.database.run('update mlpipes_auth.totp_credentials set last_step = 0', [])
    const { page } = await visit(server, path, 'ida@mercy.example', browser)
    expect(page.url).toBe(`${server.issuer}${path}`)
    expect(page.text).toContain('Make a new secret')

    const without = await visit(server, path, 'ada@mercy.example')
    expect(without.page.text).toContain('Set one up')
    const refused = await send(without.browser, await without.browser.request('/account/profile'), path, {
      overlap: 'now',
      version: '1',
    })
    expect(refused.status).toBe(409)
    expect((await server.audit('client.secret_replaced')).filter((event) => event.clientId === clientId)).toEqual([])
  })

  it('is switched off and on', async () => {
    const { clientId, secret } = await registered(browser)
    const page = await browser.request(`${manage}/${clientId}`)
    const off = await browser.follow(await send(browser, page, `${manage}/${clientId}/disable`, {}))
    expect(off.text).toContain('Switched off')
    expect(await mayIntrospect(clientId, secret)).toBe(false)
    const on = await browser.follow(await send(browser, page, `${manage}/${clientId}/enable`, {}))
    expect(on.text).toContain('switched on again')
    expect(await mayIntrospect(clientId, secret)).toBe(true)
    expect((await new Browser(server).request(`${manage}/${clientId}`)).headers.get('location')).toContain('state=')
  })
})

// OpenID Foundation's `oidcc-formpost-basic-certification-test-plan`: the modules of the Basic list with
// response_mode=form_post, as black-box tests under the modules' own names. What a module proves of the request alone is
// proven by basic-op.test.ts too; here every answer has to come as a page whose form is posted to the redirect URI.
import { createRemoteJWKSet, decodeProtectedHeader, jwtVerify } from 'jose'
import * as oidc from 'openid-client'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { type Answer, authorizationUrl, Browser, redeem, redirectUri, signIn } from '../support/client.ts'
import { startServer, type TestServer } from '../support/server.ts'
import {
  ageSignIns,
  askUserinfo,
  client,
  noPkce,
  postingClient,
  type RelyingParty,
  redeemPosting,
  relyingParty,
  requestModules,
  requestObjectModules,
  scopeModules,
  userinfoModules,
} from './relying-party.ts'

const mode = { response_mode: 'form_post' }
const entities: Readonly<Record<string, string>> = { lt: '<', gt: '>', quot: '"', '#39': "'", '#x27': "'", amp: '&' }
const unescapeHtml = (text: string) => text.replace(/&(#?\w+);/g, (whole, name) => entities[name] ?? whole)

/** What a browser does with the page: nothing is in its address, and its one form goes to the redirect URI. */
function byPost(page: Answer) {
  expect(page.headers.get('location')).toBeNull()
  const form = /<form class="form" method="post" action="([^"]+)">([\s\S]*?)<\/form>/.exec(page.text)
  const inputs = [...(form?.[2] ?? '').matchAll(/<input type="hidden" name="([^"]+)" value="([^"]*)">/g)]
  const parameters = new URLSearchParams(
    inputs.map(([, name = '', value = '']): [string, string] => [name, unescapeHtml(value)]),
  )
  const action = unescapeHtml(form?.[1] ?? 'http://no-form.example/')
  return { parameters, callback: new Request(action, { method: 'POST', body: parameters }) }
}

let server: TestServer
let config: oidc.Configuration
let flow: RelyingParty['flow']
let errorOf: RelyingParty['errorOf']
let landing: RelyingParty['landing']
beforeAll(async () => {
  server = await startServer('postgres')
  ;({ config, flow, errorOf, landing } = await relyingParty(server, byPost, mode))
})
afterAll(() => server.close())

const codeOf = (parameters: URLSearchParams) => parameters.get('code') ?? expect.fail('no code')

describe('Form Post OP', () => {
  it('oidcc-server', async () => {
    expect(config.serverMetadata().response_modes_supported).toContain('form_post')
    const page = await signIn(new Browser(server), authorizationUrl(server, client, { ...noPkce, ...mode, state: 's' }))
    expect(page.status).toBe(200)
    expect(page.headers.get('content-type')).toContain('text/html')
    expect(page.headers.get('cache-control')).toContain('no-store')
    expect(new URL(page.url).searchParams.has('code')).toBe(false)
    const { parameters, callback } = byPost(page)
    expect(callback.url).toBe(redirectUri)
    expect([...parameters.keys()].sort()).toEqual(['code', 'iss', 'state'])
    expect((await flow()).claims.iss).toBe(server.issuer)
  })
  it('the page posts itself by a script of ours, under the policy of every page, which lets forms go to apps', async () => {
    const page = await signIn(new Browser(server), authorizationUrl(server, client, { ...noPkce, ...mode }))
    const scripts = [...page.text.matchAll(/<script([^>]*)>([\s\S]*?)<\/script>/g)]
    expect(scripts.map(([, attributes = '']) => /src="([^"?]+)/.exec(attributes)?.[1])).toContain(
      '/assets/going-back.js',
    )
    expect(scripts.map(([, , inline]) => inline).join('')).toBe('')
    const policy = page.headers.get('content-security-policy') ?? ''
    expect(policy).toBe((await new Browser(server).request('/')).headers.get('content-security-policy'))
    expect(policy).toMatch(/default-src 'none'.*script-src 'self'/)
    expect(policy).not.toContain('form-action')
  })
  it('a state of markup is posted as it was, and is none', async () => {
    const state = `"><script>alert('&amp;')</script>`
    const { url } = authorizationUrl(server, client, { ...noPkce, ...mode, state, prompt: 'none' })
    const page = await new Browser(server).request(url)
    expect(page.text).not.toContain('<script>alert')
    expect([page.status, page.headers.get('cache-control')]).toEqual([400, 'no-store'])
    expect(byPost(page).parameters.get('state')).toBe(state)
  })
  it('oidcc-response-type-missing', async () => {
    const { url } = authorizationUrl(server, client, { ...noPkce, ...mode, response_type: undefined })
    expect((await new Browser(server).request(url)).text).toMatch(/invalid_request|unsupported_response_type/)
  })
  it('oidcc-idtoken-signature, oidcc-idtoken-unsigned', async () => {
    const { tokens } = await flow()
    expect(decodeProtectedHeader(tokens.id_token ?? '')).toMatchObject({ alg: 'RS256', kid: expect.any(String) })
    const keys = createRemoteJWKSet(new URL(`${server.issuer}/oauth/jwks`))
    await jwtVerify(tokens.id_token ?? '', keys, { issuer: server.issuer, audience: client })
    expect(config.serverMetadata().id_token_signing_alg_values_supported).not.toContain('none')
  })
  it.each(userinfoModules)('%s', async (_name, method, where) => {
    const { tokens, claims } = await flow()
    const answer = await askUserinfo(server, method, where, tokens.access_token)
    expect(await answer.json()).toMatchObject({ sub: claims.sub })
  })
  it('oidcc-ensure-request-without-nonce-succeeds-for-code-flow', async () => {
    const parameters = await landing({ nonce: undefined })
    expect((await redeem(server, client, codeOf(parameters), undefined)).status).toBe(200)
  })
  it.each(scopeModules)('%s', async (_name, scope, expected) => {
    const { tokens, claims } = await flow({ scope })
    expect(await oidc.fetchUserInfo(config, tokens.access_token, claims.sub)).toMatchObject(expected)
  })
  it.each(requestModules)('%s', async (_name, extra) => {
    expect((await flow(extra)).claims.acr).toBe('urn:mlpipes:acr:password')
  })
  it.each([
    ['oidcc-prompt-login', { prompt: 'login' }, {}],
    ['oidcc-max-age-1', { max_age: '1' }, { maxAge: 1 }],
  ])('%s', async (_name, extra, checks) => {
    const first = await flow()
    await ageSignIns(server, 3)
    const second = await flow(extra, first.browser, checks)
    expect(Number(second.claims.auth_time)).toBeGreaterThanOrEqual(Number(first.claims.auth_time))
  })
  it('oidcc-prompt-none-not-logged-in', async () => {
    expect(await errorOf({ prompt: 'none' })).toBe('login_required')
  })
  it('oidcc-prompt-none-logged-in, oidcc-id-token-hint, oidcc-max-age-10000', async () => {
    const first = await flow()
    for (const extra of [{}, { id_token_hint: first.tokens.id_token ?? '' }, { max_age: '10000' }]) {
      const second = await flow({ prompt: 'none', ...extra }, first.browser, { maxAge: 10_000 })
      expect(second.claims).toMatchObject({ sub: first.claims.sub, auth_time: first.claims.auth_time })
    }
  })
  it('oidcc-codereuse, oidcc-codereuse-30seconds', async () => {
    const code = codeOf(await landing())
    const first = await redeem(server, client, code, undefined)
    expect(first.status).toBe(200)
    expect((await redeem(server, client, code, undefined)).body['error']).toBe('invalid_grant')
    const headers = { authorization: `Bearer ${String(first.body['access_token'])}` }
    expect((await fetch(`${server.issuer}/oauth/userinfo`, { headers })).status).toBe(401)
  })
  it('oidcc-ensure-registered-redirect-uri', async () => {
    const wrong = { ...noPkce, ...mode, redirect_uri: 'https://unregistered.example/' }
    const answer = await new Browser(server).request(authorizationUrl(server, client, wrong).url)
    expect([answer.status, answer.text.includes('unregistered.example')]).toEqual([400, false])
  })
  it('oidcc-ensure-post-request-succeeds', async () => {
    const browser = new Browser(server)
    const { url } = authorizationUrl(server, client, { ...noPkce, ...mode })
    const form = Object.fromEntries(new URL(url).searchParams)
    let page = await browser.follow(await browser.request('/oauth/authorize', { form }))
    page = await browser.submit(page, '/password', { email: 'lee@mercy.example', password: 'Correct-Horse-9-Battery' })
    const { parameters } = byPost(page)
    expect(parameters.get('state')).toBe(form['state'])
    expect((await redeem(server, client, codeOf(parameters), undefined)).status).toBe(200)
  })
  it('oidcc-server-client-secret-post', async () => {
    await server.apply({ clients: [postingClient] })
    const code = codeOf(await landing({}, postingClient.client_id))
    expect((await redeemPosting(server, code)).status).toBe(200)
  })
  it.each(requestObjectModules)('%s', async (_name, extra, expected) => {
    expect(await errorOf(extra)).toBe(expected)
  })
  it('oidcc-refresh-token', async () => {
    const { tokens, claims } = await flow({ scope: 'openid offline_access', prompt: 'consent' })
    const refreshed = await oidc.refreshTokenGrant(config, tokens.refresh_token ?? '')
    expect(refreshed.claims()).toMatchObject({ iss: server.issuer, sub: claims.sub, aud: client })
  })
  it('oidcc-ensure-request-with-valid-pkce-succeeds', async () => {
    const authorization = authorizationUrl(server, client, mode)
    const { parameters } = byPost(await signIn(new Browser(server), authorization))
    expect((await redeem(server, client, codeOf(parameters), authorization.verifier)).status).toBe(200)
    const other = byPost(await signIn(new Browser(server), authorizationUrl(server, client, mode)))
    expect((await redeem(server, client, codeOf(other.parameters), authorization.verifier)).status).toBe(400)
  })
})

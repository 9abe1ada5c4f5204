// Snippets as they stand on the page of an app. The one for openid-client is run as it is copied, against this server, for
// every kind of app; the others are held to the values of the server, since their languages are not at hand here.
import { execFileSync } from 'node:child_process'
import { generateKeyPairSync } from 'node:crypto'
import { mkdirSync, writeFileSync } from 'node:fs'
import { resolve } from 'node:path'
import { pathToFileURL } from 'node:url'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { createVerifier } from '../../packages/resource-server/src/index.ts'
import { deviceGrant } from '../../src/clients/clients.ts'
import { type SnippetFacts, snippetsFor, tryCommand } from '../../src/integrators/snippets.ts'
import { visit } from '../self-service/support.ts'
import { Browser, signIn } from '../support/client.ts'
import type { TestServer } from '../support/server.ts'
import { manage, registered, startIntegrators, tidy, webApp } from './support.ts'

const redirectUri = 'http://localhost:9/callback'
const folder = resolve('test-results/snippets')
const { privateKey, publicKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' })
let server: TestServer
let browser: Browser
beforeAll(async () => {
  server = await startIntegrators()
  browser = (await visit(server, manage, 'ida@mercy.example')).browser
  mkdirSync(folder, { recursive: true })
  process.env['PRIVATE_KEY_FILE'] = `${folder}/key.pem`
  writeFileSync(`${folder}/key.pem`, privateKey.export({ type: 'pkcs8', format: 'pem' }))
  const keyed = {
    organization: 'mercy',
    token_endpoint_auth_method: 'private_key_jwt' as const,
    jwks: { keys: [{ ...publicKey.export({ format: 'jwk' }), kid: 'k', alg: 'ES256', use: 'sig' }] },
    redirect_uris: [redirectUri],
    scope: 'openid profile',
  }
  await server.apply({
    clients: [
      { client_id: 'keyed', client_name: 'Keyed', ...keyed },
      { client_id: 'fapi', client_name: 'Fapi', profile: 'fapi2', ...keyed },
    ],
  })
})
afterAll(() => server.close())

async function snippetOf(clientId: string, id = 'node'): Promise<string | undefined> {
  const page = await browser.request(`${manage}/${clientId}`)
  const text = new RegExp(`<code id="snippet-${id}"[^>]*>([\\s\\S]*?)</code></pre>`).exec(page.text)?.[1]
  return text === undefined ? undefined : tidy(text)
}

/** Runs what was copied, as a module of its own. */
async function run(clientId: string, secret = ''): Promise<Record<string, (...given: unknown[]) => unknown>> {
  const file = `${folder}/${clientId}.mjs`
  writeFileSync(file, (await snippetOf(clientId)) ?? '')
  process.env['CLIENT_SECRET'] = secret
  return import(pathToFileURL(file).href)
}

/** The guide's last step: an API that was registered on the same pages takes the token. */
async function verified(accessToken: string): Promise<unknown> {
  const form = { kind: 'service', redirectUris: '', scope: ['openid'], introspection: 'organization' }
  const { clientId, secret } = await registered(browser, { ...webApp, ...form })
  const verifier = createVerifier({ issuer: server.issuer, clientId, clientSecret: secret })
  const headers = { authorization: `Bearer ${accessToken}` }
  return verifier.verify({ method: 'GET', url: 'http://localhost/', headers })
}

/** An app with a server, but for what is said otherwise. */
const facts = (other: Partial<SnippetFacts> = {}): SnippetFacts => ({
  issuer: 'https://auth.example',
  clientId: 'client_1',
  grantTypes: ['authorization_code', 'refresh_token'],
  method: 'client_secret_basic',
  redirectUris: ['https://ward.example/callback'],
  scope: 'openid profile offline_access',
  isFapi: false,
  idTokenAlg: undefined,
  ...other,
})
const textOf = (id: string, other?: Partial<SnippetFacts>) =>
  snippetsFor(facts(other)).find((snippet) => snippet.id === id)?.text ?? ''
const idsOf = (other: Partial<SnippetFacts>) => snippetsFor(facts(other)).map(({ id }) => id)

const webApps = { ...webApp, redirectUris: redirectUri }
const cases: readonly (readonly [string, () => Promise<{ clientId: string; secret: string }>])[] = [
  ['a web app', () => registered(browser, webApps)],
  [
    'a single-page app',
    () => registered(browser, { ...webApps, kind: 'spa', authentication: 'none', introspection: 'none' }),
  ],
  ['an app with a key', async () => ({ clientId: 'keyed', secret: '' })],
  ['an app of profile fapi2', async () => ({ clientId: 'fapi', secret: '' })],
]

describe('the snippet for openid-client', () => {
  it.each(cases)('signs somebody in for %s', async (_, make) => {
    const { clientId, secret } = await make()
    const { begin, finish } = await run(clientId, secret)
    const begun = (await begin?.()) as { url: string; kept: unknown }
    const landing = await signIn(new Browser(server), { url: begun.url, verifier: '' })
    const result = await finish?.(landing.url, begun.kept)
    expect(result).toMatchObject({ claims: { org_slug: 'mercy', aud: clientId }, accessToken: expect.any(String) })
    if (clientId !== 'fapi') expect(await verified(String(Object(result)['accessToken']))).toMatchObject({ ok: true })
  })

  // It asked for offline_access and got none: OpenID Connect Core §11 has a server leave it out without prompt=consent.
  it('gets the offline_access that it asks for', async () => {
    const { clientId, secret } = await registered(browser, webApps)
    const { begin, finish } = await run(clientId, secret)
    const begun = (await begin?.()) as { url: string; kept: unknown }
    const landing = await signIn(new Browser(server), { url: begun.url, verifier: '' })
    const result = await finish?.(landing.url, begun.kept)
    const verdict = await verified(String(Object(result)['accessToken']))
    expect(verdict).toMatchObject({ ok: true, token: { scope: 'openid profile offline_access' } })
  })

  it('gets a service a token, and a device its code', async () => {
    const service = await registered(browser, { ...webApp, kind: 'service', redirectUris: '', scope: ['introspect'] })
    const { getToken } = await run(service.clientId, service.secret)
    expect(await getToken?.()).toMatchObject({ accessToken: expect.any(String), expiresIn: expect.any(Number) })

    const form = { kind: 'device', redirectUris: '', authentication: 'none', introspection: 'none' }
    const device = await registered(browser, { ...webApp, ...form })
    const { signIn: begin } = await run(device.clientId)
    let shown: unknown[] = []
    // Nobody types the code: what is shown ends it.
    const show = (...said: unknown[]) => {
      shown = said
      throw new Error('enough')
    }
    await expect(begin?.(show)).rejects.toThrow('enough')
    expect(shown).toEqual([expect.stringContaining('/device'), expect.stringMatching(/^[A-Z]{4}-[A-Z]{4}$/)])
  })
})

describe('the other snippets', () => {
  it('hold the values of the app and of the server, and never a secret', async () => {
    const { clientId, secret } = await registered(browser, webApps)
    const metadata = await fetch(`${server.issuer}/.well-known/openid-configuration`)
    const discovery = (await metadata.json()) as { issuer: string }
    for (const id of ['spring', 'authlib', 'aspnet']) {
      const text = (await snippetOf(clientId, id)) ?? ''
      expect(text, id).toContain(JSON.stringify(clientId))
      expect(text, id).toContain(discovery.issuer)
      for (const scope of ['openid', 'profile', 'offline_access']) expect(text, id).toContain(scope)
      expect(text, id).toContain('CLIENT_SECRET')
      expect(text, id).not.toContain(secret)
      expect(text, id).toContain(id === 'aspnet' ? 'CallbackPath = "/callback"' : JSON.stringify(redirectUri))
    }
    expect(await snippetOf(clientId, 'spring')).toContain('client-authentication-method: client_secret_basic')
    expect(await snippetOf(clientId, 'authlib')).toContain(`"${discovery.issuer}/.well-known/openid-configuration"`)
    const page = tidy((await browser.request(`${manage}/${clientId}`)).text)
    expect(page).toContain(`try --issuer ${discovery.issuer} --client-id ${clientId}`)
  })

  it('ask for consent where the app may act while its person is away, and nowhere else', () => {
    const asking = { node: "prompt: 'consent'", authlib: 'prompt="consent"', aspnet: 'Prompt = "consent"' }
    for (const [id, words] of Object.entries({ ...asking, 'spring-security': 'put("prompt", "consent")' })) {
      expect(textOf(id), id).toContain(words)
      expect(textOf(id, { scope: 'openid profile' }), id).not.toContain('consent')
      expect(textOf(id, { grantTypes: ['authorization_code'] }), id).not.toContain('consent')
    }
  })

  // Spring listened at /login/oauth2/code/* alone, whatever was registered.
  it('listen where the browser comes back', () => {
    expect(textOf('spring-security')).toContain('.redirectionEndpoint(back -> back.baseUri("/callback"))')
    expect(textOf('spring')).toContain('SecurityConfig.java')
    expect(textOf('authlib')).toContain('@app.get("/callback")')
    expect(textOf('aspnet')).toContain('CallbackPath = "/callback"')
  })

  it('name every secret that the environment has to hold', () => {
    const flask = textOf('authlib')
    const said = flask.split('\n').find((line) => line.startsWith('# From the environment'))
    const names = [...flask.matchAll(/os\.environ\["(\w+)"\]/g)].map(([, name = '']) => name)
    expect(names.sort()).toEqual(['CLIENT_SECRET', 'SESSION_SECRET'])
    for (const name of names) expect(said).toContain(name)
  })

  it.each<readonly [string, Partial<SnippetFacts>, readonly string[]]>([
    ['a web app with a server', {}, ['node', 'spring', 'spring-security', 'authlib', 'aspnet']],
    ['a service', { grantTypes: ['client_credentials'], redirectUris: [] }, ['node', 'spring', 'authlib']],
    ['a single-page or phone app', { method: 'none' }, ['node']],
    ['a device', { method: 'none', grantTypes: [deviceGrant], redirectUris: [] }, ['node']],
    ['an app with a key', { method: 'private_key_jwt' }, ['node']],
    ['an app of profile fapi2', { method: 'private_key_jwt', isFapi: true }, ['node']],
  ])('are there for %s where they fit', (_, other, ids) => {
    expect(idsOf(other)).toEqual(ids)
    if (other.method === 'none') expect(textOf('node', other)).not.toContain('on your server')
  })

  it('are there only where the library can do what the app is registered for', async () => {
    expect(await snippetOf('fapi', 'spring')).toBeUndefined()
    expect(await snippetOf('api', 'aspnet')).toBeUndefined()
    expect(await snippetOf('api', 'authlib')).toContain('grant_type="client_credentials"')
    expect(await snippetOf('api', 'spring')).toContain('authorization-grant-type: client_credentials')
    // A single-page app runs no Spring, and has no server to keep anything on.
    for (const id of ['spring', 'spring-security', 'authlib', 'aspnet'])
      expect(await snippetOf('spa', id)).toBeUndefined()
    expect(await snippetOf('spa')).toContain('sessionStorage')
  })
})

describe('the command that tries a sign-in', () => {
  // It listened at port 80 for a phone app, which only root may.
  it.each<readonly [string, Partial<SnippetFacts>, string | undefined]>([
    ['any free port', { method: 'none', redirectUris: ['http://127.0.0.1/callback'] }, 'http://127.0.0.1:0/callback'],
    ['any free port, of IPv6', { method: 'none', redirectUris: ['http://[::1]/back'] }, "'http://[::1]:0/back'"],
    ['the port that is registered', { method: 'none', redirectUris: [redirectUri] }, redirectUri],
    ['the port that is registered with a secret', { redirectUris: [redirectUri] }, redirectUri],
    // A web app is compared to the letter.
    ['port 80 of a web app', { redirectUris: ['http://localhost/callback'] }, 'http://localhost/callback'],
    ['nothing elsewhere', {}, undefined],
  ])('listens at %s', (_, other, uri) => {
    expect(/--redirect-uri (\S+)/.exec(tryCommand(facts(other)) ?? '')?.[1]).toBe(uri)
  })

  it('is one command in a shell, whatever the app calls its address', () => {
    const uri = "http://localhost:9/cb;id;$(id)`id`'&&id"
    const command = `${tryCommand(facts({ redirectUris: [uri] }))}`.replace(/^npx mlpipes-auth/, "printf '%s\\n'")
    const words = execFileSync('sh', ['-c', command], { env: { CLIENT_SECRET: 'a secret' } })
      .toString()
      .split('\n')
    expect(words[words.indexOf('--redirect-uri') + 1]).toBe(uri)
    expect(words[words.indexOf('--scope') + 1]).toBe(facts({}).scope)
    expect(words).toContain('a secret')
  })
})

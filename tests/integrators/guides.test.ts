// What the guides for people who connect apps and APIs promise: their programs are taken out of their text and run, each as a
// process of its own, against this server.
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { accessTokenHash, createProofKey, proofFor } from '../conformance/fapi2-client.ts'
import { accountId, visit } from '../self-service/support.ts'
import { Browser, obtainTokens, post, signIn } from '../support/client.ts'
import { freePort } from '../support/free-port.ts'
import { secretOf, type TestServer } from '../support/server.ts'
import { blockOf, fill, guide, openWorkshop, printed, root, type Workshop } from './guide.ts'
import { manage, registered, startIntegrators, tidy, webApp } from './support.ts'

let server: TestServer
let workshop: Workshop
beforeAll(async () => {
  server = await startIntegrators()
  workshop = await openWorkshop()
})
afterAll(async () => {
  await workshop.close()
  await server.close()
})

const ask = async (port: number, path = '/', headers: Record<string, string> = {}) => {
  const answer = await fetch(`http://127.0.0.1:${port}${path}`, { headers })
  const text = await answer.text()
  return { status: answer.status, headers: answer.headers, body: text === '' ? undefined : JSON.parse(text) }
}
const bearer = (token: string) => ({ authorization: `Bearer ${token}` })

describe('docs/guides/integrators.md: ten minutes from nothing to a verified token', () => {
  const text = guide('integrators')
  let browser: Browser
  let ports: { app: number; api: number }
  let app: { clientId: string; secret: string }
  /** Whoever else runs tests on this machine has those ports too. */
  const toPorts = () => ({ ':8765': `:${ports.app}` })

  beforeAll(async () => {
    browser = (await visit(server, manage, 'ida@mercy.example')).browser
    ports = { app: await freePort(), api: await freePort() }
    const [, redirectUri = ''] = /\*\*Register the app\.\*\* .*redirect URI `([^`]+)`/.exec(text) ?? []
    const form = { redirectUris: fill(redirectUri, toPorts()), signOutUris: '', introspection: 'none' }
    app = await registered(browser, { ...webApp, ...form, scope: ['openid', 'profile', 'email'] })
  })

  it('tries the app by the command that it shows', async () => {
    const values = { 'npx mlpipes-auth': 'node bin/mlpipes-auth.js', 'https://auth.example': server.issuer }
    const command = fill(blockOf(text, 'npx mlpipes-auth try'), { ...values, 'client_…': app.clientId, ...toPorts() })
    const tried = workshop.run(command, { CLIENT_SECRET: app.secret }, root)
    const url = await printed(tried, /http:\S+\/oauth\/authorize\S+/)
    const landing = await signIn(new Browser(server), { url, verifier: '' })
    await fetch(landing.url)
    expect(await tried.ended, tried.output()).toBe(0)
    expect(tried.output()).toContain('✓')
    expect(tried.output()).not.toContain('✗')
    expect(tried.output()).not.toContain(app.secret)
  })

  it('says the command that the app’s page has, but for the scopes', async () => {
    const page = tidy((await browser.request(`${manage}/${app.clientId}`)).text)
    const values = { 'https://auth.example': server.issuer, 'client_…': app.clientId, ...toPorts() }
    const words = fill(blockOf(text, 'npx mlpipes-auth try'), values)
      .trim()
      .split(/ (?=--)/)
    for (const word of words) expect(page).toContain(word)
  })

  it('signs somebody in, and shows the token as the API verified it', async () => {
    const service = { kind: 'service', redirectUris: '', scope: ['openid'], introspection: 'organization' }
    const api = await registered(browser, { ...webApp, ...service })
    const guard = { 'https://auth.example': server.issuer, 'client_… of the API': api.clientId }
    workshop.write('api.mjs', fill(blockOf(text, 'createVerifier('), { ...guard, '(8766)': `(${ports.api})` }))
    const page = await browser.request(`${manage}/${app.clientId}`)
    const snippet = /<code id="snippet-node"[^>]*>([\s\S]*?)<\/code><\/pre>/.exec(page.text)?.[1]
    workshop.write('mlpipes.mjs', tidy(snippet ?? ''))
    const toApi = { ':8766': `:${ports.api}`, '(8765)': `(${ports.app})` }
    workshop.write('app.mjs', fill(blockOf(text, "from './mlpipes.mjs'"), { ...toPorts(), ...toApi }))
    await workshop.serve('api.mjs', ports.api, { API_SECRET: api.secret })
    await workshop.serve('app.mjs', ports.app, { CLIENT_SECRET: app.secret })

    const begun = await fetch(`http://127.0.0.1:${ports.app}/`, { redirect: 'manual' })
    const landing = await signIn(new Browser(server), { url: begun.headers.get('location') ?? '', verifier: '' })
    const shown = await fetch(landing.url)
    expect([shown.status, await shown.json()]).toEqual([
      200,
      expect.objectContaining({
        sub: await accountId(server, 'lee@mercy.example'),
        client_id: app.clientId,
        org_slug: 'mercy',
        scope: 'openid profile email',
        iss: server.issuer,
      }),
    ])
    expect(await ask(ports.api)).toMatchObject({ status: 401, body: { error: expect.any(String) } })
    expect(await ask(ports.api, '/', bearer('x'.repeat(43)))).toMatchObject({
      status: 401,
      body: { error: 'inactive' },
    })
  })
})

describe('docs/guides/resource-servers.md', () => {
  const text = guide('resource-servers')
  const service = { organization: 'mercy', grant_types: ['client_credentials' as const] }
  const imports = `import { createServer } from 'node:http'
import Fastify from 'fastify'
import { createVerifier } from '@mlpipes/auth-resource-server'
import { fastifyGuard, tokenOf } from '@mlpipes/auth-resource-server/fastify'
const clientId = 'ward-api'
const { ISSUER: issuer, API_SECRET: clientSecret } = process.env
`
  /** An API around a verifier that the guide makes. */
  const around = (port: number) => `
createServer(async (request, response) => {
  const verdict = await verifier.verify(request)
  response.writeHead(verdict.ok ? 200 : verdict.status).end(JSON.stringify(verdict))
}).listen(${port})
`
  const environment = () => ({ ISSUER: server.issuer, API_SECRET: secretOf('ward-api') })

  beforeAll(async () => {
    const wardApi = { client_id: 'ward-api', client_name: 'Ward API', client_secret: secretOf('ward-api') }
    const reader = { client_id: 'reading', client_name: 'Reading', client_secret: secretOf('reading') }
    const readers = { client_id: 'readers', client_name: 'JWTs', client_secret: secretOf('readers') }
    await server.apply({
      clients: [
        { ...service, ...wardApi, scope: 'openid introspect', introspection: 'organization' },
        { ...service, ...reader, scope: 'openid' },
        { ...service, ...readers, scope: 'openid', access_token_format: 'jwt' },
      ],
    })
  })

  it('protects an API with ten lines, which hear at once that a token is over', async () => {
    const port = await freePort()
    const lines = fill(blockOf(text, 'patientsFor('), { 'https://auth.example': server.issuer })
    const rest = `function patientsFor(...asked) { return asked }\nawait app.listen({ port: ${port}, host: '127.0.0.1' })\n`
    workshop.write('ten-lines.mjs', lines + rest)
    await workshop.serve('ten-lines.mjs', port, environment())
    const { access_token: token } = await obtainTokens(server, 'first')
    const sub = await accountId(server, 'lee@mercy.example')
    const answer = await ask(port, '/patients', bearer(token))
    expect(answer).toMatchObject({ status: 200, body: [sub, expect.stringMatching(/^org_/)] })
    expect((await ask(port, '/patients')).status).toBe(401)
    await post(server, '/oauth/revoke', 'first', { token })
    expect((await ask(port, '/patients', bearer(token))).status).toBe(401)
  })

  // `process.env.API_SECRET` may be undefined, which `clientSecret: string` does not take.
  it('says ten lines that compile', async () => {
    const rest = 'declare function patientsFor(...asked: unknown[]): unknown\n'
    workshop.write('ten-lines.ts', blockOf(text, 'patientsFor(') + rest)
    const options =
      '--ignoreConfig --noEmit --strict --exactOptionalPropertyTypes --skipLibCheck --target es2024 --module nodenext'
    const run = workshop.run(`${root}/node_modules/.bin/tsc ${options} --types node ten-lines.ts`)
    expect(await run.ended, run.output()).toBe(0)
  })

  it('asks with a token instead of a secret', async () => {
    const port = await freePort()
    const ownToken = `
async function ownToken() {
  const body = new URLSearchParams({ grant_type: 'client_credentials', scope: 'introspect' })
  const authorization = \`Basic \${btoa(\`\${clientId}:\${clientSecret}\`)}\`
  const answer = await fetch(\`\${issuer}/oauth/token\`, { method: 'POST', headers: { authorization }, body })
  return (await answer.json()).access_token
}
`
    workshop.write('own-token.mjs', imports + blockOf(text, 'bearerToken:') + ownToken + around(port))
    await workshop.serve('own-token.mjs', port, environment())
    const { access_token: token } = await obtainTokens(server, 'first')
    expect(await ask(port, '/', bearer(token))).toMatchObject({ status: 200, body: { ok: true } })
    const refused = await ask(port, '/', bearer('x'.repeat(43)))
    expect(refused).toMatchObject({ status: 401, body: { reason: 'inactive' } })
  })

  it('takes tokens that are bound to a key, with a proof for its own address', async () => {
    const port = await freePort()
    const origin = `http://127.0.0.1:${port}`
    const verifier = fill(blockOf(text, "dpop: { origin: 'https://api.example' }"), { 'https://api.example': origin })
    workshop.write('bound.mjs', `${imports}const verifier = ${verifier}${around(port)}`)
    await workshop.serve('bound.mjs', port, environment())
    const key = await createProofKey()
    const dpop = await proofFor(key, `${server.issuer}/oauth/token`)
    const got = await post(server, '/oauth/token', 'reading', { grant_type: 'client_credentials' }, { dpop })
    const token = String(got.body['access_token'])
    const show = async (htu: string, scheme = 'DPoP') => {
      const proof = await proofFor(key, htu, { htm: 'GET', ath: accessTokenHash(token) })
      return ask(port, '/ward', { authorization: `${scheme} ${token}`, dpop: proof })
    }
    expect(await show(`${origin}/ward`)).toMatchObject({ status: 200, body: { ok: true } })
    expect(await show('https://api.example/ward')).toMatchObject({ status: 401, body: { reason: 'invalid_proof' } })
    expect((await show(`${origin}/ward`, 'Bearer')).status).toBe(401)
  })

  it('reads JWTs of apps that chose them', async () => {
    const got = await post(server, '/oauth/token', 'readers', { grant_type: 'client_credentials' })
    const [row] = await server.database.run(`select id from mlpipes_auth.organizations where slug = 'mercy'`, [])
    const values = { 'https://auth.example': server.issuer, 'org_…': String(row?.['id']) }
    const reading = fill(blockOf(text, 'createRemoteJWKSet('), values)
    const program = `const token = process.argv[2]\n${reading}console.log(JSON.stringify(payload))\n`
    workshop.write('jwt.mjs', program)
    const run = workshop.run(`node jwt.mjs ${got.body['access_token']}`)
    expect(await run.ended, run.output()).toBe(0)
    expect(JSON.parse(run.output())).toMatchObject({ iss: server.issuer, client_id: 'readers' })
    const { access_token: opaque } = await obtainTokens(server, 'first')
    expect(await workshop.run(`node jwt.mjs ${opaque}`).ended).not.toBe(0)
  })

  it('asks for a stronger sign-in in the words that it shows', async () => {
    const port = await freePort()
    const guard = blockOf(text, 'maxAgeSeconds: 300')
    workshop.write(
      'step-up.mjs',
      `${imports}const verifier = createVerifier({ issuer, clientId, clientSecret })
const app = Fastify()
app.get('/', { onRequest: ${guard.trim()} }, async (request) => tokenOf(request))
await app.listen({ port: ${port}, host: '127.0.0.1' })
`,
    )
    await workshop.serve('step-up.mjs', port, environment())
    const { access_token: weak } = await obtainTokens(server, 'first')
    const refused = await ask(port, '/', bearer(weak))
    const [status = '', challenge = ''] = blockOf(text, 'HTTP/1.1 401').trim().split('\n')
    expect(`HTTP/1.1 ${refused.status} Unauthorized`).toBe(status)
    expect(`WWW-Authenticate: ${refused.headers.get('www-authenticate')}`).toBe(challenge)

    const signedIn = (await visit(server, '/account', 'totp@mercy.example')).browser
    const { access_token: strong } = await obtainTokens(server, 'first', {}, signedIn)
    expect(await ask(port, '/', bearer(strong))).toMatchObject({ status: 200, body: { acr: 'urn:mlpipes:acr:mfa' } })
  })
})

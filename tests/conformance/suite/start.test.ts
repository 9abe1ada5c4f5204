// The starter for the official suite, as somebody runs it: it answers over HTTPS under its certificate, and what the plans
// say is what it has registered.
import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { request } from 'node:https'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, expect, it } from 'vitest'
import { freePort } from '../../support/free-port.ts'
import { backChannelOf, callbackOf, postLogoutOf, secondCallbackOf, suiteFile } from './clients.ts'
import { readPlans } from './plans.ts'

const suite = 'https://suite.example:8443'
const data = mkdtempSync(join(tmpdir(), 'suite-'))
let issuer: string
let child: ChildProcess
let printed = ''
beforeAll(async () => {
  const port = await freePort()
  issuer = `https://localhost:${port}`
  const script = join(import.meta.dirname, 'start.ts')
  child = spawn(process.execPath, [script, '--issuer', issuer, '--suite', suite, '--data', data])
  const ended = once(child, 'exit').then(() => expect.fail(`the script ended: ${printed}`))
  const ready = new Promise<void>((resolve) => {
    for (const stream of [child.stdout, child.stderr])
      stream?.on('data', (text: Buffer) => {
        printed += text.toString()
        if (printed.includes('run-test-plan.py') && printed.endsWith('\n\n')) resolve()
      })
  })
  ended.catch(() => undefined)
  await Promise.race([ready, ended])
})
afterAll(async () => {
  if (child.exitCode === null) {
    child.kill('SIGTERM')
    await once(child, 'exit')
  }
  rmSync(data, { recursive: true })
})

/** Over TLS that trusts the script's certificate alone, under its name. */
function get(path: string): Promise<{ status: number; headers: Record<string, unknown>; body: string }> {
  const ca = readFileSync(join(data, 'certificate.pem'))
  return new Promise((resolve, reject) => {
    const asked = request(`${issuer}${path}`, { ca, agent: false }, (answer) => {
      let body = ''
      answer.on('data', (text: Buffer) => {
        body += text.toString()
      })
      answer.on('end', () => resolve({ status: answer.statusCode ?? 0, headers: answer.headers, body }))
    })
    asked.on('error', reject).end()
  })
}

it('answers discovery over HTTPS as the issuer, and takes a request of a client', async () => {
  const { status, body } = await get('/.well-known/openid-configuration')
  expect(status).toBe(200)
  const { issuer: said, ...endpoints } = JSON.parse(body)
  expect(said).toBe(issuer)
  expect(endpoints.authorization_endpoint).toBe(`${issuer}/oauth/authorize`)
  const query = new URLSearchParams({
    client_id: 'suite-first',
    response_type: 'code',
    scope: 'openid',
    redirect_uri: callbackOf(suite, 'mlpipes-basic'),
  })
  const asked = await get(`/oauth/authorize?${query}`)
  expect(asked.headers['location']).toMatch(/^\/interaction\/|^https:\/\/localhost:\d+\/interaction\//)
  expect(String(asked.headers['set-cookie'])).toMatch(/; secure/i)
})

it('prints one command that names every plan with its configuration for this issuer', () => {
  for (const { plan, file, configuration } of readPlans()) {
    const path = join(data, 'plans', file)
    expect(printed).toContain(`'${plan}' ${path}`)
    const rendered = JSON.parse(readFileSync(path, 'utf8'))
    expect(rendered.server.discoveryUrl).toBe(`${issuer}/.well-known/openid-configuration`)
    expect(rendered.alias).toBe(configuration.alias)
    expect(rendered.browser[0].match).toBe(`${issuer}/oauth/authorize*`)
  }
})

it('knows every client of every plan, with its secret or key and the addresses that follow from the alias', () => {
  const key = { kty: 'RSA', n: 'AQ', e: 'AQAB' }
  const clients = suiteFile(suite, { first: { ...key, kid: 'first' }, second: { ...key, kid: 'second' } }).clients ?? []
  const seen = readPlans().flatMap(({ plan, configuration }) => {
    const { alias, client, client2, client_secret_post: posting } = configuration
    const isFapi = plan.startsWith('fapi2-')
    return [client, client2, posting].flatMap((wanted) => {
      if (!wanted) return []
      const known = clients.find(({ client_id }) => client_id === wanted.client_id)
      expect(known?.client_secret).toBe(wanted.client_secret)
      const second = isFapi && wanted === client2
      expect(known?.redirect_uris).toContain((second ? secondCallbackOf : callbackOf)(suite, alias))
      expect(known?.token_endpoint_auth_method === 'client_secret_post').toBe(wanted === posting)
      if (isFapi) expect(known?.jwks?.keys[0]).toMatchObject({ kid: second ? 'second' : 'first' })
      if (plan.includes('logout')) expect(known?.post_logout_redirect_uris).toContain(postLogoutOf(suite, alias))
      if (plan.includes('backchannel')) expect(known?.backchannel_logout_uri).toBe(backChannelOf(suite, alias))
      return [wanted.client_id]
    })
  })
  expect(new Set(seen)).toEqual(new Set(clients.map(({ client_id }) => client_id)))
})

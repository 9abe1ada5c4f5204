// `mlpipes-auth try` against a real server: a terminal on one side, somebody with a browser on the other.
import { spawn } from 'node:child_process'
import { createServer, type Server } from 'node:http'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import type { ApplyInput } from '../../src/apply/apply.ts'
import { type TryOptions, trySignIn } from '../../src/cli/try.ts'
import { endInWords } from '../../src/cli/try-words.ts'
import { deviceGrant } from '../../src/clients/clients.ts'
import { Browser, signIn } from '../support/client.ts'
import { freePort } from '../support/free-port.ts'
import { password, people, secretOf, startServer, type TestServer } from '../support/server.ts'

type Client = NonNullable<ApplyInput['clients']>[number]

let server: TestServer
beforeAll(async () => {
  const terminal: Client = {
    client_id: 'terminal',
    client_name: 'Terminal',
    organization: 'mercy',
    redirect_uris: ['http://127.0.0.1/callback'],
    application_type: 'native',
    token_endpoint_auth_method: 'none',
    grant_types: ['authorization_code', 'refresh_token', deviceGrant],
    scope: 'openid profile email offline_access',
  }
  const secretive: Client = {
    ...terminal,
    client_id: 'secretive',
    client_secret: secretOf('secretive'),
    token_endpoint_auth_method: 'client_secret_basic',
    first_party: true,
  }
  server = await startServer('pglite', {
    seed: { ...people, clients: [...(people.clients ?? []), terminal, secretive] },
  })
})
afterAll(() => server.close())

const options = (extra: Partial<TryOptions> = {}): TryOptions => ({
  issuer: server.issuer,
  clientId: 'terminal',
  scope: 'openid profile email',
  redirectUri: 'http://127.0.0.1:0/callback',
  timeoutSeconds: 30,
  ...extra,
})

/** Somebody who does what a step says: opens the address, or types the code. */
async function obey(step: string): Promise<void> {
  const [address] = /http:\S+\/oauth\/authorize\S+/.exec(step) ?? []
  if (address !== undefined) {
    const landing = await signIn(new Browser(server), { url: address, verifier: '' })
    await fetch(landing.url)
  }
  const [, userCode] = /type (\w{4}-\w{4})/.exec(step) ?? []
  if (userCode === undefined) return
  const browser = new Browser(server)
  const typed = await browser.submit(await browser.request('/device'), '/device', { user_code: userCode })
  const page = await browser.submit(typed, '/device', { confirm: 'yes' })
  const consent = await browser.submit(page, '/password', { email: 'lee@mercy.example', password })
  if (consent.text.includes('/consent"')) await browser.submit(consent, '/consent', { decision: 'allow' })
}

async function run(tried: TryOptions, person: (step: string) => Promise<void> = obey) {
  const acts: Promise<void>[] = []
  const told: string[] = []
  const report = await trySignIn(tried, {
    step: (text) => {
      told.push(text)
      acts.push(person(text))
    },
    check: () => undefined,
  })
  await Promise.all(acts)
  return { ...report, told }
}
const failed = ({ checks }: { checks: readonly { name: string; ok: boolean }[] }) =>
  checks.filter((check) => !check.ok).map((check) => check.name)

describe('mlpipes-auth try', () => {
  it('walks the code flow of a public client and holds every answer against what was asked', async () => {
    const report = await run(options())
    expect(report.problem).toBeUndefined()
    expect(failed(report)).toEqual([])
    expect(report.checks.map((check) => check.name)).toEqual([
      'issuer',
      'state',
      'iss',
      'token_type',
      'id_token signature',
      'id_token iss',
      'id_token aud',
      'id_token exp',
      'id_token iat',
      'id_token sub',
      'id_token nonce',
      'userinfo sub',
    ])
    expect(report).toMatchObject({
      ok: true,
      tokens: {
        id_token: { format: 'jwt', header: { alg: 'RS256' }, claims: { aud: 'terminal', org_slug: 'mercy' } },
        access_token: { format: 'opaque' },
      },
    })
    const words = endInWords(report)
    expect(words).toContain('All 12 checks passed.')
    expect(words, 'no token, and no signature').not.toMatch(/eyJ/)
  })

  it('walks the device flow of a client with a secret', async () => {
    const report = await run(options({ device: true, clientId: 'secretive', clientSecret: secretOf('secretive') }))
    expect(report.problem).toBeUndefined()
    expect(failed(report)).toEqual([])
    expect(report.checks.map((check) => check.name)).toContain('id_token signature')
    expect(JSON.stringify(report)).not.toContain(secretOf('secretive'))
  })

  it('says in words what a server refuses', async () => {
    const secretive = { clientId: 'secretive', clientSecret: 'not-the-secret' }
    expect((await run(options(secretive))).problem).toMatch(/^No tokens: invalid_client/)
    expect((await run(options({ ...secretive, device: true }))).problem).toMatch(/^No device code: invalid_client/)
    const denied = await run(options(), async (step) => {
      const [address] = /http:\S+\/oauth\/authorize\S+/.exec(step) ?? []
      if (address === undefined) return
      const browser = new Browser(server)
      const page = await browser.follow(await browser.request(address))
      await fetch((await browser.submit(page, '/cancel', {})).url)
    })
    expect(denied).toMatchObject({ ok: false, problem: expect.stringMatching(/^The server refused: access_denied/) })
  })

  it('takes no answer that belongs to another request or comes from another server', async () => {
    const answering = (query: string) => async (step: string) => {
      const [, uri] = /waiting at (\S+)/.exec(step) ?? []
      if (uri === undefined) return
      const state = /[?&]state=([^&\s]+)/.exec(step)?.[1] ?? ''
      expect((await fetch(new URL('/elsewhere', uri))).status).toBe(404)
      await fetch(`${uri}?${query.replace('STATE', state)}`)
    }
    const foreign = await run(options(), answering(`code=x&state=y&iss=${server.issuer}`))
    expect(failed(foreign)).toEqual(['state'])
    const mixed = await run(options(), answering('code=x&state=STATE&iss=https://evil.example'))
    expect(failed(mixed)).toEqual(['iss'])
    const silent = await run(options(), answering('code=x&state=STATE'))
    expect(failed(silent)).toEqual(['iss'])
    const empty = await run(options(), answering(`state=STATE&iss=${server.issuer}`))
    expect(empty.problem).toBe('The answer holds neither a code nor an error.')
  })

  it('gives up when nobody comes, and when nothing answers as a server should', async () => {
    expect((await run(options({ timeoutSeconds: 1 }), async () => undefined)).problem).toMatch(/^Nobody came back/)
    const port = await freePort()
    const issuer = `http://localhost:${port}`
    expect((await run(options({ issuer }))).problem).toContain('does not answer')
    let body = 'not json'
    const liar: Server = createServer((_request, response) => response.end(body))
    await new Promise<void>((resolve) => liar.listen(port, () => resolve()))
    expect((await run(options({ issuer }))).problem).toContain('answers what a client cannot use')
    body = JSON.stringify({
      issuer: server.issuer,
      authorization_endpoint: `${issuer}/a`,
      token_endpoint: `${issuer}/t`,
      jwks_uri: `${issuer}/j`,
    })
    expect(failed(await run(options({ issuer })))).toEqual(['issuer'])
    body = ' '.repeat(2_000_000)
    expect((await run(options({ issuer }))).problem).toContain('more than a client should read')
    liar.closeAllConnections()
    liar.close()
  })

  it('prints one JSON document and exits with 0, 1 or 2', async () => {
    const command = (args: readonly string[], person = obey) =>
      new Promise<{ code: number | null; out: string }>((resolve) => {
        const child = spawn(process.execPath, ['bin/mlpipes-auth.js', 'try', ...args], { env: {} })
        let [out, told] = ['', '']
        let sent = false
        child.stdout.on('data', (data: Buffer) => {
          out += data
        })
        child.stderr.on('data', (data: Buffer) => {
          told += data
          if (sent || !/nonce=|code_challenge=\S+\n/.test(told)) return
          sent = true
          void person(told)
        })
        child.on('close', (code) => resolve({ code, out }))
      })
    const base = ['--issuer', server.issuer, '--client-id', 'terminal', '--json']
    const good = await command(base)
    expect(good.code, good.out).toBe(0)
    expect(JSON.parse(good.out)).toMatchObject({ ok: true, tokens: { id_token: { claims: { aud: 'terminal' } } } })
    const bad = await command([...base, '--timeout-seconds', '1'], async () => undefined)
    expect(bad.code).toBe(1)
    expect(JSON.parse(bad.out)).toMatchObject({ ok: false })
    for (const wrong of [
      ['--issuer', 'http://evil.example', '--client-id', 'x'],
      [...base, '--redirect-uri', 'https://elsewhere.example/'],
    ])
      expect((await command(wrong)).code, wrong.join(' ')).toBe(2)
  })
})

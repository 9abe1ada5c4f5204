// Clients over the admin API: what may be registered, by whom, and that what is changed or switched off counts at the next
// request.
import { readFileSync } from 'node:fs'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { clientFields } from '../../src/clients/clients.ts'
import { clientRules, needsOf } from '../../src/clients/rules.ts'
import { consentFields } from '../../src/clients/save.ts'
import { authorizationUrl, Browser, basic, introspect, obtainTokens, post, redirectUri } from '../support/client.ts'
import { password } from '../support/server.ts'
import { organizationId } from './matrix-rows.ts'
import { type AdminServer, type ApiAnswer, problem, type Sent, seed, startAdmin } from './support.ts'

const clients = '/api/admin/clients'
const email = 'plain@mercy.example'
const app = (client_id: string, extra: object = {}) => ({
  client_id,
  client_secret: `${client_id}-secret-0123456789`,
  client_name: `App ${client_id}`,
  organization: 'mercy',
  redirect_uris: [redirectUri],
  grant_types: ['authorization_code' as const, 'refresh_token' as const],
  scope: 'openid profile offline_access',
  ...extra,
})
const file = {
  ...seed,
  accounts: [
    ...(seed.accounts ?? []),
    { email, name: 'Plain Person', password, organization: 'mercy', emailVerified: true },
  ],
  clients: [
    ...(seed.clients ?? []),
    ...['portal', 'renamed', 'moved', 'switched', 'deleted', 'replaced', 'kept'].map((id) => app(id)),
    app('trusted', { first_party: true }),
    app('api', {
      grant_types: ['client_credentials'],
      redirect_uris: [],
      introspection: 'organization',
      scope: 'openid',
    }),
  ],
}
const body = { client_name: 'New App', redirect_uris: ['https://app.example/callback'] }
const service = { client_name: 'Service', grant_types: ['client_credentials'], scope: 'admin:read admin:write' }

let server: AdminServer
let admin: string
let root: string
beforeAll(async () => {
  server = await startAdmin('postgres', file)
  admin = await server.tokenOf('admin@mercy.example')
  root = await server.tokenOf('root@platform.example')
})
afterAll(() => server.close())

const create = (given: unknown = body, headers: Record<string, string> = {}, token = admin) =>
  server.call(token, clients, { body: given, headers })
const get = (id: string) => server.call(admin, `${clients}/${id}`)
const etagOf = async (id: string) => (await get(id)).headers.get('etag') ?? ''
const patch = async (id: string, change: unknown, token = admin, query = '') =>
  server.call(token, `${clients}/${id}${query}`, {
    method: 'PATCH',
    body: change,
    headers: { 'if-match': await etagOf(id) },
  })
const act = (id: string, action: string, token = admin) =>
  server.call(token, `${clients}/${id}/${action}`, { method: 'POST', body: {} })
const pathsOf = (answer: ApiAnswer) => ((answer.body['errors'] ?? []) as { path: string }[]).map(({ path }) => path)
const tokenRequest = (id: string, secret: string, form: Record<string, string>) =>
  post(server, '/oauth/token', id, form, { authorization: basic(id, secret) })
const serviceToken = async (id: string, secret: string) =>
  tokenRequest(id, secret, { grant_type: 'client_credentials', scope: 'admin:read admin:write' })
const isActive = async (token: string) => (await introspect(server, token))['active']
const inTenMinutes = async <T>(work: () => Promise<T>): Promise<T> => {
  server.clock.now = new Date(Date.now() + 600_000)
  return work().finally(() => {
    server.clock.now = undefined
  })
}
const auditOf = async (name: string, id: string) => (await server.audit(name)).filter((row) => row.clientId === id)

describe('the table of what may be set by whom', () => {
  it('has a row for every field, and lets an organisation set none that reaches beyond it', () => {
    expect(Object.keys(clientRules).sort()).toEqual(Object.keys(clientFields).sort())
    const platforms = Object.entries(clientRules).filter(([, rule]) => rule.by === 'platform')
    expect(platforms.map(([name]) => name)).toEqual(['first_party', 'profile'])
  })
  it('is what the guide says', () => {
    const guide = readFileSync('docs/guides/clients.md', 'utf8')
    const rows = [...guide.matchAll(/^\| `(\w+)` \| (.*?) \| (.*?) ?\| (.*?) ?\|$/gm)]
    const said = rows.map(([, field, by = '', stepUp, again]) => [
      field,
      by.startsWith('platform') ? 'platform' : 'organization',
      by.includes('where `first_party`'),
      stepUp === '' ? 'never' : stepUp === 'when changed' ? 'changed' : 'always',
      again === 'yes',
    ])
    const rules = Object.entries(clientRules).map(([field, { by, ofFirstParty, stepUp }]) => [
      field,
      by,
      ofFirstParty === 'platform',
      stepUp,
      consentFields.has(field),
    ])
    expect(said).toEqual(rules)
  })
  it('asks for nothing where nothing is changed', () => {
    const members = { ...app('x', { first_party: true }), profile: 'oidc-certification' } as never
    expect(needsOf(members, members)).toEqual({ platform: [], stepUp: [] })
  })
})

describe('registering', () => {
  it('makes an id and a secret, shows the secret once, and keeps a digest', async () => {
    const created = await create(service)
    expect(created).toMatchObject({ status: 201, body: { client_name: 'Service', hasSecret: true, permissions: [] } })
    const { client_id: id, client_secret: secret } = created.body as { client_id: string; client_secret: string }
    expect(created.headers.get('location')).toBe(`${clients}/${id}`)
    expect(id).toMatch(/^client_[A-Za-z0-9_-]{22}$/)
    expect(secret).toMatch(/^[A-Za-z0-9_-]{43}$/)
    expect((await get(id)).text).not.toContain('secret"')
    expect((await serviceToken(id, secret)).status).toBe(200)
    const rows = await server.database.run('select * from mlpipes_auth.clients where client_id = $1', [id])
    expect(JSON.stringify(rows)).not.toContain(secret)
    expect(server.logs.join('')).not.toContain(secret)
    expect(await auditOf('client.created', id)).toMatchObject([{ actorId: server.ids.get('admin@mercy.example') }])
  })

  it('makes no secret for who uses none', async () => {
    const created = await create({ ...body, token_endpoint_auth_method: 'none' })
    expect(created).toMatchObject({ status: 201, body: { client_secret: null, hasSecret: false } })
  })

  it('does it once for an Idempotency-Key, whoever asks how often, with the same secret', async () => {
    const named = { ...body, client_name: 'Asked Twenty Times' }
    const answers = await Promise.all(
      Array.from({ length: 20 }, () => create(named, { 'idempotency-key': 'register-1' })),
    )
    const made = answers.filter(({ status }) => status === 201)
    expect(new Set(made.map((answer) => answer.body['client_secret'])).size).toBe(1)
    expect(answers.every(({ status }) => status === 201 || status === 409)).toBe(true)
    const listed = await server.call(admin, `${clients}?q=Twenty`)
    expect(listed.body['items']).toHaveLength(1)
    const again = await create(named, { 'idempotency-key': 'register-1' })
    expect(again.body['client_secret']).toBe(made[0]?.body['client_secret'])
  })

  it.each([
    ['an id', { client_id: 'mine' }, 'client_id'],
    ['an account’s id', { client_id: 'acc_0123456789012345678901' }, 'client_id'],
    ['a secret', { client_secret: 'chosen-by-myself' }, 'client_secret'],
    ['an organisation', { organization: 'hope' }, 'organization'],
    ['an organisation by id', { organization_id: 'org_x' }, 'organization_id'],
    ['permissions', { permissions: ['user:read'] }, 'permissions'],
    ['what is nothing', { isAdmin: true }, 'isAdmin'],
    ['a logo', { logo_uri: 'https://tracker.example/x.png' }, 'logo_uri'],
    ['keys to be fetched', { jwks_uri: 'http://169.254.169.254/' }, 'jwks_uri'],
    ['keys on a private network', { jwks_uri: 'https://169.254.169.254/' }, 'jwks_uri'],
    ['http', { redirect_uris: ['http://app.example/'] }, 'redirect_uris.0'],
    ['a script', { redirect_uris: ['javascript:alert(1)'] }, 'redirect_uris.0'],
    ['a wildcard', { redirect_uris: ['https://*.example/'] }, 'redirect_uris.0'],
    ['a fragment', { redirect_uris: ['https://app.example/#x'] }, 'redirect_uris.0'],
    ['NUL', { redirect_uris: ['https://app.example/\u0000'] }, 'redirect_uris.0'],
    ['half a character', { redirect_uris: ['https://app.example/\ud800'] }, 'redirect_uris.0'],
    [
      'a logout address with a password',
      { backchannel_logout_uri: 'https://a:b@app.example/' },
      'backchannel_logout_uri',
    ],
    [
      'a logout address on a private network',
      { backchannel_logout_uri: 'https://10.0.0.5/logout' },
      'backchannel_logout_uri',
    ],
    [
      'a logout address of link-local',
      { backchannel_logout_uri: 'https://169.254.169.254/' },
      'backchannel_logout_uri',
    ],
    ['one in disguise', { backchannel_logout_uri: 'https://[::ffff:10.0.0.1]/' }, 'backchannel_logout_uri'],
    ['one as a number', { backchannel_logout_uri: 'https://167772161/' }, 'backchannel_logout_uri'],
    [
      'a logout address of 2,049 characters',
      { backchannel_logout_uri: 'https://app.example/'.padEnd(2_049, 'x') },
      'backchannel_logout_uri',
    ],
    ['a name with half a character', { client_name: 'x\ud800' }, 'client_name'],
    ['a name that turns round', { client_name: 'x\u202e' }, 'client_name'],
    ['a name of two lines', { client_name: 'x\ny' }, 'client_name'],
    ['a name of 101', { client_name: 'x'.repeat(101) }, 'client_name'],
    ['an unknown scope', { scope: 'openid everything' }, 'scope'],
    ['an unknown grant', { grant_types: ['password'] }, 'grant_types.0'],
    [
      'a grant for who proves nothing',
      { token_endpoint_auth_method: 'none', grant_types: ['client_credentials'] },
      'grant_types',
    ],
    ['no keys', { token_endpoint_auth_method: 'private_key_jwt' }, 'jwks'],
    ['a private key', { jwks: { keys: [{ kty: 'OKP', crv: 'Ed25519', x: 'AA', d: 'AA' }] } }, 'jwks.keys.0'],
    ['a shared key', { jwks: { keys: [{ kty: 'oct', k: 'AA' }] } }, 'jwks.keys.0'],
    ['a key that is none', { jwks: { keys: [{ kty: 'RSA', n: 'AA' }] } }, 'jwks.keys.0'],
    ['a key with NUL', { jwks: { keys: [{ kty: 'OKP', crv: 'Ed25519', x: 'AA', kid: '\u0000' }] } }, 'jwks.keys.0'],
    ['21 keys', { jwks: { keys: Array(21).fill({ kty: 'OKP', crv: 'Ed25519', x: 'AA' }) } }, 'jwks.keys'],
    ['51 addresses', { redirect_uris: Array(51).fill('https://app.example/') }, 'redirect_uris'],
    // What the provider itself would refuse at the first authorization.
    ['a native app on https localhost', { application_type: 'native', redirect_uris: ['https://localhost/'] }, ''],
  ])('refuses %s by name', async (_name, extra, path) => {
    const refused = await create({ ...body, ...extra })
    expect(refused).toMatchObject({ status: 400, body: { type: problem('input_invalid') } })
    expect(pathsOf(refused)).toContain(path)
  })

  it.each([
    'https://app.example/logout',
    'https://9.255.255.255/logout',
    'https://11.0.0.0/',
    'http://localhost:8080/logout',
    'https://app.example/'.padEnd(2_048, 'x'),
  ])('takes a logout address that can be reached: %.40s', async (backchannel_logout_uri) => {
    const created = await create({ ...body, backchannel_logout_uri })
    expect(created).toMatchObject({ status: 201, body: { backchannel_logout_uri } })
  })

  it('does not move a logout address to a private network either, and says what it may hold', async () => {
    const refused = await patch('kept', { backchannel_logout_uri: 'https://10.0.0.5/logout' })
    expect(refused).toMatchObject({ status: 400, body: { type: problem('input_invalid') } })
    expect(refused.text).toContain('https URI on the public internet')
  })

  it('F72: refuses members that reach into prototypes', async () => {
    for (const text of ['{"__proto__":{"first_party":true}}', '{"constructor":{"prototype":{"first_party":true}}}'])
      expect((await create(text)).status).toBe(400)
  })

  it.each([
    ['first_party', { first_party: true }],
    ['profile', { profile: 'oidc-certification' }],
  ])('leaves %s to the platform, and says so', async (field, extra) => {
    const refused = await create({ ...body, ...extra })
    expect(refused).toMatchObject({ status: 403, body: { permission: 'platform:organizations' } })
    expect(pathsOf(refused)).toEqual([field])
    const created = await create(body)
    expect((await patch(String(created.body['client_id']), extra)).status).toBe(403)
    const mercy = await organizationId(server, 'mercy')
    const allowed = await server.call(root, `${clients}?organization=${mercy}`, { body: { ...body, ...extra } })
    expect(allowed).toMatchObject({ status: 201, body: extra })
  })

  it('asks who may see every token to prove themselves anew', async () => {
    const powerful = { ...service, introspection: 'organization' }
    const refused = await inTenMinutes(() => create(powerful))
    expect(refused).toMatchObject({ status: 401, body: { type: problem('step_up_required') } })
    expect(await inTenMinutes(() => create({ ...powerful, introspection: 'own' }))).toMatchObject({ status: 201 })
    expect((await create(powerful)).status).toBe(201)
  })

  it('takes a thousand clients of an organisation and no more', async () => {
    const hope = await organizationId(server, 'hope')
    await server.database.run(
      `insert into mlpipes_auth.clients (client_id, organization_id, name, metadata)
       select 'bulk_' || n, $1, 'Bulk', '{}' from generate_series(1, 999) as n`,
      [hope],
    )
    const token = await server.tokenOf('admin@hope.example')
    const answers = await Promise.all(Array.from({ length: 20 }, () => create(body, {}, token)))
    expect(answers.map(({ status }) => status).sort()).toEqual([201, ...Array(19).fill(409)])
    await server.database.run("delete from mlpipes_auth.clients where client_id like 'bulk\\_%'", [])
  })
})

describe('lists', () => {
  it('finds letter by letter, by state, and page by page', async () => {
    for (const name of ['100% Care', '100 Care', '100_ Care']) await create({ ...body, client_name: name })
    const names = async (query: string) => {
      const { body: page } = await server.call(admin, `${clients}?${query}`)
      return (page['items'] as { client_name: string }[]).map((item) => item.client_name).sort()
    }
    expect(await names('q=100%25')).toEqual(['100% Care'])
    expect(await names('q=100_')).toEqual(['100_ Care'])
    expect(await names("q='")).toEqual([])
    expect(await names('disabled=true')).toEqual([])
    const all = await names('limit=100')
    const walked: string[] = []
    let cursor = ''
    do {
      const { body: page } = await server.call(admin, `${clients}?limit=5${cursor}`)
      walked.push(...(page['items'] as { client_name: string }[]).map((item) => item.client_name))
      cursor = page['next'] === null ? '' : `&cursor=${page['next']}`
    } while (cursor !== '')
    expect(walked.sort()).toEqual(all)
    expect(all).not.toContain('Administration')
  })
})

describe('changing', () => {
  it('is for one version, and says what changed', async () => {
    const etag = await etagOf('kept')
    const change: Sent = { method: 'PATCH', body: { backchannel_logout_uri: 'https://app.example/logout' } }
    const first = await server.call(admin, `${clients}/kept`, { ...change, headers: { 'if-match': etag } })
    expect(first).toMatchObject({ status: 200, body: { backchannel_logout_uri: 'https://app.example/logout' } })
    expect((await server.call(admin, `${clients}/kept`, { ...change, headers: { 'if-match': etag } })).status).toBe(412)
    expect((await server.call(admin, `${clients}/kept`, change)).status).toBe(428)
    expect(await patch('kept', { backchannel_logout_uri: null })).toMatchObject({
      body: { backchannel_logout_uri: null },
    })
    const [last] = await auditOf('client.updated', 'kept')
    expect(last).toMatchObject({ details: { changed: expect.arrayContaining(['backchannel_logout_uri']) } })
  })

  it('of twenty at once, one wins', async () => {
    const etag = await etagOf('kept')
    const answers = await Promise.all(
      Array.from({ length: 20 }, (_, index) =>
        server.call(admin, `${clients}/kept`, {
          method: 'PATCH',
          body: { post_logout_redirect_uris: [`https://app.example/${index}`] },
          headers: { 'if-match': etag },
        }),
      ),
    )
    expect(answers.filter(({ status }) => status === 200)).toHaveLength(1)
    expect(answers.filter(({ status }) => status === 412)).toHaveLength(19)
  })

  it.each([
    ['renamed', { client_name: 'Another Name' }],
    ['moved', { redirect_uris: [redirectUri, 'https://elsewhere.example/'] }],
    ['portal', { scope: 'openid profile offline_access email' }],
  ])('F76: %s is another app to people, who are asked again', async (id, change) => {
    const asks = async (browser: Browser) => {
      const page = await browser.follow(
        await browser.request(authorizationUrl(server, id, { scope: 'openid profile' }).url),
      )
      return page.text.includes('/consent"')
    }
    const { access_token: token, browser } = await obtainTokens(
      server,
      id,
      { scope: 'openid profile' },
      await signedIn(),
    )
    expect(await isActive(token)).toBe(true)
    expect(await asks(browser)).toBe(false)
    await patch(id, { session_activity: false })
    expect(await isActive(token), 'nothing that people were told has changed').toBe(true)
    expect((await patch(id, change)).status).toBe(200)
    expect(await isActive(token)).toBe(false)
    expect(await asks(browser)).toBe(true)
    const ended = await auditOf('access.ended', id)
    expect(ended).toMatchObject([{ details: { cause: 'consent_withdrawn', sessions: 0 } }])
  })

  it('of an app that skips the consent page, what it asks for and where codes go are the platform’s', async () => {
    for (const [field, change] of [
      ['scope', { scope: 'openid profile admin:write' }],
      ['redirect_uris', { redirect_uris: ['https://evil.example/'] }],
    ] as const) {
      const refused = await patch('trusted', change)
      expect(refused).toMatchObject({ status: 403, body: { permission: 'platform:organizations' } })
      expect(pathsOf(refused)).toEqual([field])
    }
    expect((await patch('trusted', { session_activity: false })).status).toBe(200)
    const mercy = await organizationId(server, 'mercy')
    const allowed = await patch('trusted', { scope: 'openid profile' }, root, `?organization=${mercy}`)
    expect(allowed).toMatchObject({ status: 200, body: { scope: 'openid profile' } })
  })

  it('of what it proves itself with needs a step-up', async () => {
    const change = { token_endpoint_auth_method: 'client_secret_post' }
    expect(await inTenMinutes(() => patch('kept', change))).toMatchObject({ status: 401 })
    expect((await patch('kept', change)).status).toBe(200)
    const keys = { jwks: { keys: [{ kty: 'OKP', crv: 'Ed25519', x: '11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo' }] } }
    const key = await patch('kept', { ...keys, token_endpoint_auth_method: 'private_key_jwt' })
    expect(key).toMatchObject({ status: 200, body: { hasSecret: false } })
    expect((await act('kept', 'replace-secret')).status).toBe(409)
    const back = await patch('kept', { token_endpoint_auth_method: 'client_secret_basic', jwks: null })
    expect(back).toMatchObject({ status: 200, body: { hasSecret: false, jwks: null } })
    expect((await act('kept', 'replace-secret')).status).toBe(200)
  })
})

describe('switching off', () => {
  it('counts at the next request everywhere, is told once, and nothing comes back', async () => {
    const mercy = await organizationId(server, 'mercy')
    const hook = `insert into mlpipes_auth.webhooks (id, organization_id, url, events, sealed_secret)
      values ('hook', $1, 'http://127.0.0.1:9/', '{client.disabled,client.enabled}', 'x')`
    await server.database.run(hook, [mercy])
    const tokens = await obtainTokens(
      server,
      'switched',
      { scope: 'openid profile offline_access', prompt: 'consent' },
      await signedIn(),
    )
    const answers = await Promise.all(Array.from({ length: 20 }, () => act('switched', 'disable')))
    for (const answer of answers) expect(answer.status).toBe(200)
    const userinfo = () =>
      fetch(`${server.issuer}/oauth/userinfo`, { headers: { authorization: `Bearer ${tokens.access_token}` } })
    const refresh = () =>
      post(server, '/oauth/token', 'switched', {
        grant_type: 'refresh_token',
        refresh_token: tokens.refresh_token ?? '',
      })
    expect(await isActive(tokens.access_token)).toBe(false)
    expect((await userinfo()).status).toBe(401)
    expect((await refresh()).body['error']).toBe('invalid_client')
    const page = await tokens.browser.request(authorizationUrl(server, 'switched').url)
    expect(page.status).toBe(400)
    expect(await auditOf('client.disabled', 'switched')).toHaveLength(1)
    expect((await act('switched', 'enable')).body['disabledAt']).toBeNull()
    expect(await isActive(tokens.access_token)).toBe(false)
    expect((await userinfo()).status).toBe(401)
    expect((await refresh()).body['error']).toBe('invalid_grant')
    const told = await server.database.run(
      "select body ->> 'type' as type from mlpipes_auth.deliveries where webhook_id = 'hook' order by id",
      [],
    )
    expect(told.map((row) => row['type'])).toEqual(['client.disabled', 'client.enabled'])
  })

  it('for good takes the version that was read', async () => {
    const tokens = await obtainTokens(server, 'deleted', { scope: 'openid profile' }, await signedIn())
    const remove = (etag: string) =>
      server.call(admin, `${clients}/deleted`, { method: 'DELETE', headers: { 'if-match': etag } })
    expect((await remove('"77"')).status).toBe(412)
    expect((await remove(await etagOf('deleted'))).status).toBe(204)
    expect(await isActive(tokens.access_token)).toBe(false)
    expect((await get('deleted')).status).toBe(404)
    expect(await auditOf('client.deleted', 'deleted')).toHaveLength(1)
  })
})

describe('a new secret', () => {
  it('is shown once, and the old one is dead at once', async () => {
    const created = (await create(service)).body as { client_id: string; client_secret: string }
    expect(await inTenMinutes(() => act(created.client_id, 'replace-secret'))).toMatchObject({
      status: 401,
      body: { type: problem('step_up_required') },
    })
    const replaced = await act(created.client_id, 'replace-secret')
    const secret = String(replaced.body['client_secret'])
    expect((await serviceToken(created.client_id, created.client_secret)).status).toBe(401)
    expect((await serviceToken(created.client_id, secret)).status).toBe(200)
    expect(await auditOf('client.secret_replaced', created.client_id)).toHaveLength(1)
  })

  it('works beside the old one for as long as was said, and a third one ends the first', async () => {
    const { client_id: id, client_secret: first } = (await create(service)).body as Record<string, string>
    const replace = async (overlapSeconds: number) =>
      server.call(admin, `${clients}/${id}/replace-secret`, { method: 'POST', body: { overlapSeconds } })
    const statusOf = async (secret: string | undefined) => (await serviceToken(id ?? '', secret ?? '')).status
    expect((await replace(604_801)).status).toBe(400)
    const second = String((await replace(604_800)).body['client_secret'])
    expect([await statusOf(first), await statusOf(second)]).toEqual([200, 200])
    const third = String((await replace(3_600)).body['client_secret'])
    expect([await statusOf(first), await statusOf(second), await statusOf(third)]).toEqual([401, 200, 200])
    const over = `update mlpipes_auth.clients set previous_secret_until = now() where client_id = $1`
    await server.database.run(over, [id])
    expect([await statusOf(second), await statusOf(third)]).toEqual([401, 200])
  })
})

describe('recent errors', () => {
  const faultsOf = (id: string, token = admin, query = '') => server.call(token, `${clients}/${id}/faults${query}`)
  const itemsOf = ({ body }: ApiAnswer) => body['items'] as Record<string, unknown>[]

  it('are what the app did a moment ago, by code, in words and with plain facts', async () => {
    const wrong = { redirect_uri: 'https://user:pw@wrong.example/back?code=s3cret#frag' }
    for (let n = 0; n < 2; n += 1) await new Browser(server).request(authorizationUrl(server, 'portal', wrong).url)
    await tokenRequest('portal', 'wrong-secret', { grant_type: 'refresh_token', refresh_token: 's3cret' })
    const answer = await faultsOf('portal')
    expect(answer.status).toBe(200)
    expect(answer.text).not.toMatch(/s3cret|wrong-secret|pw@|frag/)
    const none = { redirectUri: null, scope: null, grantType: null, method: null, parameters: null }
    const [secret, address, ...others] = itemsOf(answer).sort((one, two) => Number(one['count']) - Number(two['count']))
    expect(others).toEqual([])
    expect(secret).toMatchObject({ endpoint: 'token', error: 'invalid_client', reason: 'secret_wrong', facts: none })
    expect(address).toEqual({
      endpoint: 'authorize',
      error: 'invalid_redirect_uri',
      reason: 'redirect_uri_unknown',
      where: 'Asking for a sign-in',
      what: `The app sent redirect_uri “https://wrong.example/back”. Registered: “${redirectUri}”.`,
      mend: 'Register what it sends, letter for letter, or change the app.',
      facts: { ...none, redirectUri: 'https://wrong.example/back' },
      count: 2,
      occurredAt: expect.stringMatching(/^\d{4}-\d\d-\d\dT/),
    })
    const mercy = await organizationId(server, 'mercy')
    expect(itemsOf(await faultsOf('portal', root, `?organization=${mercy}`))).toHaveLength(2)
    expect((await faultsOf('portal', root)).status, 'of the platform there is no such app').toBe(404)
    expect(itemsOf(await faultsOf('kept')), 'and another app did nothing').toEqual([])
  })

  it('of a newer version are shown as far as they are known', async () => {
    await server.database.run(
      `insert into mlpipes_auth.client_faults (client_id, slot, endpoint, error, reason, facts, digest, count)
       values ('moved', 0, 'token', 'invalid_grant', 'new_reason', '{"newFact":1}', 'a', 1),
         ('moved', 1, 'new_endpoint', 'invalid_request', 'other', '{}', 'b', 1)`,
      [],
    )
    expect(itemsOf(await faultsOf('moved'))).toMatchObject([{ error: 'invalid_grant', reason: 'other' }])
  })
})

describe('permissions of a service', () => {
  const set = async (id: string, permissions: string[], token = admin) =>
    server.call(token, `${clients}/${id}/permissions`, {
      method: 'PUT',
      body: { permissions },
      headers: { 'if-match': await etagOf(id) },
    })

  it('count from its next request, and until they are taken away', async () => {
    const { client_id: id, client_secret: secret } = (await create(service)).body as Record<string, string>
    const token = String((await serviceToken(id ?? '', secret ?? '')).body['access_token'])
    const status = async () => (await server.call(token, clients)).status
    expect(await status()).toBe(403)
    expect(await set(id ?? '', ['client:read'])).toMatchObject({ status: 200, body: { permissions: ['client:read'] } })
    expect(await status()).toBe(200)
    expect((await set(id ?? '', [])).status).toBe(200)
    expect(await status()).toBe(403)
    const [last] = await auditOf('client.updated', id ?? '')
    expect(last).toMatchObject({ details: { changed: ['permissions'], permissions: [] } })
  })

  it('are those of an organisation, for a service that can use them', async () => {
    const { client_id: id } = (await create(service)).body as { client_id: string }
    expect((await set(id, ['platform:organizations'])).status).toBe(400)
    expect((await set(id, ['user:read', 'user:read'])).status).toBe(400)
    const refused = await set('replaced', ['user:read'])
    expect(refused).toMatchObject({ status: 409, body: { type: problem('not_possible') } })
    expect(pathsOf(refused)).toEqual(['grant_types', 'scope'])
    expect((await set(id, ['user:read'])).status).toBe(200)
    const lost = await patch(id, { scope: 'openid' })
    expect(lost).toMatchObject({ status: 409, body: { errors: [{ path: 'scope' }] } })
  })

  it('F71: are nobody’s to give, nor to take over, who does not hold them', async () => {
    const { client_id: id } = (await create(service)).body as { client_id: string }
    expect((await set(id, ['user:create'])).status).toBe(200)
    await server.database.run(
      "update mlpipes_auth.clients set permissions = '{client:read,client:update,client:disable}' where client_id = 'strong'",
      [],
    )
    const strong = await server.serviceToken('strong')
    for (const answer of [
      await set(id, ['client:read', 'user:create'], strong),
      await set(id, [], strong),
      await patch(id, { client_name: 'Mine' }, strong),
      await act(id, 'replace-secret', strong),
      await act(id, 'enable', strong),
    ])
      expect(answer).toMatchObject({ status: 403, body: { permission: 'user:create' } })
    // Stopping what does harm is not acting with it.
    expect((await act(id, 'disable', strong)).status).toBe(200)
  })

  it('are not given by a service that shares its secret', async () => {
    const { client_id: id } = (await create(service)).body as { client_id: string }
    await server.database.run(
      "update mlpipes_auth.clients set permissions = '{client:read,client:update}' where client_id = 'weak'",
      [],
    )
    const weak = await server.serviceToken('weak')
    expect(await set(id, ['client:read'], weak)).toMatchObject({
      status: 403,
      body: { type: problem('client_too_weak') },
    })
    expect((await act(id, 'replace-secret', weak)).status).toBe(403)
    const change = { introspection: 'organization' }
    expect(await patch(id, change, weak)).toMatchObject({ status: 403, body: { type: problem('client_too_weak') } })
  })
})

/** A browser in which the person without a second factor is signed in, by an app that asks nothing. */
async function signedIn(): Promise<Browser> {
  const browser = new Browser(server)
  let page = await browser.follow(await browser.request(authorizationUrl(server, 'trusted', { scope: 'openid' }).url))
  if (page.text.includes('/password"')) page = await browser.submit(page, '/password', { email, password })
  return browser
}

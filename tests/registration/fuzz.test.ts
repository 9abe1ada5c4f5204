// Registration fuzzed over the members of RFC 7591 §2 and OpenID Connect Registration §2, under templates of every kind:
// whatever is sent, no answer is a fault of ours, and no client stands afterwards that the policy or the template forbids. The
// oracle below is written apart from the policy.
import { generateKeyPairSync } from 'node:crypto'
import fc from 'fast-check'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { deviceGrant } from '../../src/clients/clients.ts'
import { maxClients } from '../../src/clients/store.ts'
import type { Template } from '../../src/registration/template.ts'
import { type AdminServer, seed, startAdmin } from '../admin/support.ts'
import { asUpdate, issueToken, metadata, register, send, template as usual } from './support.ts'

const { publicKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' })
const jwks = { keys: [{ ...publicKey.export({ format: 'jwk' }), kid: 'k', alg: 'ES256', use: 'sig' }] }
const native = { application_type: 'native', redirect_uris: ['http://127.0.0.1/cb'] }
const flowless = { redirect_uris: undefined, grant_types: undefined }

/** What an administrator may let in, and a registration that is good under it. */
const templates: Readonly<Record<string, readonly [Partial<Template>, Readonly<Record<string, unknown>>]>> = {
  'of a web app': [{}, {}],
  'of a public app': [{ tokenEndpointAuthMethods: ['none'] }, native],
  'of a device': [
    { grantTypes: [deviceGrant, 'refresh_token'], redirectHosts: [], tokenEndpointAuthMethods: ['none'] },
    { ...flowless, grant_types: [deviceGrant] },
  ],
  'of a service with a key': [
    { grantTypes: ['client_credentials'], redirectHosts: [], tokenEndpointAuthMethods: ['private_key_jwt'] },
    { ...flowless, jwks },
  ],
  'of an app with JWTs': [{ accessTokenFormats: ['jwt'], tokenEndpointAuthMethods: ['client_secret_post'] }, {}],
  'of profile fapi2': [{ profile: 'fapi2', tokenEndpointAuthMethods: ['private_key_jwt'] }, { jwks }],
  'of profile fapi2, with all grants and JWTs': [
    {
      profile: 'fapi2',
      tokenEndpointAuthMethods: ['private_key_jwt'],
      grantTypes: ['authorization_code', 'refresh_token', 'client_credentials', deviceGrant],
      accessTokenFormats: ['opaque', 'jwt'],
    },
    { jwks_uri: 'https://app.vendor.example/jwks' },
  ],
  'with everything': [
    {
      grantTypes: ['authorization_code', 'refresh_token', 'client_credentials', deviceGrant],
      redirectHosts: ['app.vendor.example', 'app.vendor.example:444', 'localhost', '127.0.0.1', '[::1]'],
      tokenEndpointAuthMethods: ['client_secret_basic', 'client_secret_post', 'private_key_jwt', 'none'],
      accessTokenFormats: ['opaque', 'jwt'],
    },
    {},
  ],
}
// The same for everybody, so that what fails is what was changed. REGISTRATION_SEED tries others.
const fuzzSeed = Number(process.env['REGISTRATION_SEED'] ?? 20_261_129)
const runsOfEach = 70

const hostile = [
  'http://app.vendor.example/',
  'https://app.vendor.example/cb',
  'https://app.vendor.example/cb?x=1',
  'HTTPS://APP.VENDOR.EXAMPLE/cb',
  'https://app.vendor.example./cb',
  'https://app.vendor.example:443/cb',
  'https://app.vendor.example:444/cb',
  'https://app.vendor.example\\@evil.example/',
  'https://user@app.vendor.example/',
  'https://:@app.vendor.example/',
  'https://app.vendor.example/#',
  'https://app.vendor.example/*',
  'https://*/',
  'https:app.vendor.example/cb',
  'https:///app.vendor.example/cb',
  '//app.vendor.example/cb',
  'http://localhost/cb',
  'http://localhost.evil.example/cb',
  'http://127.0.0.1:8080/cb',
  'http://127.1/cb',
  'http://2130706433/',
  'http://0x7f.1/',
  'http://[::1]/cb',
  'http://[::ffff:127.0.0.1]/',
  'https://169.254.169.254/latest',
  'https://10.0.0.1/',
  'https://[fd00::1]/',
  'https://public.example/jwks',
  'javascript:alert(1)',
  'com.example.app:/cb',
  '',
]
const text = fc.oneof(
  fc.constantFrom(...hostile),
  fc.webUrl({ withFragments: true, withQueryParameters: true }),
  fc.string({ unit: 'binary', maxLength: 120 }),
)
const junk = fc.oneof(fc.jsonValue({ maxDepth: 4 }), text, fc.constant(null), fc.array(text, { maxLength: 4 }))
const mostly = <T>(likely: fc.Arbitrary<T>) =>
  fc.oneof({ weight: 5, arbitrary: likely }, { weight: 1, arbitrary: junk })
const some = <T>(...values: T[]) => fc.subarray(values)
const key = fc.record(
  {
    kty: fc.constantFrom('EC', 'RSA', 'OKP', 'oct'),
    crv: fc.constantFrom('P-256', 'Ed25519'),
    x: text,
    y: text,
    n: text,
    e: text,
    d: text,
  },
  { requiredKeys: ['kty'] },
)

const anyMember = {
  client_name: mostly(
    fc.oneof(
      fc.constant('Vendor App'),
      fc.string({ unit: 'binary', maxLength: 130 }),
      fc.string({ unit: 'grapheme', maxLength: 20 }),
    ),
  ),
  redirect_uris: mostly(fc.oneof(fc.constant(metadata.redirect_uris), fc.array(text, { maxLength: 4 }))),
  post_logout_redirect_uris: mostly(fc.array(text, { maxLength: 2 })),
  grant_types: mostly(
    fc.oneof(
      { weight: 3, arbitrary: some('authorization_code', 'refresh_token', 'client_credentials', deviceGrant) },
      { weight: 1, arbitrary: some('authorization_code', 'implicit', 'password') },
    ),
  ),
  response_types: mostly(some('code', 'token', 'id_token', 'code id_token')),
  token_endpoint_auth_method: mostly(
    fc.constantFrom(
      'none',
      'client_secret_basic',
      'client_secret_post',
      'client_secret_jwt',
      'private_key_jwt',
      'tls_client_auth',
    ),
  ),
  application_type: mostly(fc.constantFrom('web', 'native')),
  scope: mostly(
    some('openid', 'profile', 'email', 'offline_access', 'admin:write', 'introspect', 'x').map((names) =>
      names.join(' '),
    ),
  ),
  jwks: mostly(fc.oneof(fc.constant(jwks), fc.record({ keys: fc.array(key, { maxLength: 2 }) }))),
  jwks_uri: mostly(text),
  backchannel_logout_uri: mostly(text),
  backchannel_logout_session_required: mostly(fc.boolean()),
  id_token_signed_response_alg: mostly(fc.constantFrom('RS256', 'ES256', 'none', 'HS256')),
  require_pushed_authorization_requests: mostly(fc.boolean()),
  dpop_bound_access_tokens: mostly(fc.boolean()),
  access_token_format: mostly(fc.constantFrom('opaque', 'jwt', 'saml')),
  introspection_signed_response_alg: mostly(fc.constantFrom('RS256', 'ES256', 'none', 'HS256')),
  backchannel_logout_causes: junk,
  client_uri: junk,
  logo_uri: junk,
  tos_uri: junk,
  policy_uri: junk,
  contacts: junk,
  software_id: junk,
  software_version: junk,
  software_statement: junk,
  sector_identifier_uri: junk,
  subject_type: junk,
  request_uris: junk,
  first_party: junk,
  introspection: junk,
  permissions: junk,
  profile: junk,
  organization_id: junk,
  client_id: junk,
  client_secret: junk,
  previous_secret: junk,
}
const members = fc.record(anyMember)
const names = Object.keys(anyMember) as (keyof typeof anyMember)[]

/** What a template bounds is asked for more often than the rest. */
const bounded = [
  'redirect_uris',
  'grant_types',
  'token_endpoint_auth_method',
  'application_type',
  'scope',
  'jwks',
  'id_token_signed_response_alg',
  'access_token_format',
] as const
const chosen = fc.array(fc.oneof(fc.constantFrom(...bounded), fc.constantFrom(...names)), { maxLength: 3 })

/** A registration that is good, but for some members: one that is wrong everywhere is refused for the first of them. */
const bodyFrom = (good: Readonly<Record<string, unknown>>) =>
  fc.tuple(members, chosen).map(([wrong, picked]): Record<string, unknown> => {
    const changed = picked.map((name) => [name, wrong[name]])
    return { ...metadata, scope: undefined, ...good, ...Object.fromEntries(changed) }
  })

let server: AdminServer
beforeAll(async () => {
  server = await startAdmin('postgres', seed)
})
afterAll(() => server.close())

/** What stands of a client, read past everything that wrote it. */
async function assertPermitted(clientId: string, template: Template): Promise<void> {
  const [row] = await server.database.run(
    `select c.name, c.metadata, c.first_party, c.introspection, c.permissions, c.profile, c.secret_digest, o.slug
       from mlpipes_auth.clients c join mlpipes_auth.organizations o on o.id = c.organization_id where c.client_id = $1`,
    [clientId],
  )
  const { metadata: stored, name, secret_digest: digest, ...rest } = row ?? {}
  expect(rest).toEqual({
    first_party: false,
    introspection: 'none',
    permissions: [],
    profile: template.profile,
    slug: 'mercy',
  })
  expect(name).toMatch(/^[^\p{C}\p{Zl}\p{Zp}]{1,100}$/u)
  const said = stored as Record<string, unknown>
  const list = (member: string) => (said[member] ?? []) as string[]
  const method = String(said['token_endpoint_auth_method'])
  const grants = list('grant_types')
  expect(template.grantTypes).toEqual(expect.arrayContaining(grants))
  expect(list('response_types')).toEqual(grants.includes('authorization_code') ? ['code'] : [])
  if (grants.includes('authorization_code')) expect(list('redirect_uris')).not.toEqual([])
  expect(template.scopes).toEqual(expect.arrayContaining(String(said['scope']).split(' ')))
  expect(template.tokenEndpointAuthMethods).toContain(method)
  expect(template.accessTokenFormats).toContain(said['access_token_format'] ?? 'opaque')
  assertProves(method, grants, { said, hasSecret: digest !== null })
  if (template.profile === 'fapi2') assertHighAssurance(said, grants)
  for (const uri of [...list('redirect_uris'), ...list('post_logout_redirect_uris')]) {
    const url = new URL(uri)
    expect(uri).toMatch(/^https?:\/\/[a-z0-9[]/i)
    expect(uri).not.toMatch(/[#*\\\s]/)
    expect(url.username + url.password).toBe('')
    const isLocal = ['localhost', '127.0.0.1', '[::1]'].includes(url.hostname)
    if (isLocal) expect([url.protocol, said['application_type']]).toEqual(['http:', 'native'])
    else expect(url.protocol).toBe('https:')
    expect(template.redirectHosts).toContain(isLocal ? url.hostname : url.host)
  }
  for (const member of ['jwks_uri', 'backchannel_logout_uri']) {
    const url = said[member] === undefined ? undefined : new URL(String(said[member]))
    if (!url || (member === 'backchannel_logout_uri' && /^(localhost|127\.0\.0\.1|\[::1\])$/.test(url.hostname)))
      continue
    expect(url.protocol).toBe('https:')
    expect(url.hostname).not.toMatch(/^(10\.|127\.|169\.254\.|0\.|\[|localhost$)/)
  }
  expect(JSON.stringify(said['jwks'] ?? {})).not.toMatch(/"d":/)
}

/** A secret for who proves itself with one and for nobody else, keys for who signs, and nothing of its own for who is nobody. */
function assertProves(
  method: string,
  grants: readonly string[],
  { said, hasSecret }: { said: Record<string, unknown>; hasSecret: boolean },
): void {
  expect(hasSecret).toBe(method.startsWith('client_secret_'))
  if (method === 'private_key_jwt') expect(said['jwks'] ?? said['jwks_uri']).toBeDefined()
  if (method === 'none') expect(grants).not.toContain('client_credentials')
}

/** FAPI 2.0 Security Profile §5.3.2. */
function assertHighAssurance(said: Record<string, unknown>, grants: readonly string[]): void {
  expect(said).toMatchObject({
    require_pushed_authorization_requests: true,
    dpop_bound_access_tokens: true,
    id_token_signed_response_alg: 'ES256',
    token_endpoint_auth_method: 'private_key_jwt',
  })
  expect(grants).not.toContain(deviceGrant)
}

/** The provider takes every client that stands. */
async function assertTaken(clientId: string): Promise<void> {
  const query = new URLSearchParams({ client_id: clientId, response_type: 'code' })
  const page = await fetch(`${server.issuer}/oauth/authorize?${query}`, { redirect: 'manual' })
  expect(page.status).toBeLessThan(500)
  for (const path of ['/oauth/token', '/oauth/device', '/oauth/par']) {
    const body = new URLSearchParams({ client_id: clientId, grant_type: 'client_credentials' })
    const answer = await fetch(server.issuer + path, { method: 'POST', body })
    // Nobody gets a token for saying whose client they are.
    expect(answer.status === 200 ? path : '').not.toBe('/oauth/token')
    expect(answer.status, path).toBeLessThan(500)
  }
}

describe('registration', () => {
  it('is fuzzed in an organisation that has room for it', () => {
    expect(Object.keys(templates).length * runsOfEach).toBeLessThan(maxClients - 100)
  })

  it.each(Object.entries(templates))(
    'under the template %s answers whatever is sent, and registers nothing that it forbids',
    async (_name, [extra, good]) => {
      const template = { ...usual, ...extra }
      const body = bodyFrom(good)
      const { token } = await issueToken(server, extra, { maxUses: runsOfEach })
      const outcomes = { registered: 0, refused: 0 }
      await fc.assert(
        fc.asyncProperty(body, body, async (first, second) => {
          await server.database.run('delete from mlpipes_auth.sign_in_attempts', [])
          const answer = await register(server, token, first)
          expect([201, 400], JSON.stringify(answer.body)).toContain(answer.status)
          outcomes[answer.status === 201 ? 'registered' : 'refused'] += 1
          if (answer.status !== 201) return
          const clientId = String(answer.body['client_id'])
          await assertPermitted(clientId, template)
          const { registration_client_uri: uri, registration_access_token: own } = answer.body
          const said = asUpdate(answer, { ...second, client_id: clientId, client_secret: null })
          const changed = await send(server, 'PUT', String(uri), String(own), said)
          expect([200, 400], JSON.stringify(changed.body)).toContain(changed.status)
          await assertPermitted(clientId, template)
          await assertTaken(clientId)
        }),
        // What it makes smaller registers apps too, and each counts at the token and in the organisation.
        { numRuns: runsOfEach, seed: fuzzSeed, endOnFailure: true },
      )
      // Were all refused, the run would say nothing.
      expect(outcomes.registered).toBeGreaterThan(3)
      expect(outcomes.refused).toBeGreaterThan(3)
    },
    60_000,
  )
})

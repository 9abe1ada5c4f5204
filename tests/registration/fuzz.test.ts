// Registration fuzzed over the members of RFC 7591 §2 and OpenID Connect Registration §2: whatever is sent, no answer is a
// fault of ours, and no client stands afterwards that the policy forbids. The oracle below is written apart from the policy.
import fc from 'fast-check'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { type AdminServer, seed, startAdmin } from '../admin/support.ts'
import { asUpdate, issueToken, metadata, register, send, template } from './support.ts'

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

const members = fc.record(
  {
    client_name: mostly(
      fc.oneof(
        fc.constant('Vendor App'),
        fc.string({ unit: 'binary', maxLength: 130 }),
        fc.string({ unit: 'grapheme', maxLength: 20 }),
      ),
    ),
    redirect_uris: mostly(fc.oneof(fc.constant(metadata.redirect_uris), fc.array(text, { maxLength: 4 }))),
    post_logout_redirect_uris: mostly(fc.array(text, { maxLength: 2 })),
    grant_types: mostly(some('authorization_code', 'refresh_token', 'client_credentials', 'implicit', 'password')),
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
    jwks: mostly(fc.record({ keys: fc.array(key, { maxLength: 2 }) })),
    jwks_uri: mostly(text),
    backchannel_logout_uri: mostly(text),
    backchannel_logout_session_required: mostly(fc.boolean()),
    id_token_signed_response_alg: mostly(fc.constantFrom('RS256', 'ES256', 'none', 'HS256')),
    require_pushed_authorization_requests: mostly(fc.boolean()),
    dpop_bound_access_tokens: mostly(fc.boolean()),
    access_token_format: mostly(fc.constantFrom('opaque', 'jwt', 'saml')),
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
  },
  { requiredKeys: [] },
)

// A registration that is good, but for some members: one that is wrong everywhere is refused for the first of them.
const body = fc
  .tuple(members, fc.array(fc.nat(), { maxLength: 4 }), fc.constantFrom('web', 'native'))
  .map(([wrong, picked, type]): Record<string, unknown> => {
    const entries = Object.entries(wrong)
    const chosen = picked.flatMap((index) => entries.slice(index % entries.length).slice(0, 1))
    return { ...metadata, application_type: type, ...Object.fromEntries(chosen) }
  })

let server: AdminServer
beforeAll(async () => {
  server = await startAdmin('postgres', seed)
})
afterAll(() => server.close())

/** What stands of a client, read past everything that wrote it. */
async function assertPermitted(clientId: string): Promise<void> {
  const [row] = await server.database.run(
    `select c.name, c.metadata, c.first_party, c.introspection, c.permissions, c.profile, c.secret_digest, o.slug
       from mlpipes_auth.clients c join mlpipes_auth.organizations o on o.id = c.organization_id where c.client_id = $1`,
    [clientId],
  )
  const { metadata: stored, name, secret_digest: _digest, ...rest } = row ?? {}
  expect(rest).toEqual({
    first_party: false,
    introspection: 'none',
    permissions: [],
    profile: 'standard',
    slug: 'mercy',
  })
  expect(name).toMatch(/^[^\p{C}\p{Zl}\p{Zp}]{1,100}$/u)
  const said = stored as Record<string, unknown>
  const list = (member: string) => (said[member] ?? []) as string[]
  expect(template.grantTypes).toEqual(expect.arrayContaining(list('grant_types')))
  expect(list('response_types').filter((name) => name !== 'code')).toEqual([])
  expect(template.scopes).toEqual(expect.arrayContaining(String(said['scope']).split(' ')))
  expect(template.tokenEndpointAuthMethods).toContain(said['token_endpoint_auth_method'])
  expect(template.accessTokenFormats).toContain(said['access_token_format'] ?? 'opaque')
  for (const uri of [...list('redirect_uris'), ...list('post_logout_redirect_uris')]) {
    const url = new URL(uri)
    expect(uri).toMatch(/^https?:\/\/[a-z0-9]/)
    expect(uri).not.toMatch(/[#*\\\s]/)
    expect(url.username + url.password).toBe('')
    const isLocal = url.hostname === 'localhost' || url.hostname === '127.0.0.1'
    if (isLocal) expect([url.protocol, said['application_type']]).toEqual(['http:', 'native'])
    else expect([url.protocol, url.host]).toEqual(['https:', 'app.vendor.example'])
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

describe('registration', () => {
  it('answers whatever is sent, and registers nothing that the policy forbids', async () => {
    const { token } = await issueToken(server, {}, { maxUses: 1_000 })
    const outcomes = { registered: 0, refused: 0 }
    await fc.assert(
      fc.asyncProperty(body, body, async (first, second) => {
        await server.database.run('delete from mlpipes_auth.sign_in_attempts', [])
        const answer = await register(server, token, first)
        expect([201, 400], JSON.stringify(answer.body)).toContain(answer.status)
        outcomes[answer.status === 201 ? 'registered' : 'refused'] += 1
        if (answer.status !== 201) return
        const clientId = String(answer.body['client_id'])
        await assertPermitted(clientId)
        const { registration_client_uri: uri, registration_access_token: own } = answer.body
        const said = asUpdate(answer, { ...second, client_id: clientId, client_secret: null })
        const changed = await send(server, 'PUT', String(uri), String(own), said)
        expect([200, 400], JSON.stringify(changed.body)).toContain(changed.status)
        await assertPermitted(clientId)
        // The provider takes every client that stands.
        const query = new URLSearchParams({ client_id: clientId, response_type: 'code' })
        const page = await fetch(`${server.issuer}/oauth/authorize?${query}`, { redirect: 'manual' })
        expect(page.status).toBeLessThan(500)
      }),
      // What it makes smaller registers apps too, and an organisation has room for a thousand.
      { numRuns: 250, endOnFailure: true },
    )
    // Were all refused, the run would say nothing.
    expect(outcomes.registered).toBeGreaterThan(10)
    expect(outcomes.refused).toBeGreaterThan(10)
  }, 120_000)
})

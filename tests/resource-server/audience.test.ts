// RFC 8707: an app asks for a token for one API, and what that API was shown is worth nothing anywhere else.

import { decodeJwt } from 'jose'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { createVerifier, type VerifierOptions } from '../../packages/resource-server/src/index.ts'
import {
  authorizationUrl,
  Browser,
  introspectBothWays,
  obtainCode,
  obtainTokens,
  post,
  redeem,
  redirectUri,
  signIn,
} from '../support/client.ts'
import { people, secretOf, startServer, type TestServer } from '../support/server.ts'
import { serviceToken } from './seed.ts'

const client = (client_id: string, extra: object) => ({
  client_id,
  client_secret: secretOf(client_id),
  client_name: `Client ${client_id}`,
  organization: 'mercy',
  grant_types: ['client_credentials' as const],
  scope: 'openid profile email',
  ...extra,
})
const ofPeople = {
  redirect_uris: [redirectUri],
  grant_types: ['authorization_code' as const, 'refresh_token' as const],
}
const clients = [
  client('ward', { introspection: 'organization' }),
  client('lab', { introspection: 'organization' }),
  client('alone', { introspection: 'own' }),
  client('chart', { ...ofPeople, first_party: true }),
  client('guest-app', ofPeople),
  client('reading', { ...ofPeople, first_party: true, access_token_format: 'jwt' }),
  client('service', {}),
  client('elsewhere', { organization: 'hope', introspection: 'organization' }),
]
const callers = ['ward', 'lab', 'alone', 'api', 'foreign']

let server: TestServer
let nameOf: (clientId: string) => string
let ofOrganization: string
const closing: (() => void)[] = []
beforeAll(async () => {
  server = await startServer('postgres', { seed: { ...people, clients: [...(people.clients ?? []), ...clients] } })
  nameOf = (clientId) => `${server.issuer}/apis/${clientId}`
  const [row] = await server.database.run(`select id from mlpipes_auth.organizations where slug = 'mercy'`, [])
  ofOrganization = `${server.issuer}/organizations/${row?.['id']}`
})
afterAll(async () => {
  for (const close of closing) close()
  await server.close()
})

/** Whom a token is for, and who is told of it. */
async function toldOf(token: string): Promise<unknown[]> {
  const audiences = new Set<unknown>()
  const told: string[] = []
  for (const caller of callers) {
    const facts = await introspectBothWays(server, token, caller)
    if (facts['active'] !== true) continue
    audiences.add(facts['aud'])
    told.push(caller)
  }
  return [...audiences, ...told]
}

const audienceOf = async (token: string) => (await introspectBothWays(server, token, 'api'))['aud']

const refresh = (clientId: string, refreshToken = '', more = {}) =>
  post(server, '/oauth/token', clientId, { grant_type: 'refresh_token', refresh_token: refreshToken, ...more })

describe('a token', () => {
  it('for one API says so to all that may ask about tokens of the organisation', async () => {
    const { access_token: token } = await obtainTokens(server, 'chart', { resource: nameOf('ward') })
    expect(await toldOf(token)).toEqual([nameOf('ward'), 'ward', 'lab', 'api'])
    const facts = await introspectBothWays(server, token, 'ward')
    expect(facts).toMatchObject({
      aud: nameOf('ward'),
      scope: 'openid profile email',
      sub: expect.stringMatching(/^acc_/),
    })
  })

  it('for an API that may ask about its own is told to that one too', async () => {
    const { access_token: token } = await obtainTokens(server, 'chart', { resource: nameOf('alone') })
    expect(await toldOf(token)).toEqual([nameOf('alone'), 'ward', 'lab', 'alone', 'api'])
  })

  it.each([
    ['without a resource', {}],
    ['for the APIs of the organisation', { resource: 'organization' }],
  ])('%s is told to all that may ask about tokens of the organisation', async (_name, extra) => {
    const asked = 'resource' in extra ? { resource: ofOrganization } : {}
    const { access_token: token } = await obtainTokens(server, 'chart', asked)
    expect(await toldOf(token)).toEqual([ofOrganization, 'ward', 'lab', 'api'])
  })

  it('of a service is for whom the service says', async () => {
    expect(await audienceOf(await serviceToken(server, 'service', { resource: nameOf('lab') }))).toBe(nameOf('lab'))
    expect(await audienceOf(await serviceToken(server, 'service'))).toBe(ofOrganization)
  })

  it('that an API reads itself names that API', async () => {
    const tokens = await obtainTokens(server, 'reading', { resource: nameOf('ward') })
    expect(decodeJwt(tokens.access_token)).toMatchObject({ aud: nameOf('ward'), scope: 'openid profile email' })
    const { body } = await refresh('reading', tokens.refresh_token)
    expect(decodeJwt(String(body['access_token'])).aud).toBe(nameOf('ward'))
  })

  it('stays for the same API when it is refreshed, and opens no userinfo', async () => {
    const tokens = await obtainTokens(server, 'chart', { resource: nameOf('ward') })
    const { body } = await refresh('chart', tokens.refresh_token)
    expect(await audienceOf(String(body['access_token']))).toBe(nameOf('ward'))
    const headers = { authorization: `Bearer ${body['access_token']}` }
    expect((await fetch(new URL('/oauth/userinfo', server.issuer), { headers })).status).toBe(401)
    const elsewhere = await refresh('chart', String(body['refresh_token']), { resource: nameOf('lab') })
    expect(elsewhere.body['error']).toBe('invalid_target')
  })

  it('is for one of the several that were asked for', async () => {
    const authorization = authorizationUrl(server, 'chart', { resource: nameOf('ward') })
    const landing = await signIn(new Browser(server), {
      ...authorization,
      url: `${authorization.url}&${new URLSearchParams({ resource: nameOf('lab') })}`,
    })
    const code = new URL(landing.url).searchParams.get('code') ?? ''
    const form = { grant_type: 'authorization_code', code, redirect_uri: redirectUri }
    const more = { code_verifier: authorization.verifier, resource: nameOf('ward') }
    const first = await post(server, '/oauth/token', 'chart', { ...form, ...more })
    expect(await audienceOf(String(first.body['access_token']))).toBe(nameOf('ward'))
    const second = await refresh('chart', String(first.body['refresh_token']), { resource: nameOf('lab') })
    expect(await audienceOf(String(second.body['access_token']))).toBe(nameOf('lab'))
  })

  it('asks people once, for whichever API it is', async () => {
    const browser = new Browser(server)
    const first = await obtainTokens(server, 'guest-app', { resource: nameOf('ward') }, browser)
    expect(await audienceOf(first.access_token)).toBe(nameOf('ward'))
    const again = authorizationUrl(server, 'guest-app', { resource: nameOf('lab') })
    const landing = new URL((await browser.follow(await browser.request(again.url))).url)
    const tokens = await redeem(server, 'guest-app', landing.searchParams.get('code') ?? '', again.verifier)
    expect(await audienceOf(String(tokens.body['access_token']))).toBe(nameOf('lab'))
    expect(tokens.body['scope']).toBe('openid profile email')
  })
})

describe('is no resource:', () => {
  it.each([
    ['an API of another organisation', 'elsewhere'],
    ['a client that may ask about no tokens', 'nosy'],
    ['a client that is unknown', 'never-was'],
    ['a client without a name', ''],
    ['our own pages', 'mlpipes-account'],
    ['what no client is called', `${'x'.repeat(200)}/../ward`],
  ])('%s', async (_name, clientId) => {
    const resource = nameOf(clientId)
    const answer = await new Browser(server).request(authorizationUrl(server, 'chart', { resource }).url)
    const landing = new URL(answer.headers.get('location') ?? '')
    expect(Object.fromEntries(landing.searchParams)).toMatchObject({
      error: 'invalid_target',
      error_description: 'this resource is not known here',
    })
    const form = { grant_type: 'client_credentials', resource }
    expect((await post(server, '/oauth/token', 'service', form)).body['error']).toBe('invalid_target')
  })

  it('an API that was switched off meanwhile', async () => {
    await server.apply({ clients: [client('closing', { introspection: 'organization' })] })
    const { code, verifier } = await obtainCode(server, 'chart', { resource: nameOf('closing') })
    const { body } = await redeem(server, 'chart', code, verifier)
    await server.database.run(`update mlpipes_auth.clients set disabled_at = now() where client_id = 'closing'`, [])
    expect((await refresh('chart', String(body['refresh_token']))).body['error']).toBe('invalid_target')
  })
})

describe('the verifier of an API', () => {
  const reasonOf = async (token: string, options: Partial<VerifierOptions> = {}) => {
    const credentials = { issuer: server.issuer, clientId: 'ward', clientSecret: secretOf('ward') }
    const verifier = createVerifier({ ...credentials, ...options } as VerifierOptions)
    closing.push(verifier.close)
    const headers = { authorization: `Bearer ${token}` }
    const verdict = await verifier.verify({ method: 'GET', url: '/', headers })
    return verdict.ok ? 'ok' : verdict.reason
  }

  it('takes what is for it, and for all if it has no name', async () => {
    const { access_token: own } = await obtainTokens(server, 'chart', { resource: nameOf('ward') })
    const { access_token: common } = await obtainTokens(server, 'chart')
    const { access_token: other } = await obtainTokens(server, 'chart', { resource: nameOf('lab') })
    expect(await reasonOf(own)).toBe('ok')
    expect(await reasonOf(common)).toBe('ok')
    expect(await reasonOf(other)).toBe('wrong_audience')
    expect(await reasonOf(own, { audience: nameOf('ward') })).toBe('ok')
    expect(await reasonOf(common, { audience: nameOf('ward') })).toBe('wrong_audience')
    expect(await reasonOf(common, { audience: ofOrganization })).toBe('ok')
  })
})

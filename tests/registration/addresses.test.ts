// Addresses that were registered although they are of no use: receivers on no network but somebody's own, the same redirect
// URI twice, and places to send people to for a service that has none.
import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest'
import { type AdminServer, type ApiAnswer, seed, startAdmin } from '../admin/support.ts'
import { issueToken, metadata, register } from './support.ts'

let server: AdminServer
let admin: string
const create = (body: unknown) => server.call(admin, '/api/admin/clients', { body })
const change = async (id: string, body: unknown): Promise<ApiAnswer> => {
  const { headers } = await server.call(admin, `/api/admin/clients/${id}`)
  const held = { 'if-match': headers.get('etag') ?? '' }
  return server.call(admin, `/api/admin/clients/${id}`, { method: 'PATCH', body, headers: held })
}
const refusal = (...errors: [string, string][]) => ({
  status: 400,
  body: { errors: errors.map(([path, message]) => ({ path, message: expect.stringContaining(message) })) },
})
const app = { client_name: 'App', redirect_uris: ['https://app.example/callback'] }
const service = { client_name: 'Service', grant_types: ['client_credentials'], scope: 'openid' }
const uri = 'https://app.vendor.example/callback'
const twice = 'must not hold one twice'

beforeAll(async () => {
  server = await startAdmin('postgres', seed)
  admin = await server.tokenOf('admin@mercy.example')
})
afterAll(() => server.close())
beforeEach(() => server.database.run('delete from mlpipes_auth.sign_in_attempts', []))

describe('receivers', () => {
  it.each(['https://localhost./', 'https://printer.local/', 'https://intranet/'])('are not at %s', async (address) => {
    for (const member of ['jwks_uri', 'backchannel_logout_uri']) {
      expect(await create({ ...app, [member]: address })).toMatchObject(refusal([member, 'public internet']))
      const { token } = await issueToken(server)
      const answer = await register(server, token, { ...metadata, [member]: address })
      expect(answer).toMatchObject({ status: 400, body: { error: 'invalid_client_metadata' } })
      expect(answer.body['error_description']).toMatch(`${member}: must be an https URI on the public internet`)
    }
  })
})

describe('lists', () => {
  it.each(['redirect_uris', 'post_logout_redirect_uris'])('%s hold nothing twice', async (member) => {
    const doubled = { [member]: ['https://app.example/callback', 'https://app.example/callback'] }
    expect(await create({ ...app, ...doubled })).toMatchObject(refusal([member, twice]))
    const { token } = await issueToken(server)
    const answer = await register(server, token, { ...metadata, [member]: [uri, uri] })
    const error = member === 'redirect_uris' ? 'invalid_redirect_uri' : 'invalid_client_metadata'
    expect(answer).toMatchObject({ status: 400, body: { error, error_description: `${member}: ${twice}` } })
    expect((await register(server, token, { ...metadata, [member]: [uri, `${uri}/2`] })).status).toBe(201)
  })
  it('of grants and of endings hold nothing twice', async () => {
    expect(await create({ ...app, grant_types: ['authorization_code', 'authorization_code'] })).toMatchObject(
      refusal(['grant_types', twice]),
    )
    const told = { backchannel_logout_uri: 'https://app.example/out', backchannel_logout_causes: ['idle', 'idle'] }
    expect(await create({ ...app, ...told })).toMatchObject(refusal(['backchannel_logout_causes', twice]))
  })
})

describe('a service', () => {
  it('sends nobody anywhere, so it has no addresses for that', async () => {
    const addresses = { redirect_uris: ['https://app.example/'] }
    const refused = refusal(['redirect_uris', 'must be empty'])
    expect(await create({ ...service, ...addresses })).toMatchObject(refused)
    const created = await create(service)
    expect(created).toMatchObject({ status: 201, body: { redirect_uris: [] } })
    expect(await change(String(created.body['client_id']), addresses)).toMatchObject(refused)
  })
  it('that registers itself reads why', async () => {
    const template = {
      grantTypes: ['client_credentials' as const],
      tokenEndpointAuthMethods: ['client_secret_basic' as const],
    }
    const { token } = await issueToken(server, template)
    const asked = { ...metadata, grant_types: ['client_credentials'], scope: 'openid' }
    const answer = await register(server, token, asked)
    const error_description = 'redirect_uris: must be empty: with client_credentials alone nobody is sent anywhere'
    expect(answer).toMatchObject({ status: 400, body: { error: 'invalid_redirect_uri', error_description } })
    expect((await register(server, token, { ...asked, redirect_uris: [] })).status).toBe(201)
  })
  it('that signs people in as well keeps them', async () => {
    const both = { ...app, grant_types: ['authorization_code', 'client_credentials'] }
    const created = await create(both)
    expect(created).toMatchObject({ status: 201 })
    const id = String(created.body['client_id'])
    expect(await change(id, { grant_types: ['client_credentials'] })).toMatchObject(refusal(['redirect_uris', 'empty']))
    const emptied = { grant_types: ['client_credentials'], redirect_uris: [] }
    expect(await change(id, emptied)).toMatchObject({ status: 200, body: emptied })
  })
})

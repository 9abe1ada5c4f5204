// Keys that no signature could ever be checked with were registered with 201, by every way in, and each token request after
// that was an invalid_client that says nothing. They are refused where they are written, by name; what stands is read.
import { generateKeyPairSync, type JsonWebKey } from 'node:crypto'
import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest'
import { jwks } from '../../src/clients/jwks.ts'
import { type AdminServer, type ApiAnswer, seed, startAdmin } from '../admin/support.ts'
import { asUpdate, issueToken, metadata, register, send } from './support.ts'

type Key = Record<string, unknown>

const rsa = (modulusLength: number, publicExponent = 65_537): Key => ({
  ...generateKeyPairSync('rsa', { modulusLength, publicExponent }).publicKey.export({ format: 'jwk' }),
})
const ec = (namedCurve: string): JsonWebKey =>
  generateKeyPairSync('ec', { namedCurve }).publicKey.export({ format: 'jwk' })
const okp = (): JsonWebKey => generateKeyPairSync('ed25519').publicKey.export({ format: 'jwk' })
const [p256, ed25519, rsa2048] = [ec('P-256'), okp(), rsa(2_048)]
const bytes = (...values: number[]) => Buffer.from(values).toString('base64url')

const good: [string, Key][] = [
  ['RSA of 2048 bits', rsa2048],
  ['RSA of 3072 bits, for PS256 alone', { ...rsa(3_072), alg: 'PS256' }],
  ['RSA with the exponent 3', rsa(2_048, 3)],
  ['RSA with a crv, which says nothing there', { ...rsa2048, crv: 'P-256' }],
  [
    'P-256 with all that a key can say of itself',
    { ...p256, kid: 'a b', use: 'sig', alg: 'ES256', key_ops: ['verify'] },
  ],
  ['P-384', ec('P-384')],
  ['Ed25519', ed25519],
]
const bad: [string, Key, string][] = [
  ['RSA of 512 bits', rsa(512), '2048'],
  ['RSA of 1024 bits', rsa(1_024), '2048'],
  ['RSA of 2047 bits', { ...rsa2048, n: Buffer.alloc(256, 0x7f).toString('base64url') }, '2047'],
  ['RSA of more bits than anybody checks', { ...rsa2048, n: Buffer.alloc(2_056, 0xff).toString('base64url') }, '16384'],
  ['RSA with the exponent 1', { ...rsa2048, e: bytes(1) }, 'exponent'],
  ['RSA with the exponent 0', { ...rsa2048, e: bytes(0) }, 'exponent'],
  ['RSA with an even exponent', { ...rsa2048, e: bytes(1, 0, 0) }, 'exponent'],
  ['RSA with an exponent of 34 bits', { ...rsa2048, e: bytes(2, 0, 0, 0, 1) }, 'exponent'],
  ['secp256k1', { ...ec('secp256k1') }, 'P-256 P-384'],
  ['P-521', { ...ec('P-521') }, 'P-256 P-384'],
  ['X25519', { ...generateKeyPairSync('x25519').publicKey.export({ format: 'jwk' }) }, 'Ed25519'],
  ['Ed448', { ...generateKeyPairSync('ed448').publicKey.export({ format: 'jwk' }) }, 'Ed25519'],
  ['a curve that only objects have', { ...p256, crv: 'constructor' }, 'P-256 P-384'],
  ['a point that is not on P-256', { ...p256, y: p256.x }, 'point on its curve'],
  ['Ed25519 of 31 bytes', { ...ed25519, x: Buffer.alloc(31, 1).toString('base64url') }, 'point on its curve'],
  ['a key for encryption', { ...p256, use: 'enc' }, 'use sig'],
  ['a use that is none', { ...p256, use: '' }, 'use sig'],
  ['a key that is to sign', { ...p256, key_ops: ['sign'] }, 'key_ops'],
  ['a key for an algorithm that nobody takes', { ...rsa2048, alg: 'RSA-OAEP' }, 'RS256 RS384 PS256'],
  ['a key for an algorithm of another curve', { ...p256, alg: 'ES384' }, 'ES256'],
]

describe('the keys of a client', () => {
  const messages = (keys: readonly Key[]) =>
    (jwks.safeParse({ keys }).error?.issues ?? []).map(({ path, message }) => `${path.join('.')} ${message}`)

  it.each(good)('may be %s', (_name, key) => expect(messages([key])).toEqual([]))
  it.each(bad)('may not be %s', (_name, key, said) => {
    expect(messages([p256, key])).toEqual([expect.stringMatching(/^keys\.1 must .*\(keys\[1\]\)$/)])
    expect(messages([key])[0]).toContain(said)
  })
  it('are named by their kid, where it can be repeated', () => {
    expect(messages([{ ...p256, use: 'enc', kid: 'https://a.example/k#1' }])[0]).toContain(
      '(kid https://a.example/k#1)',
    )
    for (const kid of ['"', 'two words', 'k'.repeat(65), '', 1, true])
      expect(messages([{ ...p256, use: 'enc', kid }])[0], String(kid)).toMatch(/\(keys\[0\]\)$/)
  })
})

describe('on the way in', () => {
  const signing = { token_endpoint_auth_method: 'private_key_jwt' }
  const holding = (key: Key) => ({ ...signing, jwks: { keys: [{ ...key, kid: 'mine' }] } })
  const service = { client_name: 'Signs', grant_types: ['client_credentials'], scope: 'openid' }
  const clients = '/api/admin/clients'
  let server: AdminServer
  let admin: string
  const change = async (id: string, body: unknown): Promise<ApiAnswer> => {
    const { headers } = await server.call(admin, `${clients}/${id}`)
    const held = { 'if-match': headers.get('etag') ?? '' }
    return server.call(admin, `${clients}/${id}`, { method: 'PATCH', body, headers: held })
  }

  beforeAll(async () => {
    server = await startAdmin('postgres', seed)
    admin = await server.tokenOf('admin@mercy.example')
  })
  afterAll(() => server.close())
  beforeEach(() => server.database.run('delete from mlpipes_auth.sign_in_attempts', []))

  it.each(bad)('the admin API refuses %s, new and by a change', async (_name, key, said) => {
    const refused = { status: 400, body: { errors: [{ path: 'jwks.keys.0', message: expect.stringContaining(said) }] } }
    expect(await server.call(admin, clients, { body: { ...service, ...holding(key) } })).toMatchObject(refused)
    const changed = await change('strong', { jwks: holding(key).jwks })
    expect(changed).toMatchObject(refused)
    expect(changed.text).toContain('(kid mine)')
  })

  it.each(bad)('an app cannot register %s, nor change to it', async (_name, key, said) => {
    const { token } = await issueToken(server, {}, { maxUses: 2 })
    const refused = { error: 'invalid_client_metadata', error_description: expect.stringContaining('(kid mine)') }
    const fresh = await register(server, token, { ...metadata, ...holding(key) })
    expect(fresh).toMatchObject({ status: 400, body: refused })
    expect(fresh.body['error_description']).toContain(said)
    const app = await register(server, token, { ...metadata, ...holding({ ...p256 }) })
    const uri = String(app.body['registration_client_uri'])
    const own = String(app.body['registration_access_token'])
    const changed = await send(server, 'PUT', uri, own, asUpdate(app, holding(key)))
    expect(changed).toMatchObject({ status: 400, body: refused })
    expect((await send(server, 'GET', uri, own)).body['jwks']).toEqual({ keys: [{ ...p256, kid: 'mine' }] })
  })

  it.each(bad)('apply refuses %s', async (_name, key, said) => {
    const client = { ...service, client_id: 'applied', organization: 'mercy', ...holding(key) }
    await expect(server.apply({ clients: [client as never] })).rejects.toThrow(said)
  })

  it.each(good)('takes %s', async (_name, key) => {
    expect(await server.call(admin, clients, { body: { ...service, ...holding(key) } })).toMatchObject({ status: 201 })
  })

  it('what was registered before is read, and other members of it change', async () => {
    const { body } = await server.call(admin, clients, { body: { ...service, ...holding({ ...p256 }) } })
    const id = String(body['client_id'])
    const old = { keys: [bad[0]?.[1]] }
    const write = `update mlpipes_auth.clients set metadata = metadata || jsonb_build_object('jwks', $2::jsonb) where client_id = $1`
    await server.database.run(write, [id, JSON.stringify(old)])
    expect((await server.call(admin, `${clients}/${id}`)).body).toMatchObject({ jwks: old })
    expect(await change(id, { client_name: 'Renamed' })).toMatchObject({ status: 200, body: { jwks: old } })
    expect(await change(id, { jwks: old })).toMatchObject({ status: 400 })
  })

  it('knows the algorithms that discovery lists, and no others', async () => {
    const listed = (await (await fetch(`${server.issuer}/.well-known/openid-configuration`)).json()) as Key
    const keys: Record<string, Key> = {
      RS: rsa2048,
      PS: rsa2048,
      ES256: { ...p256 },
      ES384: ec('P-384'),
      Ed: { ...ed25519 },
    }
    const keyFor = (alg: string) => keys[alg] ?? keys[alg.slice(0, 2)] ?? p256
    const algorithms = [
      'RS256',
      'RS384',
      'RS512',
      'PS256',
      'PS384',
      'PS512',
      'ES256',
      'ES384',
      'ES512',
      'EdDSA',
      'Ed25519',
    ]
    const taken = algorithms.filter((alg) => jwks.safeParse({ keys: [{ ...keyFor(alg), alg }] }).success)
    expect(taken.sort()).toEqual([...(listed['token_endpoint_auth_signing_alg_values_supported'] as string[])].sort())
  })
})

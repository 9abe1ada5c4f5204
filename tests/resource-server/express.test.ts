// The verifier in front of Express itself, which rewrites `url` under a mount path and hands requests to applications inside.
import { createServer, type Server } from 'node:http'
import type { AddressInfo } from 'node:net'
import express, { type ErrorRequestHandler } from 'express'
import { exportJWK, generateKeyPair } from 'jose'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { expressGuard, tokenOf } from '../../packages/resource-server/src/express.ts'
import { createVerifier, type DpopSettings, type VerifierOptions } from '../../packages/resource-server/src/index.ts'
import { post } from '../support/client.ts'
import { secretOf, startServer, type TestServer } from '../support/server.ts'
import { boundToken, proofFor } from './proof.ts'
import { personTokens, seed } from './seed.ts'

const origin = 'https://api.example'
const closing: (() => unknown)[] = []
let server: TestServer
let pair: Awaited<ReturnType<typeof generateKeyPair>>
let url: string
beforeAll(async () => {
  pair = await generateKeyPair('ES256')
  server = await startServer('postgres', { seed: seed({ ...(await exportJWK(pair.publicKey)), alg: 'ES256' }) })
  url = await startApi()
})
afterAll(async () => {
  for (const close of closing.reverse()) await close()
  await server.close()
})

async function listen(http: Server): Promise<string> {
  await new Promise<void>((resolve) => http.listen(0, '127.0.0.1', resolve))
  closing.push(() => {
    http.closeAllConnections()
    http.close()
  })
  return `http://localhost:${(http.address() as AddressInfo).port}`
}

/** An API as the guide makes one: a guard under a mount path; behind it routes, a router, and an application of its own. */
async function startApi(options: { readonly issuer?: string; readonly dpop?: Partial<DpopSettings> } = {}) {
  const settings = { issuer: server.issuer, clientId: 'api', clientSecret: secretOf('api') } satisfies VerifierOptions
  const verifier = createVerifier({ ...settings, ...options, dpop: { origin, ...options.dpop } })
  closing.push(verifier.close)
  const answer: express.RequestHandler = (request, response) => {
    response.json({ client: tokenOf(request).client_id, url: request.url })
  }
  const app = express()
  app.use('/patients', expressGuard(verifier))
  app.get('/patients', answer)
  app.use('/patients', express.Router().get('/:id', answer))
  app.use('/v1', express.Router().use('/orders', expressGuard(verifier, { scope: 'orders' }), answer))
  const inside = express()
  inside.use('/charts', expressGuard(verifier))
  inside.use('/charts', answer)
  app.use('/inside', inside)
  app.get('/forgotten', answer)
  const onError: ErrorRequestHandler = (error, _request, response, _next) => {
    response.status(500).json({ error: String(error) })
  }
  app.use(onError)
  return listen(createServer(app))
}

async function call(path: string, headers: Record<string, string> = {}, base = url) {
  const answer = await fetch(`${base}${path}`, { headers })
  return { status: answer.status, challenge: answer.headers.get('www-authenticate'), body: await answer.json() }
}
const asBearer = (token: string) => ({ authorization: `Bearer ${token}` })

describe('a guard under a mount path', () => {
  it('lets a good token in, and what is behind it sees whose it is', async () => {
    const { access_token: token } = await personTokens(server)
    for (const path of ['/patients', '/patients?page=2', '/patients/17', '/PATIENTS/17', '/inside/charts/1'])
      expect(await call(path, asBearer(token)), path).toMatchObject({ status: 200, body: { client: 'first' } })
    // What the guard stands behind is not what the client asked for.
    expect((await call('/inside/charts/1?x', asBearer(token))).body).toEqual({ client: 'first', url: '/1?x' })
  })

  it.each(['/patients', '/patients/17', '/inside/charts'])(
    'refuses none, a bad one and one that is over: %s',
    async (path) => {
      expect(await call(path)).toEqual({
        status: 401,
        challenge: expect.stringMatching(/^Bearer realm="api", DPoP algs="/),
        body: { error: 'unauthorized' },
      })
      const invalid = { status: 401, challenge: 'Bearer error="invalid_token"', body: { error: 'invalid_token' } }
      expect(await call(path, asBearer('A'.repeat(43)))).toEqual(invalid)
      const { access_token: revoked } = await personTokens(server)
      expect((await call(path, asBearer(revoked))).status).toBe(200)
      await post(server, '/oauth/revoke', 'first', { token: revoked })
      expect(await call(path, asBearer(revoked))).toEqual(invalid)
      const { access_token: ended, browser } = await personTokens(server)
      expect((await call(path, asBearer(ended))).status).toBe(200)
      const page = await browser.follow(await browser.request('/oauth/logout'))
      await browser.submit(page, '/oauth/logout/confirm', { logout: 'yes' })
      expect(await call(path, asBearer(ended))).toEqual(invalid)
    },
  )

  it('says which scope is missing', async () => {
    const { access_token: token } = await personTokens(server)
    expect(await call('/v1/orders', asBearer(token))).toEqual({
      status: 403,
      challenge: 'Bearer error="insufficient_scope", scope="orders"',
      body: { error: 'insufficient_scope' },
    })
  })
})

describe('a token that is bound to a key', () => {
  const show = async (path: string, htu: string, method = 'GET') => {
    const token = await boundToken(server, pair)
    return call(path, { authorization: `DPoP ${token}`, dpop: await proofFor(pair, token, htu, method) })
  }

  it.each([
    ['/patients', '/patients'],
    ['/patients/17', '/patients/17'],
    ['/patients/17?page=2', '/patients/17'],
    ['/patients/17?page=2', '/patients/17?page=3'],
    ['/PATIENTS/17', '/PATIENTS/17'],
    ['/inside/charts/1', '/inside/charts/1'],
  ])('opens %s by a proof for the address that was asked for', async (path, proven) => {
    expect(await show(path, `${origin}${proven}`)).toMatchObject({ status: 200, body: { client: 'reader' } })
  })

  it.each([
    // Where it stands under its mount paths.
    ['/patients', `${origin}/`],
    ['/patients/17', `${origin}/17`],
    ['/inside/charts/1', `${origin}/1`],
    ['/inside/charts/1', `${origin}/charts/1`],
    ['/patients/17', `${origin}/patients/18`],
    ['/patients/17', `${origin}/patients`],
    ['/PATIENTS/17', `${origin}/patients/17`],
    ['/patients/17', 'https://evil.example/patients/17'],
  ])('does not open %s by a proof for %s', async (path, htu) => {
    expect(await show(path, htu)).toEqual({
      status: 401,
      challenge: expect.stringMatching(/^DPoP error="invalid_dpop_proof", algs="/),
      body: { error: 'invalid_token' },
    })
  })

  it('does not open by a proof for another method, none, or one that was used', async () => {
    const address = `${origin}/patients/17`
    expect((await show('/patients/17', address, 'POST')).status).toBe(401)
    const token = await boundToken(server, pair)
    const headers = { authorization: `DPoP ${token}`, dpop: await proofFor(pair, token, address) }
    expect((await call('/patients/17', { authorization: headers.authorization })).status).toBe(401)
    expect((await call('/patients/17', asBearer(token))).status).toBe(401)
    expect((await call('/patients/17', headers)).status).toBe(200)
    expect((await call('/patients/17', headers)).status).toBe(401)
  })
})

describe('nobody comes in', () => {
  it('while the issuer does not answer', async () => {
    const closed = createServer()
    const issuer = await listen(closed)
    closed.close()
    const base = await startApi({ issuer })
    const answer = await fetch(`${base}/patients`, { headers: asBearer('A'.repeat(43)) })
    expect([answer.status, answer.headers.get('retry-after'), await answer.json()]).toEqual([
      503,
      '5',
      { error: 'temporarily_unavailable' },
    ])
  })

  it('when checking fails: Express is told, and answers', async () => {
    const base = await startApi({ dpop: { replayMemory: { claim: () => Promise.reject(new Error('no memory')) } } })
    const token = await boundToken(server, pair)
    const dpop = await proofFor(pair, token, `${origin}/patients`)
    expect(await call('/patients', { authorization: `DPoP ${token}`, dpop }, base)).toMatchObject({
      status: 500,
      body: { error: 'Error: no memory' },
    })
  })

  it('where a guard was forgotten', async () => {
    const { access_token: token } = await personTokens(server)
    expect((await call('/forgotten', asBearer(token))).status).toBe(500)
  })
})

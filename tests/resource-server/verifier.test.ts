// The verifier in front of real APIs, against a real issuer: Fastify, plain node:http, and (request, response, next).
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http'
import type { AddressInfo } from 'node:net'
import Fastify, { type FastifyInstance } from 'fastify'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { expressGuard } from '../../packages/resource-server/src/express.ts'
import { fastifyGuard, tokenOf } from '../../packages/resource-server/src/fastify.ts'
import {
  createVerifier,
  refusalBody,
  refusalHeaders,
  type Verifier,
  type VerifierOptions,
} from '../../packages/resource-server/src/index.ts'
import { basic, post } from '../support/client.ts'
import { secretOf, startServer, type TestServer } from '../support/server.ts'
import { personTokens, seed, serviceToken } from './seed.ts'

let server: TestServer
const closing: (() => unknown)[] = []
beforeAll(async () => {
  const { exportJWK, generateKeyPair } = await import('jose')
  const { publicKey } = await generateKeyPair('ES256')
  server = await startServer('postgres', { seed: seed({ ...(await exportJWK(publicKey)), alg: 'ES256' }) })
})
afterAll(async () => {
  for (const close of closing.reverse()) await close()
  await server.close()
})

const asApi = () => ({ issuer: server.issuer, clientId: 'api', clientSecret: secretOf('api') })

function verifierOf(options: Partial<VerifierOptions> = {}): Verifier {
  const verifier = createVerifier({ ...asApi(), ...options } as VerifierOptions)
  closing.push(verifier.close)
  return verifier
}

const origin = 'https://api.example'
const shown = (token: string, scheme = 'Bearer') => ({
  method: 'GET',
  url: '/patients',
  headers: { authorization: `${scheme} ${token}` },
})
const reasonOf = async (verifier: Verifier, token: string) => {
  const verdict = await verifier.verify(shown(token))
  return verdict.ok ? 'ok' : verdict.reason
}
const revoke = (token: string, clientId = 'first') => post(server, '/oauth/revoke', clientId, { token })

async function listen(http: Server): Promise<string> {
  await new Promise<void>((resolve) => http.listen(0, '127.0.0.1', resolve))
  closing.push(() => {
    http.closeAllConnections()
    http.close()
  })
  const { port } = http.address() as AddressInfo
  return `http://localhost:${port}`
}

describe('a verdict', () => {
  it('has what an API may rely on', async () => {
    const { access_token: token } = await personTokens(server)
    const verdict = await verifierOf().verify(shown(token))
    expect(verdict).toMatchObject({
      ok: true,
      token: {
        sub: expect.stringMatching(/^acc_/),
        client_id: 'first',
        scope: expect.stringContaining('openid'),
        roles: ['member', 'physician'],
        org_id: expect.any(String),
        acr: 'urn:mlpipes:acr:password',
        auth_time: expect.any(Number),
        sid: expect.any(String),
        exp: expect.any(Number),
        token_type: 'Bearer',
      },
    })
    expect(verdict.ok && Object.isFrozen(verdict.token) && !('active' in verdict.token)).toBe(true)
  })

  it('takes a Fetch API request as well', async () => {
    const { access_token: token } = await personTokens(server)
    const request = new Request('http://localhost/x', { headers: { authorization: `Bearer ${token}` } })
    expect((await verifierOf().verify(request)).ok).toBe(true)
  })

  it.each([
    ['nothing', undefined, 'no_token'],
    ['another scheme', 'Basic YTpi', 'malformed_authorization'],
    ['no token', 'Bearer', 'malformed_authorization'],
    ['two tokens', 'Bearer a b', 'malformed_authorization'],
    ['an endless token', `Bearer ${'a'.repeat(4_097)}`, 'malformed_authorization'],
    ['a long token', `Bearer ${'a'.repeat(4_096)}`, 'inactive'],
    ['a token that never was', `Bearer ${'A'.repeat(43)}`, 'inactive'],
    ['a JWT', 'Bearer eyJhbGciOiJFUzI1NiJ9.e30.c2ln', 'inactive'],
  ])('refuses %s', async (_name, authorization, reason) => {
    const headers = authorization === undefined ? {} : { authorization }
    const verdict = await verifierOf().verify({ method: 'GET', url: '/?access_token=x', headers })
    expect(verdict).toMatchObject({
      ok: false,
      status: 401,
      reason,
      wwwAuthenticate: expect.stringContaining('Bearer'),
    })
  })

  it('refuses tokens of other apps, for other APIs, and refresh tokens of its own', async () => {
    const { access_token: token } = await personTokens(server)
    expect(await reasonOf(verifierOf({ acceptedClients: ['ehr'] }), token)).toBe('wrong_client')
    expect(await reasonOf(verifierOf({ acceptedClients: ['ehr', 'first'] }), token)).toBe('ok')
    expect(await reasonOf(verifierOf({ audience: 'https://api.example' }), token)).toBe('wrong_audience')
    const own = verifierOf({ clientId: 'certification', clientSecret: secretOf('certification') })
    const tokens = await personTokens(server, 'certification', { scope: 'openid offline_access', prompt: 'consent' })
    expect(await reasonOf(own, tokens.access_token)).toBe('ok')
    expect(await reasonOf(own, tokens.refresh_token ?? '')).toBe('not_an_access_token')
    // `certification` may introspect its own tokens only.
    expect(await reasonOf(own, token)).toBe('inactive')
  })

  it('comes by a bearer token too, got anew when the issuer refused the last', async () => {
    const { access_token: token } = await personTokens(server)
    const asked: boolean[] = []
    const verifier = createVerifier({
      issuer: server.issuer,
      bearerToken: async (lastWasRefused) => {
        asked.push(lastWasRefused)
        return lastWasRefused ? serviceToken(server, 'reader', { scope: 'introspect' }) : 'A'.repeat(43)
      },
    })
    closing.push(verifier.close)
    expect(await reasonOf(verifier, token)).toBe('ok')
    expect(asked).toEqual([false, true])
  })
})

describe('when a token dies', () => {
  it('it opens nothing the next moment without a cache, and within 5 seconds with one', async () => {
    const { access_token: token } = await personTokens(server)
    const [strict, cached] = [verifierOf(), verifierOf({ cacheSeconds: 5 })]
    expect([await reasonOf(strict, token), await reasonOf(cached, token)]).toEqual(['ok', 'ok'])
    await revoke(token)
    expect(await reasonOf(strict, token)).toBe('inactive')
    // Kept: this is what the cache costs.
    expect(await reasonOf(cached, token)).toBe('ok')
    await new Promise((resolve) => setTimeout(resolve, 5_000))
    expect(await reasonOf(cached, token)).toBe('inactive')
  })
})

describe('when the issuer does not say', () => {
  const failing = async (answer: (request: IncomingMessage, response: ServerResponse) => void) => {
    const problems: unknown[] = []
    const http = createServer(answer)
    const issuer = await listen(http)
    const verifier = verifierOf({ issuer, timeoutMs: 300, onProblem: (error) => problems.push(error) })
    const verdict = await verifier.verify(shown('A'.repeat(43)))
    expect(verdict).toEqual({ ok: false, status: 503, reason: 'issuer_unavailable', retryAfterSeconds: 5 })
    expect(problems).toHaveLength(1)
    expect(String(problems[0])).not.toContain('A'.repeat(43))
  }
  const json = (response: ServerResponse, body: unknown, status = 200) => {
    response.writeHead(status, { 'content-type': 'application/json' }).end(JSON.stringify(body))
  }
  const discover = (request: IncomingMessage, extra: Record<string, unknown> = {}) => {
    const issuer = `http://${request.headers.host}`
    return { issuer, introspection_endpoint: `${issuer}/introspect`, ...extra }
  }
  const afterDiscovery =
    (answer: (response: ServerResponse) => void) => (request: IncomingMessage, response: ServerResponse) =>
      request.url === '/introspect' ? answer(response) : json(response, discover(request))

  it.each<[string, (request: IncomingMessage, response: ServerResponse) => void]>([
    ['hangs', () => undefined],
    ['hangs up', (request) => request.socket.destroy()],
    [
      'names another issuer',
      (request, response) => json(response, discover(request, { issuer: 'https://evil.example' })),
    ],
    [
      'sends tokens over plain http',
      (request, response) => json(response, discover(request, { introspection_endpoint: 'http://evil.example/i' })),
    ],
    ['answers no JSON', afterDiscovery((response) => response.end('<p>hello'))],
    ['answers an array', afterDiscovery((response) => json(response, []))],
    ['answers without end', afterDiscovery((response) => response.end(`{"a":"${'a'.repeat(300_000)}"}`))],
    ['leads elsewhere', afterDiscovery((response) => response.writeHead(302, { location: '/' }).end())],
    ['refuses the credentials', afterDiscovery((response) => json(response, { error: 'invalid_client' }, 401))],
    ['fails', afterDiscovery((response) => json(response, { active: true, client_id: 'x', exp: 9e9 }, 500))],
    ['says too little', afterDiscovery((response) => json(response, { active: true }))],
    [
      'says it wrongly',
      afterDiscovery((response) => json(response, { active: true, client_id: 'x', exp: 9e9, roles: 'org_admin' })),
    ],
  ])('because it %s, nobody comes in', async (_name, answer) => failing(answer))

  it('the next request asks again, also for discovery', async () => {
    const { access_token: token } = await personTokens(server)
    let isDown = true
    const http = createServer(async (request, response) => {
      if (isDown) return void request.socket.destroy()
      const body = JSON.stringify({ ...discover(request), introspection_endpoint: `${server.issuer}/oauth/introspect` })
      response.end(body)
    })
    const issuer = await listen(http)
    // Its issuer is not that of the token: told apart too.
    const verifier = verifierOf({ issuer })
    expect(await reasonOf(verifier, token)).toBe('issuer_unavailable')
    isDown = false
    expect(await reasonOf(verifier, token)).toBe('wrong_issuer')
  })
})

describe('many requests', () => {
  /** Between the verifier and the issuer: counts what passes. */
  async function countingIssuer() {
    const seen = { introspections: 0, connections: 0 }
    const http = createServer(async (request, response) => {
      const chunks: Buffer[] = []
      for await (const chunk of request) chunks.push(Buffer.from(chunk))
      if (request.url !== '/introspect') {
        const issuer = `http://${request.headers.host}`
        return response.end(JSON.stringify({ issuer, introspection_endpoint: `${issuer}/introspect` }))
      }
      seen.introspections += 1
      await new Promise((resolve) => setTimeout(resolve, 50))
      const token = new URLSearchParams(Buffer.concat(chunks).toString()).get('token')
      const exp = Math.floor(Date.now() / 1000) + (token === 'ending' ? 1 : 600)
      return response.end(JSON.stringify({ active: true, client_id: token, exp, token_type: 'Bearer' }))
    })
    http.on('connection', () => {
      seen.connections += 1
    })
    return { seen, issuer: await listen(http) }
  }

  it('of one token at the same time share an introspection, of others do not, and connections are kept', async () => {
    const { seen, issuer } = await countingIssuer()
    const verifier = verifierOf({ issuer })
    const tokens = Array.from({ length: 30 }, (_, index) => `token-${index % 3}`)
    const verdicts = await Promise.all(tokens.map((token) => verifier.verify(shown(token))))
    for (const [index, verdict] of verdicts.entries())
      expect(verdict).toMatchObject({ ok: true, token: { client_id: tokens[index] } })
    expect(seen.introspections).toBe(3)
    const before = seen.connections
    for (let index = 0; index < 5; index += 1) await verifier.verify(shown('again'))
    expect(seen.introspections).toBe(8)
    expect(seen.connections).toBe(before)
  })

  it('fill the cache to its limit and no further', async () => {
    const { seen, issuer } = await countingIssuer()
    const verifier = verifierOf({ issuer, cacheSeconds: 5, maxCachedTokens: 2 })
    const use = async (token: string) => {
      const before = seen.introspections
      await verifier.verify(shown(token))
      return seen.introspections > before ? 'asked' : 'kept'
    }
    expect([await use('a'), await use('b'), await use('a'), await use('b')]).toEqual(['asked', 'asked', 'kept', 'kept'])
    expect(await use('c')).toBe('asked')
    expect([await use('b'), await use('c'), await use('a')]).toEqual(['kept', 'kept', 'asked'])
  })

  it('never use an answer past the end of its token', async () => {
    const { seen, issuer } = await countingIssuer()
    const verifier = verifierOf({ issuer, cacheSeconds: 5 })
    await verifier.verify(shown('ending'))
    await new Promise((resolve) => setTimeout(resolve, 1_100))
    await verifier.verify(shown('ending'))
    expect(seen.introspections).toBe(2)
  })
})

describe('settings', () => {
  it.each<[string, Record<string, unknown>]>([
    ['a cache of more than 5 seconds', { cacheSeconds: 5.1 }],
    ['a cache of less than none', { cacheSeconds: -1 }],
    ['no patience', { timeoutMs: 99 }],
    ['too much patience', { timeoutMs: 5_001 }],
    ['not a number', { cacheSeconds: Number.NaN }],
    ['an issuer without TLS', { issuer: 'http://auth.example' }],
    ['an issuer that is no address', { issuer: 'auth' }],
    ['an origin that is no address', { dpop: { origin: 'api' } }],
    ['proofs by an algorithm that the issuer binds no token by', { dpop: { origin, algorithms: ['PS256'] } }],
    ['proofs by none', { dpop: { origin, algorithms: [] } }],
  ])('stop the start: %s', (_name, options) => {
    expect(() => createVerifier({ ...asApi(), ...options })).toThrow(TypeError)
  })

  // An environment variable that was not set made every caller a 503, and the issuer count a wrong secret for each.
  it.each<[string, Record<string, unknown>, RegExp]>([
    ['no credentials', {}, /^clientId is missing: .*clientSecret.*bearerToken/],
    ['no secret', { clientId: 'api' }, /^clientSecret is missing/],
    ['a secret out of nothing', { clientId: 'api', clientSecret: undefined }, /^clientSecret is missing.*environment/],
    ['an empty secret', { clientId: 'api', clientSecret: '' }, /^clientSecret is missing/],
    ['a secret that is no text', { clientId: 'api', clientSecret: 7 }, /^clientSecret must be text/],
    ['a secret of nobody', { clientId: undefined, clientSecret: 'x' }, /^clientId is missing/],
    ['a token out of nothing', { bearerToken: undefined }, /^clientId is missing/],
    ['a token instead of a way to one', { bearerToken: 'a-token' }, /^bearerToken must be a function/],
    ['a token that is null', { bearerToken: null, clientId: 'api', clientSecret: 'x' }, /^bearerToken must be/],
  ])('stop the start, and say what is missing: %s', (_name, credentials, message) => {
    const start = () => createVerifier({ issuer: server.issuer, ...credentials } as VerifierOptions)
    expect(start).toThrow(TypeError)
    expect(start).toThrow(message)
  })

  it('are one whole way to authenticate, whatever else is left out', async () => {
    const { access_token: token } = await personTokens(server)
    expect(await reasonOf(verifierOf({ bearerToken: undefined } as never), token)).toBe('ok')
    class Holder {
      readonly issuer = server.issuer
      readonly clientSecret = undefined
      readonly #scope = 'introspect'
      bearerToken = () => serviceToken(server, 'reader', { scope: this.#scope })
    }
    const verifier = createVerifier(new Holder())
    closing.push(verifier.close)
    expect(await reasonOf(verifier, token)).toBe('ok')
  })

  it('are taken at their limits', () => {
    for (const options of [{ cacheSeconds: 5 }, { cacheSeconds: 0 }, { timeoutMs: 100 }, { timeoutMs: 5_000 }])
      createVerifier({ ...asApi(), ...options }).close()
  })
})

/** Each way to put the verifier in front of an API, with the same three routes. */
const fronts: Record<string, (verifier: Verifier) => Promise<string>> = {
  async Fastify(verifier) {
    const app: FastifyInstance = Fastify()
    app.get('/patients', { onRequest: fastifyGuard(verifier) }, async (request) => ({ sub: tokenOf(request).sub }))
    app.get('/orders', { preHandler: fastifyGuard(verifier, { scope: 'openid orders' }) }, async () => ({}))
    const acr = { acrValues: ['urn:mlpipes:acr:mfa'], maxAgeSeconds: 300 }
    app.get('/sign', { onRequest: fastifyGuard(verifier, { acr }) }, async () => ({}))
    await app.listen({ host: '127.0.0.1', port: 0 })
    closing.push(() => app.close())
    return `http://localhost:${(app.server.address() as AddressInfo).port}`
  },
  Express(verifier) {
    const acr = { acrValues: ['urn:mlpipes:acr:mfa'], maxAgeSeconds: 300 }
    const guards: Record<string, ReturnType<typeof expressGuard>> = {
      '/patients': expressGuard(verifier),
      '/orders': expressGuard(verifier, { scope: 'openid orders' }),
      '/sign': expressGuard(verifier, { acr }),
    }
    return listen(
      createServer((request, response) =>
        guards[request.url ?? '']?.(request, response, (error) => {
          response.statusCode = error ? 500 : 200
          response.end(JSON.stringify({ sub: tokenOf(request).sub }))
        }),
      ),
    )
  },
}

describe.each(Object.keys(fronts))('in front of %s', (name) => {
  let url: string
  beforeAll(async () => {
    url = (await fronts[name]?.(verifierOf())) ?? ''
  })
  const call = async (path: string, headers: Record<string, string> = {}) => {
    const answer = await fetch(`${url}${path}`, { headers })
    return { status: answer.status, challenge: answer.headers.get('www-authenticate'), body: await answer.json() }
  }

  it('lets a good token in and nothing else', async () => {
    const { access_token: token } = await personTokens(server)
    const headers = { authorization: `Bearer ${token}` }
    expect(await call('/patients', headers)).toMatchObject({
      status: 200,
      body: { sub: expect.stringMatching(/^acc_/) },
    })
    expect(await call('/patients')).toEqual({
      status: 401,
      challenge: 'Bearer realm="api"',
      body: { error: 'unauthorized' },
    })
    await revoke(token)
    expect(await call('/patients', headers)).toEqual({
      status: 401,
      challenge: 'Bearer error="invalid_token"',
      body: { error: 'invalid_token' },
    })
    expect((await call('/patients', { authorization: basic('first') })).status).toBe(401)
  })

  it('asks for scopes and for a stronger sign-in in the words of the RFCs', async () => {
    const { access_token: token } = await personTokens(server)
    const headers = { authorization: `Bearer ${token}` }
    expect(await call('/orders', headers)).toEqual({
      status: 403,
      challenge: 'Bearer error="insufficient_scope", scope="openid orders"',
      body: { error: 'insufficient_scope' },
    })
    expect(await call('/sign', headers)).toEqual({
      status: 401,
      challenge: 'Bearer error="insufficient_user_authentication", acr_values="urn:mlpipes:acr:mfa", max_age="300"',
      body: { error: 'insufficient_user_authentication' },
    })
  })
})

describe('in front of plain node:http', () => {
  it('answers with a verdict’s own headers and body', async () => {
    const verifier = verifierOf()
    const url = await listen(
      createServer(async (request, response) => {
        const verdict = await verifier.verify(request)
        if (verdict.ok) return response.end(JSON.stringify({ sub: verdict.token.sub }))
        return response.writeHead(verdict.status, refusalHeaders(verdict)).end(JSON.stringify(refusalBody(verdict)))
      }),
    )
    const { access_token: token } = await personTokens(server)
    const good = await fetch(url, { headers: { authorization: `Bearer ${token}` } })
    expect(good.status).toBe(200)
    const bad = await fetch(url, { headers: { authorization: 'Bearer x' } })
    expect([bad.status, bad.headers.get('cache-control'), await bad.json()]).toEqual([
      401,
      'no-store',
      { error: 'invalid_token' },
    ])
  })
})

// What apps were refused for lately, as the people who connect them read it: from real errors at real endpoints, bounded
// however often an app errs, without a code, a secret or a person in it, and in nobody's way.
import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest'
import { plainScope, plainUri, reasonOf, wordsOf } from '../../src/clients/fault-reasons.ts'
import { createFaults, maxFaults, maxFaultsOfReason, maxWaiting } from '../../src/clients/faults.ts'
import { visit } from '../self-service/support.ts'
import { authorizationUrl, Browser, basic, obtainCode, obtainTokens, post, redeem } from '../support/client.ts'
import { secretOf, type TestServer } from '../support/server.ts'
import { manage, startIntegrators, tidy } from './support.ts'

let server: TestServer
let browser: Browser
beforeAll(async () => {
  server = await startIntegrators()
  browser = (await visit(server, manage, 'aud@mercy.example')).browser
})
afterAll(() => server.close())
beforeEach(() => server.database.run('delete from mlpipes_auth.client_faults', []))

const pageOf = async (clientId: string) => tidy((await browser.request(`${manage}/${clientId}`)).text)
const rows = (clientId: string) =>
  server.database.run(
    'select reason, error, endpoint, facts, count::integer as count from mlpipes_auth.client_faults where client_id = $1 order by slot',
    [clientId],
  )
const authorize = (clientId: string, extra: Record<string, string | undefined>) =>
  new Browser(server).request(authorizationUrl(server, clientId, extra).url)
const token = (form: Record<string, string>, headers: Record<string, string> = {}) =>
  fetch(`${server.issuer}/oauth/token`, { method: 'POST', headers, body: new URLSearchParams(form) })

describe('an error of an app', () => {
  it('reads as what was sent and what is registered', async () => {
    await authorize('ehr', { redirect_uri: 'https://user:pw@wrong.example/back?code=s3cret#frag' })
    await authorize('ehr', { scope: 'openid admin:write' })
    await authorize('ehr', { code_challenge: undefined, code_challenge_method: undefined })
    await authorize('ehr', { response_type: 'token' })
    await authorize('ehr', { response_type: undefined })
    const page = await pageOf('ehr')
    for (const words of [
      'The app sent redirect_uri “https://wrong.example/back”. Registered: “http://localhost:9/callback”.',
      'The app asked for scope “admin:write”. Registered: “openid profile email offline_access”.',
      'The app sent no code_challenge. Every sign-in needs PKCE.',
      'The app left out response_type.',
    ])
      expect(page).toContain(words)
    expect(JSON.stringify(await rows('ehr'))).not.toMatch(/s3cret|user|pw@|frag/)
  })

  it('tells one refusal of a code or a secret from another', async () => {
    const { code, verifier } = await obtainCode(server, 'ehr')
    await redeem(server, 'ehr', code, 'v'.repeat(43))
    await redeem(server, 'ehr', code, undefined)
    await redeem(server, 'ehr', code, verifier)
    await redeem(server, 'ehr', code, verifier)
    await redeem(server, 'ehr', 'never', verifier)
    await post(server, '/oauth/token', 'ehr', { grant_type: 'client_credentials' })
    await post(server, '/oauth/token', 'ehr', { grant_type: 'refresh_token', refresh_token: 'person@mercy.example' })
    await token({ grant_type: 'client_credentials' }, { authorization: basic('ehr', 'wrong-secret') })
    await token({ grant_type: 'authorization_code', client_id: 'ehr', code: 'x' })
    await fetch(`${server.issuer}/oauth/introspect`, { method: 'POST', headers: { authorization: basic('ehr') } })
    const page = await pageOf('ehr')
    for (const words of [
      'with a code_verifier that does not fit',
      'without its code_verifier',
      'used a code twice',
      'sent a code that is not known',
      'used grant client_credentials that it is not registered for. Registered: authorization_code, refresh_token.',
      'used a refresh token that is not good any more',
      'sent a secret that is not right',
      'The app proved itself with nothing. Registered: client_secret_basic.',
      'The app left out token.',
    ])
      expect(page).toContain(words)
    const kept = JSON.stringify(await rows('ehr'))
    for (const secret of [code, verifier, secretOf('ehr'), 'wrong-secret', 'person@', 'v'.repeat(43)])
      expect(kept).not.toContain(secret)
  })

  // Four different faults were counted as one, "something else", and so was a wrong request_uri.
  it('tells parameters that cannot be read from one another', async () => {
    await authorize('ehr', { prompt: 'sometimes' })
    await authorize('ehr', { prompt: 'none login' })
    await authorize('ehr', { max_age: 'soon' })
    await authorize('ehr', { claims: '{"s3cret' })
    await authorize('ehr', { claims: '{"id_token":1}' })
    await authorize('ehr', { id_token_hint: 's3cret' })
    await authorize('ehr', { request_uri: 'https://s3cret.example/request' })
    await authorize('ehr', { scope: 'openid "s3cret"' })
    const page = await pageOf('ehr')
    const kept = await rows('ehr')
    expect(kept.map(({ reason, count }) => `${reason} ${count}`).sort()).toEqual([
      'claims_unreadable 2',
      'id_token_hint_refused 1',
      'max_age_unreadable 1',
      'prompt_unknown 2',
      'request_uri_remote 1',
      'scope_unreadable 1',
    ])
    expect(page).toContain('The app sent a max_age that is no number of seconds.')
    expect(JSON.stringify(kept)).not.toContain('s3cret')
  })

  // An app that never heard of DPoP was told that it was refused "for something else".
  it('says that a proof is missing, and that JWTs are not looked up', async () => {
    await server.apply({
      clients: [
        {
          client_id: 'bound',
          client_name: 'Bound',
          client_secret: secretOf('bound'),
          organization: 'mercy',
          grant_types: ['client_credentials'],
          scope: 'openid',
          introspection: 'own',
          dpop_bound_access_tokens: true,
        },
      ],
    })
    await post(server, '/oauth/token', 'bound', { grant_type: 'client_credentials' })
    const jwt = `${Buffer.from('{"alg":"RS256"}').toString('base64url')}.e30.c2ln`
    await post(server, '/oauth/introspect', 'bound', { token: jwt })
    await post(server, '/oauth/revoke', 'bound', { token: jwt })
    const page = await pageOf('bound')
    expect(page).toContain('The app sent no DPoP proof')
    expect(page).toContain('The app sent a token that is a JWT.')
    expect((await rows('bound')).map(({ reason }) => reason)).toEqual(['dpop_missing', 'token_is_jwt', 'token_is_jwt'])
  })

  // It read: asked for “email”, registered: “openid profile email”, register what it asks for.
  it('says that a refresh asked for more than was granted, not that it is unregistered', async () => {
    const { refresh_token: refreshToken = '' } = await obtainTokens(server, 'ehr', { scope: 'openid profile' })
    const form = { grant_type: 'refresh_token', refresh_token: refreshToken, scope: 'openid email' }
    expect((await post(server, '/oauth/token', 'ehr', form)).body['error']).toBe('invalid_scope')
    const page = await pageOf('ehr')
    expect(page).toContain('The app asked for scope “email” with a refresh token that does not have it.')
    expect(page).not.toContain('Register what it asks for')
  })

  // It read "expired, revoked, or its session has ended", while the family lives on.
  it('tells refreshes in parallel from a refresh token that is over', async () => {
    const { refresh_token: first = '' } = await obtainTokens(server, 'ehr')
    const refresh = (token: string) =>
      post(server, '/oauth/token', 'ehr', { grant_type: 'refresh_token', refresh_token: token })
    const { body } = await refresh(first)
    const late = await refresh(first)
    expect([late.status, late.body]).toEqual([
      400,
      expect.objectContaining({ error: 'invalid_grant', error_description: 'grant request is invalid' }),
    ])
    expect(await pageOf('ehr')).toContain('The app used a refresh token twice within ten seconds.')
    expect((await rows('ehr')).map(({ reason }) => reason)).toEqual(['refresh_parallel'])
    expect((await refresh(String(body['refresh_token']))).status, 'the family lives').toBe(200)
  })

  it('is told of an address after sign-out that is not registered', async () => {
    const asked = { client_id: 'ehr', post_logout_redirect_uri: 'https://user:pw@bye.example/out?code=s3cret' }
    const answer = await new Browser(server).request(`/oauth/logout?${new URLSearchParams(asked)}`)
    expect(answer.status).toBe(400)
    expect(await pageOf('ehr')).toContain(
      'The app sent post_logout_redirect_uri “https://bye.example/out”. Registered: “http://localhost:9/”.',
    )
    const kept = await rows('ehr')
    expect(kept).toMatchObject([{ endpoint: 'logout', reason: 'sign_out_uri_unknown', error: 'invalid_request' }])
    expect(JSON.stringify(kept)).not.toMatch(/s3cret|user|pw@/)
  })

  it('is told of an app that is switched off, and of none that is not there', async () => {
    await server.database.run("update mlpipes_auth.clients set disabled_at = now() where client_id = 'nosy'", [])
    await token({ grant_type: 'client_credentials' }, { authorization: basic('nosy') })
    await token({ grant_type: 'client_credentials' }, { authorization: basic('nobody', 'x') })
    await authorize('nobody', {})
    expect(await pageOf('nosy')).toContain('The app is switched off.')
    const all = await server.database.run('select distinct client_id from mlpipes_auth.client_faults', [])
    expect(all).toEqual([{ client_id: 'nosy' }])
  })

  it('is not what a person decided, nor what others may see', async () => {
    await authorize('ehr', { prompt: 'none' })
    await token({ grant_type: 'client_credentials' }, { authorization: basic('foreign', 'wrong') })
    expect(await pageOf('ehr')).toContain('What the app is refused for stands here')
    expect((await browser.request(`${manage}/foreign`)).status).toBe(404)
  })
})

describe('the table', () => {
  const faults = () => createFaults({ database: server.database, logger: { warn: () => undefined } })
  const fault = (n: number, reason: 'scope_unknown' | 'secret_wrong' | 'code_used' = 'scope_unknown') =>
    ({ clientId: 'ehr', endpoint: 'token', error: 'invalid_scope', reason, facts: { scope: `s${n}` } }) as const

  it('counts what is equal within an hour in one row, and begins a new one afterwards', async () => {
    const store = faults()
    for (let n = 0; n < 5; n += 1) store.note(fault(1))
    await store.write()
    store.note(fault(1))
    await store.write()
    expect(await rows('ehr')).toMatchObject([{ count: 6 }])
    await server.database.run("update mlpipes_auth.client_faults set first_at = now() - interval '61 minutes'", [])
    store.note(fault(1))
    await store.write()
    expect((await rows('ehr')).map((row) => row['count'])).toEqual([6, 1])
  })

  it('takes so many waiting, so many of a reason and so many of an app, at the limit and past it', async () => {
    const store = faults()
    for (let n = 0; n <= maxWaiting; n += 1) store.note({ ...fault(n), clientId: n < maxWaiting ? 'spa' : 'api' })
    await store.write()
    expect(await rows('spa')).toHaveLength(maxFaultsOfReason)
    expect(await rows('api'), 'dropped').toEqual([])
    expect((await rows('spa')).map((row) => Object(row['facts'])['scope']).sort()).toContain(`s${maxWaiting - 1}`)
    store.note(fault(0, 'code_used'))
    await store.write()
    for (let n = 0; n < 200; n += 1) store.note(fault(n))
    await store.write()
    expect((await rows('ehr')).map((row) => row['reason'])).toContain('code_used')

    // Every slot taken, each by a reason of its own: the oldest makes room.
    await server.database.run('delete from mlpipes_auth.client_faults', [])
    await server.database.run(
      `insert into mlpipes_auth.client_faults (client_id, slot, endpoint, error, reason, facts, digest, count, occurred_at)
        select 'ehr', n, 'token', 'x', 'r' || n, '{}', 'd' || n, 1, now() - make_interval(mins => 100 - n)
        from generate_series(0, $1::integer - 1) n`,
      [maxFaults],
    )
    store.note(fault(1))
    await store.write()
    const after = await rows('ehr')
    expect(after).toHaveLength(maxFaults)
    expect(after[0]).toMatchObject({ reason: 'scope_unknown' })
  })

  it('is in nobody’s way when the database does not take it, and goes on afterwards', async () => {
    let isOut = true
    const database = {
      ...server.database,
      run: (statement: string, values: readonly unknown[]) =>
        isOut ? Promise.reject(new Error('out')) : server.database.run(statement, values),
    }
    const warnings: unknown[] = []
    const store = createFaults({ database, logger: { warn: (...said: unknown[]) => void warnings.push(said) } })
    store.note(fault(1))
    await store.write()
    expect(warnings).toHaveLength(1)
    isOut = false
    store.note(fault(2))
    await store.stop()
    expect((await rows('ehr')).map((row) => row['facts'])).toEqual([{ scope: 's2' }])
  })

  it('goes with its app', async () => {
    await server.apply({
      clients: [
        {
          client_id: 'brief',
          client_name: 'Brief',
          organization: 'mercy',
          token_endpoint_auth_method: 'none',
          redirect_uris: ['http://localhost:9/callback'],
        },
      ],
    })
    await authorize('brief', { redirect_uri: 'https://x.example/' })
    await pageOf('brief')
    expect(await rows('brief')).toHaveLength(1)
    await server.database.run("delete from mlpipes_auth.clients where client_id = 'brief'", [])
    expect(await rows('brief')).toEqual([])
  })
})

describe('reasons', () => {
  it('are none for what a person decides, and never the text of others', () => {
    for (const error of [
      'access_denied',
      'login_required',
      'authorization_pending',
      'use_dpop_nonce',
      'server_error',
      'No Code!',
    ])
      expect(reasonOf(error, '')).toBeUndefined()
    expect(reasonOf('invalid_request', 'something new')).toBe('other')
    expect(reasonOf('constructor', 'x')).toBe('other')
  })
  it('are told by what the provider says, and not by what its detail repeats of a request', () => {
    const echo = {
      error_description: 'could not parse the claims parameter JSON',
      error_detail: 'code_challenge_method',
    }
    expect(wordsOf({ error: 'invalid_request', ...echo })).toBe(echo.error_description)
    const grant = { error_description: 'grant request is invalid', error_detail: 'refresh token not found' }
    expect(wordsOf({ error: 'invalid_grant', ...grant })).toBe(grant.error_detail)
    expect(wordsOf({ error: 'invalid_target', error_description: 'unknown' })).toBe('unknown')
  })
  it('have one of their own for refreshes in parallel, which end nothing', () => {
    expect(reasonOf('invalid_grant', 'refresh token used in parallel')).toBe('refresh_parallel')
    expect(reasonOf('invalid_grant', 'refresh token already used')).toBe('refresh_used')
  })
  it('keep nothing of a URI but where it leads, and nothing of scopes but names', () => {
    expect(plainUri('com.app:/cb?x=1')).toBe('com.app:/cb')
    expect(plainUri('not a uri')).toBe('something that is no URI')
    expect(plainUri(`https://x.example/${'a'.repeat(300)}`)).toHaveLength(201)
    expect(plainScope('openid <b> ada@mercy.example admin:read')).toBe('openid admin:read')
    expect(plainScope('a'.repeat(65))).toBe('')
  })
})

// Back-channel logout, as an app sees it: who is told, of what, with which token, and what happens when nobody answers.
import { decodeProtectedHeader } from 'jose'
import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest'
import { transact } from '../../src/db/transaction.ts'
import { endAccess, endSession } from '../../src/sessions/ending.ts'
import { endClientAccess, endConsent, endMembershipAccess } from '../../src/sessions/parting.ts'
import { post } from '../support/client.ts'
import { mainDatabase, startServer, type TestServer } from '../support/server.ts'
import { app, deliveryRows, open, type Receiver, seed, startReceiver, until, verifyLogout } from './support.ts'

describe.each(mainDatabase)('back-channel logout on %s', (kind) => {
  let server: TestServer
  let receiver: Receiver
  beforeAll(async () => {
    receiver = await startReceiver()
    server = await startServer(kind, {
      seed: seed(
        app('plain', { backchannel_logout_uri: `${receiver.url}/plain` }),
        app('elliptic', {
          backchannel_logout_uri: `${receiver.url}/elliptic`,
          backchannel_logout_session_required: true,
          id_token_signed_response_alg: 'ES256',
        }),
        app('picky', {
          backchannel_logout_uri: `${receiver.url}/picky`,
          backchannel_logout_causes: ['disabled', 'idle'],
        }),
        app('deaf'),
      ),
    })
  })
  afterAll(async () => {
    await server.close()
    await receiver.close()
  })
  beforeEach(() => {
    receiver.calls.length = 0
    receiver.answer = () => 200
  })
  const all = ['plain', 'elliptic', 'picky', 'deaf'] as const
  const paths = () => receiver.calls.map((call) => call.path).sort()
  const end = (session: Awaited<ReturnType<typeof open>>, cause: 'ended_by_owner' | 'sign_out' = 'ended_by_owner') =>
    transact(server.database.kysely, (tx) =>
      endSession(tx, {
        uid: session.uid,
        accountId: session.accountId,
        organizationId: session.organizationId,
        cause,
        actor: { type: 'account', id: session.accountId },
        origin: {},
      }),
    )

  it('is in discovery', async () => {
    const answer = await fetch(`${server.issuer}/.well-known/openid-configuration`)
    expect(await answer.json()).toMatchObject({
      backchannel_logout_supported: true,
      backchannel_logout_session_supported: true,
    })
  })

  it('tells each app of the session that has an address and wants to know', async () => {
    const session = await open(server, all)
    await end(session)
    await until(() => expect(paths()).toEqual(['/elliptic', '/plain']))
    await until(async () =>
      expect((await deliveryRows(server, session.uid)).every((row) => row.delivered_at !== null)).toBe(true),
    )
    const told = (await server.audit('delivery.succeeded')).filter((event) => event.sessionUid === session.uid)
    expect(told.map(({ clientId }) => clientId).sort()).toEqual(['elliptic', 'plain'])
    expect(told[0]?.details).toMatchObject({ kind: 'backchannel_logout', attempts: 1 })
  })

  it('lets an app choose by cause', async () => {
    const session = await open(server, ['picky'])
    await server.apply({
      accounts: [
        {
          email: 'lee@mercy.example',
          name: 'Dr Lee',
          organization: 'mercy',
          roles: ['member', 'physician'],
          emailVerified: true,
          disabled: true,
        },
      ],
    })
    await until(() => expect(paths()).toEqual(['/picky']))
    expect((await deliveryRows(server, session.uid))[0]?.body).toEqual({ cause: 'disabled' })
    await server.apply({
      accounts: [
        {
          email: 'lee@mercy.example',
          name: 'Dr Lee',
          organization: 'mercy',
          roles: ['member', 'physician'],
          emailVerified: true,
        },
      ],
    })
  })

  // The module oidcc-backchannel-rp-initiated-logout of the OpenID conformance suite, by the names of its conditions.
  describe.each([
    ['plain', 'RS256'],
    ['elliptic', 'ES256'],
  ])('the logout token for %s', (clientId, alg) => {
    let session: Awaited<ReturnType<typeof open>>
    let verified: Awaited<ReturnType<typeof verifyLogout>>
    beforeAll(async () => {
      receiver.answer = () => 200
      session = await open(server, [clientId])
      receiver.calls.length = 0
      await end(session)
      await until(() => expect(receiver.calls).toHaveLength(1))
      const [call] = receiver.calls
      if (!call) throw new Error('nobody called')
      expect(call.headers['content-type']).toBe('application/x-www-form-urlencoded')
      // CheckForUnexpectedParametersInBackchannelLogoutRequest
      expect([...new URLSearchParams(call.body).keys()]).toEqual(['logout_token'])
      verified = await verifyLogout(server, call, clientId)
    })
    it('ValidateLogoutTokenSignature: with the key of its ID tokens', () => {
      expect(verified.protectedHeader).toMatchObject({ alg, typ: 'logout+jwt', kid: expect.any(String) })
      const idToken = session.tokens[0]?.id_token ?? ''
      expect(decodeProtectedHeader(idToken).kid).toBe(verified.protectedHeader.kid)
    })
    it('ValidateLogoutTokenClaims, CheckLogoutTokenHasSubOrSid', async () => {
      const [row] = await deliveryRows(server, session.uid)
      const { iat = 0, exp = 0, ...claims } = verified.payload
      expect(claims).toEqual({
        iss: server.issuer,
        aud: clientId,
        sub: session.accountId,
        sid: session.sidOf(clientId),
        jti: row?.delivery_id,
        events: { 'http://schemas.openid.net/event/backchannel-logout': {} },
      })
      expect(exp - iat).toBe(120)
      expect(Math.abs(iat - Date.now() / 1000)).toBeLessThan(30)
    })
    it('CheckLogoutTokenNoNonce, CheckIdTokenSubMatchesLogoutToken, CheckIdTokenSidMatchesLogoutToken', () => {
      expect(verified.payload).not.toHaveProperty('nonce')
      const claims = JSON.parse(Buffer.from(session.tokens[0]?.id_token.split('.')[1] ?? '', 'base64url').toString())
      expect(claims).toMatchObject({ sid: verified.payload['sid'], sub: verified.payload.sub })
    })
  })

  it('signing out at our page tells them once, whatever the provider would do itself', async () => {
    const session = await open(server, ['plain', 'elliptic'])
    const page = await session.browser.follow(await session.browser.request('/oauth/logout'))
    await session.browser.submit(page, '/oauth/logout/confirm', { logout: 'yes' })
    await until(() => expect(paths()).toEqual(['/elliptic', '/plain']))
    expect((await deliveryRows(server, session.uid)).map((row) => row.body)).toEqual([
      { cause: 'sign_out' },
      { cause: 'sign_out' },
    ])
  })

  it('is tried again with the same jti while the app is down', async () => {
    receiver.answer = (count) => (count < 2 ? 503 : 204)
    const session = await open(server, ['plain'])
    await end(session)
    const jtis = async () =>
      Promise.all(receiver.calls.map(async (call) => (await verifyLogout(server, call, 'plain')).payload.jti))
    await until(async () => {
      expect((await deliveryRows(server, session.uid))[0]).toMatchObject({
        delivered_at: expect.any(Date),
        attempts: 2,
      })
    })
    expect(receiver.calls).toHaveLength(2)
    expect(new Set(await jtis()).size).toBe(1)
  })

  it('is given up after a second 400, with an audit row that quotes nothing of the answer', async () => {
    receiver.answer = () => 400
    const session = await open(server, ['plain'])
    await end(session)
    await until(async () =>
      expect((await deliveryRows(server, session.uid))[0]).toMatchObject({
        failed_at: expect.any(Date),
        last_error: 'HTTP_400',
        attempts: 2,
      }),
    )
    expect(receiver.calls).toHaveLength(2)
    const failed = (await server.audit('delivery.failed')).find((event) => event.sessionUid === session.uid)
    expect(failed).toMatchObject({ clientId: 'plain', outcome: 'failure', details: { error: 'HTTP_400', attempts: 2 } })
    expect(server.logs.join()).not.toContain('canary of an answer')
  })

  it('a withdrawn consent tells that app alone, and the session goes on', async () => {
    const session = await open(server, ['plain', 'elliptic'])
    await transact(server.database.kysely, (tx) => endConsent(tx, { accountId: session.accountId, clientId: 'plain' }))
    await until(() => expect(paths()).toEqual(['/plain']))
    const { payload } = await verifyLogout(server, receiver.calls[0] ?? { path: '', headers: {}, body: '' }, 'plain')
    expect(payload['sid']).toBe(session.sidOf('plain'))
    expect(await deliveryRows(server, session.uid)).toHaveLength(1)
    const refreshed = await post(server, '/oauth/token', 'elliptic', {
      grant_type: 'refresh_token',
      refresh_token: session.tokens[1]?.refresh_token ?? '',
    })
    expect(refreshed.status).toBe(200)
  })

  it('housekeeping tells of a session that nobody came back to, without being asked', async () => {
    const session = await open(server, ['picky'])
    await server.database.kysely
      .updateTable('sessions')
      .set({ idle_expires_at: new Date(Date.now() - 1_000) })
      .where('uid', '=', session.uid)
      .execute()
    await until(() => expect(paths()).toEqual(['/picky']))
    const expired = (await server.audit('session.expired')).filter((event) => event.sessionUid === session.uid)
    expect(expired.map(({ details }) => details)).toEqual([{ reason: 'idle' }])
  })

  it('whoever leaves an organisation leaves its apps', async () => {
    const session = await open(server, ['plain', 'deaf'], { email: 'ada@mercy.example' })
    const { accountId, organizationId } = session
    const about = { accountId, organizationId, actor: { type: 'system' as const }, origin: {} }
    await transact(server.database.kysely, (tx) => endMembershipAccess(tx, about))
    await until(() => expect(paths()).toEqual(['/plain']))
    expect((await deliveryRows(server, session.uid)).map((row) => row.body)).toEqual([{ cause: 'membership_ended' }])
  })

  it('a client that is switched off hears nothing, not even of what was to be told before', async () => {
    receiver.answer = () => 503
    const session = await open(server, ['elliptic'])
    await end(session)
    await until(() => expect(receiver.calls.length).toBeGreaterThan(0))
    const disable = (at: Date | null) =>
      server.database.kysely
        .updateTable('clients')
        .set({ disabled_at: at })
        .where('client_id', '=', 'elliptic')
        .execute()
    const later = await open(server, ['elliptic'])
    await disable(new Date())
    await transact(server.database.kysely, (tx) =>
      endClientAccess(tx, {
        clientId: 'elliptic',
        organizationId: session.organizationId,
        actor: { type: 'system' },
        origin: {},
      }),
    )
    await end(later)
    await until(async () =>
      expect((await deliveryRows(server, session.uid))[0]).toMatchObject({
        failed_at: expect.any(Date),
        last_error: 'ENOBODY',
      }),
    )
    expect(await deliveryRows(server, later.uid)).toEqual([])
    await disable(null)
  })

  it.each([
    ['http elsewhere', { backchannel_logout_uri: 'http://app.example/logout' }],
    ['a fragment', { backchannel_logout_uri: 'https://app.example/logout#x' }],
    ['a user', { backchannel_logout_uri: 'https://me@app.example/logout' }],
    [
      'a cause that does not exist',
      { backchannel_logout_uri: 'https://app.example/', backchannel_logout_causes: ['x'] },
    ],
    ['causes without an address', { backchannel_logout_causes: ['idle'] }],
    ['a session that nobody is told of', { backchannel_logout_session_required: true }],
  ])('an app is not registered with %s', async (_name, extra) => {
    const wrong = Object.assign(app('wrong'), extra)
    await expect(server.apply({ clients: [wrong] })).rejects.toThrow('backchannel_logout')
  })

  it('20 endings of one session at once are one delivery per app', async () => {
    const session = await open(server, ['plain', 'elliptic'])
    const about = {
      accountId: session.accountId,
      organizationId: session.organizationId,
      actor: { type: 'system' as const },
      origin: {},
    }
    await Promise.all(
      Array.from({ length: 20 }, (_, index) =>
        transact(server.database.kysely, (tx) =>
          index % 2 === 0
            ? endSession(tx, { ...about, uid: session.uid, cause: 'ended_by_administrator' })
            : endAccess(tx, { ...about, cause: 'ended_by_administrator' }),
        ),
      ),
    )
    expect((await deliveryRows(server, session.uid)).map((row) => row.client_id).sort()).toEqual(['elliptic', 'plain'])
    expect((await server.audit('session.ended')).filter((event) => event.sessionUid === session.uid)).toHaveLength(1)
  })
})

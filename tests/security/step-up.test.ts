// Step-up at the authorization endpoint: F15, F16, F21, and that no road leads to a code of a sign-in weaker than asked.
import Fastify from 'fastify'
import { decodeJwt } from 'jose'
import { generateSync } from 'otplib'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { createClients } from '../../src/clients/clients.ts'
import { createSecrets, sha256 } from '../../src/crypto/secrets.ts'
import { createViews } from '../../src/http/views.ts'
import { acrs, satisfies } from '../../src/oidc/acr.ts'
import { createConsents } from '../../src/oidc/consents.ts'
import { createInteractions, type OpenInteraction } from '../../src/oidc/interactions.ts'
import { createIntrospected } from '../../src/oidc/introspected.ts'
import { createKeys } from '../../src/oidc/keys.ts'
import { createProtocolPages } from '../../src/oidc/pages.ts'
import { createProvider } from '../../src/oidc/provider.ts'
import { createStandings } from '../../src/oidc/standing.ts'
import { createPayloadStore } from '../../src/oidc/store.ts'
import { createPolicies } from '../../src/organizations/organizations.ts'
import { createActivity } from '../../src/sessions/activity.ts'
import { createSessions } from '../../src/sessions/sessions.ts'
import { type Answer, authorizationUrl, Browser, introspect, post, redeem } from '../support/client.ts'
import { mainDatabase, password, startServer, type TestServer, testPlatform, testSecret } from '../support/server.ts'

const totpSecret = 'JBSWY3DPEHPK3PXPJBSWY3DPEHPK3PXP'
const [linkAcr, passwordAcr, mfaAcr] = acrs
const clientId = 'first'

type Extra = Record<string, string | undefined>
const claims = (acr: unknown) => ({ claims: JSON.stringify({ id_token: { acr } }) })

interface Person {
  readonly email: string
  readonly id: string
  /** Codes used so far: each step counts once. */
  codes: number
}

describe.each(mainDatabase)('step-up on %s', (kind) => {
  let server: TestServer
  beforeAll(async () => {
    server = await startServer(kind)
  })
  afterAll(() => server.close())

  /** A person of their own for one test, with a second factor or without. */
  async function person(factor: 'totp' | 'none'): Promise<Person> {
    const email = `p${crypto.randomUUID()}@mercy.example`
    const account = { email, name: 'Pat', organization: 'mercy', password, emailVerified: true }
    await server.apply({ accounts: [factor === 'totp' ? { ...account, totpSecret } : account] })
    const { id } = await server.database.kysely
      .selectFrom('accounts')
      .select('id')
      .where('email_normalized', '=', email)
      .executeTakeFirstOrThrow()
    return { email, id, codes: 0 }
  }

  const request = (browser: Browser, extra: Extra = {}) =>
    browser.request(authorizationUrl(server, clientId, extra).url)

  /** Answers the pages of a sign-in with what the person has, until there is nothing they know to answer. */
  async function answer(browser: Browser, first: Answer, who: Person): Promise<Answer> {
    let page = first
    for (let step = 0; step < 5; step += 1) {
      if (page.text.includes('/password"')) {
        page = await browser.submit(page, '/password', { email: who.email, password })
      } else if (page.text.includes('/totp"') && page.text.includes('Authentication code')) {
        const epoch = Math.floor(Date.now() / 1000) + 30 * (who.codes - 1)
        who.codes += 1
        page = await browser.submit(page, '/totp', { code: generateSync({ secret: totpSecret, epoch }) })
      } else return page
    }
    return page
  }

  async function go(browser: Browser, who: Person, extra: Extra = {}, client = clientId) {
    const { url, verifier } = authorizationUrl(server, client, extra)
    const first = await browser.follow(await browser.request(url))
    const landing = new URL((await answer(browser, first, who)).url)
    const code = landing.searchParams.get('code') ?? expect.fail(`no code: ${landing}`)
    const tokens = await redeem(server, client, code, verifier)
    return {
      asked: new URL(first.url).origin === server.issuer,
      tokens: tokens.body,
      idToken: decodeJwt(String(tokens.body['id_token'])),
    }
  }

  /** The context that somebody's session has, whatever the sign-in pages of the day ask for. */
  async function sessionOf(who: Person, acr: string): Promise<Browser> {
    const browser = new Browser(server)
    const page = await browser.follow(await request(browser))
    const landing = await finishAs(browser, page, { accountId: who.id, acr, amr: ['pwd'] })
    expect(landing.searchParams.get('code')).toBeTruthy()
    return browser
  }

  const uidOf = (page: Answer) => new URL(page.url).pathname.split('/')[2] ?? ''
  const now = () => Math.floor(Date.now() / 1000)

  /** Ends the sign-in on a page with this result, as pages with a bug might, and resumes. */
  async function finishAs(browser: Browser, page: Answer, login: Record<string, unknown>): Promise<URL> {
    const result = JSON.stringify({ login: { ts: now(), remember: false, ...login } })
    const rows = await server.database.run(
      `update mlpipes_auth.oidc_payloads set payload = jsonb_set(payload, '{result}', $2::jsonb)
       where model = 'Interaction' and id_hash = $1 returning 1 as changed`,
      [sha256(uidOf(page)), result],
    )
    expect(rows).toHaveLength(1)
    return resume(browser, page)
  }

  async function resume(browser: Browser, page: Answer): Promise<URL> {
    const landing = await browser.follow(await browser.request(`/oauth/authorize/${uidOf(page)}`))
    return new URL(landing.url)
  }

  const errorOf = (answered: Answer | URL) => {
    const url = answered instanceof URL ? answered : new URL(answered.headers.get('location') ?? '/', server.issuer)
    return url.searchParams.get('error')
  }

  it('discovery lists every acr, weakest first', async () => {
    const metadata = await (await fetch(`${server.issuer}/.well-known/openid-configuration`)).json()
    expect(metadata).toMatchObject({ acr_values_supported: [...acrs], claims_parameter_supported: true })
  })

  it('every ID token says acr, amr, auth_time and sid, unasked, and after a refresh', async () => {
    const who = await person('none')
    const { tokens, idToken } = await go(new Browser(server), who)
    const expected = { acr: passwordAcr, amr: ['pwd'], auth_time: expect.any(Number), sid: expect.any(String) }
    expect(idToken).toMatchObject(expected)
    const refreshed = await post(server, '/oauth/token', clientId, {
      grant_type: 'refresh_token',
      refresh_token: String(tokens['refresh_token']),
    })
    expect(decodeJwt(String(refreshed.body['id_token']))).toMatchObject({ ...expected, sid: idToken['sid'] })
  })

  describe('a session that is too weak', () => {
    it.each<[string, Extra]>([
      ['acr_values', { acr_values: mfaAcr }],
      ['acr_values among unknown ones', { acr_values: `urn:other ${mfaAcr}` }],
      ['an essential claim', claims({ essential: true, value: mfaAcr })],
      ['an essential claim with values', claims({ essential: true, values: ['urn:other', mfaAcr] })],
      ['a voluntary claim', claims({ values: [mfaAcr] })],
    ])('is asked again for %s, and the tokens say what was proven', async (_name, extra) => {
      const who = await person('totp')
      const browser = await sessionOf(who, passwordAcr)
      expect(errorOf(await request(browser, { ...extra, prompt: 'none' })), 'F15').toBe('login_required')
      const first = await go(browser, who, extra)
      expect(first.asked).toBe(true)
      expect(first.idToken).toMatchObject({ acr: mfaAcr, amr: ['pwd', 'otp', 'mfa'], sub: who.id })
      expect(await introspect(server, String(first.tokens['access_token']))).toMatchObject({
        active: true,
        acr: mfaAcr,
      })
      const second = await go(browser, who, { ...extra, prompt: 'none' })
      expect(second.idToken).toMatchObject({ acr: mfaAcr })
    })

    it('F21: the session has a new id after the step-up, and the old one is dead', async () => {
      const who = await person('totp')
      const browser = await sessionOf(who, passwordAcr)
      const idOf = () => browser.cookies.find((cookie) => cookie.name === 'mlpipes_session')?.value
      const before = idOf()
      const thief = new Browser(server)
      thief.cookies.push(...browser.cookies)
      await go(browser, who, { acr_values: mfaAcr })
      expect(idOf()).not.toBe(before)
      expect(errorOf(await request(thief, { prompt: 'none' }))).toBe('login_required')
      expect((await request(browser, { prompt: 'none' })).headers.get('location')).toContain('code=')
    })

    it.each(['loses its session', 'signs out elsewhere'])(
      'gives no code to a browser that %s on the way',
      async (how) => {
        const who = await person('totp')
        const browser = await sessionOf(who, passwordAcr)
        const page = await browser.follow(await request(browser, { acr_values: mfaAcr }))
        if (how === 'loses its session') {
          const kept = browser.cookies.filter((cookie) => !cookie.name.startsWith('mlpipes_session'))
          browser.cookies.splice(0, browser.cookies.length, ...kept)
        } else {
          await server.database.run(
            "update mlpipes_auth.sessions set ended_at = now(), end_reason = 'sign_out' where account_id = $1",
            [who.id],
          )
        }
        const landing = await finishAs(browser, page, { accountId: who.id, acr: mfaAcr, amr: ['pwd', 'otp', 'mfa'] })
        expect(landing.origin, 'our own error page').toBe(server.issuer)
        expect(landing.searchParams.get('code')).toBeNull()
      },
    )

    it('gives no code to a browser that resumes without having answered', async () => {
      const who = await person('totp')
      const browser = await sessionOf(who, passwordAcr)
      const page = await browser.follow(await request(browser, { acr_values: mfaAcr }))
      const landing = await resume(browser, page)
      expect(landing.pathname).toMatch(/^\/interaction\//)
      expect(landing.pathname).not.toBe(new URL(page.url).pathname)
    })
  })

  describe('a session that is strong enough', () => {
    it.each<[string, Extra, string]>([
      ['nothing', {}, mfaAcr],
      ['acr_values', { acr_values: passwordAcr }, mfaAcr],
      ['unknown acr_values', { acr_values: 'urn:other' }, mfaAcr],
      ['any of two', { acr_values: `${mfaAcr} ${linkAcr}` }, mfaAcr],
      ['a voluntary claim', claims({ value: passwordAcr }), mfaAcr],
      [
        'an essential claim, which must come back (§5.5.1.1)',
        claims({ essential: true, value: passwordAcr }),
        passwordAcr,
      ],
      ['essential values', claims({ essential: true, values: [linkAcr, passwordAcr] }), passwordAcr],
      ['an essential claim without a value', claims({ essential: true }), mfaAcr],
      ['both ways', { acr_values: mfaAcr, ...claims({ essential: true, value: passwordAcr }) }, passwordAcr],
    ])('is not asked for %s', async (_name, extra, told) => {
      const who = await person('none')
      const browser = await sessionOf(who, mfaAcr)
      const { asked, idToken, tokens } = await go(browser, who, { ...extra, prompt: 'none' })
      expect(asked).toBe(false)
      expect(idToken).toMatchObject({ acr: told })
      expect(await introspect(server, String(tokens['access_token']))).toMatchObject({ acr: told })
    })
  })

  describe('what cannot be met is refused at once', () => {
    const unknown = claims({ essential: true, value: 'urn:other' })
    it.each<[string, Extra, string]>([
      ['an unknown essential value', unknown, 'unmet_authentication_requirements'],
      [
        'unknown essential values',
        claims({ essential: true, values: ['a', 'b'] }),
        'unmet_authentication_requirements',
      ],
      // The provider puts acr_values in the place of the claim: a known one must not hide the essential one.
      ['the same behind acr_values', { ...unknown, acr_values: passwordAcr }, 'unmet_authentication_requirements'],
      ['the same with prompt=none', { ...unknown, prompt: 'none' }, 'unmet_authentication_requirements'],
      ['a claim of another shape', claims({ essential: true, values: mfaAcr }), 'invalid_request'],
      ['a text for a claim', claims(mfaAcr), 'invalid_request'],
    ])('%s', async (_name, extra, error) => {
      const who = await person('none')
      for (const browser of [new Browser(server), await sessionOf(who, mfaAcr)]) {
        const refused = await request(browser, { ...extra, state: 'kept' })
        expect(errorOf(refused)).toBe(error)
        const location = new URL(refused.headers.get('location') ?? '')
        expect(location.origin).toBe('http://localhost:9')
        expect(location.searchParams.get('state')).toBe('kept')
        expect(location.searchParams.get('iss')).toBe(server.issuer)
      }
      await expect.poll(async () => (await server.audit('authorization.refused'))[0]?.details).toMatchObject({ error })
    })
  })

  describe('a sign-in that ends below what was asked', () => {
    const asking: readonly [string, (acr: string) => Extra][] = [
      ['acr_values', (acr) => ({ acr_values: acr })],
      ['an essential value', (acr) => claims({ essential: true, value: acr })],
      ['essential values', (acr) => claims({ essential: true, values: [acr, 'urn:other'] })],
      ['a voluntary claim', (acr) => claims({ value: acr })],
      ['both ways', (acr) => ({ acr_values: acr, ...claims({ essential: true, value: linkAcr }) })],
      ['prompt=login', (acr) => ({ acr_values: acr, prompt: 'login' })],
      ['max_age', (acr) => ({ acr_values: acr, max_age: '0' })],
    ]
    it.each(asking)('gets a code only if it satisfies: %s', async (_name, extraFor) => {
      const who = await person('none')
      for (const required of acrs) {
        for (const given of [...acrs, undefined, 'urn:other']) {
          const name = `${given} for ${required}`
          const browser = new Browser(server)
          const page = await browser.follow(await request(browser, extraFor(required)))
          const landing = await finishAs(browser, page, { accountId: who.id, acr: given, amr: ['pwd'] })
          expect(landing.searchParams.has('code'), name).toBe(satisfies(given, required))
          if (!satisfies(given, required)) expect(errorOf(landing), name).toBe('unmet_authentication_requirements')
        }
      }
    })

    it('is refused before consent, and as a step-up too', async () => {
      const who = await person('none')
      const weak = { accountId: who.id, acr: passwordAcr, amr: ['pwd'] }
      const browser = await sessionOf(who, passwordAcr)
      for (const client of ['ehr', clientId]) {
        const { url } = authorizationUrl(server, client, { acr_values: mfaAcr })
        const page = await browser.follow(await browser.request(url))
        expect(errorOf(await finishAs(browser, page, weak)), client).toBe('unmet_authentication_requirements')
      }
      await expect
        .poll(async () => (await server.audit('authorization.refused'))[0])
        .toMatchObject({ clientId, details: { error: 'unmet_authentication_requirements' } })
    })
  })

  describe('F16: max_age', () => {
    it.each(['-1', '1.5', 'x', '1e400', 'NaN', '9007199254740993', '0,0'])('%s is refused', async (maxAge) => {
      expect(errorOf(await request(new Browser(server), { max_age: maxAge }))).toBe('invalid_request')
    })

    it('asks when the sign-in is older, and auth_time says so', async () => {
      const who = await person('none')
      const browser = await sessionOf(who, passwordAcr)
      const age = `jsonb_set(payload, '{loginTs}', to_jsonb((payload ->> 'loginTs')::bigint - 100))`
      await server.database.run(`update mlpipes_auth.sessions set payload = ${age} where account_id = $1`, [who.id])
      const old = await go(browser, who, { max_age: '1000', prompt: 'none' })
      for (const maxAge of ['50', '0'])
        expect(errorOf(await request(browser, { max_age: maxAge, prompt: 'none' })), maxAge).toBe('login_required')
      const fresh = await go(browser, who, { max_age: '50' })
      expect(fresh.asked).toBe(true)
      expect(Number(fresh.idToken['auth_time'])).toBeGreaterThanOrEqual(Number(old.idToken['auth_time']) + 100)
      expect((await go(browser, who, { max_age: '0' })).asked).toBe(true)
    })
  })

  describe('what the sign-in pages are told', () => {
    /** Runs `use` on the interaction of a page, as the server's own pages would. */
    async function withInteraction<T>(browser: Browser, page: Answer, use: (open: OpenInteraction) => T): Promise<T> {
      const db = server.database.kysely
      const secrets = createSecrets(testSecret)
      const unused = () => Promise.reject(new Error('not asked for here'))
      const consents = createConsents(db)
      const accounts = {
        findActive: unused,
        findPerson: unused,
        findForSignIn: unused,
        findForSignInById: unused,
      }
      const standings = createStandings({ accounts, policies: createPolicies(testPlatform) })
      const sessions = createSessions(server.database)
      const parts = {
        issuer: server.issuer,
        secrets,
        db,
        payloads: createPayloadStore(server.database),
        sessions,
        activity: createActivity(server.database),
        clients: createClients(server.database),
        accounts,
        standings,
        introspected: createIntrospected(server.database, createPolicies(testPlatform)).find,
        mayIntrospect: unused,
        consents,
        deviceCodes: { adapter: () => expect.fail() },
        pages: createProtocolPages(createViews({ cache: true })),
        outbound: { get: () => expect.fail() },
        record: unused,
        onFault: () => undefined,
      }
      const provider = createProvider(parts, (await createKeys(db, secrets).load()).jwks)
      const interactions = createInteractions({ provider: () => provider, db, consents, standings, sessions })
      const app = Fastify()
      const used: T[] = []
      app.get('/interaction/:uid', async (incoming, reply) => {
        used.push(await use(await interactions.open(incoming, reply, uidOf(page))))
        return 'used'
      })
      const { pathname } = new URL(page.url)
      const cookie = browser.cookies
        .filter((entry) => pathname.startsWith(entry.path))
        .map((entry) => `${entry.name}=${entry.value}`)
        .join('; ')
      const answered = await app.inject({ url: pathname, headers: { cookie } })
      await app.close()
      return used[0] ?? expect.fail(answered.body)
    }
    const told = async (browser: Browser, extra: Extra) => {
      const page = await browser.follow(await request(browser, extra))
      return withInteraction(browser, page, ({ required, session, reasons }) => ({ required, session, reasons }))
    }

    it('nothing about a session that is not there', async () => {
      const { required, session } = await told(new Browser(server), { acr_values: `${mfaAcr} ${passwordAcr}` })
      expect(required).toEqual({ acr: passwordAcr, freshSignIn: true })
      expect(session).toBeUndefined()
      expect((await told(new Browser(server), {})).required).toEqual({ acr: undefined, freshSignIn: true })
    })

    it('that a live session only lacks strength, and what it proved', async () => {
      const who = await person('none')
      const browser = await sessionOf(who, passwordAcr)
      const { required, session, reasons } = await told(browser, claims({ essential: true, value: mfaAcr }))
      expect(reasons).toEqual(['acr_unmet'])
      expect(required).toEqual({ acr: mfaAcr, freshSignIn: false })
      expect(session).toEqual({ accountId: who.id, acr: passwordAcr, amr: ['pwd'], authTime: expect.any(Number) })
      expect(now() - (session?.authTime ?? 0)).toBeLessThan(60)
    })

    it.each<[string, Extra]>([
      ['prompt=login', { prompt: 'login' }],
      ['max_age', { max_age: '0' }],
      ['another person', { claims: JSON.stringify({ id_token: { sub: { value: 'acc_other' } } }) }],
    ])('that all must be proven anew for %s, too weak or not', async (_name, extra) => {
      const browser = await sessionOf(await person('none'), passwordAcr)
      expect((await told(browser, extra)).required).toEqual({ acr: undefined, freshSignIn: true })
      expect((await told(browser, { acr_values: mfaAcr, ...extra })).required).toEqual({
        acr: mfaAcr,
        freshSignIn: true,
      })
    })

    it('what another tab proved in the session since the page was made', async () => {
      const who = await person('none')
      const browser = await sessionOf(who, passwordAcr)
      const page = await browser.follow(await request(browser, { acr_values: mfaAcr }))
      const weaker = `payload || '{"acr": "${linkAcr}", "amr": ["magic_link"]}'`
      await server.database.run(`update mlpipes_auth.sessions set payload = ${weaker} where account_id = $1`, [who.id])
      const session = await withInteraction(browser, page, (open) => open.session ?? 'none')
      expect(session).toMatchObject({ acr: linkAcr, amr: ['magic_link'] })
    })

    it('nothing at all once the session of the page has ended', async () => {
      const who = await person('none')
      const browser = await sessionOf(who, passwordAcr)
      const page = await browser.follow(await request(browser, { acr_values: mfaAcr }))
      await server.database.run('update mlpipes_auth.sessions set idle_expires_at = now() where account_id = $1', [
        who.id,
      ])
      await expect(withInteraction(browser, page, () => 'opened')).rejects.toThrow('interaction_expired')
    })

    it('and cannotMeet sends the browser back with the error', async () => {
      const who = await person('none')
      const browser = await sessionOf(who, passwordAcr)
      const page = await browser.follow(await request(browser, { acr_values: mfaAcr }))
      await withInteraction(browser, page, (open) => open.cannotMeet().then(() => 'done'))
      expect(errorOf(await resume(browser, page))).toBe('unmet_authentication_requirements')
      expect((await request(browser, { prompt: 'none' })).headers.get('location'), 'the session lives').toContain(
        'code=',
      )
    })
  })
})

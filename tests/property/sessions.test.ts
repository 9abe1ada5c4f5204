// Sessions under any order of sign-ins, uses, policy changes, time and endings, on two replicas over one PostgreSQL, held
// against the small model of tests/support/session-model.ts after every step (F25, F26, C11).
import fc from 'fast-check'
import { afterAll, beforeAll, expect, it } from 'vitest'
import { transact } from '../../src/db/transaction.ts'
import { endAccess, endSession } from '../../src/sessions/ending.ts'
import { endExpiredSessions } from '../../src/sessions/expiry.ts'
import { isLive } from '../../src/sessions/live.ts'
import { finishTightenings } from '../../src/sessions/tightening.ts'
import { ApiClient } from '../api/support.ts'
import { type Answer, authorizationUrl, Browser, introspect, post, redeem, redirectUri } from '../support/client.ts'
import { violations } from '../support/invariants.ts'
import { type Replicas, startReplicas } from '../support/replicas.ts'
import { password } from '../support/server.ts'
import {
  type ModelPolicy,
  type ModelSession,
  type ModelToken,
  SessionModel,
  type Slug,
  slugs,
} from '../support/session-model.ts'
import { codeFor, seededSecret } from '../support/totp.ts'

const runs = 15
/** The same runs for everybody who tests a change; SESSIONS_SEED takes others, and should now and then. */
const seed = Number(process.env['SESSIONS_SEED'] ?? 20_261_125)
const mostSteps = 30
/** Each token is asked about on both replicas after every step. */
const mostTokens = 12
/** What a run takes is less; virtual times are never this close to a limit. */
const toleranceSeconds = 40

// Limits end in 50 and time passes in hundreds, so that nothing happens on a limit itself.
const policy: fc.Arbitrary<ModelPolicy> = fc.record({
  idle: fc.constantFrom(250, 850, 1_750),
  absolute: fc.constantFrom(650, 3_550, 7_150),
  updateAge: fc.constantFrom(50, 350),
  extends: fc.boolean(),
  most: fc.constantFrom(null, null, 1, 2),
  mfa: fc.constantFrom(false, false, false, true),
  methods: fc.constantFrom(['password', 'magic_link'] as const, ['password'] as const, ['magic_link'] as const),
  ttl: fc.constantFrom(250, 850),
})
const firstPolicy: ModelPolicy = {
  ...{ idle: 1_750, absolute: 7_150, updateAge: 350, extends: true, most: null, mfa: false, ttl: 850 },
  methods: ['password', 'magic_link'],
}

/** Two browsers of somebody without a second factor, two of somebody with one. */
const browsers = ['plain', 'plain', 'strong', 'strong'] as const
type Who = (typeof browsers)[number]
const targets = [
  { organization: 'a', app: 'a' },
  { organization: 'b', app: 'b' },
  { organization: 'a', app: 'vendor' },
  { organization: 'b', app: 'vendor' },
] as const
type Target = (typeof targets)[number]

const browser = fc.nat({ max: browsers.length - 1 })
const target = fc.constantFrom<Target>(...targets)
const who = fc.constantFrom<Who>('plain', 'strong')
const index = fc.nat({ max: 99 })
const kind = <K extends string>(name: K) => fc.constant(name)
const action = fc.oneof(
  {
    weight: 6,
    arbitrary: fc.record({ kind: kind('sign in'), browser, target, isNew: fc.boolean(), offline: fc.boolean() }),
  },
  { weight: 5, arbitrary: fc.record({ kind: kind('reuse'), browser, target }) },
  { weight: 3, arbitrary: fc.record({ kind: kind('use'), index, by: fc.constantFrom('introspection', 'userinfo') }) },
  { weight: 3, arbitrary: fc.record({ kind: kind('refresh'), index }) },
  { weight: 4, arbitrary: fc.record({ kind: kind('change'), slug: fc.constantFrom<Slug>(...slugs), policy }) },
  { weight: 5, arbitrary: fc.record({ kind: kind('age'), seconds: fc.constantFrom(100, 200, 400, 900, 2_000) }) },
  { weight: 1, arbitrary: fc.record({ kind: kind('sweep') }) },
  { weight: 1, arbitrary: fc.record({ kind: kind('sign out'), browser, byPage: fc.boolean() }) },
  { weight: 1, arbitrary: fc.record({ kind: kind('end all'), who }) },
  { weight: 1, arbitrary: fc.record({ kind: kind('end one'), index }) },
  { weight: 1, arbitrary: fc.record({ kind: kind('switch'), who }) },
)
type Action = typeof action extends fc.Arbitrary<infer A> ? A : never
const step = fc.record({ replica: fc.constantFrom('here' as const, 'there' as const), action })

let replicas: Replicas
beforeAll(async () => {
  replicas = await startReplicas({ environment: { ENABLE_MAGIC_LINKS: 'true' }, seed: {} })
})
afterAll(() => replicas.close())

const written = (one: ModelPolicy) => ({
  session: {
    idleTimeout: one.idle,
    absoluteLifetime: one.absolute,
    updateAge: one.updateAge,
    extendOnActivity: one.extends,
    maxConcurrent: one.most,
  },
  mfa: one.mfa ? ('required' as const) : ('optional' as const),
  loginMethods: [...one.methods],
  tokens: { accessTokenTtl: one.ttl },
})

interface Held {
  readonly value: string
  readonly token: ModelToken
}

/** One run: people, organisations and apps of its own, the model beside them. */
class World {
  readonly model = new SessionModel(firstPolicy)
  readonly #run: number
  readonly #ids = new Map<Who, string>()
  readonly #browsers = browsers.map(() => new Browser(replicas.here))
  readonly #inBrowser: (ModelSession | undefined)[] = []
  readonly #uids = new Map<ModelSession, string>()
  #held: Held[] = []

  constructor(run: number) {
    this.#run = run
  }

  #slug = (slug: Slug) => `${slug}-${this.#run}`
  #email = (of: Who) => `${of}@${this.#slug('a')}.example`
  #sql = (statement: string, values: readonly unknown[] = []) => replicas.here.database.run(statement, values)

  #account = (of: Who, disabled = false) => ({
    email: this.#email(of),
    name: `Person ${of}`,
    password,
    organization: this.#slug('a'),
    emailVerified: true,
    disabled,
    ...(of === 'strong' ? { totpSecret: seededSecret } : {}),
  })
  #organization = (slug: Slug) => ({
    slug: this.#slug(slug),
    name: `Organisation ${slug}`,
    policy: written(this.model.policies[slug]),
  })
  #client = (client_id: string, slug: Slug, more: object) => ({
    client_id,
    client_secret: `${client_id}-secret-0123456789`,
    client_name: client_id,
    organization: this.#slug(slug),
    ...more,
  })

  async begin(): Promise<void> {
    const app = {
      redirect_uris: [redirectUri],
      grant_types: ['authorization_code' as const, 'refresh_token' as const],
      introspection: 'own' as const,
      session_activity: false,
    }
    const service = {
      grant_types: ['client_credentials' as const],
      scope: 'openid',
      introspection: 'organization' as const,
    }
    await replicas.here.apply({
      organizations: slugs.map((slug) => this.#organization(slug)),
      accounts: [this.#account('plain'), this.#account('strong')],
      clients: slugs.flatMap((slug) => [
        this.#client(`app-${this.#slug(slug)}`, slug, { ...app, scope: 'openid offline_access', first_party: true }),
        this.#client(`api-${this.#slug(slug)}`, slug, service),
        this.#client(`poller-${this.#slug(slug)}`, slug, { ...service, session_activity: false }),
      ]),
    })
    await this.#sql(
      `insert into mlpipes_auth.memberships (account_id, organization_id, home, roles)
        select a.id, o.id, false, '{member}' from mlpipes_auth.accounts a, mlpipes_auth.organizations o
        where a.email = any($1::text[]) and o.slug = $2`,
      [[this.#email('plain'), this.#email('strong')], this.#slug('b')],
    )
    for (const of of ['plain', 'strong'] as const) {
      const [row] = await this.#sql('select id from mlpipes_auth.accounts where email = $1', [this.#email(of)])
      this.#ids.set(of, String(row?.['id']))
    }
  }

  #authorize = ({ organization, app }: Target, extra: Record<string, string>) =>
    authorizationUrl(replicas.here, `app-${this.#slug(app)}`, {
      organization: this.#slug(organization),
      scope: 'openid',
      ...extra,
    })

  #live(at: number): ModelSession | undefined {
    const session = this.#inBrowser[at]
    return session && this.model.isLive(session) ? session : undefined
  }

  async #take(
    landing: Answer,
    verifier: string,
    { organization, app }: Target,
    session: ModelSession,
    offline: boolean,
  ) {
    const code = new URL(landing.url).searchParams.get('code') ?? ''
    const { status, body } = await redeem(replicas.here, `app-${this.#slug(app)}`, code, verifier)
    expect(status, 'the code of a session that stands').toBe(200)
    this.#hold(body, this.model.issue(session, organization, app, offline))
  }

  #hold(body: Record<string, unknown>, tokens: readonly ModelToken[]): void {
    const fresh = tokens.map((token) => ({ token, value: String(body[`${token.kind}_token`]) }))
    this.#held = [...this.#held, ...fresh].slice(-mostTokens)
    this.model.tokens.splice(0, Infinity, ...this.#held.map(({ token }) => token))
  }

  async carryOut(step: Action): Promise<void> {
    const { model } = this
    switch (step.kind) {
      case 'sign in':
        return this.#signIn(step)
      case 'reuse': {
        const authorization = this.#authorize(step.target, { prompt: 'none' })
        const used = this.#browsers[step.browser] ?? new Browser(replicas.here)
        const landing = await used.follow(await used.request(authorization.url))
        const session = this.#live(step.browser)
        const { organization, app } = step.target
        const isLetIn = session !== undefined && model.reuse(session, organization, app)
        expect(new URL(landing.url).searchParams.has('code'), 'prompt=none').toBe(isLetIn)
        return isLetIn ? this.#take(landing, authorization.verifier, step.target, session, false) : undefined
      }
      case 'use':
        return this.#use(step.index, step.by)
      case 'refresh':
        return this.#refresh(step.index)
      case 'change':
        model.change(step.slug, step.policy)
        return replicas.here.apply({ organizations: [this.#organization(step.slug)] })
      case 'age':
        return this.#age(step.seconds)
      case 'sweep':
        return void (await endExpiredSessions(replicas.there.database))
      case 'sign out':
        return this.#signOut(step.browser, step.byPage)
      case 'end all':
        await transact(replicas.here.database.kysely, (tx) => endAccess(tx, this.#ending(step.who, 'ended_by_owner')))
        return model.endAll(step.who, 'ended_by_owner')
      case 'end one':
        return this.#endOne(step.index)
      case 'switch': {
        const isOff = !model.disabled.has(step.who)
        await replicas.here.apply({ accounts: [this.#account(step.who, isOff)] })
        if (isOff) {
          model.disabled.add(step.who)
          model.endAll(step.who, 'disabled')
        } else model.disabled.delete(step.who)
      }
    }
  }

  #ending = <C extends 'ended_by_owner' | 'ended_by_administrator'>(of: string, cause: C) => ({
    accountId: this.#ids.get(of as Who) ?? '',
    organizationId: undefined,
    cause,
    actor: { type: 'system' as const },
    origin: {},
  })

  async #signIn({ browser: at, target, isNew, offline }: Extract<Action, { kind: 'sign in' }>): Promise<void> {
    const of = browsers[at] ?? 'plain'
    if (isNew) {
      this.#browsers[at] = new Browser(replicas.here)
      this.#inBrowser[at] = undefined
    }
    // Each code counts once, and the provider tells sign-ins apart by their second; nobody here waits for the next one.
    await this.#sql('update mlpipes_auth.totp_credentials set last_step = 0')
    await this.#sql('delete from mlpipes_auth.sign_in_attempts')
    await this.#passFor(
      of,
      1,
      `payload = jsonb_set(payload, '{loginTs}', to_jsonb((payload ->> 'loginTs')::integer - $2::integer))`,
    )
    const used = this.#browsers[at] ?? new Browser(replicas.here)
    const extra = offline ? { scope: 'openid offline_access', prompt: 'login consent' } : { prompt: 'login' }
    const authorization = this.#authorize(target, extra)
    let page = await used.follow(await used.request(authorization.url))
    if (page.text.includes('/password"'))
      page = await used.submit(page, '/password', { email: this.#email(of), password })
    if (page.text.includes('/totp"')) page = await used.submit(page, '/totp', { code: await codeFor(replicas.here) })
    if (page.text.includes('/consent"')) page = await used.submit(page, '/consent', { decision: 'allow' })
    const { organization, app } = target
    const amr = of === 'strong' ? ['pwd', 'otp', 'mfa'] : ['pwd']
    const session = this.model.signIn(of, amr, organization, app, this.#live(at))
    expect(new URL(page.url).searchParams.has('code'), `sign-in of ${of}: ${page.text.slice(0, 300)}`).toBe(!!session)
    if (!session) return
    if (!this.#uids.has(session)) {
      const newest =
        'select uid from mlpipes_auth.sessions where account_id = $1 order by signed_in_at desc nulls last limit 1'
      this.#uids.set(session, String((await this.#sql(newest, [this.#ids.get(of)]))[0]?.['uid']))
    }
    this.#inBrowser[at] = session
    await this.#take(page, authorization.verifier, target, session, offline)
  }

  async #use(at: number, by: string): Promise<void> {
    const accesses = this.#held.filter(({ token }) => token.kind === 'access')
    const held = accesses[at % Math.max(1, accesses.length)]
    if (!held) return
    const { token, value } = held
    const authorization = `Bearer ${value}`
    const works =
      by === 'userinfo'
        ? (await fetch(`${replicas.here.issuer}/oauth/userinfo`, { headers: { authorization } })).status === 200
        : (await introspect(replicas.here, value, `api-${this.#slug(token.app)}`))['active']
    expect(works, by).toBe(this.model.isActive(token))
    if (works) this.model.touch(token)
  }

  async #refresh(at: number): Promise<void> {
    const refreshes = this.#held.filter(({ token }) => token.kind === 'refresh' && !token.isGone)
    const held = refreshes[at % Math.max(1, refreshes.length)]
    if (!held) return
    const { token, value } = held
    const form = { grant_type: 'refresh_token', refresh_token: value }
    const { status, body } = await post(replicas.here, '/oauth/token', `app-${this.#slug(token.app)}`, form)
    expect(status, `refresh: ${JSON.stringify(body)}`).toBe(this.model.isActive(token) ? 200 : 400)
    if (status !== 200) return
    this.model.touch(token)
    token.isGone = true
    const { session, organization, app, boundTo, amr } = token
    this.#hold(body, this.model.issue(session, organization, app, boundTo === undefined, amr))
  }

  #passFor = (of: Who, seconds: number, set: string) =>
    this.#sql(`update mlpipes_auth.sessions set ${set} where account_id = $1`, [this.#ids.get(of), seconds])

  /** The database's clock stands; everything that it is compared with goes back instead. */
  async #age(seconds: number): Promise<void> {
    // Time that passes in no time passes without housekeeping, which comes by every other second.
    await finishTightenings(replicas.there.database)
    this.model.now += seconds
    const back = (column: string) => `${column} = ${column} - make_interval(secs => $2::integer)`
    const columns = ['last_activity_at', 'signed_in_at', 'idle_expires_at', 'absolute_expires_at'].map(back)
    for (const of of ['plain', 'strong'] as const) {
      await this.#passFor(of, seconds, columns.join())
      const values = [this.#ids.get(of), seconds]
      await this.#sql(`update mlpipes_auth.oidc_payloads set ${back('expires_at')} where account_id = $1`, values)
      const issued = `payload || jsonb_build_object('iat', (payload ->> 'iat')::integer - $2::integer)`
      await this.#sql(
        `update mlpipes_auth.oidc_payloads set payload = ${issued} where account_id = $1 and model = 'AccessToken'`,
        values,
      )
    }
  }

  async #signOut(at: number, byPage: boolean): Promise<void> {
    const used = this.#browsers[at] ?? new Browser(replicas.here)
    if (byPage && this.#live(at)) {
      const page = await used.follow(await used.request('/oauth/logout'))
      await used.submit(page, '/oauth/logout/confirm', { logout: 'yes' })
    } else await new ApiClient(replicas.here, used).post('/signout')
    const session = this.#live(at)
    if (session) this.model.end(session, 'sign_out')
  }

  async #endOne(at: number): Promise<void> {
    const live = this.model.sessions.filter((one) => this.model.isLive(one))
    const session = live[at % Math.max(1, live.length)]
    if (!session) return
    const ending = { ...this.#ending(session.who, 'ended_by_administrator'), uid: this.#uids.get(session) ?? '' }
    expect(await transact(replicas.here.database.kysely, (tx) => endSession(tx, ending))).toBeDefined()
    this.model.endAll(session.who, 'ended_by_administrator', (one) => one === session)
  }

  /** What every step has to leave: tokens and times as the model says, on both replicas. */
  async check(): Promise<void> {
    const { model } = this
    const expected = this.#held.map(({ token }) => model.isActive(token))
    for (const replica of ['here', 'there'] as const) {
      replicas.ask(replica)
      const asked = this.#held.map(({ token, value }) =>
        // Of a refresh token only its own app is told anything.
        introspect(replicas.here, value, `${token.kind === 'refresh' ? 'app' : 'poller'}-${this.#slug(token.app)}`),
      )
      expect(
        (await Promise.all(asked)).map((answer) => answer['active']),
        `tokens, asked ${replica}`,
      ).toEqual(expected)
    }
    // What lives on may still be promised for longer until housekeeping comes by.
    const isHeld = (await this.#sql('select id from mlpipes_auth.session_tightenings', [])).length === 0
    const rows = await this.#sql(
      `select uid, ${isLive} as live, extract(epoch from least(idle_expires_at, absolute_expires_at) - now())::float as left
        from mlpipes_auth.sessions s where account_id = any($1::text[])`,
      [[...this.#ids.values()]],
    )
    for (const session of model.sessions) {
      const row = rows.find(({ uid }) => uid === this.#uids.get(session))
      const left = Math.min(session.idleEnd, session.absoluteEnd) - model.now
      if (!model.isLive(session)) expect(row?.['live'] ?? false, 'a session that is over').toBe(false)
      else {
        const beyond = Number(row?.['left']) - left
        expect(isHeld ? Math.abs(beyond) : -beyond, `${row?.['left']} is ${left} s left`).toBeLessThan(toleranceSeconds)
      }
    }
  }

  /** The log tells of each session once that it began and once that it ended, and why. */
  async end(): Promise<void> {
    await endExpiredSessions(replicas.here.database)
    const rows = await this.#sql(
      `select session_uid, name, details ->> 'reason' as reason from mlpipes_auth.audit_events
        where account_id = any($1::text[]) and name in ('session.created', 'session.ended', 'session.expired', 'logout.succeeded')`,
      [[...this.#ids.values()]],
    )
    expect(rows.filter(({ name }) => name === 'session.created')).toHaveLength(this.model.sessions.length)
    for (const session of this.model.sessions) {
      const own = rows.filter((row) => row['session_uid'] === this.#uids.get(session))
      expect(own.filter(({ name }) => name === 'session.created')).toHaveLength(1)
      const over = own.filter(({ name }) => name === 'session.ended' || name === 'session.expired')
      if (this.model.isLive(session)) expect(over).toEqual([])
      else expect(over, JSON.stringify({ session, own })).toHaveLength(1)
      const { endedBy } = session
      if (endedBy !== undefined && endedBy !== 'limit') expect(over[0]?.['reason']).toBe(endedBy)
      expect(own.filter(({ name }) => name === 'logout.succeeded')).toHaveLength(endedBy === 'sign_out' ? 1 : 0)
    }
  }
}

let count = 0

it('sessions and tokens do what the model says, on every replica, after every step', {
  timeout: 300_000,
  retry: 1,
}, async () => {
  await fc.assert(
    fc.asyncProperty(fc.array(step, { minLength: 12, maxLength: mostSteps }), async (steps) => {
      count += 1
      const world = new World(count)
      replicas.ask('here')
      await world.begin()
      for (const [at, { replica, action: one }] of steps.entries()) {
        replicas.ask(replica)
        try {
          await world.carryOut(one)
          await world.check()
        } catch (cause) {
          throw new Error(`step ${at}, ${JSON.stringify(one)}, at ${world.model.now} s: ${cause}`, { cause })
        }
      }
      await world.end()
    }),
    { numRuns: runs, seed, endOnFailure: true, verbose: 1 },
  )
  // Of a grant and its one code; here a session goes to one app several times under one grant.
  const broken = (await violations(replicas.here.database)).filter((name) => !/^I1:|^I3: a code gave/.test(name))
  expect(broken).toEqual([])
})

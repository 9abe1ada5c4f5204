// Sessions under any order of sign-ins, uses, policy changes, time and endings, on two replicas over one PostgreSQL, held
// against the small model of tests/support/session-model.ts after every step (F25, F26, C11).
import fc from 'fast-check'
import { afterAll, beforeAll, expect, it } from 'vitest'
import { runIn, type Tx } from '../../src/db/database.ts'
import { transact } from '../../src/db/transaction.ts'
import { endOrganizationAccess, finishWhileClosed } from '../../src/sessions/closing.ts'
import { endAccess, endSession } from '../../src/sessions/ending.ts'
import { endExpiredSessions } from '../../src/sessions/expiry.ts'
import { isLive } from '../../src/sessions/live.ts'
import { endClientAccess, endConsent, endMembershipAccess } from '../../src/sessions/parting.ts'
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
  type Person,
  type Place,
  SessionModel,
  type Slug,
  slugs,
  type Target,
} from '../support/session-model.ts'
import { codeFor, seededSecret } from '../support/totp.ts'

const runs = 25
/** The same runs for everybody who tests a change; SESSIONS_SEED takes others, and should now and then. */
const seed = Number(process.env['SESSIONS_SEED'] ?? 20_261_125)
const [leastSteps, mostSteps] = [20, 40]
/** Each token is asked about on both replicas after every step. */
const mostTokens = 12
/** What a run takes is less; virtual times are never this close to a limit. */
const toleranceSeconds = 40

/** The first three times in four, so that a policy is seldom strict in several ways at once, which would hide each other. */
const often = <const T>(usual: T, ...others: T[]): fc.Arbitrary<T> =>
  fc.oneof({ weight: 3, arbitrary: fc.constant(usual) }, { weight: 1, arbitrary: fc.constantFrom(...others) })

// Limits end in 50 and time passes in hundreds, so that nothing happens on a limit itself.
const anyPolicy: fc.Arbitrary<ModelPolicy> = fc.record({
  idle: fc.constantFrom(250, 850, 1_750),
  absolute: fc.constantFrom(650, 3_550, 7_150),
  // Less than half of any idle limit, which would come first.
  updateAge: fc.constantFrom(50, 120),
  extends: fc.boolean(),
  most: often(null, 1, 2),
  mfa: often(false, true),
  methods: often(['password', 'magic_link'], ['password'], ['magic_link']),
  places: fc.constantFrom<ModelPolicy['places'][]>(null, null, ['ward', 'town'], ['ward'], ['town']),
  accessTtl: fc.constantFrom(250, 850),
  refreshTtl: fc.constantFrom(450, 2_450, 7_776_050),
})
// Which is the newest of several sessions depends on whether those outside the networks are written down as over already.
const policy = anyPolicy.map((one): ModelPolicy => (one.most === null ? one : { ...one, places: null }))
const firstPolicy: ModelPolicy = {
  ...{ idle: 1_750, absolute: 7_150, updateAge: 120, extends: true, most: null, mfa: false, places: null },
  ...{ accessTtl: 850, refreshTtl: 7_776_050 },
  methods: ['password', 'magic_link'],
}

/** An address of each place (RFC 5737), and the network that it is in. */
const networks: Readonly<Record<Place, { readonly ip: string; readonly cidr: string }>> = {
  ward: { ip: '192.0.2.7', cidr: '192.0.2.0/24' },
  town: { ip: '198.51.100.7', cidr: '198.51.100.0/24' },
}

/** Two browsers of somebody without a second factor, two of somebody with one. */
const browsers = [
  { who: 'plain', place: 'ward' },
  { who: 'plain', place: 'town' },
  { who: 'strong', place: 'ward' },
  { who: 'strong', place: 'town' },
] as const satisfies readonly Person[]
type Who = (typeof browsers)[number]['who']
const targets: readonly Target[] = [
  { organization: 'a', app: 'a' },
  { organization: 'b', app: 'b' },
  { organization: 'a', app: 'vendor' },
  { organization: 'b', app: 'vendor' },
]

class PlacedBrowser extends Browser {
  readonly #ip: string

  constructor(at: number) {
    super(replicas.here)
    this.#ip = networks[browsers[at]?.place ?? 'ward'].ip
  }

  override request(path: string, init: Parameters<Browser['request']>[1] = {}): Promise<Answer> {
    return super.request(path, { ...init, headers: { 'x-forwarded-for': this.#ip, ...init.headers } })
  }
}

const browser = fc.nat({ max: browsers.length - 1 })
const target = fc.constantFrom<Target>(...targets)
const who = fc.constantFrom<Who>('plain', 'strong')
const slug = fc.constantFrom<Slug>(...slugs)
const index = fc.nat({ max: 99 })
/** Whether what is taken away is back at once: then nothing but time can hide what should not have come back with it. */
const isBrief = fc.boolean()
const kind = <K extends string>(name: K) => fc.constant(name)
const action = fc.oneof(
  {
    weight: 9,
    arbitrary: fc.record({ kind: kind('sign in'), browser, target, isNew: fc.boolean(), offline: fc.boolean() }),
  },
  { weight: 7, arbitrary: fc.record({ kind: kind('reuse'), index, target }) },
  { weight: 3, arbitrary: fc.record({ kind: kind('use'), index, by: fc.constantFrom('introspection', 'userinfo') }) },
  { weight: 3, arbitrary: fc.record({ kind: kind('refresh'), index }) },
  { weight: 6, arbitrary: fc.record({ kind: kind('change'), slug, policy }) },
  { weight: 5, arbitrary: fc.record({ kind: kind('age'), seconds: fc.constantFrom(100, 100, 200, 400, 900, 2_000) }) },
  { weight: 1, arbitrary: fc.record({ kind: kind('sweep') }) },
  { weight: 1, arbitrary: fc.record({ kind: kind('sign out'), browser, byPage: fc.boolean() }) },
  { weight: 1, arbitrary: fc.record({ kind: kind('end all'), who }) },
  { weight: 1, arbitrary: fc.record({ kind: kind('end one'), index }) },
  { weight: 1, arbitrary: fc.record({ kind: kind('switch'), who }) },
  { weight: 2, arbitrary: fc.record({ kind: kind('disable app'), app: slug, isBrief }) },
  // With everybody's own organisation closed, little is left to see.
  {
    weight: 2,
    arbitrary: fc.record({ kind: kind('close'), slug: fc.constantFrom<Slug>('a', 'b', 'vendor', 'vendor'), isBrief }),
  },
  { weight: 2, arbitrary: fc.record({ kind: kind('depart'), who, isBrief }) },
  { weight: 2, arbitrary: fc.record({ kind: kind('withdraw'), index }) },
  { weight: 3, arbitrary: fc.record({ kind: kind('mend') }) },
)
type Action = typeof action extends fc.Arbitrary<infer A> ? A : never
const step = fc.record({ replica: fc.constantFrom('here' as const, 'there' as const), action })

let replicas: Replicas
beforeAll(async () => {
  replicas = await startReplicas({
    environment: { ENABLE_MAGIC_LINKS: 'true', TRUSTED_PROXIES: '127.0.0.1' },
    seed: {},
  })
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
  tokens: { accessTokenTtl: one.accessTtl, refreshTokenTtl: one.refreshTtl },
  network: { allowedCidrs: (one.places ?? []).map((place) => networks[place].cidr) },
})

/** Housekeeping to its end: a replica that finds another at it leaves it alone. */
async function keepHouse(): Promise<void> {
  const isLeft = `select from mlpipes_auth.session_tightenings union all
    select from mlpipes_auth.sessions where ended_at is null and least(idle_expires_at, absolute_expires_at) <= now()`
  const { database } = replicas.there
  do {
    await finishTightenings(database)
    await endExpiredSessions(database)
  } while ((await database.run(isLeft, [])).length > 0)
}

/** Mostly one that is good, or little would happen; now and then any. */
function pick<T>(all: readonly T[], isGood: (one: T) => boolean, index: number): T | undefined {
  const good = all.filter(isGood)
  const among = good.length > 0 && index % 4 > 0 ? good : all
  return among[Math.floor(index / 4) % Math.max(1, among.length)]
}

interface Held {
  readonly value: string
  readonly token: ModelToken
}

/** One run: people, organisations and apps of its own, the model beside them. */
class World {
  readonly model = new SessionModel(firstPolicy)
  readonly #run: number
  /** Of people by who they are, of organisations by their slug. */
  readonly #ids = new Map<Who | Slug, string>()
  readonly #browsers = browsers.map((_, at) => new PlacedBrowser(at))
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
    for (const of of ['plain', 'strong'] as const) {
      const [row] = await this.#sql('select id from mlpipes_auth.accounts where email = $1', [this.#email(of)])
      this.#ids.set(of, String(row?.['id']))
    }
    for (const slug of slugs) {
      const [row] = await this.#sql('select id from mlpipes_auth.organizations where slug = $1', [this.#slug(slug)])
      this.#ids.set(slug, String(row?.['id']))
    }
    await this.#welcome()
  }

  #id = (of: Who | Slug) => this.#ids.get(of) ?? ''

  /** Both are guests of `b`. */
  #welcome = () =>
    this.#sql(
      `insert into mlpipes_auth.memberships (account_id, organization_id, home, roles)
        select id, $2, false, '{member}' from unnest($1::text[]) as p (id) on conflict do nothing`,
      [[this.#id('plain'), this.#id('strong')], this.#id('b')],
    )

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

  async #take(landing: Answer, verifier: string, target: Target, session: ModelSession, offline: boolean) {
    const code = new URL(landing.url).searchParams.get('code') ?? ''
    const { status, body } = await redeem(replicas.here, `app-${this.#slug(target.app)}`, code, verifier)
    expect(status, 'the code of a session that stands').toBe(200)
    this.#hold(body, this.model.issue(session, target, offline))
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
      case 'reuse':
        return this.#reuse(step)
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
        return
      }
      case 'disable app':
        await this.#act('update mlpipes_auth.clients set disabled_at = now() where client_id = $1', [
          `app-${this.#slug(step.app)}`,
        ])((tx) => endClientAccess(tx, { ...this.#by(step.app), clientId: `app-${this.#slug(step.app)}` }))
        model.disableApp(step.app)
        return this.#mendIf(step.isBrief)
      case 'close':
        await this.#act('update mlpipes_auth.organizations set closed_at = now() where id = $1', [this.#id(step.slug)])(
          (tx) => endOrganizationAccess(tx, this.#by(step.slug)),
        )
        model.close(step.slug)
        return this.#mendIf(step.isBrief)
      case 'depart':
        await this.#act('delete from mlpipes_auth.memberships where account_id = $1 and organization_id = $2', [
          this.#id(step.who),
          this.#id('b'),
        ])((tx) => endMembershipAccess(tx, { ...this.#by('b'), accountId: this.#id(step.who) }))
        model.depart(step.who)
        return this.#mendIf(step.isBrief)
      case 'withdraw':
        return this.#withdraw(step.index)
      case 'mend':
        return this.#mend()
    }
  }

  /** A change with the ending that belongs into its transaction. */
  #act = (statement: string, values: readonly string[]) => (end: (tx: Tx) => Promise<unknown>) =>
    transact(replicas.here.database.kysely, async (tx) => {
      await runIn(tx, statement, [...values])
      await end(tx)
    })

  #by = (slug: Slug) => ({ organizationId: this.#id(slug), actor: { type: 'system' as const }, origin: {} })

  async #mendIf(isBrief: boolean): Promise<void> {
    if (!isBrief) return
    await this.check()
    await this.#mend()
  }

  async #mend(): Promise<void> {
    const [ids, apps] = [slugs.map((slug) => this.#id(slug)), slugs.map((slug) => `app-${this.#slug(slug)}`)]
    for (const slug of this.model.closed) await finishWhileClosed(replicas.here.database, this.#id(slug))
    await this.#sql('update mlpipes_auth.organizations set closed_at = null where id = any($1::text[])', [ids])
    await this.#sql('update mlpipes_auth.clients set disabled_at = null where client_id = any($1::text[])', [apps])
    await this.#welcome()
    this.model.mend()
  }

  #ending = <C extends 'ended_by_owner' | 'ended_by_administrator'>(of: string, cause: C) => ({
    accountId: this.#id(of as Who),
    organizationId: undefined,
    cause,
    actor: { type: 'system' as const },
    origin: {},
  })

  async #withdraw(index: number): Promise<void> {
    const held = pick(this.#held, ({ token }) => this.model.isActive(token), index)
    if (!held) return
    const { who, app } = held.token
    const withdrawal = { accountId: this.#id(who as Who), clientId: `app-${this.#slug(app)}` }
    await transact(replicas.here.database.kysely, (tx) => endConsent(tx, withdrawal))
    this.model.withdrawConsent(who, app)
  }

  async #reuse({ index, target }: Extract<Action, { kind: 'reuse' }>): Promise<void> {
    const at = pick([...browsers.keys()], (one) => this.#live(one) !== undefined, index) ?? 0
    const authorization = this.#authorize(target, { prompt: 'none' })
    const used = this.#browsers[at] ?? new PlacedBrowser(at)
    const landing = await used.follow(await used.request(authorization.url))
    const session = this.#live(at)
    const isLetIn = session !== undefined && this.model.reuse(session, target)
    expect(new URL(landing.url).searchParams.has('code'), `prompt=none: ${landing.url}`).toBe(isLetIn)
    if (isLetIn) await this.#take(landing, authorization.verifier, target, session, false)
  }

  async #signIn({ browser: at, target, isNew, offline }: Extract<Action, { kind: 'sign in' }>): Promise<void> {
    const person = browsers[at] ?? browsers[0]
    const of = person.who
    if (isNew) {
      this.#browsers[at] = new PlacedBrowser(at)
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
    const used = this.#browsers[at] ?? new PlacedBrowser(at)
    const extra = offline ? { scope: 'openid offline_access', prompt: 'login consent' } : { prompt: 'login' }
    const authorization = this.#authorize(target, extra)
    let page = await used.follow(await used.request(authorization.url))
    if (page.text.includes('/password"'))
      page = await used.submit(page, '/password', { email: this.#email(of), password })
    if (page.text.includes('/totp"')) page = await used.submit(page, '/totp', { code: await codeFor(replicas.here) })
    if (page.text.includes('/consent"')) page = await used.submit(page, '/consent', { decision: 'allow' })
    const amr = of === 'strong' ? ['pwd', 'otp', 'mfa'] : ['pwd']
    const session = this.model.signIn(person, amr, target, this.#live(at))
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

  async #use(index: number, by: string): Promise<void> {
    const accesses = this.#held.filter(({ token }) => token.kind === 'access')
    const held = pick(accesses, ({ token }) => this.model.isActive(token), index)
    if (!held) return
    const { token, value } = held
    const authorization = `Bearer ${value}`
    const works =
      by === 'userinfo'
        ? (await fetch(`${replicas.here.issuer}/oauth/userinfo`, { headers: { authorization } })).status === 200
        : (await introspect(replicas.here, value, `api-${this.#slug(token.app)}`))['active'] === true
    expect(works, by).toBe(this.model.isActive(token))
    if (works) this.model.touch(token)
  }

  async #refresh(index: number): Promise<void> {
    const refreshes = this.#held.filter(({ token }) => token.kind === 'refresh' && !token.isGone)
    const held = pick(refreshes, ({ token }) => this.model.isActive(token), index)
    if (!held) return
    const { token, value } = held
    const form = { grant_type: 'refresh_token', refresh_token: value }
    const { status, body } = await post(replicas.here, '/oauth/token', `app-${this.#slug(token.app)}`, form)
    expect(status === 200, `refresh: ${JSON.stringify(body)}`).toBe(this.model.isActive(token))
    if (status !== 200) return
    this.model.touch(token)
    token.isGone = true
    this.#hold(body, this.model.issue(token.session, token, token.boundTo === undefined, token))
  }

  #passFor = (of: Who, seconds: number, set: string) =>
    this.#sql(`update mlpipes_auth.sessions set ${set} where account_id = $1`, [this.#ids.get(of), seconds])

  /** The database's clock stands; everything that it is compared with goes back instead. */
  async #age(seconds: number): Promise<void> {
    // Time that passes in no time passes without housekeeping, which comes by every other second.
    await keepHouse()
    this.model.now += seconds
    const back = (column: string) => `${column} = ${column} - make_interval(secs => $2::integer)`
    const columns = ['last_activity_at', 'signed_in_at', 'idle_expires_at', 'absolute_expires_at'].map(back)
    for (const of of ['plain', 'strong'] as const) {
      await this.#passFor(of, seconds, columns.join())
      const values = [this.#ids.get(of), seconds]
      // A grant ends when the policy of its first token promised, whatever is issued under it later: no part of the model.
      await this.#sql(
        `update mlpipes_auth.oidc_payloads set ${back('expires_at')} where account_id = $1 and model <> 'Grant'`,
        values,
      )
      const issued = (name: string) => `jsonb_build_object('${name}', (payload ->> '${name}')::integer - $2::integer)`
      await this.#sql(
        `update mlpipes_auth.oidc_payloads set payload = payload || ${issued('iat')}
            || case when payload ? 'iiat' then ${issued('iiat')} else '{}' end
          where account_id = $1 and model in ('AccessToken', 'RefreshToken')`,
        values,
      )
    }
  }

  async #signOut(at: number, byPage: boolean): Promise<void> {
    const used = this.#browsers[at] ?? new PlacedBrowser(at)
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
        (await Promise.all(asked)).map((answer) => answer['active'] === true),
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
        expect(row?.['live'], `a session that has ${left} s left`).toBe(true)
        const beyond = Number(row?.['left']) - left
        expect(isHeld ? Math.abs(beyond) : -beyond, `${row?.['left']} is ${left} s left`).toBeLessThan(toleranceSeconds)
      }
    }
  }

  /** The log tells of each session once that it began and once that it ended, and why. */
  async end(): Promise<void> {
    await keepHouse()
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
      if (endedBy.size > 0) expect([...endedBy]).toContain(over[0]?.['reason'])
      expect(own.filter(({ name }) => name === 'logout.succeeded')).toHaveLength(endedBy.has('sign_out') ? 1 : 0)
    }
  }
}

let count = 0

it('sessions and tokens do what the model says, on every replica, after every step', {
  timeout: 300_000,
}, async () => {
  await fc.assert(
    fc.asyncProperty(fc.array(step, { minLength: leastSteps, maxLength: mostSteps }), async (steps) => {
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
  // Of a grant and its one code; here a session goes to one app several times under one grant. And of tokens that nothing
  // but revocation and the end of all that somebody has takes away; here they go with apps, consents and organisations too.
  const broken = (await violations(replicas.here.database)).filter(
    (name) => !/^I1:|^I3: a code gave|^I4: each token/.test(name),
  )
  expect(broken).toEqual([])
})

// What sessions and their tokens are to do under changing policies, by the rules of the house and in virtual seconds: the
// strictest of all organisations that a session was used for holds, tightening acts at once, loosening gives nothing back.

export const slugs = ['a', 'b', 'vendor'] as const
export type Slug = (typeof slugs)[number]

export interface ModelPolicy {
  readonly idle: number
  readonly absolute: number
  readonly updateAge: number
  readonly extends: boolean
  readonly most: number | null
  readonly mfa: boolean
  readonly methods: readonly ('password' | 'magic_link')[]
  readonly ttl: number
}

export interface ModelSession {
  readonly who: string
  organization: Slug
  readonly others: Set<Slug>
  readonly amr: readonly string[]
  signedInAt: number
  lastActivityAt: number
  /** Grows with each sign-in, for which of them is the oldest. */
  order: number
  idle: number
  absolute: number
  idleEnd: number
  absoluteEnd: number
  endedBy: string | undefined
}

export interface ModelToken {
  readonly who: string
  readonly kind: 'access' | 'refresh'
  readonly organization: Slug
  readonly app: Slug
  readonly amr: readonly string[]
  /** Undefined for one that outlives its session. */
  readonly boundTo: ModelSession | undefined
  readonly session: ModelSession
  readonly issuedAt: number
  readonly expiresAt: number
  isGone: boolean
}

const refreshSeconds = 7_776_000

export class SessionModel {
  now = 0
  #order = 0
  readonly policies: Record<Slug, ModelPolicy>
  readonly disabled = new Set<string>()
  readonly sessions: ModelSession[] = []
  readonly tokens: ModelToken[] = []

  constructor(policy: ModelPolicy) {
    this.policies = { a: policy, b: policy, vendor: policy }
  }

  /** What holds in an organisation for its people in an app of another. */
  policyOf(organization: Slug, app: Slug): ModelPolicy {
    const [one, other] = [this.policies[organization], this.policies[app]]
    const most = [one.most, other.most].filter((limit) => limit !== null)
    return {
      idle: Math.min(one.idle, other.idle),
      absolute: Math.min(one.absolute, other.absolute),
      updateAge: Math.min(one.updateAge, other.updateAge),
      extends: one.extends && other.extends,
      most: most.length === 0 ? null : Math.min(...most),
      mfa: one.mfa || other.mfa,
      methods: one.methods.filter((method) => other.methods.includes(method)),
      ttl: Math.min(one.ttl, other.ttl),
    }
  }

  #satisfies(amr: readonly string[], { mfa, methods }: ModelPolicy): boolean {
    return methods.includes('password') && (!mfa || amr.includes('otp'))
  }

  isLive(session: ModelSession): boolean {
    return session.endedBy === undefined && this.now < Math.min(session.idleEnd, session.absoluteEnd)
  }

  isActive({ who, kind, boundTo, organization, app, amr, issuedAt, expiresAt, isGone }: ModelToken): boolean {
    const stands = boundTo === undefined || this.isLive(boundTo)
    // It lasts as long as was promised, and no longer than is promised now.
    const isOutlived = kind === 'access' && this.now >= issuedAt + this.policyOf(organization, app).ttl
    const mayAct = !this.disabled.has(who) && this.#satisfies(amr, this.policyOf(organization, app))
    return !isGone && !isOutlived && stands && mayAct && this.now < expiresAt
  }

  /** Somebody proved who they are, in a new session or in one that goes on. Undefined: they are not let in. */
  signIn(who: string, amr: readonly string[], organization: Slug, app: Slug, before: ModelSession | undefined) {
    const policy = this.policyOf(organization, app)
    if (this.disabled.has(who) || !this.#satisfies(amr, policy)) return undefined
    const { now } = this
    const fresh = { order: 0, idle: Infinity, absolute: Infinity, idleEnd: 0, absoluteEnd: 0, endedBy: undefined }
    const session: ModelSession = before ?? {
      ...{ who, organization, others: new Set(), amr, signedInAt: now, lastActivityAt: now },
      ...fresh,
    }
    if (!before) this.sessions.push(session)
    session.others.add(session.organization)
    this.#order += 1
    Object.assign(session, { organization, signedInAt: now, lastActivityAt: now, order: this.#order })
    this.#use(session, organization, app, policy)
    this.#makeRoom(session, organization, policy)
    return session
  }

  /** Of the sessions that were used for the organisation, the oldest beyond what it allows end. */
  #makeRoom(session: ModelSession, organization: Slug, { most }: ModelPolicy): void {
    if (most === null) return
    const theirs = this.sessions.filter(
      (one) => one.who === session.who && (one.organization === organization || one.others.has(organization)),
    )
    const surplus = theirs.filter((one) => one !== session && this.isLive(one)).sort((x, y) => y.order - x.order)
    for (const old of surplus.slice(most - 1)) this.end(old, 'max_concurrent')
  }

  /** Whether activity extends it: each organisation that it was used for may say no. */
  #isExtendable({ organization, others }: ModelSession): boolean {
    return [organization, ...others].every((slug) => this.policies[slug].extends)
  }

  /** A session goes to another app without asking. False: the app is told to ask. */
  reuse(session: ModelSession, organization: Slug, app: Slug): boolean {
    const policy = this.policyOf(organization, app)
    const { now } = this
    const isOver = now >= session.signedInAt + policy.absolute || now >= session.lastActivityAt + policy.idle
    if (!this.isLive(session) || isOver || !this.#satisfies(session.amr, policy)) return false
    const isDue = now - session.lastActivityAt >= policy.updateAge
    if (policy.extends && this.#isExtendable(session) && isDue) session.lastActivityAt = now
    this.#use(session, organization, app, policy)
    this.#makeRoom(session, organization, policy)
    return true
  }

  #use(session: ModelSession, organization: Slug, app: Slug, policy: ModelPolicy): void {
    session.others.add(organization).add(app)
    session.idle = Math.min(session.idle, policy.idle, policy.absolute)
    session.absolute = Math.min(session.absolute, policy.absolute)
    session.absoluteEnd = session.signedInAt + session.absolute
    session.idleEnd = Math.min(session.lastActivityAt + session.idle, session.absoluteEnd)
  }

  issue(session: ModelSession, organization: Slug, app: Slug, isOffline: boolean, amr = session.amr): ModelToken[] {
    const ttls = { access: this.policyOf(organization, app).ttl, refresh: refreshSeconds } as const
    const boundTo = isOffline ? undefined : session
    return (['access', 'refresh'] as const).map((kind) => ({
      ...{ who: session.who, kind, organization, app, amr, session, boundTo, isGone: false },
      issuedAt: this.now,
      expiresAt: Math.min(this.now + ttls[kind], boundTo?.absoluteEnd ?? Infinity),
    }))
  }

  /** The use of an active token is activity in the session that it ends with. */
  touch({ boundTo, organization, app }: ModelToken): void {
    const policy = this.policyOf(organization, app)
    if (!boundTo || !policy.extends || !this.#isExtendable(boundTo)) return
    if (this.now - boundTo.lastActivityAt < policy.updateAge) return
    boundTo.lastActivityAt = this.now
    boundTo.idleEnd = Math.min(this.now + Math.min(policy.idle, policy.absolute, boundTo.idle), boundTo.absoluteEnd)
  }

  change(slug: Slug, policy: ModelPolicy): void {
    const before = this.policies[slug].most
    this.policies[slug] = policy
    const [idle, { absolute }] = [Math.min(policy.idle, policy.absolute), policy]
    for (const session of this.sessions.filter((one) => one.endedBy === undefined && one.others.has(slug))) {
      session.idle = Math.min(session.idle, idle)
      session.absolute = Math.min(session.absolute, absolute)
      session.absoluteEnd = Math.min(session.absoluteEnd, session.signedInAt + absolute)
      session.idleEnd = Math.min(session.idleEnd, session.lastActivityAt + idle, session.absoluteEnd)
    }
    if (policy.most === null || (before !== null && policy.most >= before)) return
    for (const session of this.sessions.filter((one) => this.isLive(one)).sort((x, y) => y.order - x.order))
      if (session.others.has(slug) && this.#countNewer(session, slug) >= policy.most)
        this.end(session, 'max_concurrent')
  }

  /** How many of the same person's sessions were begun later, among those that were used for the organisation. */
  #countNewer({ who, order }: ModelSession, slug: Slug): number {
    const isNewer = (one: ModelSession) => one.who === who && one.order > order && one.others.has(slug)
    return this.sessions.filter((one) => isNewer(one) && this.isLive(one)).length
  }

  end(session: ModelSession, reason: string): void {
    // Past a limit it was over already, and whoever comes first says so.
    if (session.endedBy === undefined) session.endedBy = this.isLive(session) ? reason : 'limit'
  }

  /** All that somebody has, tokens that outlive sessions among it. */
  endAll(who: string, reason: string, of: (one: ModelSession) => boolean = () => true): void {
    for (const session of this.sessions.filter((one) => one.who === who && of(one))) this.end(session, reason)
    for (const token of this.tokens.filter((one) => one.who === who && of(one.session))) token.isGone = true
  }
}

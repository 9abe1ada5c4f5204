// What sessions and their tokens are to do under changing policies, by the rules of the house and in virtual seconds: the
// strictest of all organisations that a session was used for holds, tightening acts at once, loosening gives nothing back.
// What goes with an organisation, an app, a consent or a guest's place does not come back with it either.

export const slugs = ['a', 'b', 'vendor'] as const
export type Slug = (typeof slugs)[number]
/** Everybody's own organisation; in the others they are guests. */
const home: Slug = 'a'

export type Place = 'ward' | 'town'

export interface ModelPolicy {
  readonly idle: number
  readonly absolute: number
  readonly updateAge: number
  readonly extends: boolean
  readonly most: number | null
  readonly mfa: boolean
  readonly methods: readonly ('password' | 'magic_link')[]
  /** Where people may act from; null is anywhere. */
  readonly places: readonly Place[] | null
  readonly accessTtl: number
  readonly refreshTtl: number
}

export interface ModelSession {
  readonly who: string
  readonly place: Place
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
  /** What may stand in the log as the cause of its end. Empty: nothing has ended it but perhaps its limits. */
  readonly endedBy: Set<string>
  /** Whether its end is written down, so that nothing else can be its cause. */
  isWritten: boolean
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
  /** When it was issued; of a refresh token, when the first of its family was. */
  readonly since: number
  readonly expiresAt: number
  isGone: boolean
}

export interface Person {
  readonly who: string
  readonly place: Place
}

/** In which organisation somebody wants to act, and the app of which one. */
export interface Target {
  readonly organization: Slug
  readonly app: Slug
}

export class SessionModel {
  now = 0
  #order = 0
  readonly policies: Record<Slug, ModelPolicy>
  readonly disabled = new Set<string>()
  readonly closed = new Set<Slug>()
  readonly appsOff = new Set<Slug>()
  /** Who is no guest of `b` any more. */
  readonly departed = new Set<string>()
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
      places:
        one.places && other.places
          ? one.places.filter((at) => other.places?.includes(at))
          : (one.places ?? other.places),
      accessTtl: Math.min(one.accessTtl, other.accessTtl),
      refreshTtl: Math.min(one.refreshTtl, other.refreshTtl),
    }
  }

  /** @param place undefined for whoever may be anywhere */
  #satisfies(amr: readonly string[], place: Place | undefined, { mfa, methods, places }: ModelPolicy): boolean {
    const isInPlace = place === undefined || places === null || places.includes(place)
    return isInPlace && methods.includes('password') && (!mfa || amr.includes('otp'))
  }

  /** Whether somebody has anything to do there at all, whatever they prove. */
  #mayAct(who: string, organization: Slug, app: Slug): boolean {
    const isOpen = ![home, organization, app].some((slug) => this.closed.has(slug))
    const belongs = organization === home || !this.departed.has(who)
    return isOpen && belongs && !this.disabled.has(who) && !this.appsOff.has(app)
  }

  isLive(session: ModelSession): boolean {
    return session.endedBy.size === 0 && this.now < Math.min(session.idleEnd, session.absoluteEnd)
  }

  isActive({ who, kind, boundTo, organization, app, amr, since, expiresAt, isGone }: ModelToken): boolean {
    const policy = this.policyOf(organization, app)
    const stands = boundTo === undefined || this.isLive(boundTo)
    // It lasts as long as was promised, and no longer than is promised now.
    const end = Math.min(expiresAt, since + (kind === 'access' ? policy.accessTtl : policy.refreshTtl))
    const mayAct = this.#mayAct(who, organization, app) && this.#satisfies(amr, boundTo?.place, policy)
    return !isGone && stands && mayAct && this.now < end
  }

  /** Somebody proved who they are, in a new session or in one that goes on. Undefined: they are not let in. */
  signIn(
    { who, place }: Person,
    amr: readonly string[],
    { organization, app }: Target,
    before: ModelSession | undefined,
  ) {
    const policy = this.policyOf(organization, app)
    if (!this.#mayAct(who, organization, app) || !this.#satisfies(amr, place, policy)) return undefined
    const { now } = this
    const fresh = { order: 0, idle: Infinity, absolute: Infinity, idleEnd: 0, absoluteEnd: 0, isWritten: false }
    const session: ModelSession = before ?? {
      ...{ who, place, organization, others: new Set(), endedBy: new Set(), amr, signedInAt: now, lastActivityAt: now },
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
  reuse(session: ModelSession, { organization, app }: Target): boolean {
    const policy = this.policyOf(organization, app)
    const { now } = this
    const isOver = now >= session.signedInAt + policy.absolute || now >= session.lastActivityAt + policy.idle
    const mayAct = this.#mayAct(session.who, organization, app) && this.#satisfies(session.amr, session.place, policy)
    if (!this.isLive(session) || isOver || !mayAct) return false
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

  /** @param before the refresh token in whose place this one comes */
  issue(session: ModelSession, { organization, app }: Target, isOffline: boolean, before?: ModelToken): ModelToken[] {
    const { now } = this
    const { accessTtl, refreshTtl } = this.policyOf(organization, app)
    const boundTo = isOffline ? undefined : session
    const amr = before?.amr ?? session.amr
    const one = (kind: ModelToken['kind'], since: number, ttl: number): ModelToken => ({
      ...{ who: session.who, kind, organization, app, amr, session, boundTo, isGone: false, since },
      expiresAt: Math.min(since + ttl, boundTo?.absoluteEnd ?? Infinity),
    })
    return [one('access', now, accessTtl), one('refresh', before?.since ?? now, refreshTtl)]
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
    const before = this.policies[slug]
    this.policies[slug] = policy
    const [idle, { absolute }] = [Math.min(policy.idle, policy.absolute), policy]
    for (const session of this.sessions.filter((one) => one.endedBy.size === 0 && one.others.has(slug))) {
      session.idle = Math.min(session.idle, idle)
      session.absolute = Math.min(session.absolute, absolute)
      session.absoluteEnd = Math.min(session.absoluteEnd, session.signedInAt + absolute)
      session.idleEnd = Math.min(session.idleEnd, session.lastActivityAt + idle, session.absoluteEnd)
    }
    const isNarrower = policy.places !== null && !before.places?.every((place) => policy.places?.includes(place))
    const isOut = (one: ModelSession) => isNarrower && one.organization === slug && !policy.places?.includes(one.place)
    for (const session of this.sessions.filter(isOut)) this.#over(session, 'network')
    if (policy.most === null || (before.most !== null && policy.most >= before.most)) return
    for (const session of this.sessions.filter((one) => this.isLive(one)).sort((x, y) => y.order - x.order))
      if (session.others.has(slug) && this.#countNewer(session, slug) >= policy.most)
        this.#over(session, 'max_concurrent')
  }

  /** How many of the same person's sessions were begun later, among those that were used for the organisation. */
  #countNewer({ who, order }: ModelSession, slug: Slug): number {
    const isNewer = (one: ModelSession) => one.who === who && one.order > order && one.others.has(slug)
    return this.sessions.filter((one) => isNewer(one) && this.isLive(one)).length
  }

  close(slug: Slug): void {
    this.closed.add(slug)
    const isOver = (one: ModelSession) => slug === home || one.organization === slug
    for (const session of this.sessions.filter(isOver)) this.end(session, 'organization_closed')
    this.#drop(({ organization, app }) => [home, organization, app].includes(slug))
  }

  /** Somebody is no guest of `b` any more. */
  depart(who: string): void {
    this.departed.add(who)
    for (const session of this.sessions.filter((one) => one.who === who && one.organization === 'b'))
      this.end(session, 'membership_ended')
    this.#drop((token) => token.who === who && token.organization === 'b')
  }

  disableApp(app: Slug): void {
    this.appsOff.add(app)
    this.#drop((token) => token.app === app)
  }

  withdrawConsent(who: string, app: Slug): void {
    this.#drop((token) => token.who === who && token.app === app)
  }

  /** Organisations, apps and guests are back; nothing comes back with them. */
  mend(): void {
    for (const gone of [this.closed, this.appsOff, this.departed]) gone.clear()
  }

  #drop(isOver: (token: ModelToken) => boolean): void {
    for (const token of this.tokens.filter(isOver)) token.isGone = true
  }

  end(session: ModelSession, reason: string): void {
    this.#over(session, reason)
    session.isWritten = true
  }

  /** What is past a limit or under a stricter policy is over, and whoever comes first writes down why. */
  #over(session: ModelSession, reason: string): void {
    if (session.isWritten) return
    if (session.endedBy.size === 0 && !this.isLive(session)) session.endedBy.add('idle').add('absolute')
    session.endedBy.add(reason)
  }

  /** All that somebody has, tokens that outlive sessions among it. */
  endAll(who: string, reason: string, of: (one: ModelSession) => boolean = () => true): void {
    for (const session of this.sessions.filter((one) => one.who === who && of(one))) this.end(session, reason)
    this.#drop((token) => token.who === who && of(token.session))
  }
}

// How each cause of an ending comes about, by the request that a person or an administrator would make. Limits are reached
// by moving them, as nobody waits half an hour here.
import type pg from 'pg'
import type { EndingCause } from '../src/sessions/causes.ts'
import type { Administrators } from './administrators.ts'
import type { Server } from './installation.ts'
import { mailedLink } from './letters.ts'
import type { Reply } from './load.ts'
import { arrive, call, csrfOf, expectOk, finish, form, password, submitPassword, Visitor } from './visit.ts'

/** An organisation with an app and a resource server, in which one thing happens at a time. */
export interface Lane {
  readonly slug: string
  /** Where its guests are at home. */
  readonly home: string
  readonly app: string
  readonly api: string
}

export const lanes: readonly Lane[] = Array.from({ length: Number(process.env['BENCH_LANES'] ?? 2) }, (_, index) => ({
  slug: `lane-${index}`,
  home: `home-${index}`,
  app: `app-${index}`,
  api: `api-${index}`,
}))

/** Two replicas; the person and the act are at the first. */
export interface Sides {
  readonly here: Server
  readonly there: Server
}

/** Somebody with a session and a token. */
export interface Subject {
  readonly lane: Lane
  readonly email: string
  readonly visitor: Visitor
  readonly token: string
  readonly sides: Sides
  readonly uid: string
  readonly accountId: string
  readonly sid: string
}

/** Sends the request. Returns when the ending began by `performance.now()`, if that is not when it was sent. */
export type Act = () => Promise<number | undefined>

export interface Cause {
  /** Whether the app hears of it by back-channel logout. */
  readonly tells: boolean
  /** What the session says of its end; null where the session goes on. By the name of the row unless said. */
  readonly reason?: EndingCause | null
  /** Whether the person is at home in another organisation. */
  readonly isGuest?: boolean
  /** Whether nobody has proven yet that the person's address is theirs. */
  readonly isUnproven?: boolean
  before?(lane: Lane): Promise<unknown>
  /** Before somebody signs in. */
  ready?(lane: Lane, email: string): Promise<unknown>
  /** What comes before the act, up to its last request. */
  prepare(subject: Subject): Promise<Act>
  undo?(subject: Subject): Promise<unknown>
  after?(lane: Lane): Promise<unknown>
}

interface Means {
  readonly owner: pg.Pool
  readonly administrators: Administrators
  /** Somebody of the platform. */
  readonly root: string
}

const newPassword = 'Kestrel-Lantern-58-Quay'
/** Where nobody here is (RFC 5737). */
const elsewhere = '192.0.2.0/24'
const organizationId = '(select id from mlpipes_auth.organizations where slug = $1)'
const join = `insert into mlpipes_auth.memberships (account_id, organization_id, home, roles)
    select id, (select id from mlpipes_auth.organizations where slug = $2), false, '{member}' from mlpipes_auth.accounts
    where email_normalized = $1 on conflict do nothing`
const moved = (
  limit: string,
) => `update mlpipes_auth.sessions set ${limit} = clock_timestamp() + interval '100 ms' where uid = $1
    returning (extract(epoch from ${limit}) * 1000)::float8 as at`

/**
 * Every cause there is; one that the type does not find here is not measured. A limit that a stricter policy brings near is
 * a way of its own to the two of limits.
 * @param means undefined when only the table is asked for
 */
export function makeCauses(means: Means | undefined): Readonly<Record<EndingCause | 'policy_tightened', Cause>> {
  const given = () => {
    if (!means) throw new Error('no means')
    return means
  }
  const idOf = async (slug: string) =>
    String((await given().owner.query(`select ${organizationId} as id`, [slug])).rows[0].id)
  const token = () => given().administrators.tokenOf(given().root)

  /** An act of an administrator in the organisation of the lane. */
  const administer =
    (path: (subject: Subject) => string, method = 'POST') =>
    async (subject: Subject): Promise<Act> => {
      const [bearer, id] = [await token(), await idOf(subject.lane.slug)]
      const address = `${path(subject)}?organization=${id}`
      const etag = method === 'DELETE' ? (await call(subject.sides.here, bearer, address)).header('etag') : undefined
      const headers: Record<string, string> = etag === undefined ? {} : { 'if-match': etag }
      const sent = method === 'DELETE' ? { method, headers } : { body: {} }
      return () => done(call(subject.sides.here, bearer, address, sent))
    }
  const reach =
    (limit: string) =>
    async (subject: Subject): Promise<Act> => {
      return async () =>
        Number((await given().owner.query(moved(limit), [subject.uid])).rows[0].at) - performance.timeOrigin
    }
  const setPolicy = async (lane: Lane, patch: object) =>
    given().administrators.patchPolicy(await token(), patch, await idOf(lane.slug))

  /** A change of the policy of the lane. */
  const restrict =
    (body: object) =>
    async ({ lane, sides }: Subject): Promise<Act> => {
      const [bearer, id] = [await token(), await idOf(lane.slug)]
      const path = `/api/admin/policy?organization=${id}`
      const headers = { 'if-match': expectOk(await call(sides.here, bearer, path)).header('etag') ?? '' }
      return () => done(call(sides.here, bearer, path, { method: 'PATCH', body, headers }))
    }

  return {
    sign_out: { tells: true, prepare: signOut },
    signed_in_anew: { tells: true, prepare: signInAnew },
    ended_by_owner: {
      tells: true,
      prepare: ownPage('/account/sessions', '/account/sessions/end', ({ uid }) => ({ uid }), 'another browser'),
    },
    ended_by_administrator: { tells: true, prepare: administer(({ uid }) => `/api/admin/sessions/${uid}`, 'DELETE') },
    disabled: { tells: true, prepare: administer(({ accountId }) => `/api/admin/users/${accountId}/disable`) },
    password_changed: { tells: true, prepare: changePassword('another browser') },
    factor_changed: {
      tells: true,
      async prepare(subject) {
        await given().owner.query(
          `insert into mlpipes_auth.totp_credentials (id, account_id, name, sealed_secret, confirmed_at)
            values ('totp_' || $1, $1, 'Phone', 'x', now())`,
          [subject.accountId],
        )
        return administer(({ accountId }) => `/api/admin/users/${accountId}/reset-mfa`)(subject)
      },
    },
    idle: { tells: true, prepare: reach('idle_expires_at') },
    absolute: { tells: true, prepare: reach('absolute_expires_at') },
    policy_tightened: {
      tells: true,
      reason: 'absolute',
      async prepare(subject) {
        await given().owner.query(
          `update mlpipes_auth.sessions set signed_in_at = now() - interval '2 hours' where uid = $1`,
          [subject.uid],
        )
        return restrict({ session: { absoluteLifetime: 3_600 } })(subject)
      },
      undo: ({ lane }) => setPolicy(lane, { session: { absoluteLifetime: null } }),
    },
    network: {
      tells: true,
      prepare: restrict({ network: { allowedCidrs: [elsewhere] } }),
      undo: ({ lane }) => setPolicy(lane, { network: { allowedCidrs: null } }),
    },
    password_reset: { tells: true, prepare: resetPassword },
    disowned: { tells: true, prepare: disown },
    address_proven: { tells: true, isUnproven: true, prepare: proveAddress },
    organization_closed: {
      tells: true,
      isGuest: true,
      ready: (lane, email) => given().owner.query(join, [email, lane.slug]),
      async prepare({ lane, sides }) {
        const [bearer, id] = [await token(), await idOf(lane.home)]
        return () => done(call(sides.here, bearer, `/api/admin/organizations/${id}/close`, { body: {} }))
      },
      undo: async ({ lane, sides }) =>
        expectOk(
          await call(sides.here, await token(), `/api/admin/organizations/${await idOf(lane.home)}/reopen`, {
            body: {},
          }),
        ),
    },
    client_disabled: {
      tells: false,
      reason: null,
      prepare: administer(({ lane }) => `/api/admin/clients/${lane.app}/disable`),
      undo: async (subject) => (await administer(({ lane }) => `/api/admin/clients/${lane.app}/enable`)(subject))(),
    },
    consent_withdrawn: {
      tells: true,
      reason: null,
      prepare: ownPage('/account/apps', '/account/apps/remove', ({ lane }) => ({ clientId: lane.app }), 'this browser'),
    },
    membership_ended: {
      tells: true,
      isGuest: true,
      ready: (lane, email) => given().owner.query(join, [email, lane.slug]),
      prepare: administer(({ accountId }) => `/api/admin/guests/${accountId}`, 'DELETE'),
    },
    max_concurrent: {
      tells: true,
      before: (lane) => setPolicy(lane, { session: { maxConcurrent: 1 } }),
      async prepare({ lane, email, sides }) {
        const visit = await arrive(sides.here, { clientId: lane.app, scope: 'openid profile' })
        const submitted = await submitPassword(visit, email)
        // The session is entered by the last request of the sign-in.
        return async () => void (await finish(visit, submitted))
      },
      after: (lane) => setPolicy(lane, { session: { maxConcurrent: null } }),
    },
  }
}

async function signOut({ visitor }: Subject): Promise<Act> {
  const page = await visitor.go('/oauth/logout')
  const xsrf = /name="xsrf" value="([^"]+)"/.exec(page.text)?.[1] ?? ''
  return () => done(visitor.go('/oauth/logout/confirm', form({ logout: 'yes', xsrf })))
}

/** Over the API, whose sign-in takes the place of the session that the browser had. */
async function signInAnew({ visitor, email }: Subject): Promise<Act> {
  const { csrfToken } = JSON.parse(expectOk(await visitor.go('/api/auth/csrf')).text)
  const body = JSON.stringify({ email, password })
  return () => done(visitor.go('/api/auth/signin', body, { 'x-csrf-token': String(csrfToken) }, 'application/json'))
}

const changePassword = (where: Where) =>
  ownPage(
    '/account/password',
    '/account/password',
    ({ email }) => ({ current: password, password: newPassword, username: email }),
    where,
  )

/** By the link in a mail that was asked for at the sign-in. */
async function resetPassword({ lane, email, sides }: Subject): Promise<Act> {
  const visit = await askForMail({ lane, email, sides }, 'forgot')
  const { visitor, csrf } = await openLink(sides, email, '/recover', visit.visitor)
  return () => done(visitor.go('/recover', form({ csrf, password: newPassword, username: email })))
}

/** By the link in the notice of a change that the person made in this session, which therefore lives on until now. */
async function disown(subject: Subject): Promise<Act> {
  const { email, sides } = subject
  await (await changePassword('this browser')(subject))()
  const { visitor, csrf } = await openLink(sides, email, '/not-me', new Visitor(sides.here))
  return () => done(visitor.go('/not-me', form({ csrf })))
}

/** By the first sign-in with a link: whoever chose the password had proven nothing. */
async function proveAddress({ lane, email, sides }: Subject): Promise<Act> {
  const visit = await askForMail({ lane, email, sides }, 'link')
  const page = `${visit.path}/link`
  const { visitor, csrf } = await openLink(sides, email, page, visit.visitor)
  return () => done(visitor.go(`${page}/continue`, form({ csrf })))
}

let askers = 0

/** In another browser, each time at another address: one asks for few mails. */
async function askForMail({ lane, email, sides }: Pick<Subject, 'lane' | 'email' | 'sides'>, what: 'forgot' | 'link') {
  const visit = await arrive(sides.here, { clientId: lane.app, scope: 'openid profile' })
  askers += 1
  const from = { 'x-forwarded-for': `10.0.${askers >> 8}.${askers & 255}` }
  const answer = await visit.visitor.go(`${visit.path}/${what}`, form({ csrf: visit.csrf, email }), from)
  if (!answer.header('location')?.endsWith(`/${what}/sent`)) throw new Error(`no mail: ${answer.status}`)
  return visit
}

/** The page behind a link, whose form is the act. */
async function openLink({ here, there }: Sides, email: string, path: string, visitor: Visitor) {
  // It answers by sending the browser to the same page, without the token.
  const sent = await visitor.go(await mailedLink([here, there], email, path))
  return { visitor, csrf: csrfOf(expectOk(await visitor.go(String(sent.header('location'))))) }
}

type Where = 'this browser' | 'another browser'

/** A form on a page of /account. In another browser when what is ended is not that of the person's own doing. */
function ownPage(path: string, action: string, fields: (subject: Subject) => Record<string, string>, where: Where) {
  return async (subject: Subject): Promise<Act> => {
    const { lane, email, sides } = subject
    let { visitor } = subject
    if (where === 'another browser') {
      visitor = new Visitor(sides.here)
      const visit = await arrive(sides.here, { clientId: lane.app, scope: 'openid profile' }, visitor)
      await finish(visit, await submitPassword(visit, email))
    }
    const csrf = csrfOf(await visitor.go(path))
    return () => done(visitor.go(action, form({ csrf, ...fields(subject) })))
  }
}

async function done(answer: Promise<Reply>): Promise<undefined> {
  const { status, text } = await answer
  if (status >= 400) throw new Error(`the act was refused: ${status} ${text.slice(0, 400)}`)
}

// The pages of /account: the overview, the name, sessions, apps with access, activity and the download. What somebody
// signs in with is in credential-routes.ts. GET shows, POST acts and goes back to the page, which says what was done.
import type { FastifyInstance, FastifyReply } from 'fastify'
import { z } from 'zod'
import { countBackupCodes, warnAt } from '../credentials/backup-codes.ts'
import type { MailLinks } from '../credentials/mail-links.ts'
import { deviceInWords, type Notices, placeInWords } from '../credentials/notices.ts'
import type { Passwords } from '../credentials/password.ts'
import type { PasswordChange } from '../credentials/password-store.ts'
import type { Throttle } from '../credentials/throttle.ts'
import type { Database } from '../db/database.ts'
import { Refusal } from '../errors.ts'
import { personName } from '../http/forms.ts'
import type { Outbox } from '../mail/outbox.ts'
import type { BrowserSession } from '../oidc/browser-session.ts'
import { accountClientId } from '../oidc/provider.ts'
import { describeScopes } from '../oidc/scopes.ts'
import { sentenceFor } from './activity-words.ts'
import { addCredentialRoutes } from './credential-routes.ts'
import { callbackPath, createDoor, type Door, type DoorParts, type Visit } from './door.ts'
import { createEmailChange } from './email.ts'
import { createOwnAccount, type OwnAccount } from './own-account.ts'
import { createOwnPassword } from './password.ts'
import { addressOfState, confirmedAt, paths } from './places.ts'
import { createSecondFactors } from './second-factors.ts'
import { findApps, findEvents, findSessions, isBySomebodyElse, maxExportedEvents, type OwnEvent } from './store.ts'
import { capital, rolesInWords, whenInWords } from './words.ts'

const csrf = z.string().max(128)
const emptyForm = z.strictObject({ csrf })
const nameForm = z.strictObject({ csrf, name: personName })
const sessionForm = z.strictObject({ csrf, uid: z.string().max(128) })
const appForm = z.strictObject({ csrf, clientId: z.string().max(128) })

export interface AccountRouteParts extends DoorParts {
  readonly database: Database
  readonly passwords: Passwords
  readonly passwordChange: PasswordChange
  readonly throttle: Throttle
  readonly links: MailLinks
  readonly notices: Notices
  readonly outbox: Pick<Outbox, 'enqueue'>
  /** Whether second factors are offered on this platform. */
  readonly offersSecondFactor: boolean
  /** Whether somebody may see the apps that the organisation of their session runs. */
  maySeeOwnApps(session: BrowserSession): Promise<boolean>
}

export function addAccountRoutes(app: FastifyInstance, parts: AccountRouteParts): void {
  const { database, issuer } = parts
  const door = createDoor(app, parts)
  const own = createOwnAccount(parts)
  addCallback(app, parts)
  addOverview(door, database)
  addProfile(door, own)
  addSessions(door, own, database)
  addApps(door, own, parts)
  addActivity(door, database)
  addData(door, own)
  addCredentialRoutes(app, door, {
    issuer,
    database,
    email: createEmailChange(parts),
    password: createOwnPassword(parts),
    factors: createSecondFactors(parts),
    secrets: parts.secrets,
  })
}

/** Errors of our own authorization endpoint (RFC 6749 §4.1.2.1), in words. */
const callbackErrors: Readonly<Record<string, { readonly title: string; readonly text: string }>> = {
  access_denied: { title: 'You were not signed in', text: 'You cancelled the sign-in. Nothing was changed.' },
  unmet_authentication_requirements: {
    title: 'A second factor is needed here',
    text: 'Your account has a second factor, and this page asks for it. Sign in with it, or ask your administrator for help.',
  },
}
const otherError = { title: 'The sign-in did not work', text: 'Nothing was changed. Please try again in a moment.' }

/** The way back from a sign-in. The code in the address is left alone: the session is what counts. */
function addCallback(app: FastifyInstance, { issuer, views }: DoorParts): void {
  app.get(callbackPath, async (request, reply) => {
    const query = new URL(request.url, issuer).searchParams
    const error = query.get('error')
    const path = addressOfState(query.get('state') ?? undefined)
    if (error === null) return reply.header('cache-control', 'no-store').redirect(path, 303)
    const words = Object.hasOwn(callbackErrors, error) ? (callbackErrors[error] ?? otherError) : otherError
    return reply
      .code(error === 'access_denied' ? 200 : 403)
      .header('cache-control', 'no-store')
      .type('text/html; charset=utf-8')
      .send(views.render('self-service/not-signed-in', { ...words, path }, request.id))
  })
}

function addOverview(door: Door, database: Database): void {
  door.show(paths.overview, 'overview', 'session', async (visit) => {
    const { account } = visit
    const codesLeft = await countBackupCodes(database.kysely, account.id)
    const hasFactor = account.totpIds.length > 0
    return door.page(visit, 'overview', 'overview', 'Your account', {
      organizationName: account.organization.name,
      roles: rolesInWords(account.roles),
      emailVerified: account.emailVerified,
      passwordChanged: account.passwordChangedAt && whenInWords(account.passwordChangedAt),
      authenticators: account.totpIds.length,
      codesLeft,
      codesLow: hasFactor && codesLeft <= warnAt,
      mfaRequired: account.policy.mfa === 'required',
      sessions: (await findSessions(database, account.id)).length,
      apps: (await findApps(database, account.id)).length,
    })
  })
}

function addProfile(door: Door, own: OwnAccount): void {
  const page = (visit: Visit, name: string, error?: { readonly title: string; readonly text: string }) =>
    door.page(visit, 'profile', 'profile', 'Profile', {
      name,
      error,
      organizationName: visit.account.organization.name,
      roles: rolesInWords(visit.account.roles),
    })
  door.show(paths.profile, 'profile', 'session', async (visit) => page(visit, visit.account.name))
  door.act(paths.profile, { place: 'profile', need: 'session', form: nameForm }, async (visit, { name }) => {
    if (!/[\p{L}\p{N}]/u.test(name)) {
      visit.reply.code(400)
      return page(visit, name, { title: 'A name is needed', text: 'Enter your name as colleagues know you.' })
    }
    await own.rename(visit.account, name, visit.origin)
    return back(visit, confirmedAt('profile', 'name'))
  })
}

function addSessions(door: Door, own: OwnAccount, database: Database): void {
  door.show(paths.sessions, 'sessions', 'session', async (visit) => {
    const sessions = await findSessions(database, visit.account.id)
    return door.page(visit, 'sessions', 'sessions', 'Sessions', {
      sessions: sessions.map((session) => ({
        uid: session.uid,
        device: capital(deviceInWords(session.userAgent)),
        ip: session.ip,
        since: whenInWords(session.signedInAt),
        lastActivity: whenInWords(session.lastActivityAt),
        isCurrent: session.uid === visit.session.uid,
      })),
    })
  })
  const here = { place: 'sessions', need: 'session' } as const
  door.act(`${paths.sessions}/end`, { ...here, form: sessionForm }, async (visit, { uid }) => {
    const ended = await own.endSession(visit.account, uid, visit.session.uid, visit.origin)
    if (!ended) throw new Refusal('not_found')
    return back(visit, confirmedAt('sessions', 'session'))
  })
  door.act(`${paths.sessions}/end-others`, { ...here, form: emptyForm }, async (visit) => {
    await own.endOtherSessions(visit.account, visit.session.uid, visit.origin)
    return back(visit, confirmedAt('sessions', 'sessions'))
  })
}

function addApps(door: Door, own: OwnAccount, parts: Pick<AccountRouteParts, 'database' | 'maySeeOwnApps'>): void {
  door.show(paths.apps, 'apps', 'session', async (visit) => {
    const { session } = visit
    const apps = await findApps(parts.database, visit.account.id)
    return door.page(visit, 'apps', 'apps', 'Apps with access', {
      appsOf: (await parts.maySeeOwnApps(session)) ? session.account.organization.name : undefined,
      apps: apps.map((app) => ({ ...app, scopes: describeScopes(app.scopes), since: whenInWords(app.since) })),
    })
  })
  const to = { place: 'apps', need: 'session', form: appForm } as const
  door.act(`${paths.apps}/remove`, to, async (visit, { clientId }) => {
    const removed = await own.removeApp(visit.account, clientId, visit.session.uid, visit.origin)
    if (!removed) throw new Refusal('not_found')
    return back(visit, confirmedAt('apps', 'app'))
  })
}

function addActivity(door: Door, database: Database): void {
  door.show(paths.activity, 'activity', 'session', async (visit) => {
    const before = new URL(visit.request.url, 'http://local').searchParams.get('before') ?? undefined
    const { events, older } = await findEvents(database, visit.account.id, before)
    return door.page(visit, 'activity', 'activity', 'Activity', {
      events: events.map((event) => toLine(event, visit.account.id)),
      olderUrl: older && `${paths.activity}?before=${older}`,
      newestUrl: before === undefined ? undefined : paths.activity,
    })
  })
}

function toLine(event: OwnEvent, accountId: string) {
  const bySomebodyElse = isBySomebodyElse(event, accountId)
  const { name, outcome, details } = event
  const app =
    event.clientId === accountClientId ? 'your account pages' : (event.clientName ?? event.clientId ?? undefined)
  const hasPlace = !bySomebodyElse && event.ip !== null
  return {
    sentence: sentenceFor({ name, outcome, details, app, bySomebodyElse }),
    failed: outcome === 'failure',
    at: whenInWords(event.occurredAt),
    place: hasPlace ? placeInWords({ ip: event.ip ?? undefined, userAgent: event.userAgent ?? undefined }) : undefined,
  }
}

function addData(door: Door, own: OwnAccount): void {
  door.show(paths.data, 'data', 'fresh', async (visit) =>
    door.page(visit, 'data', 'data', 'Your data', { maxEvents: maxExportedEvents.toLocaleString('en-GB') }),
  )
  door.act(paths.data, { place: 'data', need: 'fresh', form: emptyForm }, async (visit) => {
    const data = await own.exportData(visit.account, visit.session.uid, visit.origin)
    return visit.reply
      .header('cache-control', 'no-store')
      .header('content-disposition', 'attachment; filename="mlpipes-account.json"')
      .type('application/json; charset=utf-8')
      .send(JSON.stringify(data, undefined, 2))
  })
}

function back({ reply }: Visit, address: string): FastifyReply {
  return reply.header('cache-control', 'no-store').redirect(address, 303)
}

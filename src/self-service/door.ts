// Who comes into /account, and how: the session of this browser, the sign-in that it is sent through without one, and the
// fresh sign-in that sensitive changes ask for. What the pages do is theirs.
import { randomBytes } from 'node:crypto'
import type { FastifyInstance, FastifyReply, FastifyRequest } from 'fastify'
import type { z } from 'zod'
import type { Accounts, SignInAccount } from '../accounts/accounts.ts'
import type { Origin } from '../audit/events.ts'
import type { DeviceCookie } from '../credentials/devices.ts'
import { type Secrets, sha256 } from '../crypto/secrets.ts'
import { assertCsrf, csrfToken } from '../http/csrf.ts'
import { parseForm } from '../http/forms.ts'
import { originOf } from '../http/origin.ts'
import type { Views } from '../http/views.ts'
import { satisfies } from '../oidc/acr.ts'
import type { BrowserSession, BrowserSessions } from '../oidc/browser-session.ts'
import { accountClientId, authorizePath } from '../oidc/provider.ts'
import { confirmationText, navigation, type Place, stateOf } from './places.ts'

/** How long a sign-in counts as fresh. */
export const freshSeconds = 300
const strongest = 'urn:mlpipes:acr:mfa'
export const callbackPath = '/account/callback'

/** One request of somebody who is signed in. */
export interface Visit {
  readonly request: FastifyRequest
  readonly reply: FastifyReply
  readonly session: BrowserSession
  readonly account: SignInAccount
  readonly origin: Origin
  readonly deviceHash: string | undefined
  /** Whether sensitive changes may be made without signing in again. */
  readonly isFresh: boolean
}

/** `session`: whoever is signed in. `fresh`: whoever signed in minutes ago, with the second factor that they have. */
export type Need = 'session' | 'fresh'

export interface Door {
  /** The visit of a signed-in browser; undefined when it was sent to sign in. For pages that look at the request first. */
  enter(request: FastifyRequest, reply: FastifyReply, place: Place): Promise<Visit | undefined>
  /** A page: shows, changes nothing. `place` is where a sign-in comes back to. */
  show(path: string, place: Place, need: Need, handle: (visit: Visit) => Promise<FastifyReply>): void
  /** A form of ours: read, held against its token, then carried out. */
  act<T extends { readonly csrf: string }>(
    path: string,
    to: { readonly place: Place; readonly need: Need; readonly form: z.ZodType<T> },
    handle: (visit: Visit, form: T) => Promise<FastifyReply>,
  ): void
  /** Renders a page in the frame of /account. */
  page(visit: Visit, place: Place, name: string, title: string, data?: Readonly<Record<string, unknown>>): FastifyReply
}

export interface DoorParts {
  readonly issuer: string
  readonly browserSessions: BrowserSessions
  readonly accounts: Accounts
  readonly devices: DeviceCookie
  readonly secrets: Secrets
  readonly views: Views
  now(): Date
}

/** @param folder of the views of these pages */
export function createDoor(app: FastifyInstance, parts: DoorParts, folder = 'self-service'): Door {
  const { issuer, browserSessions, accounts, devices, secrets, views, now } = parts

  async function enter(request: FastifyRequest, reply: FastifyReply, place: Place): Promise<Visit | undefined> {
    const session = await browserSessions.read(request.cookies, originOf(request.raw).ip)
    const account = session && (await accounts.findForSignInById(session.account.id))
    if (!session || !account?.active) {
      sendToSignIn({ request, reply }, issuer, place, {})
      return undefined
    }
    return {
      request,
      reply,
      session,
      account,
      origin: originOf(request.raw),
      deviceHash: devices.read(request.cookies),
      isFresh: isFresh(session, account, now()),
    }
  }

  /** Whether the visit may go on; sends the person through a fresh sign-in when not (F65). */
  function isLetIn({ request, reply, account, isFresh }: Visit, place: Place, need: Need): boolean {
    if (need === 'session' || isFresh) return true
    sendToSignIn({ request, reply }, issuer, place, {
      max_age: String(freshSeconds),
      ...(account.totpIds.length > 0 ? { acr_values: strongest } : {}),
    })
    return false
  }

  return {
    enter,
    show(path, place, need, handle) {
      app.get(path, async (request, reply) => {
        const visit = await enter(request, reply, place)
        return visit && isLetIn(visit, place, need) ? handle(visit) : reply
      })
    },
    act(path, { place, need, form }, handle) {
      app.post(path, async (request, reply) => {
        const visit = await enter(request, reply, place)
        if (!visit) return reply
        const read = parseForm(form, request.body)
        assertCsrf(request, secrets, issuer, visit.session.uid, read.csrf)
        return isLetIn(visit, place, need) ? handle(visit, read) : reply
      })
    },
    page({ request, reply, session, account, isFresh }, place, name, title, data = {}) {
      const done = new URL(request.url, issuer).searchParams.get('done') ?? undefined
      const common = {
        title,
        nav: navigation(place),
        csrf: csrfToken(secrets, session.uid),
        me: { name: account.name, email: account.email },
        done: request.method === 'GET' ? confirmationText(done) : undefined,
        isFresh,
      }
      return reply
        .header('cache-control', 'no-store')
        .type('text/html; charset=utf-8')
        .send(views.render(`${folder}/${name}`, { ...common, ...data }, request.id))
    },
  }
}

/** Counts as the provider does with `max_age`: in whole seconds, so that what is stale here is stale there. */
function isFresh(session: BrowserSession, account: SignInAccount, now: Date): boolean {
  const ageSeconds = Math.floor(now.getTime() / 1000) - Math.floor(session.signedInAt.getTime() / 1000)
  const isStrong = account.totpIds.length === 0 || satisfies(session.acr, strongest)
  return ageSeconds <= freshSeconds && isStrong
}

/**
 * Sends the browser through our own authorization endpoint. The code that comes back is never redeemed: what counts is
 * the session that the sign-in leaves. So nobody keeps the PKCE verifier, and nobody else can redeem it either.
 */
function sendToSignIn(
  { request, reply }: Pick<Visit, 'request' | 'reply'>,
  issuer: string,
  place: Place,
  more: { readonly max_age?: string; readonly acr_values?: string },
): void {
  const parameters = new URLSearchParams({
    client_id: accountClientId,
    response_type: 'code',
    redirect_uri: `${issuer}${callbackPath}`,
    scope: 'openid',
    state: stateOf(place, itemOf(request)),
    code_challenge: sha256(randomBytes(32).toString('base64url')),
    code_challenge_method: 'S256',
    ...more,
  })
  reply.header('cache-control', 'no-store').redirect(`${authorizePath}?${parameters}`, 303)
}

/** The app that a page is about. */
export function itemOf({ params }: Pick<FastifyRequest, 'params'>): string | undefined {
  const item: unknown = Reflect.get(Object(params), 'clientId')
  return typeof item === 'string' ? item : undefined
}

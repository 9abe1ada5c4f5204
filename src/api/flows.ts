// A sign-in over the API. It is the same flow of proofs as on the pages (login/login.ts), without an authorization request:
// the browser holds it by a cookie, and its end makes a session here and now.
import { randomBytes } from 'node:crypto'
import type { FastifyReply, FastifyRequest } from 'fastify'
import type { Accounts } from '../accounts/accounts.ts'
import type { Origin } from '../audit/events.ts'
import { sha256 } from '../crypto/secrets.ts'
import { type Database, runIn, type Tx } from '../db/database.ts'
import { inRequestTransaction } from '../db/transaction.ts'
import type { LoginInteraction, LoginResult } from '../login/login.ts'
import { sessionCookieName } from '../oidc/browser-session.ts'
import type { DirectSessions } from '../oidc/direct-session.ts'
import { endSession } from '../sessions/ending.ts'
import type { Sessions } from '../sessions/sessions.ts'
import type { CallingApp } from './origins.ts'

const tokenBytes = 32
const tokenPattern = /^[A-Za-z0-9_-]{43}$/
/** As long as login/store.ts keeps a flow. */
const maxAgeSeconds = 900
const path = '/api/auth'

const isOver = 'select expires_at <= now() as over from mlpipes_auth.sign_in_flows where interaction_hash = $1'
// A flow that was finished must not be gone on with: what it proved would count again for whoever kept its cookie. The
// row stays, past its time, and its id cannot be used anew.
const close = 'update mlpipes_auth.sign_in_flows set expires_at = now() where interaction_hash = $1'

/** One sign-in as this browser holds it. */
export interface ApiFlow {
  readonly interaction: LoginInteraction
  /** The session that it ended in; undefined until that is committed. */
  sessionId(): string | undefined
}

export interface Flows {
  /** The sign-in of this browser, or a new one. Gives the browser its cookie. */
  begin(request: FastifyRequest, reply: FastifyReply, app: CallingApp, origin: Origin): Promise<ApiFlow>
  /** The sign-in of this browser; without one, a sign-in that stands at its beginning and that nobody can come back to. */
  open(request: FastifyRequest, app: CallingApp, origin: Origin): ApiFlow
  /** Takes the cookie away, when the sign-in is over. */
  forget(reply: FastifyReply): void
}

export function createFlows(parts: {
  readonly issuer: string
  readonly database: Database
  readonly accounts: Accounts
  readonly sessions: Sessions
  readonly directSessions: DirectSessions
}): Flows {
  const { database, accounts, sessions, directSessions } = parts
  const secure = parts.issuer.startsWith('https://')
  const name = secure ? '__Secure-mlpipes_flow' : 'mlpipes_flow'
  const cookie = { path, httpOnly: true, secure, sameSite: 'lax' } as const
  const sessionCookie = sessionCookieName(parts.issuer)
  const newToken = () => randomBytes(tokenBytes).toString('base64url')
  const tokenOf = (request: FastifyRequest) => {
    const token = request.cookies[name]
    return token !== undefined && tokenPattern.test(token) ? token : undefined
  }

  /** The session that the browser had before ends with the sign-in that takes its place (F21). */
  async function endOld(tx: Tx, id: string | undefined, origin: Origin): Promise<void> {
    const old = id === undefined ? undefined : await sessions.findById(sha256(id))
    if (!old) return
    const { uid, accountId } = old
    if (accountId === undefined) return void (await sessions.end(tx, sha256(id ?? ''), 'signed_in_anew'))
    const account = await accounts.findForSignInById(accountId, tx)
    await endSession(tx, {
      uid,
      accountId,
      organizationId: account?.organization.id,
      cause: 'signed_in_anew',
      actor: { type: 'account', id: accountId },
      origin,
    })
  }

  function flow(token: string, request: FastifyRequest, app: CallingApp, origin: Origin): ApiFlow {
    // Links name the flow by this id; the cookie itself stands in no address.
    const uid = sha256(`api-flow:${token}`)
    let sessionId: string | undefined
    // The last run of a transaction that collided and was run again is the one that counts.
    const finish = (result: LoginResult) =>
      inRequestTransaction(database.kysely, async (tx) => {
        await endOld(tx, request.cookies[sessionCookie], origin)
        await runIn(tx, close, [sha256(uid)])
        sessionId = await directSessions.create(result, {
          origin,
          clientId: app.id,
          organizationId: result.organizationId,
          place: app.place,
        })
      })
    const interaction = {
      uid,
      clientId: app.id,
      clientName: app.name,
      organizationId: app.organizationId,
      place: { client: app.place },
      ip: origin.ip,
      acr: undefined,
      // Everything is proven anew: what an app asks for at /oauth/authorize is asked there.
      before: undefined,
      finish,
    }
    return { interaction, sessionId: () => sessionId }
  }

  return {
    async begin(request, reply, app, origin) {
      const held = tokenOf(request)
      const [row] = held === undefined ? [] : await database.run(isOver, [sha256(sha256(`api-flow:${held}`))])
      const token = held === undefined || row?.['over'] === true ? newToken() : held
      reply.setCookie(name, token, { ...cookie, maxAge: maxAgeSeconds })
      return flow(token, request, app, origin)
    },
    open: (request, app, origin) => flow(tokenOf(request) ?? newToken(), request, app, origin),
    forget: (reply) => void reply.clearCookie(name, cookie),
  }
}

// Harbor EHR: a small app that signs people in with MLPipes, as an integrator would write it.
import { readFile } from 'node:fs/promises'
import { join } from 'node:path'
import cookie from '@fastify/cookie'
import { Eta } from 'eta'
import Fastify, { type FastifyError, type FastifyReply } from 'fastify'
import { addApi, type Patient, patientList } from './api.ts'
import { createOidc, errorCode, type Pending, type SignedIn, signInWishes } from './oidc.ts'
import { createStore } from './visits.ts'

export interface EhrOptions {
  readonly issuer: string
  readonly port: number
  readonly host?: string
  readonly clientId: string
  readonly clientSecret: string
  readonly apiClientId: string
  readonly apiClientSecret: string
}

interface Visit {
  signedIn: SignedIn
  refreshing?: Promise<SignedIn | undefined>
}

const visitCookie = 'harbor_visit'
const pendingCookie = 'harbor_sign_in'
// http://localhost is the only address of this app; one with https adds secure: true.
const cookieOptions = { httpOnly: true, sameSite: 'lax', path: '/' } as const
const refreshAheadMs = 30_000
const apiTimeoutMs = 10_000
const noAnswer = 'The identity provider does not answer. Please try again in a moment.'

/** Starts the app. The identity provider need not run yet. */
export async function startEhr(options: EhrOptions): Promise<{ url: string; close(): Promise<void> }> {
  const { issuer, clientId, clientSecret } = options
  const appUrl = `http://localhost:${options.port}`
  const oidc = createOidc({ issuer, clientId, clientSecret, appUrl })
  const views = new Eta({ views: join(import.meta.dirname, 'views'), cache: true })
  const styles = await readFile(join(import.meta.dirname, 'ehr.css'), 'utf8')
  // Two stores, because anybody can begin a sign-in: strangers who fill one must not push people out of the other.
  const pendings = createStore<Pending>({ limit: 1_000, lifeMs: 15 * 60_000 })
  const visits = createStore<Visit>({ limit: 1_000, lifeMs: 12 * 3_600_000 })
  // Closing must not wait for idle connections that browsers keep open.
  const app = Fastify({ forceCloseConnections: true })
  await app.register(cookie)
  addApi(app, {
    issuer,
    clientId: options.apiClientId,
    clientSecret: options.apiClientSecret,
    acceptedClientId: clientId,
  })

  app.addHook('onRequest', async (_request, reply) => {
    reply.headers({
      'content-security-policy':
        "default-src 'none'; style-src 'self'; form-action 'self'; frame-ancestors 'none'; base-uri 'none'",
      'referrer-policy': 'no-referrer',
      'x-content-type-options': 'nosniff',
      'cache-control': 'no-store',
    })
  })

  const page = (reply: FastifyReply, name: string, data: Record<string, unknown>) =>
    reply.type('text/html; charset=utf-8').send(views.render(`/${name}`, data))

  const problem = (reply: FastifyReply, title: string, text: string, status = 400) =>
    page(reply.code(status), 'problem', { title, text })

  app.setNotFoundHandler((_request, reply) =>
    problem(reply, 'There is no such page', 'The address may be mistyped. Start again from the first page.', 404),
  )
  app.setErrorHandler<FastifyError>((error, _request, reply) => {
    const status = error.statusCode ?? 500
    if (status >= 500) process.stderr.write(`Harbor EHR: ${error.message}\n`)
    return problem(reply, 'Something went wrong', 'This is not your fault. Please try again in a moment.', status)
  })

  /** Tokens that are good for a while yet, or nothing if the sign-in is over. Requests that arrive together share one refresh. */
  const freshTokens = async (visit: Visit): Promise<SignedIn | undefined> => {
    const { signedIn } = visit
    const isFresh = signedIn.expiresAt.getTime() - Date.now() > refreshAheadMs
    if (isFresh || signedIn.refreshToken === undefined) return signedIn
    // Sending a rotated refresh token twice looks like theft and ends the sign-in, so the new one is kept before
    // anybody who comes later can look.
    visit.refreshing ??= oidc
      .refresh(signedIn)
      .then((fresh) => {
        if (fresh) visit.signedIn = fresh
        return fresh
      })
      .finally(() => delete visit.refreshing)
    return visit.refreshing
  }

  /** The list, or nothing if the API does not accept the token. Throws when the API cannot say. */
  const readPatients = async (accessToken: string): Promise<readonly Patient[] | undefined> => {
    const response = await fetch(`${appUrl}/api/patients`, {
      headers: { authorization: `Bearer ${accessToken}` },
      signal: AbortSignal.timeout(apiTimeoutMs),
    })
    if (response.status === 401) return undefined
    if (!response.ok) throw new Error(`the API answered ${response.status}`)
    return patientList.parse(await response.json()).patients
  }

  app.get('/ehr.css', (_request, reply) => reply.type('text/css').send(styles))

  app.get('/', async (request, reply) => {
    const visitId = request.cookies[visitCookie]
    const visit = visits.get(visitId)
    if (!visit) return page(reply, 'welcome', { title: 'Harbor EHR' })
    try {
      const signedIn = await freshTokens(visit)
      const patients = signedIn && (await readPatients(signedIn.accessToken))
      if (signedIn && patients) return page(reply, 'ward', { title: 'Ward list · Harbor EHR', signedIn, patients })
    } catch {
      // The person is still signed in as far as anybody knows: the visit stays, but shows no patients.
      return problem(reply, 'The ward list is not available', noAnswer, 503)
    }
    // The session ended at the provider: signed out elsewhere, idle too long, or disabled.
    visits.remove(visitId)
    reply.clearCookie(visitCookie, cookieOptions)
    return page(reply, 'welcome', { title: 'Harbor EHR', notice: 'Your session has ended. Please sign in again.' })
  })

  app.get('/login', async (request, reply) => {
    try {
      const { url, pending } = await oidc.begin(signInWishes.parse(request.query))
      reply.setCookie(pendingCookie, pendings.add(pending), cookieOptions)
      return reply.redirect(url.href, 303)
    } catch {
      return problem(reply, 'Sign-in is not available', noAnswer, 503)
    }
  })

  app.get('/callback', async (request, reply) => {
    const pendingId = request.cookies[pendingCookie]
    const pending = pendings.get(pendingId)
    if (!pending)
      return problem(
        reply,
        'This sign-in was not started here',
        'It may have been finished in another tab, or be too old. Start again from the first page.',
      )
    pendings.remove(pendingId)
    reply.clearCookie(pendingCookie, cookieOptions)
    try {
      const signedIn = await oidc.complete(new URL(request.url, appUrl), pending)
      // A new id after sign-in: one that somebody planted before is worth nothing.
      visits.remove(request.cookies[visitCookie])
      reply.setCookie(visitCookie, visits.add({ signedIn }), cookieOptions)
      return reply.redirect('/', 303)
    } catch (error) {
      return problem(reply, ...explain(errorCode(error)))
    }
  })

  app.get('/logout', async (request, reply) => {
    const visitId = request.cookies[visitCookie]
    const visit = visits.get(visitId)
    visits.remove(visitId)
    reply.clearCookie(visitCookie, cookieOptions)
    if (!visit) return reply.redirect('/', 303)
    try {
      return reply.redirect((await oidc.signOutUrl(visit.signedIn)).href, 303)
    } catch {
      const text =
        'The identity provider does not answer, so you may still be signed in there. Sign out there later, or close your browser.'
      return problem(reply, 'You are signed out of Harbor EHR only', text, 200)
    }
  })

  await app.listen({ port: options.port, host: options.host ?? '127.0.0.1' })
  return { url: appUrl, close: () => app.close() }
}

/** What happened and what to do, for a sign-in that did not complete. */
function explain(code: string | undefined): [title: string, text: string] {
  const notSignedIn = 'You were not signed in'
  switch (code) {
    case 'access_denied':
      return [
        notSignedIn,
        'Access was not allowed. Nothing was shared with this app. You can try again whenever you like.',
      ]
    case 'login_required':
    case 'interaction_required':
    case 'consent_required':
      return [
        notSignedIn,
        'The identity provider needs to ask you something first. Please sign in from the first page.',
      ]
    default:
      return [
        'Signing in did not work',
        `The answer of the identity provider could not be used${code ? ` (${code})` : ''}. Please try again.`,
      ]
  }
}

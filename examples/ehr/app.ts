// Harbor EHR: a small app that signs people in with MLPipes, as an integrator would write it.
import { randomBytes } from 'node:crypto'
import { readFile } from 'node:fs/promises'
import { join } from 'node:path'
import cookie from '@fastify/cookie'
import { Eta } from 'eta'
import Fastify, { type FastifyReply, type FastifyRequest } from 'fastify'
import { addApi, type Patient } from './api.ts'
import { createOidc, type Pending, type SignedIn } from './oidc.ts'

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
  pending?: Pending
  signedIn?: SignedIn
  refreshing?: Promise<SignedIn>
  seenAt: number
}

const visitCookie = 'harbor_visit'
const maxVisits = 1_000
const visitMs = 12 * 3_600_000
const refreshAheadMs = 30_000
const passedThrough = ['prompt', 'max_age', 'login_hint'] as const

/** Starts the app. The identity provider need not run yet. */
export async function startEhr(options: EhrOptions): Promise<{ url: string; close(): Promise<void> }> {
  const appUrl = `http://localhost:${options.port}`
  const oidc = createOidc({
    issuer: options.issuer,
    clientId: options.clientId,
    clientSecret: options.clientSecret,
    appUrl,
  })
  const views = new Eta({ views: join(import.meta.dirname, 'views'), cache: true })
  const styles = await readFile(join(import.meta.dirname, 'ehr.css'), 'utf8')
  const visits = new Map<string, Visit>()
  const app = Fastify({ forceCloseConnections: true })
  await app.register(cookie)
  addApi(app, { issuer: options.issuer, clientId: options.apiClientId, clientSecret: options.apiClientSecret })

  app.addHook('onRequest', async (_request, reply) => {
    reply.headers({
      'content-security-policy':
        "default-src 'none'; style-src 'self'; form-action 'self'; frame-ancestors 'none'; base-uri 'none'",
      'referrer-policy': 'no-referrer',
      'x-content-type-options': 'nosniff',
      'cache-control': 'no-store',
    })
  })

  /** The visit of this browser. Ids are random and stay on the server with the tokens. */
  const visitOf = (request: FastifyRequest): Visit | undefined => {
    const visit = visits.get(request.cookies[visitCookie] ?? '')
    return visit && Date.now() - visit.seenAt < visitMs ? visit : undefined
  }

  const newVisit = (reply: FastifyReply, visit: Omit<Visit, 'seenAt'>): void => {
    if (visits.size >= maxVisits) visits.delete(visits.keys().next().value ?? '')
    const id = randomBytes(32).toString('base64url')
    visits.set(id, { ...visit, seenAt: Date.now() })
    reply.setCookie(visitCookie, id, { httpOnly: true, sameSite: 'lax', path: '/' })
  }

  const page = (reply: FastifyReply, name: string, data: Record<string, unknown>) =>
    reply.type('text/html; charset=utf-8').send(views.render(`/${name}`, data))

  const problem = (reply: FastifyReply, title: string, text: string) =>
    page(reply.code(400), 'problem', { title, text })

  /** An access token that is good for a while yet. Requests that arrive together share one refresh. */
  const freshTokens = async (visit: Visit, signedIn: SignedIn): Promise<SignedIn> => {
    if (signedIn.expiresAt.getTime() - Date.now() > refreshAheadMs || signedIn.refreshToken === undefined)
      return signedIn
    visit.refreshing ??= oidc.refresh(signedIn).finally(() => delete visit.refreshing)
    visit.signedIn = await visit.refreshing
    return visit.signedIn
  }

  const readPatients = async (accessToken: string): Promise<readonly Patient[] | undefined> => {
    const response = await fetch(`${appUrl}/api/patients`, { headers: { authorization: `Bearer ${accessToken}` } })
    if (response.status !== 200) return undefined
    const body = (await response.json()) as { patients: readonly Patient[] }
    return body.patients
  }

  app.get('/ehr.css', (_request, reply) => reply.type('text/css').send(styles))

  app.get('/', async (request, reply) => {
    const visit = visitOf(request)
    if (!visit?.signedIn) return page(reply, 'welcome', { title: 'Harbor EHR' })
    const signedIn = await freshTokens(visit, visit.signedIn).catch(() => undefined)
    const patients = signedIn && (await readPatients(signedIn.accessToken))
    if (!signedIn || !patients) {
      // The session ended at the provider: signed out elsewhere, idle too long, or disabled.
      visits.delete(request.cookies[visitCookie] ?? '')
      return page(reply, 'welcome', { title: 'Harbor EHR', notice: 'Your session has ended. Please sign in again.' })
    }
    return page(reply, 'ward', { title: 'Ward list · Harbor EHR', signedIn, patients })
  })

  app.get('/login', async (request, reply) => {
    const query = request.query as Record<string, unknown>
    const extra = passedThrough.flatMap((name) =>
      typeof query[name] === 'string' ? [[name, query[name]] as const] : [],
    )
    try {
      const { url, pending } = await oidc.begin(Object.fromEntries(extra))
      newVisit(reply, { pending })
      return reply.redirect(url.href, 303)
    } catch {
      return problem(
        reply,
        'Sign-in is not available',
        'The identity provider does not answer. Please try again in a moment.',
      )
    }
  })

  app.get('/callback', async (request, reply) => {
    const visit = visitOf(request)
    if (!visit?.pending)
      return problem(
        reply,
        'This sign-in was not started here',
        'It may have been finished in another tab, or be too old. Start again from the first page.',
      )
    visits.delete(request.cookies[visitCookie] ?? '')
    try {
      // A new id after sign-in: one that somebody planted before is worth nothing.
      newVisit(reply, { signedIn: await oidc.complete(new URL(request.url, appUrl), visit.pending) })
      return reply.redirect('/', 303)
    } catch (error) {
      const code = error instanceof Error && 'error' in error ? String(error.error) : 'unknown'
      if (code === 'access_denied')
        return problem(
          reply,
          'You were not signed in',
          'Access was not allowed. Nothing was shared with this app. You can try again whenever you like.',
        )
      return problem(
        reply,
        'Signing in did not work',
        `The answer of the identity provider could not be used (${code}). Please try again.`,
      )
    }
  })

  app.get('/logout', async (request, reply) => {
    const visit = visitOf(request)
    visits.delete(request.cookies[visitCookie] ?? '')
    reply.clearCookie(visitCookie, { path: '/' })
    return reply.redirect(visit?.signedIn ? (await oidc.signOutUrl(visit.signedIn)).href : '/', 303)
  })

  await app.listen({ port: options.port, host: options.host ?? '127.0.0.1' })
  return { url: appUrl, close: () => app.close() }
}

// The pages behind links that stand on their own: a new password, and "this was not me". GET shows, POST spends.
import type { FastifyInstance, FastifyReply, FastifyRequest } from 'fastify'
import { z } from 'zod'
import type { SignInAccount } from '../accounts/accounts.ts'
import type { DeviceCookie } from '../credentials/devices.ts'
import type { Secrets } from '../crypto/secrets.ts'
import { assertCsrf, csrfToken } from '../http/csrf.ts'
import { parseForm } from '../http/forms.ts'
import { createLinkCookie } from '../http/link-cookie.ts'
import { createLinkPages } from '../http/link-pages.ts'
import { originOf } from '../http/origin.ts'
import type { Views } from '../http/views.ts'
import { newPasswordData, type PageError, refusalTexts, throttledText } from '../login/pages.ts'
import type { Disowning } from './disown.ts'
import type { Recovery } from './recovery.ts'

const csrf = z.string().max(128)
const recoverForm = z.strictObject({
  csrf,
  password: z.string().max(2_048),
  code: z.string().max(64).default(''),
  // There for password managers, which want to know whose password this is.
  username: z.string().max(320).optional(),
})
const emptyForm = z.strictObject({ csrf })

interface Parts {
  readonly issuer: string
  readonly recovery: Recovery
  readonly disowning: Disowning
  readonly devices: DeviceCookie
  readonly secrets: Secrets
  readonly views: Views
}

export function addRecoveryRoutes(app: FastifyInstance, parts: Parts): void {
  const { recovery, disowning, secrets, views } = parts
  const linkCookie = createLinkCookie(parts.issuer)

  const { show, dead } = createLinkPages(views)

  const recoverPage = (
    request: FastifyRequest,
    reply: FastifyReply,
    token: string,
    account: SignInAccount,
    problems: Parameters<typeof newPasswordData>[1],
    error?: PageError,
  ) =>
    show(request, reply, 'recovery/recover', 'Choose a new password', {
      csrf: csrfToken(secrets, token),
      email: account.email,
      needsCode: account.totpIds.length > 0,
      error,
      ...newPasswordData(account.policy, problems),
    })

  app.get('/recover', async (request, reply) => {
    const { token, sent } = linkCookie.receive(request, reply)
    if (sent) return reply
    const account = token === undefined ? undefined : await recovery.look(token)
    return token !== undefined && account ? recoverPage(request, reply, token, account, []) : dead(request, reply)
  })

  app.post('/recover', async (request, reply) => {
    const form = parseForm(recoverForm, request.body)
    const token = linkCookie.read(request)
    if (token === undefined) return dead(request, reply)
    assertCsrf(request, secrets, parts.issuer, token, form.csrf)
    const visitor = { origin: originOf(request.raw), deviceHash: parts.devices.read(request.cookies) }
    const outcome = await recovery.reset(token, form, visitor)
    if (outcome.step === 'done') {
      linkCookie.clear(reply, '/recover')
      return show(request, reply, 'recovery/recovered', 'Your password is changed')
    }
    const account = await recovery.look(token)
    if (!account || (outcome.step === 'refused' && outcome.reason === 'link_dead')) return dead(request, reply)
    if (outcome.step === 'throttled') {
      reply.code(429).header('retry-after', String(outcome.retryAfterSeconds))
      return recoverPage(request, reply, token, account, [], throttledText(outcome.retryAfterSeconds))
    }
    reply.code(outcome.reason === 'password' ? 400 : 401)
    return outcome.reason === 'password'
      ? recoverPage(request, reply, token, account, outcome.problems)
      : recoverPage(request, reply, token, account, [], refusalTexts.code_mismatch)
  })

  app.get('/not-me', async (request, reply) => {
    const { token, sent } = linkCookie.receive(request, reply)
    if (sent) return reply
    if (token === undefined || !(await disowning.look(token))) return dead(request, reply)
    return show(request, reply, 'recovery/not-me', 'Was this not you?', { csrf: csrfToken(secrets, token) })
  })

  app.post('/not-me', async (request, reply) => {
    const form = parseForm(emptyForm, request.body)
    const token = linkCookie.read(request)
    if (token === undefined) return dead(request, reply)
    assertCsrf(request, secrets, parts.issuer, token, form.csrf)
    linkCookie.clear(reply, '/not-me')
    const done = await disowning.disown(token, originOf(request.raw))
    return done ? show(request, reply, 'recovery/disowned', 'Everything is signed out') : dead(request, reply)
  })
}

// The sign-in pages under /interaction/:uid. They show what the flow says and carry out what it decides.
import type { FastifyInstance, FastifyReply, FastifyRequest } from 'fastify'
import { z } from 'zod'
import type { Accounts } from '../accounts/accounts.ts'
import type { Secrets } from '../crypto/secrets.ts'
import { Refusal } from '../errors.ts'
import { assertCsrf, csrfToken } from '../http/csrf.ts'
import { originOf } from '../http/origin.ts'
import type { Views } from '../http/views.ts'
import type { Interactions, OpenInteraction } from '../oidc/interactions.ts'
import { describeScopes } from '../oidc/scopes.ts'
import type { Login, LoginOutcome } from './login.ts'

const uidSchema = z.strictObject({ uid: z.string().regex(/^[A-Za-z0-9_-]{1,64}$/) })
const csrf = z.string().max(128)
const passwordForm = z.strictObject({ csrf, email: z.string().max(320), password: z.string().max(2_048) })
const codeForm = z.strictObject({ csrf, code: z.string().max(64) })
const consentForm = z.strictObject({ csrf, decision: z.enum(['allow', 'deny']) })
const cancelForm = z.strictObject({ csrf })

interface Parts {
  readonly issuer: string
  readonly interactions: Interactions
  readonly login: Login
  readonly accounts: Accounts
  readonly secrets: Secrets
  readonly views: Views
}

interface PageError {
  readonly title: string
  readonly text: string
}

export function addLoginRoutes(app: FastifyInstance, parts: Parts): void {
  const { interactions, login, secrets, views } = parts
  const open = (request: FastifyRequest, reply: FastifyReply) =>
    interactions.open(request, reply, parse(uidSchema, request.params).uid)

  const submitted = async <T extends { csrf: string }>(
    request: FastifyRequest,
    reply: FastifyReply,
    schema: z.ZodType<T>,
  ) => {
    const interaction = await open(request, reply)
    const form = parse(schema, request.body)
    assertCsrf(request, secrets, parts.issuer, interaction.uid, form.csrf)
    return { interaction, form }
  }

  const page = (
    request: FastifyRequest,
    reply: FastifyReply,
    name: string,
    interaction: OpenInteraction,
    data: Record<string, unknown>,
  ) => {
    reply.header('cache-control', 'no-store').type('text/html; charset=utf-8')
    const path = `/interaction/${interaction.uid}`
    const common = {
      csrf: csrfToken(secrets, interaction.uid),
      clientName: interaction.client.name,
      organizationName: interaction.client.organizationName,
      cancelAction: `${path}/cancel`,
    }
    return reply.send(views.render(name, { ...common, ...data }, request.id))
  }

  const signInPage = (
    request: FastifyRequest,
    reply: FastifyReply,
    interaction: OpenInteraction,
    email: string,
    error?: PageError,
  ) =>
    page(request, reply, 'login/sign-in', interaction, {
      title: `Sign in to ${interaction.client.name}`,
      action: `/interaction/${interaction.uid}/password`,
      email,
      error,
      magicLink: false,
      signup: false,
      forgotPassword: false,
    })

  const codePage = (
    request: FastifyRequest,
    reply: FastifyReply,
    interaction: OpenInteraction,
    email: string,
    error?: PageError,
  ) =>
    page(request, reply, 'login/second-factor', interaction, {
      title: 'Confirm it is you',
      action: `/interaction/${interaction.uid}/totp`,
      email,
      error,
    })

  app.get('/interaction/:uid', async (request, reply) => {
    const interaction = await open(request, reply)
    if (interaction.prompt === 'consent') return consentPage(request, reply, interaction)
    const { step, email } = await login.stepOf(interaction.uid)
    if (step === 'second_factor') return codePage(request, reply, interaction, email ?? '')
    return signInPage(request, reply, interaction, interaction.loginHint)
  })

  async function consentPage(request: FastifyRequest, reply: FastifyReply, interaction: OpenInteraction) {
    const account =
      interaction.accountId === undefined ? undefined : await parts.accounts.findActive(interaction.accountId)
    return page(request, reply, 'login/consent', interaction, {
      title: `Allow ${interaction.client.name}`,
      action: `/interaction/${interaction.uid}/consent`,
      email: account?.email ?? '',
      firstTime: interaction.firstTime,
      scopes: describeScopes(interaction.missingScopes),
      redirectHost: interaction.redirectHost,
    })
  }

  app.post('/interaction/:uid/password', async (request, reply) => {
    const { interaction, form } = await submitted(request, reply, passwordForm)
    if (interaction.prompt !== 'login') return reply.redirect(`/interaction/${interaction.uid}`, 303)
    const outcome = await login.submitPassword(toLoginInteraction(interaction), form, originOf(request.raw))
    return answer(reply, interaction, outcome, (error) => signInPage(request, reply, interaction, form.email, error))
  })

  app.post('/interaction/:uid/totp', async (request, reply) => {
    const { interaction, form } = await submitted(request, reply, codeForm)
    const { email } = await login.stepOf(interaction.uid)
    const outcome = await login.submitCode(toLoginInteraction(interaction), form, originOf(request.raw))
    return answer(reply, interaction, outcome, (error) => codePage(request, reply, interaction, email ?? '', error))
  })

  app.post('/interaction/:uid/consent', async (request, reply) => {
    const { interaction, form } = await submitted(request, reply, consentForm)
    if (interaction.prompt !== 'consent') return reply.redirect(`/interaction/${interaction.uid}`, 303)
    await (form.decision === 'allow' ? interaction.allow() : interaction.deny())
    return reply.redirect(interaction.returnTo, 303)
  })

  app.post('/interaction/:uid/cancel', async (request, reply) => {
    const { interaction } = await submitted(request, reply, cancelForm)
    await interaction.cancel()
    return reply.redirect(interaction.returnTo, 303)
  })
}

function toLoginInteraction(interaction: OpenInteraction) {
  return { uid: interaction.uid, clientId: interaction.client.id, finish: interaction.finishLogin }
}

/** Carries out an outcome: on to the next page, or the same page again with words. */
function answer(
  reply: FastifyReply,
  interaction: OpenInteraction,
  outcome: LoginOutcome,
  again: (error: PageError) => FastifyReply,
) {
  switch (outcome.step) {
    case 'done':
      return reply.redirect(interaction.returnTo, 303)
    case 'second_factor':
      return reply.redirect(`/interaction/${interaction.uid}`, 303)
    case 'throttled':
      reply.code(429).header('retry-after', String(outcome.retryAfterSeconds))
      return again({
        title: 'Too many tries',
        text: `To protect this account, please wait ${minutes(outcome.retryAfterSeconds)} and try again.`,
      })
    default:
      reply.code(outcome.reason === 'stale' ? 409 : 401)
      return again(refusalTexts[outcome.reason])
  }
}

const refusalTexts: Readonly<Record<'mismatch' | 'second_factor_missing' | 'code_mismatch' | 'stale', PageError>> = {
  mismatch: {
    title: 'E-mail or password is not right',
    text: 'Check both and try again. If you cannot remember your password, ask your administrator for help.',
  },
  second_factor_missing: {
    title: 'A second factor is required',
    text: 'Your organisation asks for an authentication code, and your account has no authenticator yet. Ask your administrator to set one up.',
  },
  code_mismatch: {
    title: 'That code is not right',
    text: 'Each code works once and for about a minute. Wait for the next one in your authenticator app and enter it.',
  },
  stale: {
    title: 'This page was out of date',
    text: 'Another tab or a second click was faster. Please sign in again here.',
  },
}

function minutes(seconds: number): string {
  const count = Math.max(1, Math.ceil(seconds / 60))
  return count === 1 ? 'a minute' : `${count} minutes`
}

/** Parses at the edge; anything else than the form asks for is refused, unknown fields included. */
function parse<T>(schema: z.ZodType<T>, value: unknown): T {
  const parsed = schema.safeParse(value ?? {})
  if (parsed.success) return parsed.data
  throw new Refusal('form_unreadable')
}

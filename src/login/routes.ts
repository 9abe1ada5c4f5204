// The sign-in routes under /interaction/:uid. They read forms, let the use cases do their work, and show the page of the
// step that flow.ts says comes next. GET shows, POST acts.
import type { FastifyInstance, FastifyReply, FastifyRequest } from 'fastify'
import { z } from 'zod'
import type { Accounts, SignInAccount } from '../accounts/accounts.ts'
import { isNationalProviderIdentifier } from '../accounts/npi.ts'
import type { DeviceCookie } from '../credentials/devices.ts'
import type { MailLinks } from '../credentials/mail-links.ts'
import { effectivePasswordRules, type PasswordProblem } from '../credentials/password-rules.ts'
import type { PasswordChange } from '../credentials/password-store.ts'
import { type Secrets, sha256 } from '../crypto/secrets.ts'
import { assertCsrf } from '../http/csrf.ts'
import { parseForm, personName } from '../http/forms.ts'
import { createLinkCookie } from '../http/link-cookie.ts'
import { originOf } from '../http/origin.ts'
import type { Views } from '../http/views.ts'
import type { Interactions, OpenInteraction } from '../oidc/interactions.ts'
import type { Organizations } from '../organizations/organizations.ts'
import type { Recovery } from '../recovery/recovery.ts'
import { endAccess } from '../sessions/ending.ts'
import { acrOf, provedBefore } from './flow.ts'
import type { Login, LoginInteraction, Outcome, Standing, Visitor } from './login.ts'
import type { LinkMethod } from './methods/link.ts'
import type { PasswordMethod } from './methods/password.ts'
import type { CodesOutcome, SecondFactorMethod } from './methods/second-factor.ts'
import { type LoginPages, loginPages, offersOf, type PageError, refusalTexts, throttledText } from './pages.ts'
import type { SignUp } from './sign-up.ts'

const uidSchema = z.strictObject({ uid: z.string().regex(/^[A-Za-z0-9_-]{1,64}$/) })
const csrf = z.string().max(128)
const email = z.string().max(320)
const password = z.string().max(2_048)
const code = z.string().max(64)
const passwordForm = z.strictObject({ csrf, email, password })
// The same form asks for a link by another button, with whatever stands in the password field.
const linkForm = z.strictObject({ csrf, email, password: password.optional() })
const codeForm = z.strictObject({ csrf, code })
// The page says again which address it mailed to when the code was wrong.
const mailedCodeForm = z.strictObject({ csrf, code, email: email.default('') })
const consentForm = z.strictObject({ csrf, decision: z.enum(['allow', 'deny']) })
const emptyForm = z.strictObject({ csrf })
const emailForm = z.strictObject({ csrf, email })
const newPasswordForm = z.strictObject({ csrf, password })
const signUpForm = z.strictObject({
  csrf,
  email,
  password,
  name: personName,
  npi: z.string().max(20).default(''),
  specialty: personName.default(''),
})

export interface LoginRouteParts {
  readonly issuer: string
  readonly interactions: Interactions
  readonly login: Login
  readonly password: PasswordMethod
  readonly secondFactor: SecondFactorMethod
  readonly link: LinkMethod
  readonly signUp: SignUp
  readonly recovery: Recovery
  readonly passwordChange: PasswordChange
  readonly links: MailLinks
  readonly accounts: Accounts
  readonly organizations: Organizations
  readonly devices: DeviceCookie
  readonly secrets: Secrets
  readonly views: Views
}

/** One request to a sign-in that is open in this browser. */
interface Here {
  readonly interaction: OpenInteraction
  readonly signIn: LoginInteraction
  readonly pages: LoginPages
  readonly visitor: Visitor
}

export function addLoginRoutes(app: FastifyInstance, parts: LoginRouteParts): void {
  const { interactions, login, secrets } = parts
  const linkCookie = createLinkCookie(parts.issuer)

  const open = async (request: FastifyRequest, reply: FastifyReply): Promise<Here> => {
    const interaction = await interactions.open(request, reply, parseForm(uidSchema, request.params).uid)
    const visitor = { origin: originOf(request.raw), deviceHash: parts.devices.read(request.cookies) }
    const pages = loginPages(parts, request, reply, interaction)
    return { interaction, signIn: toLoginInteraction(interaction), pages, visitor }
  }

  const submitted = async <T extends { csrf: string }>(
    request: FastifyRequest,
    reply: FastifyReply,
    schema: z.ZodType<T>,
  ) => {
    const here = await open(request, reply)
    const form = parseForm(schema, request.body)
    assertCsrf(request, secrets, parts.issuer, here.interaction.uid, form.csrf)
    // A browser without one gets its device cookie here, and is remembered when its sign-in is complete.
    const deviceHash = here.visitor.deviceHash ?? parts.devices.issue(reply)
    return { ...here, visitor: { ...here.visitor, deviceHash }, form }
  }

  const organizationOf = (here: Here) => {
    const { organizationId } = here.interaction.client
    return organizationId === undefined ? undefined : parts.organizations.find(organizationId)
  }

  async function showStep(here: Here, standing: Standing, error?: PageError): Promise<FastifyReply> {
    const { pages, interaction } = here
    const address = standing.account?.email ?? ''
    switch (standing.step) {
      case 'identify':
        return pages.signIn(offersOf(await organizationOf(here)), interaction.loginHint, error)
      case 'password':
        return pages.password(address, error)
      case 'second_factor':
        return pages.secondFactor(address, error)
      case 'set_up_second_factor':
        return pages.setup(address, await parts.secondFactor.setup(standing), error)
      case 'save_backup_codes':
        return pages.backupCodes(address, [], error)
      case 'change_password':
        return pages.changePassword(address, policyOf(standing.account), [], error)
      case 'impossible':
        return pages.impossible()
      case 'done':
        return pages.signIn(offersOf(await organizationOf(here)), address, refusalTexts.stale)
    }
  }

  /** Carries out where a proof led: on to the next page, or the same page again with words. */
  async function answer(
    reply: FastifyReply,
    here: Here,
    outcome: Outcome,
    again?: (error: PageError) => FastifyReply | Promise<FastifyReply>,
  ) {
    const { interaction } = here
    if (outcome.step === 'done') return reply.redirect(interaction.returnTo, 303)
    if (outcome.step === 'throttled') {
      reply.code(429).header('retry-after', String(outcome.retryAfterSeconds))
      const error = throttledText(outcome.retryAfterSeconds)
      return again ? again(error) : showStep(here, await login.standing(here.signIn), error)
    }
    if (outcome.step !== 'refused') return reply.redirect(`/interaction/${interaction.uid}`, 303)
    reply.code(outcome.reason === 'stale' ? 409 : 401)
    const error = refusalTexts[outcome.reason]
    if (again && outcome.reason !== 'stale') return again(error)
    return showStep(here, await login.standing(here.signIn), error)
  }

  app.get('/interaction/:uid', async (request, reply) => {
    const here = await open(request, reply)
    if (here.interaction.prompt === 'consent') return consent(here)
    return showStep(here, await login.standing(here.signIn))
  })

  async function consent({ interaction, pages }: Here) {
    const { accountId } = interaction
    const account = accountId === undefined ? undefined : await parts.accounts.findActive(accountId)
    return pages.consent(account?.email ?? '')
  }

  /** Forms that are answered only while somebody signs in, not while they are asked to allow an app. */
  const whileSigningIn = <T extends { csrf: string }>(
    path: string,
    schema: z.ZodType<T>,
    act: (here: Here & { form: T }, reply: FastifyReply, request: FastifyRequest) => Promise<FastifyReply>,
  ) =>
    app.post(`/interaction/:uid${path}`, async (request, reply) => {
      const here = await submitted(request, reply, schema)
      if (here.interaction.prompt !== 'login') return reply.redirect(`/interaction/${here.interaction.uid}`, 303)
      return act(here, reply, request)
    })

  whileSigningIn('/password', passwordForm, async (here, reply) => {
    const { form, pages, signIn } = here
    const outcome = await parts.password.submit(signIn, form, here.visitor)
    return answer(reply, here, outcome, async (error) => {
      const { step, account } = await login.standing(signIn)
      if (step === 'password') return pages.password(account?.email ?? '', error)
      return pages.signIn(offersOf(await organizationOf(here)), form.email, error)
    })
  })

  whileSigningIn('/totp', codeForm, async (here, reply) => {
    const outcome = await parts.secondFactor.submitCode(here.signIn, here.form.code, here.visitor)
    return answer(reply, here, outcome)
  })

  app.get('/interaction/:uid/backup-code', async (request, reply) => {
    const here = await open(request, reply)
    const standing = await login.standing(here.signIn)
    if (standing.step !== 'second_factor') return reply.redirect(`/interaction/${here.interaction.uid}`, 303)
    return here.pages.backupCode(standing.account?.email ?? '')
  })

  whileSigningIn('/backup-code', codeForm, async (here, reply) => {
    const outcome = await parts.secondFactor.submitBackupCode(here.signIn, here.form.code, here.visitor)
    const { account } = await login.standing(here.signIn)
    return answer(reply, here, outcome, (error) => here.pages.backupCode(account?.email ?? '', error))
  })

  whileSigningIn('/begin-set-up', emptyForm, async (here, reply) =>
    answer(reply, here, await parts.secondFactor.beginSetup(here.signIn, here.visitor)),
  )

  const showCodes = async (reply: FastifyReply, here: Here, outcome: CodesOutcome) => {
    if (outcome.step !== 'codes') return answer(reply, here, outcome)
    const { account } = await login.standing(here.signIn)
    return here.pages.backupCodes(account?.email ?? '', outcome.codes)
  }

  whileSigningIn('/set-up', codeForm, async (here, reply) =>
    showCodes(reply, here, await parts.secondFactor.confirmSetup(here.signIn, here.form.code, here.visitor)),
  )
  whileSigningIn('/renew-codes', emptyForm, async (here, reply) =>
    showCodes(reply, here, await parts.secondFactor.renewCodes(here.signIn, here.visitor)),
  )
  whileSigningIn('/codes-kept', emptyForm, async (here, reply) =>
    answer(reply, here, await parts.secondFactor.codesKept(here.signIn, here.visitor)),
  )

  whileSigningIn('/new-password', newPasswordForm, async (here, reply) => {
    const standing = await login.standing(here.signIn)
    const { account } = standing
    if (standing.step !== 'change_password' || !account)
      return answer(reply, here, { step: 'refused', reason: 'stale' })
    const about = { actor: { type: 'account' as const, id: account.id }, origin: here.visitor.origin }
    const changed = await parts.passwordChange.change({
      accountId: account.id,
      newPassword: here.form.password,
      rules: effectivePasswordRules(account.policy),
      context: { email: account.email, name: account.name, organizationName: account.organization.name },
      provedHash: account.passwordHash,
      by: 'self',
      organizationId: account.organization.id,
      ...about,
      inTransaction: async (tx) =>
        void (await endAccess(tx, {
          accountId: account.id,
          organizationId: account.organization.id,
          cause: 'password_changed',
          exceptInteractionHash: sha256(here.interaction.uid),
          ...about,
        })),
    })
    if (!changed.ok) {
      reply.code(400)
      return here.pages.changePassword(account.email, account.policy, changed.problems)
    }
    return answer(reply, here, await login.move(here.signIn, standing, {}, here.visitor))
  })

  whileSigningIn('/cannot', emptyForm, async (here, reply) => {
    await here.interaction.cannotMeet()
    return reply.redirect(here.interaction.returnTo, 303)
  })

  // Links by mail. The form of the sign-in page asks for one by its second button.
  whileSigningIn('/link', linkForm, async (here, reply) => {
    const outcome = await parts.link.request(here.signIn, here.form.email, here.visitor)
    if (outcome.step === 'sent') {
      const codeAction = `/interaction/${here.interaction.uid}/link/code`
      return here.pages.mailSent({ email: here.form.email, codeAction, kind: 'sign_in' })
    }
    const error = outcome.step === 'throttled' ? throttledText(outcome.retryAfterSeconds) : refusalTexts[outcome.reason]
    if (outcome.step === 'throttled') reply.code(429).header('retry-after', String(outcome.retryAfterSeconds))
    else reply.code(400)
    return here.pages.signIn(offersOf(await organizationOf(here)), here.form.email, error)
  })

  const mailed = [
    { path: 'link', kind: 'sign_in', method: parts.link, heading: 'Continue signing in' },
    { path: 'confirm', kind: 'sign_up', method: parts.signUp, heading: 'Confirm your address' },
  ] as const
  for (const { path, kind, method, heading } of mailed) {
    app.get(`/interaction/:uid/${path}`, async (request, reply) => {
      const { uid } = parseForm(uidSchema, request.params)
      const { token, sent } = linkCookie.receive(request, reply)
      if (sent) return reply
      const live = token !== undefined && (await parts.links.look(kind, token)) !== undefined
      const here = await open(request, reply).catch(() => undefined)
      if (token === undefined || !live)
        return elsewhere(request, reply, { code: undefined, backUrl: here && `/interaction/${uid}` })
      if (here) return here.pages.linkLanding(`/interaction/${uid}/${path}/continue`, heading)
      return elsewhere(request, reply, { code: parts.links.shownCode(token), backUrl: undefined })
    })
    whileSigningIn(`/${path}/continue`, emptyForm, async (here, reply, request) => {
      const token = linkCookie.read(request)
      linkCookie.clear(reply, `/interaction/${here.interaction.uid}/${path}`)
      const outcome: Outcome =
        token === undefined
          ? { step: 'refused', reason: 'link_dead' }
          : await method.follow(here.signIn, token, here.visitor)
      return answer(reply, here, outcome)
    })
    whileSigningIn(`/${path}/code`, mailedCodeForm, async (here, reply) => {
      const outcome = await method.typeCode(here.signIn, here.form.code, here.visitor)
      const codeAction = `/interaction/${here.interaction.uid}/${path}/code`
      return answer(reply, here, outcome, (error) =>
        here.pages.mailSent({ email: here.form.email, codeAction, kind }, error),
      )
    })
  }

  /** The landing page of a link that was opened in another browser than the one that asked, or that is dead. */
  function elsewhere(
    request: FastifyRequest,
    reply: FastifyReply,
    data: { readonly code: string | undefined; readonly backUrl: string | undefined },
  ) {
    reply.header('cache-control', 'no-store').type('text/html; charset=utf-8')
    if (data.code === undefined) reply.code(410)
    const title = data.code === undefined ? 'This link no longer works' : 'Go on where you began'
    return reply.send(parts.views.render('login/link-elsewhere', { title, ...data }, request.id))
  }

  app.get('/interaction/:uid/forgot', async (request, reply) => {
    const here = await open(request, reply)
    return here.pages.forgot(here.interaction.loginHint)
  })
  whileSigningIn('/forgot', emailForm, async (here, reply) => {
    const outcome = await parts.recovery.request(here.form.email, here.interaction.client.id, here.visitor)
    if (outcome.step === 'sent')
      return here.pages.mailSent({ email: here.form.email, codeAction: undefined, kind: 'reset' })
    if (outcome.step === 'throttled') {
      reply.code(429).header('retry-after', String(outcome.retryAfterSeconds))
      return here.pages.forgot(here.form.email, throttledText(outcome.retryAfterSeconds))
    }
    reply.code(400)
    return here.pages.forgot(here.form.email, refusalTexts[outcome.reason])
  })

  const emptySignUp = { email: '', name: '', npi: '', specialty: '' }
  app.get('/interaction/:uid/sign-up', async (request, reply) => {
    const here = await open(request, reply)
    const organization = await organizationOf(here)
    if (organization?.policy.signup !== 'open') return reply.redirect(`/interaction/${here.interaction.uid}`, 303)
    return here.pages.signUp(organization, emptySignUp, [])
  })
  whileSigningIn('/sign-up', signUpForm, async (here, reply) => {
    const { form } = here
    const organization = await organizationOf(here)
    if (organization?.policy.signup !== 'open') return reply.redirect(`/interaction/${here.interaction.uid}`, 303)
    const again = (status: number, error?: PageError, problems: readonly PasswordProblem[] = []) => {
      reply.code(status)
      return here.pages.signUp(organization, form, problems, error)
    }
    if (form.name === '')
      return again(400, {
        title: 'Your name is missing',
        text: 'Enter it as your patients and colleagues know it.',
        field: 'name',
      })
    if (form.npi !== '' && !isNationalProviderIdentifier(form.npi))
      return again(400, {
        title: 'That is not an NPI',
        text: 'A National Provider Identifier has ten digits, the last of which checks the others. Leave the field empty if you have none.',
        field: 'npi',
      })
    const metadata = Object.fromEntries(
      [
        ['npi', form.npi],
        ['specialty', form.specialty],
      ].filter(([, value]) => value !== ''),
    )
    const input = { email: form.email, name: form.name, password: form.password, metadata }
    const outcome = await parts.signUp.request(here.signIn, organization, input, here.visitor)
    if (outcome.step === 'sent') {
      const codeAction = `/interaction/${here.interaction.uid}/confirm/code`
      return here.pages.mailSent({ email: form.email, codeAction, kind: 'sign_up' })
    }
    if (outcome.step === 'throttled') {
      reply.header('retry-after', String(outcome.retryAfterSeconds))
      return again(429, throttledText(outcome.retryAfterSeconds))
    }
    if (outcome.step === 'closed') return reply.redirect(`/interaction/${here.interaction.uid}`, 303)
    return outcome.reason === 'password'
      ? again(400, undefined, outcome.problems)
      : again(400, refusalTexts[outcome.reason])
  })

  app.post('/interaction/:uid/consent', async (request, reply) => {
    const { interaction, form } = await submitted(request, reply, consentForm)
    if (interaction.prompt !== 'consent') return reply.redirect(`/interaction/${interaction.uid}`, 303)
    await (form.decision === 'allow' ? interaction.allow() : interaction.deny())
    return reply.redirect(interaction.returnTo, 303)
  })

  app.post('/interaction/:uid/cancel', async (request, reply) => {
    const { interaction } = await submitted(request, reply, emptyForm)
    await interaction.cancel()
    return reply.redirect(interaction.returnTo, 303)
  })
}

function policyOf(account: SignInAccount | undefined) {
  if (!account) throw new Error('a step after identification has an account')
  return account.policy
}

function toLoginInteraction(interaction: OpenInteraction): LoginInteraction {
  const { required, session } = interaction
  return {
    uid: interaction.uid,
    clientId: interaction.client.id,
    clientName: interaction.client.name,
    organizationId: interaction.client.organizationId,
    acr: acrOf(required.acr),
    before:
      session && !required.freshSignIn
        ? { accountId: session.accountId, proved: provedBefore(session.amr), ts: session.authTime }
        : undefined,
    finish: interaction.finishLogin,
  }
}

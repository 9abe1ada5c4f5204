// The sign-in routes that go by mail: links, signing up, a forgotten password. Whoever asked is sent on to a page that says
// so, which may be reloaded without asking again. GET shows, POST acts.
import type { FastifyInstance, FastifyReply, FastifyRequest } from 'fastify'
import { z } from 'zod'
import { isNationalProviderIdentifier } from '../accounts/npi.ts'
import type { LinkKind, MailLinks } from '../credentials/mail-links.ts'
import type { PasswordProblem } from '../credentials/password-rules.ts'
import { sha256 } from '../crypto/secrets.ts'
import { parseForm, personName } from '../http/forms.ts'
import { createLinkCookie } from '../http/link-cookie.ts'
import type { Views } from '../http/views.ts'
import type { Recovery } from '../recovery/recovery.ts'
import { type Desk, type Here, uidSchema } from './desk.ts'
import type { Outcome } from './login.ts'
import type { LinkMethod } from './methods/link.ts'
import { nameMissing, offersOf, type PageError, refusalTexts, throttledText } from './pages.ts'
import type { SignUp } from './sign-up.ts'

const csrf = z.string().max(128)
const email = z.string().max(320)
const password = z.string().max(2_048)
// The sign-in form asks for a link by another button, with whatever stands in the password field.
const linkForm = z.strictObject({ csrf, email, password: password.optional() })
const codeForm = z.strictObject({ csrf, code: z.string().max(64) })
const emptyForm = z.strictObject({ csrf })
const emailForm = z.strictObject({ csrf, email })
const signUpForm = z.strictObject({
  csrf,
  email,
  password,
  name: personName,
  npi: z.string().max(20).default(''),
  specialty: personName.default(''),
})
type SignUpForm = z.output<typeof signUpForm>
const emptySignUp = { email: '', name: '', npi: '', specialty: '' }

export interface MailRouteParts {
  readonly issuer: string
  readonly link: LinkMethod
  readonly signUp: SignUp
  readonly recovery: Recovery
  readonly links: MailLinks
  readonly views: Views
}

export function addMailRoutes(app: FastifyInstance, desk: Desk, parts: MailRouteParts): void {
  addLinkPages(app, desk, parts)
  addLinkRequests(app, desk, parts)
  addSignUp(app, desk, parts)
}

const pathOf = (here: Here) => `/interaction/${here.interaction.uid}`

/** What may be done with a kind of link inside a sign-in, under its own path. */
function mailedWays({ link, signUp }: MailRouteParts) {
  return [
    { path: 'link', kind: 'sign_in', method: link, heading: 'Continue signing in' },
    { path: 'confirm', kind: 'sign_up', method: signUp, heading: 'Confirm your address' },
  ] as const
}

function addLinkPages(app: FastifyInstance, desk: Desk, parts: MailRouteParts): void {
  const linkCookie = createLinkCookie(parts.issuer)
  for (const { path, kind, method, heading } of mailedWays(parts)) {
    app.get(`/interaction/:uid/${path}`, async (request, reply) => {
      const { uid } = parseForm(uidSchema, request.params)
      const { token, sent } = linkCookie.receive(request, reply)
      if (sent) return reply
      const live = token !== undefined && (await parts.links.look(kind, token)) !== undefined
      const here = await desk.open(request, reply).catch(() => undefined)
      if (token === undefined || !live)
        return elsewhere(parts.views, request, reply, { code: undefined, backUrl: here && pathOf(here) })
      if (here) return here.pages.linkLanding(`/interaction/${uid}/${path}/continue`, heading)
      return elsewhere(parts.views, request, reply, { code: parts.links.shownCode(token), backUrl: undefined })
    })
    desk.whileSigningIn(`/${path}/continue`, emptyForm, async (here, reply, request) => {
      const token = linkCookie.read(request)
      linkCookie.clear(reply, `${pathOf(here)}/${path}`)
      const outcome: Outcome =
        token === undefined
          ? { step: 'refused', reason: 'link_dead' }
          : await method.follow(here.signIn, token, here.visitor)
      return desk.answer(reply, here, outcome)
    })
    desk.whileSigningIn(`/${path}/code`, codeForm, async (here, reply) => {
      const outcome = await method.typeCode(here.signIn, here.form.code, here.visitor)
      return desk.answer(reply, here, outcome, (error) => sentPage(parts, here, kind, error))
    })
  }
}

/** The landing page of a link that was opened in another browser than the one that asked, or that is dead. */
function elsewhere(
  views: Views,
  request: FastifyRequest,
  reply: FastifyReply,
  data: { readonly code: string | undefined; readonly backUrl: string | undefined },
) {
  reply.header('cache-control', 'no-store').type('text/html; charset=utf-8')
  if (data.code === undefined) reply.code(410)
  const title = data.code === undefined ? 'This link no longer works' : 'Go on where you began'
  return reply.send(views.render('login/link-elsewhere', { title, ...data }, request.id))
}

/** Says that a mail is on its way, to the address that was asked for last. */
async function sentPage(parts: MailRouteParts, here: Here, kind: LinkKind, error?: PageError): Promise<FastifyReply> {
  const email = (await parts.links.sentTo(kind, sha256(here.interaction.uid))) ?? ''
  const way = mailedWays(parts).find((candidate) => candidate.kind === kind)
  const codeAction = way && `${pathOf(here)}/${way.path}/code`
  return here.pages.mailSent({ email, codeAction, kind }, error)
}

function addLinkRequests(app: FastifyInstance, desk: Desk, parts: MailRouteParts): void {
  const sentPages = [
    ['link', 'sign_in'],
    ['confirm', 'sign_up'],
    ['forgot', 'reset'],
  ] as const
  for (const [path, kind] of sentPages) {
    app.get(`/interaction/:uid/${path}/sent`, async (request, reply) =>
      sentPage(parts, await desk.open(request, reply), kind),
    )
  }

  desk.whileSigningIn('/link', linkForm, async (here, reply) => {
    const outcome = await parts.link.request(here.signIn, here.form.email, here.visitor)
    if (outcome.step === 'sent') return reply.redirect(`${pathOf(here)}/link/sent`, 303)
    const offers = offersOf(await desk.organizationOf(here))
    return here.pages.signIn(offers, here.form.email, refused(reply, outcome))
  })

  app.get('/interaction/:uid/forgot', async (request, reply) => {
    const here = await desk.open(request, reply)
    return here.pages.forgot(here.interaction.loginHint)
  })
  desk.whileSigningIn('/forgot', emailForm, async (here, reply) => {
    const asker = { clientId: here.interaction.client.id, interactionHash: sha256(here.interaction.uid) }
    const outcome = await parts.recovery.request(here.form.email, asker, here.visitor)
    if (outcome.step === 'sent') return reply.redirect(`${pathOf(here)}/forgot/sent`, 303)
    return here.pages.forgot(here.form.email, refused(reply, outcome))
  })
}

type Refused =
  | { readonly step: 'throttled'; readonly retryAfterSeconds: number }
  | { readonly step: 'refused'; readonly reason: 'address_unreadable' | 'address_foreign' }

/** The status of a request for a mail that was not sent, and the words for it. */
function refused(reply: FastifyReply, outcome: Refused): PageError {
  if (outcome.step === 'refused') {
    reply.code(400)
    return refusalTexts[outcome.reason]
  }
  reply.code(429).header('retry-after', String(outcome.retryAfterSeconds))
  return throttledText(outcome.retryAfterSeconds)
}

function addSignUp(app: FastifyInstance, desk: Desk, parts: MailRouteParts): void {
  app.get('/interaction/:uid/sign-up', async (request, reply) => {
    const here = await desk.open(request, reply)
    const organization = await desk.organizationOf(here)
    if (organization?.policy.signup !== 'open') return reply.redirect(pathOf(here), 303)
    return here.pages.signUp(organization, emptySignUp, [])
  })

  desk.whileSigningIn('/sign-up', signUpForm, async (here, reply) => {
    const { form } = here
    const organization = await desk.organizationOf(here)
    if (organization?.policy.signup !== 'open') return reply.redirect(pathOf(here), 303)
    const again = (error?: PageError, problems: readonly PasswordProblem[] = []) =>
      here.pages.signUp(organization, form, problems, error)
    const wrong = wrongField(form)
    if (wrong) {
      reply.code(400)
      return again(wrong)
    }
    const metadata = Object.fromEntries(
      Object.entries({ npi: form.npi, specialty: form.specialty }).filter(([, value]) => value !== ''),
    )
    const input = { email: form.email, name: form.name, password: form.password, metadata }
    const outcome = await parts.signUp.request(here.signIn, organization, input, here.visitor)
    if (outcome.step === 'sent') return reply.redirect(`${pathOf(here)}/confirm/sent`, 303)
    if (outcome.step === 'closed') return reply.redirect(pathOf(here), 303)
    if (outcome.step === 'throttled' || outcome.reason !== 'password') return again(refused(reply, outcome))
    reply.code(400)
    return again(undefined, outcome.problems)
  })
}

/** What a sign-up's own fields lack, before anything is asked of the database. */
function wrongField(form: SignUpForm): PageError | undefined {
  if (form.name === '') return nameMissing
  if (form.npi === '' || isNationalProviderIdentifier(form.npi)) return undefined
  return {
    title: 'That is not an NPI',
    text: 'A National Provider Identifier has ten digits, the last of which checks the others. Leave the field empty if you have none.',
    field: 'npi',
  }
}

// The desk at which a sign-in is served: opens the interaction of a request, holds its forms against the browser, and shows
// the page of the step that flow.ts says comes next. What the forms do is in routes.ts and mail-routes.ts.
import type { FastifyInstance, FastifyReply, FastifyRequest } from 'fastify'
import { z } from 'zod'
import type { SignInAccount } from '../accounts/accounts.ts'
import type { DeviceCookie } from '../credentials/devices.ts'
import type { Secrets } from '../crypto/secrets.ts'
import { assertCsrf } from '../http/csrf.ts'
import { parseForm } from '../http/forms.ts'
import { originOf } from '../http/origin.ts'
import type { Views } from '../http/views.ts'
import type { Interactions, OpenInteraction } from '../oidc/interactions.ts'
import type { Organization, Organizations } from '../organizations/organizations.ts'
import { acrOf, provedBefore } from './flow.ts'
import type { Login, LoginInteraction, Outcome, Standing, Visitor } from './login.ts'
import type { SecondFactorMethod } from './methods/second-factor.ts'
import {
  type LoginPages,
  loginPages,
  type OrganizationChoice,
  offersOf,
  type PageError,
  refusalTexts,
  throttledText,
} from './pages.ts'

export const uidSchema = z.strictObject({ uid: z.string().regex(/^[A-Za-z0-9_-]{1,64}$/) })

export interface DeskParts {
  readonly issuer: string
  readonly interactions: Interactions
  readonly login: Login
  readonly secondFactor: SecondFactorMethod
  readonly organizations: Organizations
  readonly devices: DeviceCookie
  readonly secrets: Secrets
  readonly views: Views
}

/** One request to a sign-in that is open in this browser. */
export interface Here {
  readonly interaction: OpenInteraction
  readonly signIn: LoginInteraction
  readonly pages: LoginPages
  readonly visitor: Visitor
}

type Submitted<T> = Here & { readonly form: T }

export interface Desk {
  /** The sign-in of the path, in the browser that began it. Throws a Refusal otherwise. */
  open(request: FastifyRequest, reply: FastifyReply): Promise<Here>
  /** The same with a form of our own page for it. */
  submitted<T extends { csrf: string }>(
    request: FastifyRequest,
    reply: FastifyReply,
    schema: z.ZodType<T>,
  ): Promise<Submitted<T>>
  /** Adds a form that is answered only while somebody signs in, not while they are asked to allow an app. */
  whileSigningIn<T extends { csrf: string }>(
    path: string,
    schema: z.ZodType<T>,
    act: (here: Submitted<T>, reply: FastifyReply, request: FastifyRequest) => Promise<FastifyReply>,
  ): void
  showStep(here: Here, standing: Standing, error?: PageError): Promise<FastifyReply>
  /** Carries out where a proof led: on to the next page, or the same page again with words. */
  answer(
    reply: FastifyReply,
    here: Here,
    outcome: Outcome,
    again?: (error: PageError) => FastifyReply | Promise<FastifyReply>,
  ): Promise<FastifyReply>
  /** The organisation of the app that asks, if the app has one. */
  organizationOf(here: Here): Promise<Organization | undefined>
}

export function createDesk(app: FastifyInstance, parts: DeskParts): Desk {
  const { interactions, login, secrets } = parts

  const open = async (request: FastifyRequest, reply: FastifyReply): Promise<Here> => {
    const interaction = await interactions.open(request, reply, parseForm(uidSchema, request.params).uid)
    const visitor = { origin: originOf(request.raw), deviceHash: parts.devices.read(request.cookies) }
    const pages = loginPages(parts, request, reply, interaction)
    return { interaction, signIn: toLoginInteraction(interaction, visitor.origin.ip), pages, visitor }
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

  const organizationOf = async (here: Here) => {
    const { organizationId } = here.interaction.client
    return organizationId === undefined ? undefined : parts.organizations.find(organizationId)
  }

  async function showStep(here: Here, standing: Standing, error?: PageError): Promise<FastifyReply> {
    const { pages, interaction } = here
    const address = standing.account?.email ?? ''
    switch (standing.step) {
      case 'identify':
        return pages.signIn(offersOf(await organizationOf(here)), interaction.loginHint, error)
      case 'choose_organization':
        return pages.chooseOrganization(address, choicesOf(standing), error)
      case 'wrong_organization':
      case 'wrong_network':
      case 'wrong_method':
        return pages.turnedAway(address, standing.step)
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

  const whileSigningIn: Desk['whileSigningIn'] = (path, schema, act) =>
    void app.post(`/interaction/:uid${path}`, async (request, reply) => {
      const here = await submitted(request, reply, schema)
      if (here.interaction.prompt !== 'login') return reply.redirect(`/interaction/${here.interaction.uid}`, 303)
      return act(here, reply, request)
    })

  return { open, submitted, whileSigningIn, showStep, answer, organizationOf }
}

/** The organisations to choose from, by name. */
function choicesOf({ account }: Standing): readonly OrganizationChoice[] {
  if (account?.decision.kind !== 'choose') return []
  return account.decision.among.map(({ organization, home }) => ({
    id: organization.id,
    name: organization.name,
    home,
  }))
}

function policyOf(account: SignInAccount | undefined) {
  if (!account) throw new Error('a step after identification has an account')
  return account.policy
}

function toLoginInteraction(interaction: OpenInteraction, ip: string | undefined): LoginInteraction {
  const { required, session } = interaction
  return {
    uid: interaction.uid,
    clientId: interaction.client.id,
    clientName: interaction.client.name,
    organizationId: interaction.client.organizationId,
    place: interaction.place,
    ip,
    acr: acrOf(required.acr),
    before:
      session && !required.freshSignIn
        ? { accountId: session.accountId, proved: provedBefore(session.amr), ts: session.authTime }
        : undefined,
    finish: interaction.finishLogin,
  }
}

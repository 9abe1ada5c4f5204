// The page behind an invitation. GET shows, POST accepts.
import type { FastifyInstance, FastifyReply, FastifyRequest } from 'fastify'
import { z } from 'zod'
import type { Secrets } from '../crypto/secrets.ts'
import { assertCsrf, csrfToken } from '../http/csrf.ts'
import { parseForm, personName } from '../http/forms.ts'
import { createLinkCookie } from '../http/link-cookie.ts'
import { createLinkPages } from '../http/link-pages.ts'
import { originOf } from '../http/origin.ts'
import type { Views } from '../http/views.ts'
import { nameMissing, newPasswordData, type PageError } from '../login/pages.ts'
import { type Invitation, type Invitations, takesPasswords } from './invitations.ts'

const acceptForm = z.strictObject({
  csrf: z.string().max(128),
  name: personName.default(''),
  password: z.string().max(2_048).default(''),
})

interface Parts {
  readonly issuer: string
  readonly invitations: Invitations
  readonly secrets: Secrets
  readonly views: Views
}

export function addInvitationRoutes(app: FastifyInstance, { issuer, invitations, secrets, views }: Parts): void {
  const linkCookie = createLinkCookie(issuer)

  const { show, dead } = createLinkPages(views)

  const acceptPage = (
    request: FastifyRequest,
    reply: FastifyReply,
    token: string,
    invitation: Invitation,
    name: string,
    problems: Parameters<typeof newPasswordData>[1],
    error?: PageError,
  ) =>
    show(request, reply, 'invitations/accept', `Join ${invitation.organization.name}`, {
      csrf: csrfToken(secrets, token),
      email: invitation.email,
      organizationName: invitation.organization.name,
      hasAccount: invitation.hasAccount,
      takesPasswords: takesPasswords(invitation),
      name,
      ...newPasswordData(invitation.organization.policy, problems, 'first'),
      error,
    })

  app.get('/invite', async (request, reply) => {
    const { token, sent } = linkCookie.receive(request, reply)
    if (sent) return reply
    const invitation = token === undefined ? undefined : await invitations.look(token)
    if (token === undefined || !invitation) return dead(request, reply)
    return acceptPage(request, reply, token, invitation, '', [])
  })

  app.post('/invite', async (request, reply) => {
    const form = parseForm(acceptForm, request.body)
    const token = linkCookie.read(request)
    if (token === undefined) return dead(request, reply)
    assertCsrf(request, secrets, issuer, token, form.csrf)
    const invitation = await invitations.look(token)
    if (!invitation) return dead(request, reply)
    if (form.name === '' && !invitation.hasAccount)
      return acceptPage(request, reply.code(400), token, invitation, '', [], nameMissing)
    const outcome = await invitations.accept(token, form, originOf(request.raw))
    if (outcome.ok) {
      linkCookie.clear(reply, '/invite')
      return show(request, reply, 'invitations/accepted', 'Welcome', {
        organizationName: invitation.organization.name,
      })
    }
    if (outcome.reason === 'link_dead') return dead(request, reply)
    return acceptPage(request, reply.code(400), token, invitation, form.name, outcome.problems)
  })
}

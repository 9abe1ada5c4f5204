// The sign-in routes under /interaction/:uid that prove something at the desk: password, codes, set-up, consent. Ways by mail
// are in mail-routes.ts. GET shows, POST acts.
import type { FastifyInstance, FastifyReply } from 'fastify'
import { z } from 'zod'
import type { Accounts } from '../accounts/accounts.ts'
import type { PasswordChange } from '../credentials/password-store.ts'
import { createDesk, type DeskParts, type Here } from './desk.ts'
import { replaceDuePassword } from './due-password.ts'
import { addMailRoutes, type MailRouteParts } from './mail-routes.ts'
import type { PasswordMethod } from './methods/password.ts'
import type { CodesOutcome } from './methods/second-factor.ts'
import { offersOf } from './pages.ts'

const csrf = z.string().max(128)
const email = z.string().max(320)
const password = z.string().max(2_048)
const code = z.string().max(64)
const passwordForm = z.strictObject({ csrf, email, password })
const codeForm = z.strictObject({ csrf, code })
const consentForm = z.strictObject({ csrf, decision: z.enum(['allow', 'deny']) })
const emptyForm = z.strictObject({ csrf })
const organizationForm = z.strictObject({ csrf, organization: z.string().max(64) })
const newPasswordForm = z.strictObject({ csrf, password })

export interface LoginRouteParts extends DeskParts, MailRouteParts {
  readonly password: PasswordMethod
  readonly passwordChange: PasswordChange
  readonly accounts: Accounts
}

export function addLoginRoutes(app: FastifyInstance, parts: LoginRouteParts): void {
  const { login } = parts
  const desk = createDesk(app, parts)
  const { open, submitted, whileSigningIn, showStep, answer, organizationOf } = desk

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
    const outcome = await replaceDuePassword(parts, here.signIn, here.form.password, here.visitor)
    if (outcome.step !== 'unacceptable') return answer(reply, here, outcome)
    const { account } = await login.standing(here.signIn)
    if (!account) return answer(reply, here, { step: 'refused', reason: 'stale' })
    reply.code(400)
    return here.pages.changePassword(account.email, account.policy, outcome.problems)
  })

  whileSigningIn('/organization', organizationForm, async (here, reply) =>
    answer(reply, here, await login.choose(here.signIn, here.form.organization, here.visitor)),
  )

  whileSigningIn('/cannot', emptyForm, async (here, reply) => {
    const { step } = await login.standing(here.signIn)
    await (step === 'impossible' ? here.interaction.cannotMeet() : here.interaction.turnAway())
    return reply.redirect(here.interaction.returnTo, 303)
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

  addMailRoutes(app, desk, parts)
}

// The pages of /account about what somebody signs in with: address, password, second factor. Each change asks for a
// fresh sign-in, at the page and again at its form (F65).
import type { FastifyInstance, FastifyReply, FastifyRequest } from 'fastify'
import { z } from 'zod'
import { countBackupCodes, warnAt } from '../credentials/backup-codes.ts'
import type { PasswordProblem } from '../credentials/password-rules.ts'
import { qrDataUri } from '../credentials/qr.ts'
import { listTotp, maxAuthenticators } from '../credentials/totp.ts'
import type { Secrets } from '../crypto/secrets.ts'
import type { Database } from '../db/database.ts'
import { Refusal } from '../errors.ts'
import { assertCsrf } from '../http/csrf.ts'
import { parseForm } from '../http/forms.ts'
import { createLinkCookie } from '../http/link-cookie.ts'
import { newPasswordData, type PageError, refusalTexts, throttledText } from '../login/pages.ts'
import type { Door, Visit } from './door.ts'
import type { EmailChange } from './email.ts'
import type { OwnPassword } from './password.ts'
import { confirmedAt, paths } from './places.ts'
import type { SecondFactors } from './second-factors.ts'
import { whenInWords } from './words.ts'

const csrf = z.string().max(128)
const password = z.string().max(2_048)
const totpId = z.string().max(64)
const emptyForm = z.strictObject({ csrf })
const emailForm = z.strictObject({ csrf, email: z.string().max(320) })
const passwordForm = z.strictObject({
  csrf,
  current: password.default(''),
  password,
  username: z.string().max(320).optional(),
})
const nameForm = z.strictObject({ csrf, name: z.string().max(256) })
const renameForm = z.strictObject({ csrf, totpId, name: z.string().max(256) })
const removeForm = z.strictObject({ csrf, totpId })
const codeForm = z.strictObject({ csrf, code: z.string().max(64) })
const setupParameters = z.strictObject({ totpId: z.string().regex(/^totp_[A-Za-z0-9_-]{22}$/) })

export interface CredentialRouteParts {
  readonly issuer: string
  readonly database: Database
  readonly email: EmailChange
  readonly password: OwnPassword
  readonly factors: SecondFactors
  readonly secrets: Secrets
}

export function addCredentialRoutes(app: FastifyInstance, door: Door, parts: CredentialRouteParts): void {
  addEmail(door, parts)
  addEmailConfirmation(app, door, parts)
  addPassword(door, parts)
  addFactors(door, parts)
  addSetup(door, parts)
}

const emailTexts: Readonly<Record<'address_unreadable' | 'same_address', PageError>> = {
  address_unreadable: refusalTexts.address_unreadable,
  same_address: { title: 'That is your address already', text: 'Enter the address that shall take its place.' },
}

function addEmail(door: Door, { email: emails }: CredentialRouteParts): void {
  const page = (visit: Visit, email: string, error?: PageError) =>
    door.page(visit, 'email', 'email', 'E-mail address', {
      email,
      error,
      emailVerified: visit.account.emailVerified,
    })
  door.show(paths.email, 'email', 'fresh', async (visit) => page(visit, ''))
  door.act(paths.email, { place: 'email', need: 'fresh', form: emailForm }, async (visit, { email }) => {
    const outcome = await emails.request(visit.account, email, visit.origin)
    if (outcome.ok) return back(visit, confirmedAt('email', 'email_link'))
    if (outcome.reason === 'throttled')
      return page(slowed(visit, outcome), email, throttledText(outcome.retryAfterSeconds))
    visit.reply.code(400)
    return page(visit, email, emailTexts[outcome.reason])
  })
}

/**
 * Behind the link in the mail. It wants the session of the account that asked: an address typed wrong must not hand the
 * account to whoever reads that mailbox.
 */
function addEmailConfirmation(app: FastifyInstance, door: Door, parts: CredentialRouteParts): void {
  const path = paths.emailConfirm
  const linkCookie = createLinkCookie(parts.issuer)
  const dead = (visit: Visit) => {
    visit.reply.code(410)
    return door.page(visit, 'emailConfirm', 'email-dead-link', 'This link no longer works')
  }
  app.get(path, async (request, reply) => {
    const { token, sent } = linkCookie.receive(request, reply)
    if (sent) return reply
    const visit = await door.enter(request, reply, 'emailConfirm')
    if (!visit) return reply
    const email = token === undefined ? undefined : await parts.email.look(visit.account, token)
    if (email === undefined) return dead(visit)
    return door.page(visit, 'emailConfirm', 'email-confirm', 'Confirm your new address', { email })
  })
  app.post(path, async (request: FastifyRequest, reply: FastifyReply) => {
    const visit = await door.enter(request, reply, 'emailConfirm')
    if (!visit) return reply
    const form = parseForm(emptyForm, request.body)
    assertCsrf(request, parts.secrets, parts.issuer, visit.session.uid, form.csrf)
    const token = linkCookie.read(request)
    const changed = token !== undefined && (await parts.email.confirm(visit.account, token, visit.origin))
    if (!changed) return dead(visit)
    linkCookie.clear(reply, path)
    return back(visit, confirmedAt('overview', 'email'))
  })
}

const passwordTexts: Readonly<Record<'mismatch' | 'disabled', PageError>> = {
  mismatch: { title: 'The current password is not right', text: 'Check it and try again. Nothing was changed.' },
  disabled: {
    title: 'Your password is switched off',
    text: 'It failed too often. Sign out and choose “Forgot password?” to set a new one.',
  },
}

function addPassword(door: Door, { password: passwords }: CredentialRouteParts): void {
  const page = (visit: Visit, problems: readonly PasswordProblem[], error?: PageError) =>
    door.page(visit, 'password', 'password', 'Password', {
      error,
      hasPassword: visit.account.passwordHash !== undefined,
      ...newPasswordData(visit.account.policy, problems),
    })
  door.show(paths.password, 'password', 'fresh', async (visit) => page(visit, []))
  door.act(paths.password, { place: 'password', need: 'fresh', form: passwordForm }, async (visit, form) => {
    const { account, origin, deviceHash } = visit
    const input = { current: form.current, wanted: form.password, sessionUid: visit.session.uid, origin, deviceHash }
    const outcome = await passwords.change(account, input)
    if (outcome.ok) return back(visit, confirmedAt('password', 'password'))
    if (outcome.reason === 'throttled')
      return page(slowed(visit, outcome), [], throttledText(outcome.retryAfterSeconds))
    visit.reply.code(outcome.reason === 'password' ? 400 : 401)
    return outcome.reason === 'password'
      ? page(visit, outcome.problems)
      : page(visit, [], passwordTexts[outcome.reason])
  })
}

const nameError: PageError = {
  title: 'That name does not work',
  text: 'Use 1 to 64 letters, digits and signs, such as “Phone” or “Tablet in the office”.',
}
const lastError: PageError = {
  title: 'This is your last authenticator',
  text: 'Your organisation asks for a second factor. Add another authenticator first, then remove this one.',
}
const limitError: PageError = {
  title: 'You have as many authenticators as you may have',
  text: `An account may have ${maxAuthenticators}. Remove one that you do not use any more.`,
}

/** The list, and what is done from it. It may be looked at without a fresh sign-in, but not changed. */
function addFactors(door: Door, { database, factors }: CredentialRouteParts): void {
  const page = async (visit: Visit, error?: PageError) => {
    const { account } = visit
    const authenticators = await listTotp(database.kysely, account.id)
    const codesLeft = await countBackupCodes(database.kysely, account.id)
    return door.page(visit, 'factors', 'factors', 'Second factor', {
      error,
      authenticators: authenticators.map(({ id, name, confirmedAt: at }) => ({ id, name, since: whenInWords(at) })),
      codesLeft,
      codesLow: codesLeft <= warnAt,
      mfaRequired: account.policy.mfa === 'required',
      mayAdd: factors.mayAdd(account) && authenticators.length < maxAuthenticators,
    })
  }
  const here = { place: 'factors', need: 'fresh' } as const
  door.show(paths.factors, 'factors', 'session', async (visit) => page(visit))
  door.show(paths.factorsManage, 'factorsManage', 'fresh', async (visit) => back(visit, paths.factors))
  door.act(`${paths.factors}/rename`, { ...here, form: renameForm }, async (visit, form) => {
    const outcome = await factors.rename(doing(visit), form.totpId, form.name)
    if (outcome === 'gone') throw new Refusal('not_found')
    if (outcome === 'renamed') return back(visit, confirmedAt('factors', 'factor_renamed'))
    visit.reply.code(400)
    return page(visit, nameError)
  })
  door.act(`${paths.factors}/remove`, { ...here, form: removeForm }, async (visit, form) => {
    const outcome = await factors.remove(doing(visit), form.totpId)
    if (outcome === 'gone') throw new Refusal('not_found')
    if (outcome === 'removed') return back(visit, confirmedAt('factors', 'factor_off'))
    visit.reply.code(409)
    return page(visit, lastError)
  })
  door.act(`${paths.factors}/backup-codes`, { ...here, form: emptyForm }, async (visit) => {
    const codes = await factors.renewCodes(doing(visit))
    return codes ? codesPage(door, visit, codes) : back(visit, paths.factors)
  })
}

/** Adding an authenticator: its name, its set-up with the first code, and the backup codes with the first one. */
function addSetup(door: Door, { factors }: CredentialRouteParts): void {
  const namePage = (visit: Visit, name: string, error?: PageError) =>
    door.page(visit, 'factorAdd', 'factor-add', 'Add an authenticator', {
      name,
      error,
      mayAdd: factors.mayAdd(visit.account),
    })
  const here = { place: 'factorAdd', need: 'fresh' } as const
  const first = (visit: Visit) => (visit.account.totpIds.length === 0 ? 'Phone' : '')
  door.show(paths.factorAdd, 'factorAdd', 'fresh', async (visit) => namePage(visit, first(visit)))
  door.act(paths.factorAdd, { ...here, form: nameForm }, async (visit, { name }) => {
    if (!factors.mayAdd(visit.account)) throw new Refusal('not_found')
    const started = await factors.start(doing(visit), name)
    if (started.ok) return back(visit, `${paths.factors}/set-up/${started.totpId}`)
    visit.reply.code(started.reason === 'name' ? 400 : 409)
    return namePage(visit, name, started.reason === 'name' ? nameError : limitError)
  })

  const setupPath = `${paths.factors}/set-up/:totpId`
  const setupPage = async (visit: Visit, id: string, error?: PageError) => {
    const setup = await factors.setup(visit.account, id)
    // Confirmed, lapsed, replaced or somebody else's: one begins anew.
    if (!setup) return back(visit, paths.factorAdd)
    return door.page(visit, 'factorAdd', 'factor-set-up', 'Set up a second factor', {
      action: `${paths.factors}/set-up/${id}`,
      email: visit.account.email,
      secret: setup.secretBase32,
      uri: setup.uri,
      qr: qrDataUri(setup.uri),
      error,
    })
  }
  door.show(setupPath, 'factorAdd', 'fresh', async (visit) => setupPage(visit, idOf(visit)))
  door.act(setupPath, { ...here, form: codeForm }, async (visit, { code }) => {
    if (!factors.mayAdd(visit.account)) throw new Refusal('not_found')
    const id = idOf(visit)
    const outcome = await factors.confirm(doing(visit), id, code)
    if (outcome.ok)
      return outcome.codes ? codesPage(door, visit, outcome.codes) : back(visit, confirmedAt('factors', 'factor_on'))
    if (outcome.reason === 'throttled')
      return setupPage(slowed(visit, outcome), id, throttledText(outcome.retryAfterSeconds))
    if (outcome.reason === 'gone') return back(visit, paths.factorAdd)
    visit.reply.code(401)
    return setupPage(visit, id, refusalTexts.code_mismatch)
  })
  const kept = { place: 'factors', need: 'session', form: emptyForm } as const
  door.act(`${paths.factors}/codes-kept`, kept, async (visit) => back(visit, paths.factors))
}

function codesPage(door: Door, visit: Visit, codes: readonly string[]): FastifyReply {
  return door.page(visit, 'factorsManage', 'backup-codes', 'Save your backup codes', {
    codes,
    email: visit.account.email,
    action: `${paths.factors}/codes-kept`,
  })
}

function idOf(visit: Visit): string {
  const parsed = setupParameters.safeParse(visit.request.params)
  if (!parsed.success) throw new Refusal('not_found')
  return parsed.data.totpId
}

function doing({ account, session, origin, deviceHash }: Visit) {
  return { account, sessionUid: session.uid, origin, deviceHash }
}

function slowed(visit: Visit, { retryAfterSeconds }: { readonly retryAfterSeconds: number }): Visit {
  visit.reply.code(429).header('retry-after', String(retryAfterSeconds))
  return visit
}

function back({ reply }: Visit, address: string): FastifyReply {
  return reply.header('cache-control', 'no-store').redirect(address, 303)
}

// The JSON API of first-party apps under /api/auth: the same use cases as the pages, so the same throttles, steps and
// audit rows. It reads JSON, lets them do their work, and says in JSON where the sign-in stands.
import type { FastifyInstance, FastifyReply, FastifyRequest } from 'fastify'
import type { z } from 'zod'
import type { Accounts } from '../accounts/accounts.ts'
import type { DeviceCookie } from '../credentials/devices.ts'
import type { Notices } from '../credentials/notices.ts'
import type { Passwords } from '../credentials/password.ts'
import type { PasswordProblem } from '../credentials/password-rules.ts'
import type { PasswordChange } from '../credentials/password-store.ts'
import { qrDataUri } from '../credentials/qr.ts'
import type { Throttle } from '../credentials/throttle.ts'
import type { Secrets } from '../crypto/secrets.ts'
import type { Database } from '../db/database.ts'
import { originOf } from '../http/origin.ts'
import type { Views } from '../http/views.ts'
import type { Login, Outcome, RefusalReason, Visitor } from '../login/login.ts'
import type { LinkMethod } from '../login/methods/link.ts'
import type { PasswordMethod } from '../login/methods/password.ts'
import type { CodesOutcome, SecondFactorMethod } from '../login/methods/second-factor.ts'
import type { SignUp } from '../login/sign-up.ts'
import { type BrowserSessions, sessionCookieName } from '../oidc/browser-session.ts'
import type { DirectSessions } from '../oidc/direct-session.ts'
import type { Organizations } from '../organizations/organizations.ts'
import type { Recovery } from '../recovery/recovery.ts'
import { createOwnPassword } from '../self-service/password.ts'
import type { Sessions } from '../sessions/sessions.ts'
import { type Operation, operations, type SessionAnswer, type StandingAnswer } from './contract.ts'
import { createCurrentSession } from './current-session.ts'
import { addApiDocs } from './docs.ts'
import { replaceDuePassword } from './due-password.ts'
import { type ApiFlow, createFlows } from './flows.ts'
import { createGate } from './gate.ts'
import { type CallingApp, createOrigins } from './origins.ts'
import { ApiProblem, type ApiProblemCode, type InputError, sendProblem } from './problems.ts'

const maxReportedErrors = 20
const maxMessageLength = 200

export interface AuthApiParts {
  readonly issuer: string
  readonly database: Database
  readonly accounts: Accounts
  readonly organizations: Organizations
  readonly sessions: Sessions
  readonly browserSessions: BrowserSessions
  readonly directSessions: DirectSessions
  readonly login: Login
  readonly password: PasswordMethod
  readonly secondFactor: SecondFactorMethod
  readonly link: LinkMethod
  readonly signUp: SignUp
  readonly recovery: Recovery
  readonly passwords: Passwords
  readonly passwordChange: PasswordChange
  readonly throttle: Throttle
  readonly notices: Notices
  readonly devices: DeviceCookie
  readonly secrets: Secrets
  readonly views: Views
  now(): Date
}

/** One request that the gate has let in. */
interface Call {
  readonly request: FastifyRequest
  readonly reply: FastifyReply
  readonly app: CallingApp
  readonly visitor: Visitor
}

/** Adds the API, its OpenAPI document and the page that shows it. */
export function addAuthApi(app: FastifyInstance, parts: AuthApiParts): void {
  app.register(async (scope) => addOperations(scope, parts))
  addApiDocs(app, parts)
}

function addOperations(scope: FastifyInstance, parts: AuthApiParts): void {
  const { issuer, database, login, devices, directSessions } = parts
  const origins = createOrigins({ issuer, database, elapsedMs: () => performance.now() })
  const gate = createGate(scope, { issuer, secrets: parts.secrets, origins })
  const flows = createFlows(parts)
  const current = createCurrentSession(parts)
  const ownPassword = createOwnPassword(parts)

  scope.setErrorHandler((error, request, reply) => {
    if (error instanceof ApiProblem) return sendProblem(request, reply, error.code, { errors: error.errors })
    if (isUnreadableJson(error))
      return sendProblem(request, reply, 'input_invalid', {
        errors: [{ path: '', message: 'must be readable as JSON' }],
      })
    throw error
  })

  const callOf = (request: FastifyRequest, reply: FastifyReply): Call => ({
    request,
    reply,
    app: gate.appOf(request),
    visitor: { origin: originOf(request.raw), deviceHash: devices.read(request.cookies) },
  })
  const read = (operation: Operation, handle: (call: Call) => Promise<FastifyReply>) =>
    scope.get(operation.path, async (request, reply) => handle(callOf(request, reply)))
  const act = <Body extends z.ZodType>(
    operation: Operation<Body> & { readonly body: Body },
    handle: (call: Call, body: z.output<Body>) => Promise<FastifyReply>,
  ) =>
    scope.post(operation.path, async (request, reply) => {
      const body = parseBody(operation.body, request.body)
      return handle(callOf(request, reply), body)
    })

  /** A browser that proves something gets a device cookie, as on the pages, and is remembered when its sign-in is complete. */
  const withDevice = ({ visitor, reply }: Call): Visitor => ({
    ...visitor,
    deviceHash: visitor.deviceHash ?? devices.issue(reply),
  })
  const begin = ({ request, reply, app, visitor }: Call) => flows.begin(request, reply, app, visitor.origin)
  const open = ({ request, app, visitor }: Call) => flows.open(request, app, visitor.origin)
  const refuse = ({ request, reply }: Call, code: ApiProblemCode, errors: readonly InputError[] = []) =>
    sendProblem(request, reply, code, { errors })
  const throttled = ({ request, reply }: Call, { retryAfterSeconds }: { readonly retryAfterSeconds: number }) =>
    sendProblem(request, reply, 'throttled', { retryAfterSeconds })

  async function signedIn(call: Call, flow: ApiFlow): Promise<SessionAnswer | undefined> {
    const id = flow.sessionId()
    if (id === undefined) throw new Error('a sign-in that is done has made a session')
    directSessions.setCookie(call.request, call.reply, id)
    flows.forget(call.reply)
    return current.describe({ [sessionCookieName(issuer)]: id })
  }

  /** Says where a proof led. */
  async function answer(call: Call, flow: ApiFlow, outcome: Outcome): Promise<FastifyReply> {
    const standing = (status: Exclude<StandingAnswer['status'], 'complete'>) => call.reply.send({ status })
    switch (outcome.step) {
      case 'done': {
        const session = await signedIn(call, flow)
        // Ended by somebody else in the moment since.
        return session ? call.reply.send({ status: 'complete', session }) : refuse(call, 'session_missing')
      }
      case 'throttled':
        return throttled(call, outcome)
      case 'refused':
        return refuse(call, refusalCodes[outcome.reason])
      case 'password':
        return standing('password_required')
      case 'second_factor':
        return standing('second_factor_required')
      case 'set_up_second_factor':
        return standing('second_factor_setup_required')
      case 'save_backup_codes':
        return standing('backup_codes_pending')
      case 'change_password':
        return standing('password_change_required')
      case 'impossible':
        return refuse(call, 'sign_in_impossible')
      case 'identify':
        return refuse(call, 'out_of_step')
    }
  }

  const answerCodes = (call: Call, flow: ApiFlow, outcome: CodesOutcome) =>
    outcome.step === 'codes'
      ? call.reply.send({ status: 'backup_codes_pending', backupCodes: outcome.codes })
      : answer(call, flow, outcome)

  type Mailed = { readonly step: 'sent' } | { readonly step: 'refused' } | Extract<Outcome, { step: 'throttled' }>
  const answerMailed = (call: Call, outcome: Mailed) => {
    if (outcome.step === 'throttled') return throttled(call, outcome)
    if (outcome.step === 'refused') return refuse(call, 'input_invalid', [unreadableAddress])
    return call.reply.code(202).send({ status: 'check_email' })
  }

  read(operations.csrf, async ({ request, reply }) => reply.send({ csrfToken: gate.csrfToken(request, reply) }))

  act(operations.signIn, async (call, body) => {
    const flow = await begin(call)
    return answer(call, flow, await parts.password.submit(flow.interaction, body, withDevice(call)))
  })

  act(operations.signUp, async (call, { organization: slug, metadata = {}, ...body }) => {
    const organization = await findBySlug(slug)
    const flow = await begin(call)
    const input = { ...body, name: body.name.trim(), metadata }
    const outcome = await parts.signUp.request(flow.interaction, organization, input, withDevice(call))
    if (outcome.step === 'closed') return refuse(call, 'sign_up_closed')
    if (outcome.step === 'refused' && outcome.reason === 'password')
      return refuse(call, 'input_invalid', passwordErrors('password', outcome.problems))
    return answerMailed(call, outcome)
  })

  async function findBySlug(slug: string) {
    const [row] = await database.run('select id from mlpipes_auth.organizations where slug = $1', [slug])
    return row && parts.organizations.find(String(row['id']))
  }

  act(operations.confirmSignUp, async (call, { code }) => {
    const flow = open(call)
    return answer(call, flow, await parts.signUp.typeCode(flow.interaction, code, withDevice(call)))
  })

  act(operations.totp, async (call, { code }) => {
    const flow = open(call)
    return answer(call, flow, await parts.secondFactor.submitCode(flow.interaction, code, withDevice(call)))
  })

  act(operations.backupCode, async (call, { code }) => {
    const flow = open(call)
    return answer(call, flow, await parts.secondFactor.submitBackupCode(flow.interaction, code, withDevice(call)))
  })

  act(operations.setUpTotp, async (call) => {
    const { interaction } = open(call)
    const before = await login.standing(interaction)
    if (before.step !== 'set_up_second_factor') return refuse(call, 'out_of_step')
    const setup =
      (await parts.secondFactor.setup(before)) ??
      // The one that the sign-in began with has lapsed.
      ((await parts.secondFactor.beginSetup(interaction, call.visitor)).step === 'set_up_second_factor'
        ? await parts.secondFactor.setup(await login.standing(interaction))
        : undefined)
    if (!setup) return refuse(call, 'out_of_step')
    return call.reply.send({ secret: setup.secretBase32, uri: setup.uri, qr: qrDataUri(setup.uri) })
  })

  act(operations.confirmTotp, async (call, { code }) => {
    const flow = open(call)
    return answerCodes(call, flow, await parts.secondFactor.confirmSetup(flow.interaction, code, withDevice(call)))
  })

  act(operations.renewCodes, async (call) => {
    const flow = open(call)
    return answerCodes(call, flow, await parts.secondFactor.renewCodes(flow.interaction, call.visitor))
  })

  act(operations.codesKept, async (call) => {
    const flow = open(call)
    return answer(call, flow, await parts.secondFactor.codesKept(flow.interaction, withDevice(call)))
  })

  act(operations.magicLink, async (call, { email }) => {
    const { interaction } = await begin(call)
    return answerMailed(call, await parts.link.request(interaction, email, withDevice(call)))
  })

  act(operations.magicLinkCode, async (call, { code }) => {
    const flow = open(call)
    return answer(call, flow, await parts.link.typeCode(flow.interaction, code, withDevice(call)))
  })

  act(operations.forgotPassword, async (call, { email }) =>
    answerMailed(call, await parts.recovery.request(email, call.app.id, call.visitor)),
  )

  act(operations.renewPassword, async (call, { newPassword }) => {
    const flow = open(call)
    const outcome = await replaceDuePassword(parts, flow.interaction, newPassword, withDevice(call))
    if (outcome.step === 'unacceptable')
      return refuse(call, 'input_invalid', passwordErrors('newPassword', outcome.problems))
    return answer(call, flow, outcome)
  })

  act(operations.changePassword, async (call, { currentPassword = '', newPassword }) => {
    const here = await current.forSensitiveChange(call.request.cookies)
    if (!here) return refuse(call, 'session_missing')
    if (!here.isFresh) return refuse(call, 'sign_in_again')
    const outcome = await ownPassword.change(here.account, {
      current: currentPassword,
      wanted: newPassword,
      sessionUid: here.uid,
      ...call.visitor,
    })
    if (outcome.ok) return call.reply.code(204).send()
    if (outcome.reason === 'throttled') return throttled(call, outcome)
    return outcome.reason === 'password'
      ? refuse(call, 'input_invalid', passwordErrors('newPassword', outcome.problems))
      : refuse(call, 'current_password_refused')
  })

  read(operations.session, async (call) => {
    const session = await current.describe(call.request.cookies)
    return session ? call.reply.send({ session }) : refuse(call, 'session_missing')
  })

  act(operations.extendSession, async (call) => {
    const answered = await current.extend(call.request.cookies)
    return answered ? call.reply.send(answered) : refuse(call, 'session_missing')
  })

  act(operations.signOut, async (call) => {
    const { request, reply, visitor, app } = call
    await current.end(request.cookies, visitor.origin, app.id)
    directSessions.clearCookie(request, reply)
    flows.forget(reply)
    return reply.code(204).send()
  })
}

/** One type for every reason that would tell a stranger something. */
const refusalCodes: Readonly<Record<RefusalReason, ApiProblemCode>> = {
  mismatch: 'sign_in_refused',
  code_mismatch: 'code_refused',
  backup_mismatch: 'code_refused',
  disabled_factor: 'code_refused',
  link_dead: 'link_refused',
  stale: 'out_of_step',
}

const unreadableAddress: InputError = { path: 'email', message: 'must be a whole e-mail address' }

function passwordErrors(path: string, problems: readonly PasswordProblem[]): InputError[] {
  return problems.map(({ text }) => ({ path, message: text }))
}

/** @throws ApiProblem that names every member that is not as the contract says */
function parseBody<Body extends z.ZodType>(schema: Body, body: unknown): z.output<Body> {
  const parsed = schema.safeParse(body)
  if (parsed.success) return parsed.data
  const errors = parsed.error.issues.slice(0, maxReportedErrors).map(({ path, message }) => ({
    path: path.map(String).join('.').slice(0, maxMessageLength),
    message: message.slice(0, maxMessageLength),
  }))
  throw new ApiProblem('input_invalid', errors)
}

/** Broken JSON, an empty body, or members named `__proto__` and `constructor.prototype`, which nobody means well. */
function isUnreadableJson(error: unknown): boolean {
  return error instanceof Error && 'statusCode' in error && error.statusCode === 400 && !('detail' in error)
}

// The JSON API of first-party apps under /api/auth: the same use cases as the pages, so the same throttles, steps and
// audit rows. Each operation of the contract and the use case behind it; how they are read and answered is in endpoints.ts
// and answers.ts.
import type { FastifyInstance, FastifyRequest } from 'fastify'
import type { Accounts } from '../accounts/accounts.ts'
import type { DeviceCookie } from '../credentials/devices.ts'
import type { Notices } from '../credentials/notices.ts'
import type { Passwords } from '../credentials/password.ts'
import type { PasswordChange } from '../credentials/password-store.ts'
import { qrDataUri } from '../credentials/qr.ts'
import type { Throttle } from '../credentials/throttle.ts'
import type { Secrets } from '../crypto/secrets.ts'
import type { Database } from '../db/database.ts'
import { originOf } from '../http/origin.ts'
import type { Views } from '../http/views.ts'
import { replaceDuePassword } from '../login/due-password.ts'
import type { Login } from '../login/login.ts'
import type { LinkMethod } from '../login/methods/link.ts'
import type { PasswordMethod } from '../login/methods/password.ts'
import type { SecondFactorMethod } from '../login/methods/second-factor.ts'
import type { SignUp } from '../login/sign-up.ts'
import type { BrowserSessions } from '../oidc/browser-session.ts'
import type { DirectSessions } from '../oidc/direct-session.ts'
import type { Organizations, Policies } from '../organizations/organizations.ts'
import type { Recovery } from '../recovery/recovery.ts'
import { createOwnPassword } from '../self-service/password.ts'
import type { Sessions } from '../sessions/sessions.ts'
import { type Answers, createAnswers, refuse, refusePassword, throttled } from './answers.ts'
import { operations } from './contract.ts'
import { type CallingBrowser, type CurrentSession, createCurrentSession } from './current-session.ts'
import { addApiDocs } from './docs.ts'
import { type Call, createEndpoints, type Endpoints } from './endpoints.ts'
import { type ApiFlow, createFlows, type Flows } from './flows.ts'
import { createGate, type Gate } from './gate.ts'
import { createOrigins } from './origins.ts'

export interface AuthApiParts {
  readonly issuer: string
  readonly database: Database
  readonly accounts: Accounts
  readonly organizations: Organizations
  readonly policies: Policies
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

/** Adds the API, its OpenAPI document and the page that shows it. */
export function addAuthApi(app: FastifyInstance, parts: AuthApiParts): void {
  app.register(async (scope) => {
    const { issuer, database, secrets } = parts
    const origins = createOrigins({ issuer, database, policies: parts.policies, elapsedMs: () => performance.now() })
    const gate = createGate(scope, { issuer, secrets, origins })
    const flows = createFlows(parts)
    const current = createCurrentSession(parts)
    const tools = {
      gate,
      flows,
      current,
      ...createEndpoints(scope, { gate, devices: parts.devices }),
      answer: createAnswers({ ...parts, flows, current }),
    }
    addSignIn(tools, parts)
    addSignUp(tools, parts)
    addSecondFactor(tools, parts)
    addMail(tools, parts)
    addSession(tools, parts)
  })
  addApiDocs(app, parts)
}

interface Tools extends Endpoints {
  readonly gate: Gate
  readonly flows: Flows
  readonly current: CurrentSession
  readonly answer: Answers
}

const begin = ({ flows }: Tools, { request, reply, app, visitor }: Call): Promise<ApiFlow> =>
  flows.begin(request, reply, app, visitor.origin)
const open = ({ flows }: Tools, { request, app, visitor }: Call): ApiFlow => flows.open(request, app, visitor.origin)

function addSignIn(tools: Tools, parts: AuthApiParts): void {
  const { act, withDevice, answer } = tools
  act(operations.signIn, async (call, body) => {
    const flow = await begin(tools, call)
    return answer.standing(call, flow, await parts.password.submit(flow.interaction, body, withDevice(call)))
  })

  act(operations.chooseOrganization, async (call, { organization: slug }) => {
    const flow = open(tools, call)
    const { account } = await parts.login.standing(flow.interaction)
    const among = account?.decision.kind === 'choose' ? account.decision.among : []
    const id = among.find(({ organization }) => organization.slug === slug)?.organization.id
    if (id === undefined) return refuse(call, 'out_of_step')
    return answer.standing(call, flow, await parts.login.choose(flow.interaction, id, withDevice(call)))
  })

  act(operations.renewPassword, async (call, { newPassword }) => {
    const flow = open(tools, call)
    const outcome = await replaceDuePassword(parts, flow.interaction, newPassword, withDevice(call))
    if (outcome.step === 'unacceptable') return refusePassword(call, 'newPassword', outcome.problems)
    return answer.standing(call, flow, outcome)
  })
}

function addSignUp(tools: Tools, { database, organizations, signUp }: AuthApiParts): void {
  const { act, withDevice, answer } = tools
  const findBySlug = async (slug: string) => {
    const [row] = await database.run('select id from mlpipes_auth.organizations where slug = $1', [slug])
    return row && organizations.find(String(row['id']))
  }

  act(operations.signUp, async (call, { organization: slug, metadata = {}, ...body }) => {
    const organization = await findBySlug(slug)
    const flow = await begin(tools, call)
    const input = { ...body, name: body.name.trim(), metadata }
    const outcome = await signUp.request(flow.interaction, organization, input, withDevice(call))
    if (outcome.step === 'closed') return refuse(call, 'sign_up_closed')
    if (outcome.step === 'refused' && outcome.reason === 'password')
      return refusePassword(call, 'password', outcome.problems)
    if (outcome.step === 'refused' && outcome.reason === 'address_foreign')
      return refuse(call, 'input_invalid', [
        { path: 'email', message: 'must be of a domain that the organisation takes' },
      ])
    return answer.mailed(call, outcome)
  })

  act(operations.confirmSignUp, async (call, { code }) => {
    const flow = open(tools, call)
    return answer.standing(call, flow, await signUp.typeCode(flow.interaction, code, withDevice(call)))
  })
}

function addSecondFactor(tools: Tools, { login, secondFactor }: AuthApiParts): void {
  const { act, withDevice, answer } = tools
  act(operations.totp, async (call, { code }) => {
    const flow = open(tools, call)
    return answer.standing(call, flow, await secondFactor.submitCode(flow.interaction, code, withDevice(call)))
  })

  act(operations.backupCode, async (call, { code }) => {
    const flow = open(tools, call)
    return answer.standing(call, flow, await secondFactor.submitBackupCode(flow.interaction, code, withDevice(call)))
  })

  act(operations.setUpTotp, async (call) => {
    const { interaction } = open(tools, call)
    const standing = await login.standing(interaction)
    if (standing.step !== 'set_up_second_factor') return refuse(call, 'out_of_step')
    const setup = (await secondFactor.setup(standing)) ?? (await anew(call, interaction))
    if (!setup) return refuse(call, 'out_of_step')
    return call.reply.send({ secret: setup.secretBase32, uri: setup.uri, qr: qrDataUri(setup.uri) })
  })

  /** A new secret, when the one that the sign-in began with has lapsed. */
  async function anew({ visitor }: Call, interaction: ApiFlow['interaction']) {
    await secondFactor.beginSetup(interaction, visitor)
    return secondFactor.setup(await login.standing(interaction))
  }

  act(operations.confirmTotp, async (call, { code }) => {
    const flow = open(tools, call)
    return answer.codes(call, flow, await secondFactor.confirmSetup(flow.interaction, code, withDevice(call)))
  })

  act(operations.renewCodes, async (call) => {
    const flow = open(tools, call)
    return answer.codes(call, flow, await secondFactor.renewCodes(flow.interaction, call.visitor))
  })

  act(operations.codesKept, async (call) => {
    const flow = open(tools, call)
    return answer.standing(call, flow, await secondFactor.codesKept(flow.interaction, withDevice(call)))
  })
}

function addMail(tools: Tools, { link, recovery }: AuthApiParts): void {
  const { act, withDevice, answer } = tools
  act(operations.magicLink, async (call, { email }) => {
    const { interaction } = await begin(tools, call)
    return answer.mailed(call, await link.request(interaction, email, withDevice(call)))
  })

  act(operations.magicLinkCode, async (call, { code }) => {
    const flow = open(tools, call)
    return answer.standing(call, flow, await link.typeCode(flow.interaction, code, withDevice(call)))
  })

  act(operations.forgotPassword, async (call, { email }) =>
    answer.mailed(call, await recovery.request(email, { clientId: call.app.id }, call.visitor)),
  )
}

function addSession(tools: Tools, parts: AuthApiParts): void {
  const { read, act, gate, flows, current } = tools
  const ownPassword = createOwnPassword(parts)

  read(operations.csrf, async ({ request, reply }) => reply.send({ csrfToken: gate.csrfToken(request, reply) }))

  read(operations.session, async (call) => {
    const session = await current.describe(browserOf(call.request))
    return session ? call.reply.send({ session }) : refuse(call, 'session_missing')
  })

  act(operations.extendSession, async (call) => {
    const answered = await current.extend(browserOf(call.request))
    return answered ? call.reply.send(answered) : refuse(call, 'session_missing')
  })

  act(operations.changePassword, async (call, { currentPassword = '', newPassword }) => {
    const here = await current.forSensitiveChange(browserOf(call.request))
    if (!here) return refuse(call, 'session_missing')
    if (!here.isFresh) return refuse(call, 'sign_in_again')
    const input = { current: currentPassword, wanted: newPassword, sessionUid: here.uid, ...call.visitor }
    const outcome = await ownPassword.change(here.account, input)
    if (outcome.ok) return call.reply.code(204).send()
    if (outcome.reason === 'throttled') return throttled(call, outcome)
    if (outcome.reason === 'password') return refusePassword(call, 'newPassword', outcome.problems)
    return refuse(call, 'current_password_refused')
  })

  act(operations.signOut, async (call) => {
    const { request, reply, visitor, app } = call
    await current.end(request.cookies, visitor.origin, app.id)
    parts.directSessions.clearCookie(request, reply)
    flows.forget(reply)
    return reply.code(204).send()
  })
}

function browserOf(request: FastifyRequest): CallingBrowser {
  return { cookies: request.cookies, ip: originOf(request.raw).ip }
}

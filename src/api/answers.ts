// How the outcome of a use case is said in JSON: where a sign-in stands, what was mailed, and what is refused.
import type { FastifyReply } from 'fastify'
import type { PasswordProblem } from '../credentials/password-rules.ts'
import type { Step } from '../login/flow.ts'
import type { Login, Outcome, RefusalReason } from '../login/login.ts'
import type { CodesOutcome } from '../login/methods/second-factor.ts'
import { sessionCookieName } from '../oidc/browser-session.ts'
import type { DirectSessions } from '../oidc/direct-session.ts'
import type { StandingAnswer } from './contract.ts'
import type { CurrentSession } from './current-session.ts'
import type { Call } from './endpoints.ts'
import type { ApiFlow, Flows } from './flows.ts'
import { type ApiProblemCode, type InputError, sendProblem } from './problems.ts'

type Throttled = Extract<Outcome, { readonly step: 'throttled' }>
type Mailed = { readonly step: 'sent' } | { readonly step: 'refused' } | Throttled

export interface Answers {
  /** Where a proof led. Gives the browser its session when the sign-in is complete. */
  standing(call: Call, flow: ApiFlow, outcome: Outcome): Promise<FastifyReply>
  codes(call: Call, flow: ApiFlow, outcome: CodesOutcome): FastifyReply | Promise<FastifyReply>
  mailed(call: Call, outcome: Mailed): FastifyReply
}

export function createAnswers(parts: {
  readonly issuer: string
  readonly directSessions: DirectSessions
  readonly flows: Flows
  readonly current: CurrentSession
  readonly login: Login
}): Answers {
  const { directSessions, flows, current, login } = parts
  const sessionCookie = sessionCookieName(parts.issuer)

  async function complete(call: Call, flow: ApiFlow): Promise<FastifyReply> {
    const id = flow.sessionId()
    if (id === undefined) throw new Error('a sign-in that is done has made a session')
    directSessions.setCookie(call.request, call.reply, id)
    flows.forget(call.reply)
    const session = await current.describe({ cookies: { [sessionCookie]: id }, ip: undefined })
    // Ended by somebody else in the moment since.
    return session ? call.reply.send({ status: 'complete', session }) : refuse(call, 'session_missing')
  }

  async function chooseOne(call: Call, flow: ApiFlow): Promise<FastifyReply> {
    const { account } = await login.standing(flow.interaction)
    const among = account?.decision.kind === 'choose' ? account.decision.among : []
    const organizations = among.map(({ organization: { slug, name } }) => ({ slug, name }))
    return call.reply.send({ status: 'organization_choice_required', organizations })
  }

  async function standing(call: Call, flow: ApiFlow, outcome: Outcome): Promise<FastifyReply> {
    if (outcome.step === 'throttled') return throttled(call, outcome)
    if (outcome.step === 'refused') return refuse(call, refusalCodes[outcome.reason])
    if (outcome.step === 'done') return complete(call, flow)
    if (outcome.step === 'choose_organization') return chooseOne(call, flow)
    if (isImpossible(outcome.step)) return refuse(call, 'sign_in_impossible')
    if (outcome.step === 'identify') return refuse(call, 'out_of_step')
    return call.reply.send({ status: statuses[outcome.step] })
  }

  return {
    standing,
    codes: (call, flow, outcome) =>
      outcome.step === 'codes'
        ? call.reply.send({ status: 'backup_codes_pending', backupCodes: outcome.codes })
        : standing(call, flow, outcome),
    mailed(call, outcome) {
      if (outcome.step === 'throttled') return throttled(call, outcome)
      if (outcome.step === 'refused') return refuse(call, 'input_invalid', [unreadableAddress])
      return call.reply.code(202).send({ status: 'check_email' })
    },
  }
}

export function refuse({ request, reply }: Call, code: ApiProblemCode, errors: readonly InputError[] = []) {
  return sendProblem(request, reply, code, { errors })
}

export function throttled({ request, reply }: Call, { retryAfterSeconds }: { readonly retryAfterSeconds: number }) {
  return sendProblem(request, reply, 'throttled', { retryAfterSeconds })
}

/** What is wrong with a new password, each in a sentence for the person who chose it. */
export function refusePassword(call: Call, path: string, problems: readonly PasswordProblem[]): FastifyReply {
  return refuse(
    call,
    'input_invalid',
    problems.map(({ text }) => ({ path, message: text })),
  )
}

type Impossible = 'impossible' | 'wrong_organization' | 'wrong_network' | 'wrong_method'

function isImpossible(step: Step): step is Impossible {
  return step === 'impossible' || step.startsWith('wrong_')
}

const statuses: Readonly<
  Record<Exclude<Step, 'identify' | 'choose_organization' | Impossible | 'done'>, StandingAnswer['status']>
> = {
  password: 'password_required',
  second_factor: 'second_factor_required',
  set_up_second_factor: 'second_factor_setup_required',
  save_backup_codes: 'backup_codes_pending',
  change_password: 'password_change_required',
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

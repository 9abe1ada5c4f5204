// What the JSON API refuses, by code, and how a refusal is sent: problem+json (RFC 9457). What any request may be refused
// for, such as a host that is not ours, is in errors.ts; both kinds share one namespace of types.
import type { FastifyReply, FastifyRequest } from 'fastify'
import { type ErrorText, type RefusalCode, refusals } from '../errors.ts'

/** What /api/auth refuses. */
export const authProblems = {
  input_invalid: {
    status: 400,
    title: 'Something in the request is not right',
    detail: 'Each entry of errors names a member and says what it must be.',
  },
  sign_in_refused: {
    status: 401,
    title: 'E-mail or password is not right',
    detail: 'Check both and try again. The answer is the same whatever the reason.',
  },
  code_refused: {
    status: 401,
    title: 'That code is not right',
    detail: 'Each code works once. Use the next one of the authenticator app, or another backup code.',
  },
  link_refused: {
    status: 401,
    title: 'That code from the mail is not right',
    detail: 'It is wrong, was used already, or is too old. Ask for a new mail and use the newest one.',
  },
  session_missing: {
    status: 401,
    title: 'Nobody is signed in',
    detail: 'The session has ended or there was none. Sign in again.',
  },
  request_foreign: {
    status: 403,
    title: 'This request did not come from an app of ours',
    detail:
      'It needs the X-CSRF-Token of GET /api/auth/csrf with the cookie set there, and the origin of a registered first-party app.',
  },
  sign_in_again: {
    status: 403,
    title: 'Sign in again to do this',
    detail: 'This asks for a sign-in of the last five minutes, with the second factor if the account has one.',
  },
  current_password_refused: {
    status: 403,
    title: 'The current password is not right',
    detail: 'Check it and try again. Nothing was changed.',
  },
  sign_up_closed: {
    status: 403,
    title: 'Nobody can sign up there',
    detail: 'The organisation is not known or takes no new accounts this way. Ask it for an invitation.',
  },
  sign_in_impossible: {
    status: 403,
    title: 'This account cannot finish signing in here',
    detail: 'A proof is required that the account has no way to give. Its administrator can help.',
    when: 'A second factor is due that cannot be set up, or the organisation does not allow this network or way of signing in.',
  },
  out_of_step: {
    status: 409,
    title: 'The sign-in does not stand at this step',
    detail: 'It has expired, was moved on by another request, or was never begun. Begin again with a sign-in.',
  },
  throttled: {
    status: 429,
    title: 'Too many tries',
    detail: 'To protect this account, wait as many seconds as Retry-After says and try again.',
  },
} as const satisfies Readonly<Record<string, ErrorText>>

/** What /api/admin and /api/audit refuse besides bad input. */
export const adminProblems = {
  caller_unknown: {
    status: 401,
    title: 'It is not known who asks',
    detail: 'Send a live access token of this server for this API, or the cookie of a signed-in browser.',
  },
  step_up_required: {
    status: 401,
    title: 'Sign in again with the second factor to do this',
    detail: 'Ask for a new token with the acr_values and max_age of WWW-Authenticate, and repeat the request.',
  },
  forbidden: {
    status: 403,
    title: 'You may not do this',
    detail: 'The member permission names what you do not hold. An administrator who holds it can give it.',
  },
  scope_insufficient: {
    status: 403,
    title: 'This token does not reach that far',
    detail: 'It needs the scope that WWW-Authenticate names.',
  },
  client_too_weak: {
    status: 403,
    title: 'This client proves itself too weakly to do this',
    detail:
      'Register it with private_key_jwt: whoever reads a shared secret must not be able to change who holds what.',
  },
  already_exists: {
    status: 409,
    title: 'There is one already',
    detail: 'Read what is there, or choose another name.',
  },
  in_use: {
    status: 409,
    title: 'Somebody still has it',
    detail: 'Take it from everybody who has it first.',
  },
  last_administrator: {
    status: 409,
    title: 'Nobody could administer this afterwards',
    detail: 'Make somebody else an administrator first.',
  },
  not_possible: {
    status: 409,
    title: 'That cannot be done as things stand',
    detail: 'Each entry of errors says what stands in the way.',
  },
  idempotency_in_progress: {
    status: 409,
    title: 'The same request is under way',
    detail: 'Wait as many seconds as Retry-After says and repeat it.',
  },
  version_stale: {
    status: 412,
    title: 'It was changed meanwhile',
    detail: 'Read it again, look at what changed, and send the change with the new ETag.',
  },
  idempotency_key_reused: {
    status: 422,
    title: 'This Idempotency-Key was used for another request',
    detail: 'Make a new key for each new request.',
  },
  version_required: {
    status: 428,
    title: 'Say which version you mean to change',
    detail: 'Send the ETag that you read as If-Match.',
  },
} as const satisfies Readonly<Record<string, ErrorText>>

export const apiProblems = { ...authProblems, ...adminProblems }

export type ApiProblemCode = keyof typeof apiProblems
/** Everything an endpoint of the API can be refused with. */
export type ProblemCode = ApiProblemCode | RefusalCode

export interface InputError {
  /** The member, as `metadata.npi`; empty for the body as a whole. */
  readonly path: string
  readonly message: string
}

/** A refusal of the API, for whoever notices it below a handler. Sent in routes.ts. */
export class ApiProblem extends Error {
  readonly code: ApiProblemCode
  readonly exact: ProblemExact

  constructor(code: ApiProblemCode, errors: readonly InputError[] = [], exact: Omit<ProblemExact, 'errors'> = {}) {
    super(code)
    this.code = code
    this.exact = { ...exact, errors }
  }
}

/** What is known better at the place than the table can say. */
export interface ProblemExact {
  readonly errors?: readonly InputError[]
  readonly retryAfterSeconds?: number
  /** What the caller does not hold. */
  readonly permission?: string
  /** What an HTTP client has to do about it (RFC 6750, RFC 9470). */
  readonly wwwAuthenticate?: string
}

export const problemType = (code: ProblemCode) => `urn:mlpipes:error:${code}`

export function problemText(code: ProblemCode): ErrorText {
  return isApiCode(code) ? apiProblems[code] : refusals[code]
}

function isApiCode(code: ProblemCode): code is ApiProblemCode {
  return Object.hasOwn(apiProblems, code)
}

/** Sends a problem; `instance` is the request's id, which stands in the log and the audit row too. */
export function sendProblem(
  request: FastifyRequest,
  reply: FastifyReply,
  code: ApiProblemCode,
  exact: ProblemExact = {},
): FastifyReply {
  const { status, title, detail } = apiProblems[code]
  const { errors = [], retryAfterSeconds, permission, wwwAuthenticate } = exact
  reply.code(status).header('cache-control', 'no-store')
  if (retryAfterSeconds !== undefined) reply.header('retry-after', String(retryAfterSeconds))
  if (wwwAuthenticate !== undefined) reply.header('www-authenticate', wwwAuthenticate)
  const problem = {
    type: problemType(code),
    title,
    status,
    detail,
    instance: request.id,
    ...(permission === undefined ? {} : { permission }),
  }
  return reply
    .type('application/problem+json')
    .send(JSON.stringify(errors.length > 0 ? { ...problem, errors } : problem))
}

// What a registration is refused with: RFC 7591 §3.2.2, RFC 7592 §2 and, for the token itself, RFC 6750 §3.1.
import type { ErrorText } from '../errors.ts'
import type { MetadataProblem } from './metadata.ts'

/** What /oauth/register answers; `error_description` says it for the request at hand. */
export const registrationErrors = {
  invalid_client_metadata: {
    status: 400,
    otherStatuses: [413],
    title: 'The client metadata cannot be',
    detail: 'Mend the members that error_description names. The token is not used up.',
    when: 'A member is wrong or outside the template of the token, or the body is no JSON object or too large (413).',
  },
  invalid_redirect_uri: {
    status: 400,
    title: 'A redirect URI cannot be',
    detail: 'Mend what error_description names. The token is not used up.',
    when: 'It is not https, has a user, fragment or wildcard, or is on a host that the token does not allow.',
  },
  invalid_request: {
    status: 415,
    otherStatuses: [405, 421],
    title: 'The request is not one of registration',
    detail: 'Send the client metadata as application/json by POST, to the address in discovery.',
  },
  invalid_token: {
    status: 401,
    title: 'The token is not known',
    detail: 'Ask the administrator for a new one.',
    when: 'It is missing, expired, used up or taken back, or belongs to another client.',
  },
  access_denied: {
    status: 403,
    title: 'That is not for this client to do',
    detail: 'Ask an administrator of the organisation.',
    when: 'The organisation has no room for another client, or an administrator switched the client off or made it theirs to change.',
  },
  temporarily_unavailable: {
    status: 429,
    otherStatuses: [503],
    title: 'Not now',
    detail: 'Wait as many seconds as Retry-After says and try again.',
    when: 'Too many requests of this token or address were refused (429), or the database does not answer (503).',
  },
  server_error: {
    status: 500,
    title: 'Something went wrong on our side',
    detail: 'Nothing was changed. Try again; if it happens again, tell us the request id.',
  },
} as const satisfies Readonly<Record<string, ErrorText>>

export type RegistrationError = keyof typeof registrationErrors

const maxDescribed = 5
const maxDescription = 600
const maxDetail = 200

/** Thrown, so that whatever a transaction did before is undone with it. */
export class RegistrationProblem extends Error {
  readonly error: RegistrationError
  readonly status: number
  /** For whoever registers: what to do. */
  readonly description: string
  /** For the audit log: which members it is about. */
  readonly detail: string
  readonly retryAfterSeconds: number | undefined

  constructor(
    error: RegistrationError,
    description: string,
    about: { readonly detail?: string; readonly retryAfterSeconds?: number } = {},
  ) {
    super(error)
    this.error = error
    this.status = registrationErrors[error].status
    this.description = describable(description)
    this.detail = (about.detail ?? '').slice(0, maxDetail)
    this.retryAfterSeconds = about.retryAfterSeconds
  }
}

export const unknownToken = () =>
  new RegistrationProblem(
    'invalid_token',
    'this token is not known here, or is expired or used up; ask the administrator for a new one',
  )

/** Names each member and what it must be. What was sent is not repeated. */
export function metadataProblem(problems: readonly MetadataProblem[]): RegistrationProblem {
  const described = problems
    .slice(0, maxDescribed)
    .map(({ path, message }) => (path === '' ? message : `${path}: ${message}`))
  const members = [...new Set(problems.map(({ path }) => path.split('.', 1)[0] ?? ''))].filter((name) => name !== '')
  const isRedirect = members.length > 0 && members.every((name) => name === 'redirect_uris')
  return new RegistrationProblem(
    isRedirect ? 'invalid_redirect_uri' : 'invalid_client_metadata',
    described.join('; '),
    { detail: members.join(' ') },
  )
}

/** RFC 6749 §5.2 lets a description hold printable ASCII without quotes and backslashes. */
function describable(text: string): string {
  return text
    .replace(/[‘’"]/g, "'")
    .replace(/[^\x20-\x21\x23-\x5b\x5d-\x7e]/g, '?')
    .slice(0, maxDescription)
}

// What a registration is refused with: RFC 7591 §3.2.2, RFC 7592 §2 and, for the token itself, RFC 6750 §3.1.
import type { MetadataProblem } from './metadata.ts'

export type RegistrationError =
  | 'invalid_client_metadata'
  | 'invalid_redirect_uri'
  | 'invalid_token'
  | 'access_denied'
  | 'temporarily_unavailable'

const statuses: Readonly<Record<RegistrationError, number>> = {
  invalid_client_metadata: 400,
  invalid_redirect_uri: 400,
  invalid_token: 401,
  access_denied: 403,
  temporarily_unavailable: 429,
}
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
    this.status = statuses[error]
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

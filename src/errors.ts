// What we refuse, by code: the status, and the two sentences that a person or a program reads. docs/errors.md is made out of
// this and the other lists of errors. Protocol endpoints answer with OAuth errors instead (oidc/protocol-errors.ts).

/** A row of a list of errors. */
export interface ErrorText {
  readonly status: number
  /** Where it is not always the same. */
  readonly otherStatuses?: readonly number[]
  /** What happened. */
  readonly title: string
  /** What to do next. */
  readonly detail: string
  /** What exactly makes it, for whoever builds or runs something; docs/errors.md alone shows it. */
  readonly when?: string
}

export const refusals = {
  interaction_expired: {
    status: 400,
    title: 'This sign-in has expired',
    detail:
      'It was open too long, was finished already, or belongs to another browser. Go back to the app and sign in again.',
    when: 'A sign-in may be open for 15 minutes.',
  },
  form_unreadable: {
    status: 400,
    title: 'This form cannot be read',
    detail: 'Something in it is missing, too long or not known here. Go back and fill it in again.',
    when: 'Unknown fields are refused, not ignored.',
  },
  address_unreadable: {
    status: 400,
    title: 'This address cannot be read',
    detail: 'It holds a character that is not allowed, or is too long. Go back to the app and try again.',
    when: 'The URL has an encoded NUL, a broken escape, or more than 16,384 characters.',
  },
  request_unreadable: {
    status: 400,
    title: 'This request could not be understood',
    detail: 'Go back, check what was entered and try again.',
    when: 'The HTTP layer refused it, with the status that fits, such as 405 or 431.',
  },
  form_foreign: {
    status: 403,
    title: 'This form did not come from our page',
    detail: 'Nothing was changed. Go back to the app and start again.',
    when: 'The anti-forgery token does not belong to this sign-in, or the browser says that another site sent the form.',
  },
  not_found: {
    status: 404,
    title: 'There is nothing here',
    detail: 'Check the address, or go back to the app you came from.',
    when: 'The path is not known, or what it names is not visible to the caller.',
  },
  too_large: {
    status: 413,
    title: 'That was too much to send',
    detail: 'It is larger than this address accepts. Send less at once.',
    when: 'The body is larger than 65,536 bytes.',
  },
  media_type: {
    status: 415,
    title: 'That format is not accepted here',
    detail: 'Send it as an HTML form or as JSON, as the documentation says.',
    when: 'Endpoints take `application/x-www-form-urlencoded` or `application/json`.',
  },
  host_unknown: {
    status: 421,
    title: 'This address is not ours',
    detail: 'This server answers at its own address only. Open that address instead.',
    when: 'The `Host` header is not that of `MLPIPES_AUTH_URL`: a proxy has to pass the original host on.',
  },
  internal: {
    status: 500,
    title: 'Something went wrong on our side',
    detail: 'Nothing was changed. Please try again in a moment; if it happens again, tell us the request id.',
    when: 'It is logged under the request id.',
  },
  busy: {
    status: 503,
    title: 'Many people are signing in right now',
    detail: 'Please wait a few seconds and try again.',
    when: 'More sign-ins wait for a password hash than the queue holds. `Retry-After` says when to come back.',
  },
  outage: {
    status: 503,
    title: 'We cannot reach our records right now',
    detail: 'Nothing was changed. Please try again in a moment.',
    when: 'The database did not answer in time, or two writers collided four times in a row. `Retry-After` says when to come back.',
  },
} as const satisfies Readonly<Record<string, ErrorText>>

export type RefusalCode = keyof typeof refusals

/** An expected refusal. Thrown by whoever notices, answered in http/problems.ts as a page or as problem+json. */
export class Refusal extends Error {
  readonly code: RefusalCode
  readonly status: number
  readonly title: string
  readonly detail: string
  readonly retryAfterSeconds: number | undefined

  /** @param exact what is known better here than the table can say */
  constructor(
    code: RefusalCode,
    exact: { readonly status?: number; readonly detail?: string; readonly retryAfterSeconds?: number } = {},
  ) {
    super(code)
    const text: ErrorText = refusals[code]
    this.code = code
    this.status = exact.status ?? text.status
    this.title = text.title
    this.detail = exact.detail ?? text.detail
    this.retryAfterSeconds = exact.retryAfterSeconds
  }
}

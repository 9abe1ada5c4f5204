// What we refuse, by code: the status, and the two sentences that a person or a program reads. docs/errors.md lists the
// same codes, and a test holds the two together. Protocol endpoints answer with OAuth errors instead (RFC 6749 §5.2).

interface RefusalText {
  readonly status: number
  /** What happened. */
  readonly title: string
  /** What to do next. */
  readonly detail: string
}

export const refusals = {
  interaction_expired: {
    status: 400,
    title: 'This sign-in has expired',
    detail:
      'It was open too long, was finished already, or belongs to another browser. Go back to the app and sign in again.',
  },
  form_unreadable: {
    status: 400,
    title: 'This form cannot be read',
    detail: 'Something in it is missing, too long or not known here. Go back and fill it in again.',
  },
  address_unreadable: {
    status: 400,
    title: 'This address cannot be read',
    detail: 'It holds a character that is not allowed, or is too long. Go back to the app and try again.',
  },
  request_unreadable: {
    status: 400,
    title: 'This request could not be understood',
    detail: 'Go back, check what was entered and try again.',
  },
  form_foreign: {
    status: 403,
    title: 'This form did not come from our page',
    detail: 'Nothing was changed. Go back to the app and start again.',
  },
  not_found: {
    status: 404,
    title: 'There is nothing here',
    detail: 'Check the address, or go back to the app you came from.',
  },
  too_large: {
    status: 413,
    title: 'That was too much to send',
    detail: 'What was sent is larger than this page accepts.',
  },
  media_type: {
    status: 415,
    title: 'That format is not accepted here',
    detail: 'Send it as an HTML form or as JSON, as the documentation says.',
  },
  host_unknown: {
    status: 421,
    title: 'This address is not ours',
    detail: 'This server answers at its own address only. Open that address instead.',
  },
  internal: {
    status: 500,
    title: 'Something went wrong on our side',
    detail: 'Nothing was changed. Please try again in a moment; if it happens again, tell us the request id.',
  },
  busy: {
    status: 503,
    title: 'Many people are signing in right now',
    detail: 'Please wait a few seconds and try again.',
  },
  outage: {
    status: 503,
    title: 'We cannot reach our records right now',
    detail: 'Nothing was changed. Please try again in a moment.',
  },
} as const satisfies Readonly<Record<string, RefusalText>>

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
    const text: RefusalText = refusals[code]
    this.code = code
    this.status = exact.status ?? text.status
    this.title = text.title
    this.detail = exact.detail ?? text.detail
    this.retryAfterSeconds = exact.retryAfterSeconds
  }
}

// The contract of /api/auth: every operation with its body, its answers and what it is refused with. Handlers are typed
// by it (routes.ts), the OpenAPI document is made from it (openapi.ts), and tests hold answers against it.
import { z } from 'zod'
import { isNationalProviderIdentifier } from '../accounts/npi.ts'
import type { ProblemCode } from './problems.ts'

const maxMetadataEntries = 20
const maxMetadataLength = 200
const maxNameLength = 200

/** Text that a database can hold: no NUL, no half of a surrogate pair (D9). Nothing is trimmed or replaced here. */
export const text = (max: number) =>
  z
    .string()
    .max(max)
    .refine((value) => value.isWellFormed() && !value.includes('\0'), 'must not contain NUL or unpaired surrogates')
export const email = text(320)
  .min(1)
  .meta({ description: 'an e-mail address', examples: ['dr.lee@mercy.example'] })
// Empty is a wrong password, like any other.
const password = text(2_048).meta({ format: 'password' })
const code = text(64).min(1)
/** No control or bidirectional characters in what others will read (F77). */
export const printable = (max: number) =>
  text(max).regex(/^[^\p{Cc}\p{Bidi_Control}]*$/u, 'must not contain control or bidirectional characters')
export const name = printable(maxNameLength).regex(/\S/, 'must not be empty')
export const metadata = z
  .record(z.string().regex(/^[a-z][A-Za-z0-9]{0,39}$/), printable(maxMetadataLength))
  .refine(
    (entries) => Object.keys(entries).length <= maxMetadataEntries,
    `must not have more than ${maxMetadataEntries} entries`,
  )
  .refine((entries) => entries['npi'] === undefined || isNationalProviderIdentifier(entries['npi']), {
    path: ['npi'],
    message: 'must be a National Provider Identifier: ten digits, the last of which checks the others',
  })
  .meta({
    description: `Facts about the person, at most ${maxMetadataEntries}: npi, specialty and names of your own`,
    maxProperties: maxMetadataEntries,
  })
export const nothing = z.strictObject({})

const seconds = z.number().int().nonnegative()

export const sessionSchema = z
  .strictObject({
    account: z.strictObject({
      id: z.string(),
      email: z.string(),
      name: z.string(),
      organization: z.strictObject({ id: z.string(), slug: z.string(), name: z.string() }),
      roles: z.array(z.string()),
    }),
    acr: z.string().meta({ description: 'how strong the sign-in was: urn:mlpipes:acr:link, …:password or …:mfa' }),
    amr: z.array(z.string()).meta({ description: 'what was proven: pwd, otp, magic_link, backup_code, mfa' }),
    signedInAt: z.string().meta({ format: 'date-time' }),
    idleSecondsLeft: seconds.meta({ description: 'until the session ends unless something is done in it' }),
    absoluteSecondsLeft: seconds.meta({ description: 'until it ends whatever is done in it' }),
  })
  .meta({ id: 'Session' })
export type SessionAnswer = z.output<typeof sessionSchema>

const status = <const S extends string>(value: S) => z.strictObject({ status: z.literal(value) })

/** Where a sign-in stands after what was just proven. */
export const standingSchema = z
  .discriminatedUnion('status', [
    z.strictObject({ status: z.literal('complete'), session: sessionSchema }),
    z.strictObject({
      status: z.literal('organization_choice_required'),
      organizations: z.array(z.strictObject({ slug: z.string(), name: z.string() })),
    }),
    status('password_required'),
    status('second_factor_required'),
    status('second_factor_setup_required'),
    status('backup_codes_pending'),
    status('password_change_required'),
  ])
  .meta({ id: 'Standing' })
export type StandingAnswer = z.output<typeof standingSchema>

const checkEmail = status('check_email')
const backupCodes = z
  .strictObject({ status: z.literal('backup_codes_pending'), backupCodes: z.array(z.string()) })
  .meta({ id: 'BackupCodes' })

export const problemSchema = z
  .strictObject({
    type: z.string(),
    title: z.string(),
    status: z.number().int(),
    detail: z.string(),
    instance: z.string().meta({ description: 'id of the request, to be found in the log and the audit trail' }),
    errors: z.array(z.strictObject({ path: z.string(), message: z.string() })).optional(),
    permission: z.string().optional().meta({ description: 'what the caller does not hold' }),
  })
  .meta({ id: 'Problem', description: 'RFC 9457. Compare type; title and detail are for people and may change.' })

export interface Answer {
  readonly status: 200 | 202 | 204
  readonly description: string
  readonly schema?: z.ZodType
}

export interface Operation<Body extends z.ZodType = z.ZodType> {
  readonly id: string
  readonly method: 'GET' | 'POST'
  readonly path: string
  readonly group: string
  readonly summary: string
  readonly description: string
  /** Undefined for GET, which takes none. */
  readonly body: Body | undefined
  readonly answer: Answer
  readonly problems: readonly ProblemCode[]
}

const get = (operation: Omit<Operation, 'method' | 'body'>): Operation => ({
  ...operation,
  method: 'GET',
  body: undefined,
})
const post = <Body extends z.ZodType>(
  operation: Omit<Operation<Body>, 'method' | 'body'> & { readonly body: Body },
): Operation<Body> & { readonly body: Body } => ({ ...operation, method: 'POST' })

const standing: Answer = { status: 200, description: 'Where the sign-in stands now.', schema: standingSchema }
const mailed: Answer = { status: 202, description: 'The same whatever the address.', schema: checkEmail }
const codes: Answer = { status: 200, description: 'The codes, shown this once.', schema: backupCodes }
const stepProblems = ['out_of_step', 'sign_in_impossible', 'throttled'] as const
const root = '/api/auth'

const signingIn = 'Signing in'
const secondFactor = 'Second factor'
const mail = 'By mail'
const sessions = 'Session'

export const operations = {
  csrf: get({
    id: 'getCsrfToken',
    path: `${root}/csrf`,
    group: sessions,
    summary: 'A token that every POST carries',
    description: 'Sets a cookie and returns the token that belongs to it. Send it as X-CSRF-Token with every POST.',
    answer: { status: 200, description: 'The token.', schema: z.strictObject({ csrfToken: z.string() }) },
    problems: [],
  }),
  signIn: post({
    id: 'signIn',
    path: `${root}/signin`,
    group: signingIn,
    summary: 'Sign in with a password',
    description:
      'Begins a sign-in, or adds the password to one that asks for it. When it is complete, the session cookie is set and any session that the browser had before has ended.',
    body: z.strictObject({ email, password }),
    answer: standing,
    problems: ['sign_in_refused', ...stepProblems],
  }),
  signUp: post({
    id: 'signUp',
    path: `${root}/signup`,
    group: signingIn,
    summary: 'Ask for a new account',
    description:
      'Nothing exists before the address is proven: the mailed link shows a short code, which signup/confirm takes in this same browser.',
    body: z.strictObject({ email, password, name, metadata: metadata.optional(), organization: text(64).min(1) }),
    answer: mailed,
    problems: ['sign_up_closed', 'throttled'],
  }),
  confirmSignUp: post({
    id: 'confirmSignUp',
    path: `${root}/signup/confirm`,
    group: signingIn,
    summary: 'Prove the address of a new account',
    description: 'Takes the code that the mailed link shows. The account exists from then on, and the sign-in goes on.',
    body: z.strictObject({ code }),
    answer: standing,
    problems: ['link_refused', ...stepProblems],
  }),
  chooseOrganization: post({
    id: 'chooseOrganization',
    path: `${root}/organization`,
    group: signingIn,
    summary: 'Say for which organisation the sign-in is',
    description: 'While the sign-in stands at organization_choice_required. Takes the slug of one that was offered.',
    body: z.strictObject({ organization: text(64).min(1) }),
    answer: standing,
    problems: stepProblems,
  }),
  totp: post({
    id: 'submitTotp',
    path: `${root}/totp`,
    group: secondFactor,
    summary: 'A code of the authenticator app',
    description: 'While the sign-in stands at second_factor_required.',
    body: z.strictObject({ code }),
    answer: standing,
    problems: ['code_refused', ...stepProblems],
  }),
  backupCode: post({
    id: 'submitBackupCode',
    path: `${root}/totp/backup-code`,
    group: secondFactor,
    summary: 'A backup code instead',
    description: 'While the sign-in stands at second_factor_required. Each works once, and its owner is told by mail.',
    body: z.strictObject({ code }),
    answer: standing,
    problems: ['code_refused', ...stepProblems],
  }),
  setUpTotp: post({
    id: 'setUpTotp',
    path: `${root}/totp/setup`,
    group: secondFactor,
    summary: 'What to put into the authenticator app',
    description:
      'While the sign-in stands at second_factor_setup_required. Asking again gives the same secret until it lapses.',
    body: nothing,
    answer: {
      status: 200,
      description: 'The new secret, in three forms.',
      schema: z.strictObject({
        secret: z.string().meta({ description: 'Base32' }),
        uri: z.string().meta({ description: 'otpauth://totp/…' }),
        qr: z.string().meta({ description: 'the URI as a picture: a data: address of an SVG' }),
      }),
    },
    problems: ['out_of_step'],
  }),
  confirmTotp: post({
    id: 'confirmTotp',
    path: `${root}/totp/confirm`,
    group: secondFactor,
    summary: 'Turn the authenticator on',
    description: 'Takes its first code and gives the backup codes. Then tell totp/codes-kept that they are kept.',
    body: z.strictObject({ code }),
    answer: codes,
    problems: ['code_refused', 'out_of_step', 'throttled'],
  }),
  renewCodes: post({
    id: 'renewBackupCodes',
    path: `${root}/totp/codes-renew`,
    group: secondFactor,
    summary: 'New backup codes, when the answer that had them was lost',
    description: 'While the sign-in stands at backup_codes_pending. Older codes stop working.',
    body: nothing,
    answer: codes,
    problems: ['out_of_step'],
  }),
  codesKept: post({
    id: 'keepBackupCodes',
    path: `${root}/totp/codes-kept`,
    group: secondFactor,
    summary: 'The person has saved the backup codes',
    description: 'While the sign-in stands at backup_codes_pending.',
    body: nothing,
    answer: standing,
    problems: ['out_of_step', 'sign_in_impossible'],
  }),
  magicLink: post({
    id: 'sendMagicLink',
    path: `${root}/magic-link`,
    group: mail,
    summary: 'Mail a sign-in link',
    description: 'The link shows a short code, which magic-link/code takes in this same browser.',
    body: z.strictObject({ email }),
    answer: mailed,
    problems: ['throttled'],
  }),
  magicLinkCode: post({
    id: 'submitMagicLinkCode',
    path: `${root}/magic-link/code`,
    group: mail,
    summary: 'The code that the mailed link shows',
    description: 'Five tries per mail.',
    body: z.strictObject({ code }),
    answer: standing,
    problems: ['link_refused', ...stepProblems],
  }),
  forgotPassword: post({
    id: 'forgotPassword',
    path: `${root}/password/forgot`,
    group: mail,
    summary: 'Mail a link to a new password',
    description: 'The link leads to a page of this server.',
    body: z.strictObject({ email }),
    answer: mailed,
    problems: ['throttled'],
  }),
  renewPassword: post({
    id: 'renewPassword',
    path: `${root}/password/renew`,
    group: signingIn,
    summary: 'Choose a new password to go on signing in',
    description:
      'While the sign-in stands at password_change_required. Everything that was signed in with the old one ends.',
    body: z.strictObject({ newPassword: password }),
    answer: standing,
    problems: ['out_of_step', 'sign_in_impossible'],
  }),
  changePassword: post({
    id: 'changePassword',
    path: `${root}/password/change`,
    group: sessions,
    summary: 'Change the password',
    description:
      'Needs a session that was signed in to in the last five minutes. Other sessions end, and the owner is told by mail. currentPassword is left out by an account that has none.',
    body: z.strictObject({ currentPassword: password.optional(), newPassword: password }),
    answer: { status: 204, description: 'It is changed.' },
    problems: ['session_missing', 'sign_in_again', 'current_password_refused', 'throttled'],
  }),
  session: get({
    id: 'getSession',
    path: `${root}/session`,
    group: sessions,
    summary: 'Who is signed in, and for how long',
    description: 'Reading it is no activity: an app may ask as often as it likes without keeping the session alive.',
    answer: { status: 200, description: 'The session.', schema: z.strictObject({ session: sessionSchema }) },
    problems: ['session_missing'],
  }),
  extendSession: post({
    id: 'extendSession',
    path: `${root}/session/extend`,
    group: sessions,
    summary: 'The person is still there',
    description:
      'Counts as activity: the idle limit begins anew, but never past the absolute one. Where the policy does not extend sessions, extended is false and nothing has changed.',
    body: nothing,
    answer: {
      status: 200,
      description: 'The session afterwards.',
      schema: z.strictObject({ extended: z.boolean(), session: sessionSchema }),
    },
    problems: ['session_missing'],
  }),
  signOut: post({
    id: 'signOut',
    path: `${root}/signout`,
    group: sessions,
    summary: 'Sign out',
    description: 'Ends the session and every token that was issued in it. Answers the same when nobody is signed in.',
    body: nothing,
    answer: { status: 204, description: 'Nobody is signed in now.' },
    problems: [],
  }),
} as const

/** What any request to the API can be refused with, and what any POST can. */
export const commonProblems = ['request_foreign', 'host_unknown', 'internal', 'outage'] as const
export const postProblems = ['input_invalid', 'too_large', 'media_type', 'busy'] as const

export function problemsOf(operation: Operation): readonly ProblemCode[] {
  return [...operation.problems, ...(operation.method === 'POST' ? postProblems : []), ...commonProblems]
}

// The closed list of mails: what each of them is about, and the strict shape of what it says. Words are in views/mail/,
// keeping and sending elsewhere. Names and places come from people and browsers, so nothing that could break a line, a
// header or the direction of reading passes from here on (F58, F77).
import { z } from 'zod'
import { isEmailShaped } from '../accounts/accounts.ts'

const maxNameLength = 100
const maxPlaceLength = 200
const maxLinkLength = 2_048

/** Text of somebody else's on one line: shortened rather than refused, because its length is no reason to fail an act. */
const line = (maxLength: number) => z.string().transform((text) => oneLine(text, maxLength))
const address = z.string().refine(isEmailShaped, 'is not an address that mail can be sent to')
const link = z.string().max(maxLinkLength).refine(isWebLink, 'is not a link')
const minutes = z.number().int().min(1).max(1_440)
const hours = z.number().int().min(1).max(8_760)

/** What an account's owner is told of. */
export const noticeKinds = [
  'new_device',
  'password_changed',
  'password_reset',
  'factor_added',
  'factor_removed',
  'backup_codes_created',
  'backup_code_used',
  'email_change_requested',
  'email_changed',
  'sign_in_disabled',
  'sessions_ended',
] as const
export type NoticeKind = (typeof noticeKinds)[number]

const notice = z
  .strictObject({
    kind: z.enum(noticeKinds),
    name: line(maxNameLength),
    /** When it happened, RFC 3339 in UTC. */
    at: z.iso.datetime(),
    /** From where, in words. */
    where: line(maxPlaceLength),
    notMeLink: link,
    /** Backup codes left. */
    left: z.number().int().nonnegative().optional(),
  })
  .refine((data) => data.kind !== 'backup_code_used' || data.left !== undefined, 'says how many codes are left')

export const mailMessage = z.discriminatedUnion('template', [
  // Dropped by the worker. It exists so that asking about an unknown address does what asking about a known one does (F32).
  z.strictObject({ template: z.literal('none') }),
  withData('sign-in-link', z.strictObject({ link, minutes, clientName: line(maxNameLength) })),
  withData(
    'sign-up-link',
    z.strictObject({ link, minutes, name: line(maxNameLength), clientName: line(maxNameLength) }),
  ),
  withData(
    'sign-up-known',
    z.strictObject({ clientName: line(maxNameLength), signInHint: line(maxPlaceLength).optional() }),
  ),
  withData(
    'invitation',
    z.strictObject({ link, hours, organizationName: line(maxNameLength), inviterName: line(maxNameLength) }),
  ),
  withData('reset-link', z.strictObject({ link, minutes, hasSecondFactor: z.boolean() })),
  // For an account that an administrator made: its owner never asked for a password.
  withData(
    'welcome',
    z.strictObject({ link, minutes, name: line(maxNameLength), organizationName: line(maxNameLength) }),
  ),
  // The same where nobody has a password: its link is a page, and works always.
  withData(
    'welcome-without-password',
    z.strictObject({ link, name: line(maxNameLength), organizationName: line(maxNameLength) }),
  ),
  withData('email-change-confirm', z.strictObject({ link, hours, name: line(maxNameLength) })),
  withData('notice', notice),
])

/** One mail: which, to whom, and what it says. */
export type MailMessage = z.input<typeof mailMessage>
/** One mail that is really sent. */
export type SendableMessage = Exclude<MailMessage, { template: 'none' }>

function withData<Name extends string, Data extends z.ZodType>(template: Name, data: Data) {
  return z.strictObject({ template: z.literal(template), to: address, data })
}

/** How long a mail is worth sending, in seconds: as long as its link works. Undefined: always. */
export function usefulSeconds(message: MailMessage): number | undefined {
  if (!('data' in message)) return undefined
  if ('minutes' in message.data) return message.data.minutes * 60
  return 'hours' in message.data ? message.data.hours * 3_600 : undefined
}

/** The links of a mail. */
export function linksOf(message: SendableMessage): string[] {
  const { data } = message
  if ('link' in data) return [data.link]
  return 'notMeLink' in data ? [data.notMeLink] : []
}

/** Takes out what breaks lines, hides or turns the direction of reading round. */
function oneLine(text: string, maxLength: number): string {
  const clean = text
    .toWellFormed()
    .replace(/[\p{Cc}\p{Zl}\p{Zp}\p{Bidi_Control}]/gu, ' ')
    .replace(/\s+/g, ' ')
    .trim()
  return [...clean].slice(0, maxLength).join('')
}

function isWebLink(text: string): boolean {
  const url = URL.parse(text)
  return url !== null && /^https?:$/.test(url.protocol) && !/[\s\p{Cc}<>"]/u.test(text)
}

// The audit trail in words for the person it is about: one sentence per event. Pure. What is not known here gets a
// sentence that says no more than that something was recorded.
import { z } from 'zod'
import { type AuditEventName, auditEvents } from '../audit/events.ts'
import { capital } from './words.ts'

/** What a sentence is made of. */
export interface TrailEntry {
  readonly name: string
  readonly outcome: string
  readonly details: unknown
  /** The app's name, or its id when it is not registered any more. */
  readonly app: string | undefined
  /** Done by another person, such as an administrator. */
  readonly bySomebodyElse: boolean
}

/** A detail by its name, as text; empty when it is not there. */
type Details = (name: string) => string
type Words = (details: Details, entry: TrailEntry) => string

const anApp = ({ app }: TrailEntry) => app ?? 'an app'
const who = ({ bySomebodyElse }: TrailEntry) => (bySomebodyElse ? 'An administrator' : 'You')
const counted = (count: string, one: string, many: string) => (count === '1' ? `one ${one}` : `${count} ${many}`)

const kinds: Readonly<Record<string, string>> = {
  AccessToken: 'an access token',
  RefreshToken: 'a refresh token',
  ClientCredentials: 'an access token',
}
const linkKinds: Readonly<Record<string, string>> = {
  sign_in: 'a sign-in link',
  sign_up: 'a link to confirm a new account',
  reset: 'a link to a new password',
  invite: 'an invitation',
  email_change: 'a link to confirm a new e-mail address',
  not_me: 'a “this was not me” link',
}
const authenticators: Readonly<Record<string, string>> = {
  password: 'Your password',
  totp: 'Your authenticator',
  backup_code: 'Your backup codes',
}
const methods: Readonly<Record<string, string>> = {
  password: 'your password',
  magic_link: 'a link from a mail',
  totp: 'a code of your authenticator',
  backup_code: 'a backup code',
}
const causes: Readonly<Record<string, string>> = {
  password_reset: 'because the password was reset',
  password_changed: 'because the password was changed',
  factor_changed: 'because a second factor was changed',
  disowned: 'because you said “this was not me”',
  ended_by_owner: 'because you asked for it',
  address_proven: 'because the e-mail address was confirmed for the first time',
  disabled: 'because the account was switched off',
  sign_out: 'because you signed out',
  signed_in_anew: 'because you signed in again in the same browser',
  idle: 'because it was not used for a while',
  absolute: 'because it had lasted as long as a session may',
  ended_by_administrator: 'because an administrator ended it',
  max_concurrent: 'because you signed in somewhere else and only so many sessions are allowed',
  network: 'because it came from a network that is not allowed any more',
  organization_closed: 'because the organisation was closed',
  membership_ended: 'because you do not belong to the organisation any more',
  client_disabled: 'because the app was switched off',
  consent_withdrawn: 'because you removed the access of an app',
}
const failures: Readonly<Record<string, string>> = {
  mismatch: 'the password was not right',
  current_password: 'the current password was not right',
  code_mismatch: 'the code was not right',
  backup_mismatch: 'the backup code was not right',
  throttled: 'there were too many tries',
  link_dead: 'the link no longer worked',
}
const changes: Readonly<Record<string, string>> = {
  name: 'name',
  totpName: 'the name of an authenticator',
  backupCodes: 'backup codes (removed)',
  email: 'e-mail address',
  roles: 'roles',
  disabled: 'whether it may be used',
  totp: 'authenticator',
  emailVerified: 'whether the address is confirmed',
  metadata: 'details',
  organization: 'organisation',
}
const because = (details: Details, name: string) => {
  const cause = causes[details(name)]
  return cause === undefined ? '' : `, ${cause}`
}

const sentences: Readonly<Partial<Record<AuditEventName, Words>>> = {
  'login.succeeded': (_, entry) => `You signed in to ${anApp(entry)}.`,
  'login.failed': (details) => {
    const reason = failures[details('reason')]
    return `Somebody tried to sign in and was refused${reason === undefined ? '' : `: ${reason}`}.`
  },
  'login.factor_succeeded': (details) => `A sign-in went on with ${methods[details('method')] ?? 'another proof'}.`,
  'account.signed_up': () => 'You created this account.',
  'account.created': () => 'This account was created.',
  'account.updated': (details, entry) => {
    const changed = details('changed')
      .split(',')
      .filter((name) => name !== '')
      .map((name) => changes[name] ?? 'settings')
    return `${who(entry)} changed your account${changed.length > 0 ? `: ${[...new Set(changed)].join(', ')}` : ''}.`
  },
  'account.email_verified': (details) =>
    details('passwordRemoved') === 'true'
      ? 'Your e-mail address was confirmed for the first time. A password set before was removed for safety.'
      : 'Your e-mail address was confirmed.',
  'account.email_changed': () => 'Your e-mail address was changed.',
  'account.data_exported': () => 'You downloaded your data.',
  'account.disowned': () => 'You said “this was not me”. Everything was signed out.',
  'invitation.sent': () => 'An invitation was sent.',
  'invitation.accepted': () => 'You accepted an invitation.',
  'link.sent': (details) => `${capital(linkKinds[details('kind')] ?? 'a link')} was asked for.`,
  'link.used': (details) => `${capital(linkKinds[details('kind')] ?? 'a link')} was used.`,
  'link.refused': (details) => `${capital(linkKinds[details('kind')] ?? 'a link')} was refused.`,
  'totp.setup_started': () => 'You began to set up an authenticator.',
  'totp.enabled': (_, entry) => `${who(entry)} turned an authenticator on.`,
  'totp.removed': (_, entry) => `${who(entry)} removed an authenticator.`,
  'backup_codes.created': (details) => `New backup codes were made: ${details('count')}. Older ones stopped working.`,
  'backup_code.used': (details) => `A backup code was used; codes left: ${details('left')}.`,
  'authenticator.disabled': (details) =>
    `${authenticators[details('kind')] ?? 'A way to sign in'} was switched off after too many failures.`,
  'authenticator.restored': (details) => `${authenticators[details('kind')] ?? 'A way to sign in'} may be used again.`,
  'device.added': () => 'You signed in on a device that was new to this account.',
  'device.approved': (_, entry) => `You connected a device to your account, for ${anApp(entry)}.`,
  'device.denied': (_, entry) => `A device that asked for your account was not connected, for ${anApp(entry)}.`,
  'device.code_refused': () => 'You typed a code of a device that was not right.',
  'access.ended': (details) => {
    const [sessions, tokens] = [details('sessions'), details('tokens')]
    const cause = because(details, 'cause')
    return sessions === '0' && tokens === '0'
      ? `Other access was to be ended${cause}; there was none.`
      : `Access was ended${cause}: ${counted(sessions, 'session', 'sessions')} and ${counted(tokens, 'token', 'tokens')} of apps.`
  },
  'consent.granted': (_, entry) => `You allowed ${anApp(entry)} to use your account.`,
  'consent.denied': (_, entry) => `You did not allow ${anApp(entry)} to use your account.`,
  'consent.revoked': (_, entry) => `${who(entry)} removed the access of ${anApp(entry)}.`,
  'mail.failed': () => 'A mail to you could not be delivered.',
  'logout.succeeded': () => 'You signed out.',
  'session.created': (_, entry) => `A session began${entry.app === undefined ? '' : `, for ${entry.app}`}.`,
  'session.expired': (details) => `A session ended by itself${because(details, 'reason')}.`,
  'session.extended': () => 'You were still there, so your session went on.',
  'session.ended': (details) => `A session was ended${because(details, 'reason')}.`,
  'token.issued': (details, entry) =>
    `${capital(anApp(entry))} received ${kinds[details('kind')] ?? 'a token'} for your account.`,
  'token.refreshed': (_, entry) => `${capital(anApp(entry))} renewed its access to your account.`,
  'token.revoked': (_, entry) => `Access of ${anApp(entry)} was taken back.`,
  'code.refused': (details, entry) =>
    `${capital(anApp(entry))} tried to finish a sign-in without what belongs to it${details('isDead') === 'true' ? ', so often that the sign-in was stopped' : ''}.`,
  'token.reuse_detected': (details, entry) =>
    `A token of ${anApp(entry)} was used a second time. ${
      details('withinGrace') === 'true'
        ? 'That was within seconds, as happens when an answer gets lost, so nothing was ended.'
        : 'All access that came from it was ended.'
    }`,
  'authorization.refused': (_, entry) => `A request of ${anApp(entry)} was refused.`,
  'introspection.denied': (_, entry) => `${capital(anApp(entry))} asked about a token and got no answer.`,
  'password.changed': (details) =>
    details('by') === 'self'
      ? 'You changed your password.'
      : details('by') === 'reset'
        ? 'Your password was reset with a link from a mail.'
        : 'Your password was set by an administrator.',
  'password.change_required': () => 'A new password was asked of you for the next sign-in.',
  'factor.reset': () => 'Your second factor was reset, so that you can set up a new one.',
  'account.disabled': () => 'Your account was switched off.',
  'account.enabled': () => 'Your account was switched on again.',
  'membership.created': () => 'You were given a place in an organisation.',
  'membership.updated': () => 'Your roles in an organisation were changed.',
  'membership.ended': () => 'Your place in an organisation was taken away.',
  'delivery.requested': () => 'One of the programs of your organisation was sent a message.',
  'delivery.succeeded': (_, entry) => `${capital(anApp(entry))} was told that you are signed out.`,
  'delivery.failed': (_, entry) => `${capital(anApp(entry))} could not be told that you are signed out.`,
  'admin.access_denied': () => 'You were refused something that only administrators may do.',
  'audit.read': () => 'You read the audit log.',
  'audit.exported': () => 'You exported the audit log.',
  'password.rehashed': () => 'Your password is now kept in a stronger form. It did not change.',
}

const neutral = 'Something about your account was recorded.'

/** One sentence for an event. Never fails, whatever stands in the details. */
export function sentenceFor(entry: TrailEntry): string {
  const words = isEventName(entry.name) ? sentences[entry.name] : undefined
  return words ? words(detailsOf(entry.details), entry) : neutral
}

function isEventName(name: string): name is AuditEventName {
  return Object.hasOwn(auditEvents, name)
}

const detailsShape = z.record(z.string(), z.unknown())

function detailsOf(details: unknown): Details {
  const parsed = detailsShape.safeParse(details)
  return (name) => toText(parsed.success && Object.hasOwn(parsed.data, name) ? parsed.data[name] : undefined)
}

/** A list is joined by commas. Anything else than plain values says nothing. */
function toText(value: unknown): string {
  if (Array.isArray(value)) return value.filter((one) => typeof one === 'string').join(',')
  return typeof value === 'string' || typeof value === 'number' || typeof value === 'boolean' ? String(value) : ''
}

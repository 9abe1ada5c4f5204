// Mails in words: the templates under views/mail/, each as HTML and as text, and their subjects.
import { join } from 'node:path'
import { Eta } from 'eta'
import { viewsFolder } from '../http/views.ts'
import { linksOf, type NoticeKind, type SendableMessage } from './messages.ts'

export interface RenderedMail {
  readonly subject: string
  readonly text: string
  readonly html: string
}

export interface MailViews {
  /** @throws when a link of the message does not lead to the issuer */
  render(message: SendableMessage): RenderedMail
}

export function createMailViews({ issuer, cache }: { readonly issuer: string; readonly cache: boolean }): MailViews {
  const html = new Eta({ views: join(viewsFolder, 'mail/html'), cache, autoEscape: true })
  // Text has nothing to escape, and an &amp; in a link would break it. Line breaks are part of it, so none is trimmed.
  const text = new Eta({ views: join(viewsFolder, 'mail/text'), cache, autoEscape: false, autoTrim: false })
  return {
    render(message) {
      if (linksOf(message).some((link) => new URL(link).origin !== issuer))
        throw new Error(`a link of the mail ${message.template} does not lead to the issuer`)
      const subject = subjectOf(message)
      const data = { ...message.data, ...wordsOf(message), subject, issuer }
      return {
        subject,
        text: tidy(text.render(`/${message.template}`, data)),
        html: html.render(`/${message.template}`, data),
      }
    },
  }
}

function subjectOf(message: SendableMessage): string {
  switch (message.template) {
    case 'sign-in-link':
      return `Your sign-in link for ${message.data.clientName}`
    case 'sign-up-link':
      return 'Confirm your email address to create your account'
    case 'sign-up-known':
      return 'You already have an account'
    case 'invitation':
      return `You are invited to join ${message.data.organizationName}`
    case 'welcome':
    case 'welcome-without-password':
      return `Your account at ${message.data.organizationName}`
    case 'reset-link':
      return 'Choose a new password'
    case 'email-change-confirm':
      return 'Confirm your new email address'
    case 'notice':
      return notices[message.data.kind].subject
  }
}

/** What a notice says happened. `advice` is for a person who did it themselves and now needs to know something. */
const notices: Readonly<Record<NoticeKind, { subject: string; sentence: string; advice?: string }>> = {
  new_device: {
    subject: 'New sign-in to your account',
    sentence: 'Your account was used to sign in on a device that it had not been used on before.',
  },
  password_changed: { subject: 'Your password was changed', sentence: 'The password of your account was changed.' },
  password_reset: {
    subject: 'Your password was reset',
    sentence: 'A new password was chosen for your account with a link from an email.',
  },
  factor_added: {
    subject: 'An authenticator app was added',
    sentence: 'An authenticator app was added to your account as a second factor.',
  },
  factor_removed: {
    subject: 'An authenticator app was removed',
    sentence: 'An authenticator app was removed from your account.',
  },
  backup_codes_created: {
    subject: 'New backup codes were made',
    sentence: 'New backup codes were made for your account.',
    advice: 'Older backup codes no longer work.',
  },
  backup_code_used: {
    subject: 'A backup code was used',
    sentence: 'One of your backup codes was used to sign in.',
  },
  email_change_requested: {
    subject: 'A new email address was asked for',
    sentence: 'Somebody who is signed in to your account asked to change its email address.',
    advice: 'Nothing changes until the new address is confirmed.',
  },
  email_changed: {
    subject: 'Your email address was changed',
    sentence: 'The email address of your account was changed to another one.',
    advice: 'Messages about the account go to its new address from now on.',
  },
  sign_in_disabled: {
    subject: 'A way to sign in was switched off',
    sentence:
      'There were too many failed attempts in a row on your account, so we switched off the way to sign in that they used.',
    advice:
      'Choose a new password with “Forgot password?” on the sign-in page, or ask the administrator of your organisation.',
  },
  sessions_ended: {
    subject: 'You were signed out',
    sentence: 'Your account was signed out on its devices.',
  },
}

function wordsOf(message: SendableMessage): Readonly<Record<string, unknown>> {
  const { data } = message
  return {
    greeting: 'name' in data ? greet(data.name) : 'Hello,',
    ...('minutes' in data ? { lasts: durationInWords(data.minutes) } : {}),
    ...('hours' in data ? { lasts: durationInWords(data.hours * 60) } : {}),
    ...('inviterName' in data ? { inviter: isPlainName(data.inviterName) ? data.inviterName : 'Somebody' } : {}),
    ...('kind' in data ? { ...notices[data.kind], when: timeInWords(data.at), advice: adviceOf(data) } : {}),
  }
}

function adviceOf({ kind, left }: { readonly kind: NoticeKind; readonly left?: number | undefined }): string {
  if (kind !== 'backup_code_used') return notices[kind].advice ?? ''
  if (left === 0) return 'It was the last one. Make new backup codes on your account page.'
  return `That code cannot be used again. You have ${left} ${left === 1 ? 'backup code' : 'backup codes'} left.`
}

function greet(name: string): string {
  return isPlainName(name) ? `Hello ${name},` : 'Hello,'
}

/**
 * Whether a name may stand in a mail. Anybody can ask for a mail to somebody else and choose the name in it, and mail
 * programs turn what looks like an address into a link: such a name is left out.
 */
export function isPlainName(name: string): boolean {
  return /^[\p{L}\p{M}\p{Nd} .,'’‘()‐-]{1,60}$/u.test(name) && !/[\p{L}\p{Nd}]{2}\.[\p{L}\p{Nd}]{2}/u.test(name)
}

/** "10 minutes", "2 hours", "3 days". */
function durationInWords(minutes: number): string {
  const [count, unit] =
    minutes % 1_440 === 0 && minutes > 1_440
      ? [minutes / 1_440, 'day']
      : minutes % 60 === 0
        ? [minutes / 60, 'hour']
        : [minutes, 'minute']
  return `${count} ${unit}${count === 1 ? '' : 's'}`
}

const inUtc = new Intl.DateTimeFormat('en-GB', { dateStyle: 'long', timeStyle: 'short', timeZone: 'UTC' })

/** "5 March 2026 at 14:03 UTC": where the reader is, the server does not know. */
function timeInWords(at: string): string {
  return `${inUtc.format(new Date(at))} UTC`
}

/** Without the empty lines that conditions in a template leave. */
function tidy(text: string): string {
  return `${text
    .replace(/[ \t]+$/gm, '')
    .replace(/\n{3,}/g, '\n\n')
    .trim()}\n`
}

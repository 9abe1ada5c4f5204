// Security notices: what happened to an account, told to its owner in the transaction in which it happened, with a link
// that says "this was not me" (SP 800-63B-4 §4.6: notifications carry a way to repudiate).
import type { Origin } from '../audit/events.ts'
import type { Tx } from '../db/database.ts'
import type { NoticeKind } from '../mail/messages.ts'
import type { Outbox } from '../mail/outbox.ts'
import { linkUrl, type MailLinks } from './mail-links.ts'

export interface NoticeAccount {
  readonly id: string
  readonly email: string
  readonly name: string
  readonly organization: { readonly id: string }
}

/** A change of address: what it was, and what it became. */
export interface AddressChange {
  readonly from: string
  readonly to: string
}

export interface Notices {
  /**
   * Tells the owner of an account.
   * @param extra `left`: backup codes left; `to`: another address than the account's; `restore`: the address before a
   *   change, told at that address, which "this was not me" brings back
   */
  send(
    tx: Tx,
    account: NoticeAccount,
    kind: NoticeKind,
    origin: Origin,
    extra?: { readonly left?: number; readonly to?: string; readonly restore?: AddressChange },
  ): Promise<void>
}

export function createNotices(parts: {
  readonly outbox: Pick<Outbox, 'enqueue'>
  readonly links: MailLinks
  readonly issuer: string
  now(): Date
}): Notices {
  const { outbox, links, issuer, now } = parts
  return {
    async send(tx, account, kind, origin, extra = {}) {
      const token = await links.issue(tx, {
        kind: 'not_me',
        accountId: account.id,
        organizationId: account.organization.id,
        payload: { notice: kind, ...(extra.restore ? { restore: extra.restore } : {}) },
      })
      await outbox.enqueue(
        tx,
        {
          template: 'notice',
          to: extra.to ?? account.email,
          data: {
            kind,
            name: account.name,
            at: now().toISOString(),
            where: placeInWords(origin),
            notMeLink: linkUrl(issuer, '/not-me', token),
            ...(extra.left === undefined ? {} : { left: extra.left }),
          },
        },
        account.id,
      )
    },
  }
}

/** Where something was done from, for people: the kind of browser and the address. */
export function placeInWords({ ip, userAgent }: Origin): string {
  const device = deviceInWords(userAgent)
  return ip === undefined ? device : `${device}, from ${ip}`
}

const browsers: readonly (readonly [RegExp, string])[] = [
  [/\bEdg(?:e|A|iOS)?\//, 'Edge'],
  [/\bOPR\//, 'Opera'],
  [/\bFirefox\/|\bFxiOS\//, 'Firefox'],
  [/\bSamsungBrowser\//, 'Samsung Internet'],
  [/\bChrome\/|\bCriOS\//, 'Chrome'],
  [/\bSafari\//, 'Safari'],
]
const systems: readonly (readonly [RegExp, string])[] = [
  [/\biPhone\b/, 'iPhone'],
  [/\biPad\b/, 'iPad'],
  [/\bAndroid\b/, 'Android'],
  [/\bWindows\b/, 'Windows'],
  [/\bMac OS X\b/, 'macOS'],
  [/\bCrOS\b/, 'ChromeOS'],
  [/\bLinux\b/, 'Linux'],
]

/** A user agent in words, such as "Firefox on Windows". What a browser says of itself is a hint, never a proof. */
export function deviceInWords(userAgent: string | undefined): string {
  const nameIn = (list: typeof browsers) => list.find(([pattern]) => pattern.test(userAgent ?? ''))?.[1]
  const [browser, system] = [nameIn(browsers), nameIn(systems)]
  if (browser !== undefined && system !== undefined) return `${browser} on ${system}`
  return browser ?? system ?? 'an unknown device'
}

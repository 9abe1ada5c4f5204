// What the server mailed, read from its developer mailbox as a person would read their mail.
import type { Mail } from '../../src/mail/mailbox.ts'
import type { TestServer } from './server.ts'

const patienceMs = 5_000
const lookEveryMs = 20

export function mailsTo(server: TestServer, address: string): Mail[] {
  return server.server.mails().filter((mail) => mail.to === address)
}

/** Waits for the `count`-th mail to an address and returns the newest. */
export async function mailTo(server: TestServer, address: string, count = 1): Promise<Mail> {
  const end = Date.now() + patienceMs
  for (;;) {
    const mails = mailsTo(server, address)
    if (mails.length >= count && mails[0]) return mails[0]
    if (Date.now() > end) throw new Error(`${mails.length} of ${count} mails came to ${address}`)
    await new Promise((resolve) => setTimeout(resolve, lookEveryMs))
  }
}

/** The first link in a mail that carries a token, as path and query. */
export function linkIn(mail: Mail): string {
  const link = /https?:\/\/\S+\?token=[\w-]+/.exec(mail.text)?.[0]
  if (link === undefined) throw new Error(`no link in: ${mail.text}`)
  const url = new URL(link)
  return `${url.pathname}${url.search}`
}

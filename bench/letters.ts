// What a person reads in their mail: the links, as the developer mailbox of whichever replica sent it shows them.

import type { Server } from './installation.ts'
import { send } from './load.ts'

const withinMs = 10_000
const lookEveryMs = 20

interface Letter {
  readonly to: string
  readonly text: string
}

/**
 * Waits for a mail to this address and returns the way that its link leads, with the token.
 * @param path of the page behind the link, which tells it from other mails to the same person
 */
export async function mailedLink(servers: readonly Server[], to: string, path: string): Promise<string> {
  const end = performance.now() + withinMs
  while (performance.now() < end) {
    for (const server of servers) {
      const { text } = await send(`${server.url}/dev/mailbox.json`, { port: server.port })
      const letters: Letter[] = JSON.parse(text)
      const link = letters.filter((letter) => letter.to === to).flatMap((letter) => linksIn(letter.text))
      const found = link.find((one) => one.startsWith(`${path}?`))
      if (found !== undefined) return found
    }
    await new Promise((resolve) => setTimeout(resolve, lookEveryMs))
  }
  throw new Error(`no mail to ${to} leads to ${path}`)
}

const linksIn = (text: string) =>
  [...text.matchAll(/https?:\/\/\S+\?token=[\w-]+/g)].map(([link]) => {
    const { pathname, search } = new URL(link)
    return pathname + search
  })

// F101: a mail server that takes the call and says nothing. Nobody who signs in or asks for a link waits for it.

import type { AddressInfo } from 'node:net'
import { createServer, type Server, type Socket } from 'node:net'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { authorizationUrl, Browser, signIn } from '../support/client.ts'
import { people, startServer, type TestServer } from '../support/server.ts'

let silent: Server
const calls: Socket[] = []
let server: TestServer
beforeAll(async () => {
  silent = createServer((socket) => void calls.push(socket.on('error', () => undefined)))
  await new Promise<void>((resolve) => silent.listen(0, '127.0.0.1', resolve))
  const { port } = silent.address() as AddressInfo
  server = await startServer('postgres', {
    environment: { ENABLE_MAGIC_LINKS: 'true', SMTP_URL: `smtp://127.0.0.1:${port}` },
    seed: people,
  })
})
afterAll(async () => {
  for (const socket of calls) socket.destroy()
  silent.close()
  await server.close()
})

const unsent = () =>
  server.database.kysely.selectFrom('mail_outbox').select('id').where('sent_at', 'is', null).execute()

describe('F101: a mail server that hangs', () => {
  it('holds the mail and nobody else', async () => {
    const browser = new Browser(server)
    const page = await browser.follow(await browser.request(authorizationUrl(server, 'first').url))
    const csrf = /name="csrf" value="([^"]+)"/.exec(page.text)?.[1] ?? ''
    const asked = await browser.follow(
      await browser.request(`${new URL(page.url).pathname}/link`, { form: { csrf, email: 'lee@mercy.example' } }),
    )
    expect(asked.text).toContain('Check your email')
    while (calls.length === 0) await new Promise((resolve) => setTimeout(resolve, 20))
    const landing = await signIn(new Browser(server), authorizationUrl(server, 'first'), 'ada@mercy.example')
    expect(landing.url).toContain('code=')
    expect(await unsent(), 'the mail still waits').not.toEqual([])
  })
})

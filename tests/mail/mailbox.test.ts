// The developer mailbox and what doctor says about mail.
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import pino from 'pino'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { examine } from '../../src/cli/doctor.ts'
import { parseConfig } from '../../src/config.ts'
import { createSecrets } from '../../src/crypto/secrets.ts'
import { createApp } from '../../src/http/app.ts'
import { createViews } from '../../src/http/views.ts'
import { addMailboxRoutes, createMailbox, maxKeptMails, splitLinks } from '../../src/mail/mailbox.ts'
import { createOutbox } from '../../src/mail/outbox.ts'
import { openDatabase } from '../../src/process.ts'
import { databaseKinds, testSecret } from '../support/server.ts'
import { enqueue, openMailDatabase, signInLink, startPost, startSmtp, until } from './support.ts'

const issuer = 'http://localhost:3001'
const views = createViews({ cache: true })
const silent = pino({ level: 'silent' })

async function mailboxApp() {
  const mailbox = createMailbox()
  const { app } = await createApp({ issuer, trustedProxies: [], logger: silent, views })
  addMailboxRoutes(app, { mails: mailbox.mails, issuer, views })
  const get = (url: string) => app.inject({ url, headers: { host: 'localhost:3001' } })
  return { app, mailbox, get }
}
const mail = (subject: string, text = 'x') => ({
  to: 'ada@mercy.example',
  from: 'x@y.example',
  subject,
  text,
  html: '<p>x</p>',
})

describe('the developer mailbox', () => {
  it('lists mails newest first, in the shape of the contract', async () => {
    const { app, mailbox, get } = await mailboxApp()
    expect((await get('/dev/mailbox.json')).json()).toEqual([])
    expect((await get('/dev/mailbox')).body).toContain('No mail yet')
    await mailbox.send(mail('first'))
    await mailbox.send(mail('second'))
    const answer = await get('/dev/mailbox.json')
    expect(answer.headers['cache-control']).toBe('no-store')
    const listed = answer.json<Record<string, string>[]>()
    expect(listed.map(({ subject }) => subject)).toEqual(['second', 'first'])
    expect(Object.keys(listed[0] ?? {}).sort()).toEqual(['html', 'sentAt', 'subject', 'text', 'to'])
    expect(listed[0]?.['sentAt']).toMatch(/^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$/)
    await app.close()
  })

  it(`keeps the newest ${maxKeptMails}`, async () => {
    const mailbox = createMailbox()
    for (let count = 1; count <= maxKeptMails; count += 1) await mailbox.send(mail(`${count}`))
    expect(mailbox.mails().at(-1)?.subject).toBe('1')
    await mailbox.send(mail('one more'))
    expect(mailbox.mails()).toHaveLength(maxKeptMails)
    expect([mailbox.mails()[0]?.subject, mailbox.mails().at(-1)?.subject]).toEqual(['one more', '2'])
  })

  it('links to our own pages and to this machine, escapes everything, and links nowhere else', async () => {
    const { app, mailbox, get } = await mailboxApp()
    const own = `${issuer}/x?token=a&kind=b`
    const text = `<script>alert(1)</script> ${own} http://localhost:3002/ https://evil.example/ http://localhost:3001@evil.example/ javascript:alert(1)`
    await mailbox.send({ ...mail('<b>bold</b>', text), to: '<i>@x.example' })
    const { body } = await get('/dev/mailbox')
    const hrefs = [...body.matchAll(/href="([^"]*)"/g)]
      .map((match) => match[1] ?? '')
      .filter((href) => !href.startsWith('/'))
    expect(hrefs).toEqual([own.replace('&', '&amp;'), 'http://localhost:3002/'])
    expect(body).not.toMatch(/<script>|<b>|<i>/)
    expect(body).toContain('&lt;script&gt;')
    await app.close()
  })

  it('splits a text without losing any of it', () => {
    for (const text of ['', 'no link', `${issuer}/a`, `a ${issuer}/b, https://evil.example c\n`, 'http:// https://%'])
      expect(
        splitLinks(text, issuer)
          .map((part) => part.text)
          .join(''),
      ).toBe(text)
    const lead = (text: string) => splitLinks(text, issuer).some((part) => part.isLink)
    expect([`${issuer}/a`, 'http://localhost:9/'].map(lead)).toEqual([true, true])
    for (const text of [
      'http://localhost.evil.example/',
      'https://localhost/',
      'http://u@localhost/',
      `x${issuer.slice(4)}`,
    ])
      expect(lead(text), text).toBe(false)
  })

  it.each(databaseKinds)('receives what goes through the outbox on %s', async (kind) => {
    const place = await openMailDatabase(kind)
    const mailbox = createMailbox(() => new Date('2026-03-05T14:03:00Z'))
    const post = startPost(place.database, mailbox)
    await enqueue(place.database, post.outbox, signInLink('ada@mercy.example'))
    await until(() => expect(mailbox.mails()).toHaveLength(1))
    await post.stop()
    await place.close()
    expect(mailbox.mails()[0]).toMatchObject({
      to: 'ada@mercy.example',
      subject: 'Your sign-in link for Test EHR',
      sentAt: '2026-03-05T14:03:00.000Z',
    })
  })
})

describe('doctor', () => {
  let folder = ''
  beforeAll(async () => {
    folder = await mkdtemp(join(tmpdir(), 'mlpipes-doctor-'))
  })
  afterAll(() => rm(folder, { recursive: true, force: true }))
  const configOf = (environment: Record<string, string>) =>
    parseConfig({ NODE_ENV: 'test', MLPIPES_AUTH_SECRET: testSecret, DATA_DIR: folder, ...environment })
  const finding = async (environment: Record<string, string>, check: string) =>
    (await examine(configOf(environment))).find((found) => found.check === check)

  it('signs in to the mail server and says what to do when that fails', async () => {
    const smtp = await startSmtp({ name: 'mercy', password: 'right' })
    const at = (user: string) => ({ SMTP_URL: smtp.url.replace('//', `//${user}@`) })
    const server = `127.0.0.1:${smtp.port}`
    expect(await finding(at('mercy:right'), 'mail')).toEqual({
      check: 'mail',
      ok: true,
      detail: `${server} takes mail from us`,
    })
    const refused = await finding(at('mercy:canary'), 'mail')
    expect(refused).toMatchObject({ ok: false })
    expect(refused?.detail).toBe(`${server} cannot be used (EAUTH 535); check the user and password in SMTP_URL`)
    await smtp.close()
    const gone = await finding(at('mercy:right'), 'mail')
    expect(gone).toMatchObject({ ok: false, detail: expect.stringContaining('check SMTP_URL and the network') })
    expect(await finding({}, 'mail')).toMatchObject({ ok: true, detail: expect.stringContaining('/dev/mailbox') })
  })

  it('counts dead letters, and minds those that no receiver refused', async () => {
    const give = async (code: string) => {
      const database = await openDatabase(configOf({}), silent)
      const outbox = createOutbox({ database, secrets: createSecrets(testSecret) })
      await enqueue(database, outbox, signInLink('canary@mercy.example'))
      for (const held of await outbox.takeDue(1)) await outbox.markFailed(held, { code, permanent: true })
      await database.close()
    }
    expect(await finding({}, 'dead letters')).toEqual({ check: 'dead letters', ok: true, detail: 'none' })
    await give('refused 550')
    const one = await finding({}, 'dead letters')
    expect(one).toMatchObject({
      ok: true,
      detail: expect.stringMatching(/^1 in .*, 1 of them refused .*sign-in-link of 20.*: refused 550$/),
    })
    await give('ETIMEDOUT')
    const two = await finding({}, 'dead letters')
    expect(two).toMatchObject({
      ok: false,
      detail: expect.stringMatching(/^2 in .*, 1 of them .*ETIMEDOUT.*refused 550; see docs\/guides\/mail\.md$/),
    })
    expect(JSON.stringify([one, two])).not.toContain('canary')
  })
})

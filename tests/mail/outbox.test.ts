// F101 and F58: mails wait in the database, go out once, come back after failures, and say nothing to whoever reads the table.
import fc from 'fast-check'
import pg from 'pg'
import { afterAll, beforeAll, beforeEach, describe, expect, inject, it } from 'vitest'
import { listAudit } from '../../src/audit/audit.ts'
import { createSecrets } from '../../src/crypto/secrets.ts'
import { transact } from '../../src/db/transaction.ts'
import { createOutbox, leaseSeconds, maxAttempts, retrySeconds } from '../../src/mail/outbox.ts'
import { createSmtpTransport, needsTls, smtpDeadlineMs, verifySmtp } from '../../src/mail/smtp.ts'
import { DeliveryFailed } from '../../src/mail/transport.ts'
import { maxParallelMails } from '../../src/mail/worker.ts'
import { databaseKinds, testSecret } from '../support/server.ts'
import {
  type Answer,
  addAccount,
  enqueue,
  from,
  type MailDatabase,
  openMailDatabase,
  outboxRows,
  secrets,
  signInLink,
  startPost,
  startSmtp,
  type TestSmtp,
  until,
} from './support.ts'

/** Answers with the first of these, then the second, and so on; the last one repeats. */
const inTurn = (...answers: Answer[]) => {
  let count = 0
  return () => answers[Math.min(count++, answers.length - 1)] ?? 'ok'
}

/** RFC 5321 §4.1.2: a local part in quotes is the same one without them. */
const unquoted = (address: string) =>
  address.replace(/^"((?:[^"\\]|\\.)*)"@/, (_all, inner: string) => `${inner.replace(/\\(.)/g, '$1')}@`)

describe.each(databaseKinds)('the outbox on %s', (kind) => {
  let place: MailDatabase
  let smtp: TestSmtp
  beforeAll(async () => {
    place = await openMailDatabase(kind)
    await addAccount(place.database)
  })
  afterAll(() => place.close())
  beforeEach(async () => {
    await place.database.kysely.deleteFrom('mail_outbox').execute()
    smtp = await startSmtp()
    return () => smtp.close()
  })
  const plainOutbox = (options: Partial<Parameters<typeof createOutbox>[0]> = {}) =>
    createOutbox({ database: place.database, secrets, ...options })

  it('shows a dump of the table neither addresses nor links nor names, before and after sending', async () => {
    const post = startPost(place.database, smtp.url)
    smtp.script.recipient = inTurn(451, 'ok')
    const dump = async () =>
      JSON.stringify(await place.database.run('select to_jsonb(m)::text as row from mlpipes_auth.mail_outbox as m', []))
    await enqueue(place.database, post.outbox, signInLink('canary-address@mercy.example', 'canary-token'), 'acc_ada')
    const [before] = await outboxRows(place.database)
    expect(before?.sealed).toMatch(/^v1\./)
    expect(await dump()).not.toMatch(/canary|mercy\.example|Test EHR/)
    await until(async () => expect((await outboxRows(place.database))[0]).toMatchObject({ sent: true, attempts: 2 }))
    expect(await dump()).not.toMatch(/canary|mercy\.example|Test EHR/)
    expect((await outboxRows(place.database))[0]?.sealed).toBeNull()
    expect(smtp.received[0]?.mail.text).toContain('canary-token')
    await post.stop()
    expect(post.logs.join()).not.toMatch(/canary/)
  })

  it('tries again after a 451', async () => {
    smtp.script.recipient = inTurn(451, 451, 'ok')
    const post = startPost(place.database, smtp.url)
    await enqueue(place.database, post.outbox, signInLink('ada@mercy.example'))
    await until(async () => expect((await outboxRows(place.database))[0]).toMatchObject({ sent: true, attempts: 3 }))
    await post.stop()
    expect(smtp.asked).toEqual(Array(3).fill('ada@mercy.example'))
    expect(smtp.received).toHaveLength(1)
    expect(post.logs.filter((line) => line.includes('EENVELOPE 451'))).toHaveLength(2)
  })

  it.each(['recipient', 'data'] as const)('gives a mail up at once when its %s is refused with 550', async (stage) => {
    smtp.script[stage] = () => 550
    const post = startPost(place.database, smtp.url)
    const before = (await listAudit(place.database.kysely)).length
    await enqueue(place.database, post.outbox, signInLink('nobody@mercy.example'), 'acc_ada')
    await until(async () => expect((await outboxRows(place.database))[0]?.dead).toBe(true))
    await post.stop()
    expect(await outboxRows(place.database)).toEqual([
      { template: 'sign-in-link', sealed: null, attempts: 1, sent: false, dead: true, lastError: 'refused 550' },
    ])
    const events = (await listAudit(place.database.kysely)).slice(0, -before || undefined)
    expect(
      events.map(({ name, outcome, actorType, accountId, organizationId, details }) => ({
        name,
        outcome,
        actorType,
        accountId,
        organizationId,
        details,
      })),
    ).toEqual([
      {
        name: 'mail.failed',
        outcome: 'failure',
        actorType: 'system',
        accountId: 'acc_ada',
        organizationId: 'org_acc_ada',
        details: { template: 'sign-in-link', attempts: 1 },
      },
    ])
    expect(await post.outbox.deadLetters()).toMatchObject({
      count: 1,
      refused: 1,
      newest: [{ template: 'sign-in-link', lastError: 'refused 550' }],
    })
    expect(post.logs.join()).not.toMatch(/nobody@|canary of the server/)
  })

  it.each([
    ['greeting', (answer: () => Answer) => ({ connect: answer })],
    ['recipient', (answer: () => Answer) => ({ recipient: answer })],
    ['end', (answer: () => Answer) => ({ data: answer })],
  ] as const)('is not held by a server that falls silent at the %s, and tries again', async (_stage, at) => {
    const post = startPost(place.database, smtp.url, { smtp: { timeoutMs: 300 } })
    Object.assign(smtp.script, at(inTurn('silence', 'ok')))
    await enqueue(place.database, post.outbox, signInLink('ada@mercy.example'))
    await until(async () => expect((await outboxRows(place.database))[0]).toMatchObject({ sent: true, attempts: 2 }))
    await post.stop()
    expect(post.logs.join()).toContain('ETIMEDOUT')
    // One that fell silent at the end may have taken it: the repetition can be told by its id.
    expect(new Set(smtp.received.map(({ mail }) => mail.messageId)).size).toBe(1)
  })

  it('sends 50 mails once each with two workers', async () => {
    const posts = [place.database, place.another()].map((database) => startPost(database, smtp.url))
    const [first] = posts
    if (!first) throw new Error('there are two')
    const addresses = Array.from({ length: 50 }, (_, index) => `person${index}@mercy.example`)
    await transact(place.database.kysely, async (tx) => {
      for (const address of addresses) await first.outbox.enqueue(tx, signInLink(address))
    })
    await until(async () => expect((await outboxRows(place.database)).filter((row) => row.sent)).toHaveLength(50))
    await Promise.all(posts.map((post) => post.stop()))
    expect(smtp.received.flatMap(({ recipients }) => recipients).sort()).toEqual(addresses.sort())
    expect((await outboxRows(place.database)).every((row) => row.attempts === 1)).toBe(true)
  })

  it('lends a mail to one of 20 that take at once', async () => {
    const outbox = plainOutbox()
    for (let round = 0; round < 5; round += 1) {
      await enqueue(place.database, outbox, signInLink('ada@mercy.example'))
      const taken = (await Promise.all(Array.from({ length: 20 }, () => outbox.takeDue(5)))).flat()
      expect(taken).toHaveLength(1)
      expect(await outbox.markSent(taken[0] ?? { id: '0', template: '', attempts: 0 })).toBe(true)
    }
  })

  it('lends a mail again when its worker died, and hears that worker no more', async () => {
    const outbox = plainOutbox({ leaseSeconds: 0 })
    await enqueue(place.database, outbox, signInLink('ada@mercy.example'))
    const [dead] = await outbox.takeDue(1)
    const [alive] = await outbox.takeDue(1)
    if (!dead || !alive) throw new Error('it is lent twice')
    expect([dead.id, dead.attempts, alive.attempts]).toEqual([alive.id, 1, 2])
    expect(dead.content?.messageId).toBe(alive.content?.messageId)
    expect(await outbox.markSent(dead)).toBe(false)
    expect(await outbox.markFailed(dead, { code: 'E', permanent: true })).toBe('lost')
    expect(await outbox.markSent(alive)).toBe(true)
    expect(await outbox.markSent(alive)).toBe(false)
    expect(await outbox.takeDue(1)).toEqual([])
  })

  it('does not lend what is lent, and waits longer after each failure by the database’s clock', async () => {
    const outbox = plainOutbox()
    await enqueue(place.database, outbox, signInLink('ada@mercy.example'))
    const waits = `select round(extract(epoch from next_attempt_at - now()))::integer as seconds from mlpipes_auth.mail_outbox`
    const seconds = async () => Number((await place.database.run(waits, []))[0]?.['seconds'])
    const expected = [...retrySeconds, ...Array<number>(maxAttempts).fill(retrySeconds.at(-1) ?? 0)]
    for (let attempt = 1; attempt <= maxAttempts; attempt += 1) {
      const [mail] = await outbox.takeDue(1)
      if (!mail) throw new Error('it is due')
      expect(await outbox.takeDue(1)).toEqual([])
      expect(Math.abs((await seconds()) - leaseSeconds)).toBeLessThan(5)
      const outcome = await outbox.markFailed(mail, { code: 'ECONNECTION', permanent: false })
      expect(outcome).toBe(attempt < maxAttempts ? 'retry' : 'dead')
      if (attempt < maxAttempts) expect(Math.abs((await seconds()) - (expected[attempt - 1] ?? 0))).toBeLessThan(5)
      await place.database.kysely
        .updateTable('mail_outbox')
        .set({ next_attempt_at: new Date(0) })
        .execute()
    }
    expect(await outbox.takeDue(1)).toEqual([])
    expect(await outboxRows(place.database)).toMatchObject([
      { sealed: null, attempts: maxAttempts, dead: true, lastError: 'ECONNECTION' },
    ])
    expect(await outbox.deadLetters()).toMatchObject({ count: 1, refused: 0 })
  })

  it('gives up what ends every worker that tries it', async () => {
    await enqueue(place.database, plainOutbox(), signInLink('ada@mercy.example'))
    await place.database.kysely.updateTable('mail_outbox').set({ attempts: maxAttempts }).execute()
    const post = startPost(place.database, smtp.url)
    await until(async () =>
      expect((await outboxRows(place.database))[0]).toMatchObject({ dead: true, lastError: 'ELOST' }),
    )
    await post.stop()
    expect(smtp.asked).toEqual([])
  })

  it('does not send a link that no longer works', async () => {
    const outbox = plainOutbox()
    await enqueue(place.database, outbox, signInLink('late@mercy.example'))
    await enqueue(place.database, outbox, signInLink('intime@mercy.example'))
    const age = (address: string, seconds: number) =>
      place.database.run(
        `update mlpipes_auth.mail_outbox set created_at = now() - make_interval(secs => $1::integer)
          where id = (select ${address}(id) from mlpipes_auth.mail_outbox)`,
        [seconds],
      )
    await age('min', 600)
    await age('max', 570)
    const post = startPost(place.database, smtp.url)
    await until(() => expect(smtp.received).toHaveLength(1))
    await until(async () =>
      expect(await outboxRows(place.database)).toMatchObject([{ dead: true, lastError: 'EEXPIRED' }, { sent: true }]),
    )
    await post.stop()
    expect(smtp.asked).toEqual(['intime@mercy.example'])
  })

  it('drops what is for nobody, which looks like a mail in the table (F32)', async () => {
    const outbox = plainOutbox()
    await enqueue(place.database, outbox, { template: 'none' })
    await enqueue(place.database, outbox, signInLink('ada@mercy.example'), 'acc_ada')
    const rows = await outboxRows(place.database)
    expect(rows[0]?.sealed?.length).toBe(rows[1]?.sealed?.length)
    const post = startPost(place.database, smtp.url)
    await until(async () => expect((await outboxRows(place.database)).every((row) => row.sent)).toBe(true))
    await post.stop()
    expect(smtp.asked).toEqual(['ada@mercy.example'])
  })

  it('passes over what it cannot read', async () => {
    const foreign = createOutbox({
      database: place.database,
      secrets: createSecrets('another secret of another server!!'),
    })
    await enqueue(place.database, foreign, signInLink('ada@mercy.example'))
    await enqueue(place.database, plainOutbox(), signInLink('lee@mercy.example'))
    const post = startPost(place.database, smtp.url, { retrySeconds: [3_600] })
    await until(async () =>
      expect(await outboxRows(place.database)).toMatchObject([
        { lastError: 'EUNREADABLE', dead: false },
        { sent: true },
      ]),
    )
    await post.stop()
    // With the secret that sealed it, it still can.
    const rotated = createOutbox({
      database: place.database,
      secrets: createSecrets(testSecret, 'another secret of another server!!'),
    })
    await place.database.kysely
      .updateTable('mail_outbox')
      .set({ next_attempt_at: new Date(0) })
      .execute()
    expect((await rotated.takeDue(5)).map((mail) => mail.content?.message)).toEqual([signInLink('ada@mercy.example')])
  })

  it('does not take a sealed mail for another account’s', async () => {
    const outbox = plainOutbox()
    await enqueue(place.database, outbox, signInLink('ada@mercy.example'), 'acc_ada')
    await place.database.kysely.updateTable('mail_outbox').set({ account_id: null }).execute()
    expect((await outbox.takeDue(1)).map((mail) => mail.content)).toEqual([undefined])
  })

  it('keeps a mail with its transaction: rolled back, nothing is sent', async () => {
    const post = startPost(place.database, smtp.url)
    const undone = transact(place.database.kysely, async (tx) => {
      await post.outbox.enqueue(tx, signInLink('ada@mercy.example'))
      throw new Error('undone')
    })
    await expect(undone).rejects.toThrow('undone')
    await enqueue(place.database, post.outbox, signInLink('lee@mercy.example'))
    await until(() => expect(smtp.received).toHaveLength(1))
    await post.stop()
    expect(smtp.asked).toEqual(['lee@mercy.example'])
  })

  it('wakes the worker of its process', async () => {
    const post = startPost(place.database, smtp.url, { pollMs: 3_600_000 })
    // A bell that was heard before its mail was committed is followed by the next mail's.
    await until(async () => {
      await enqueue(place.database, post.outbox, signInLink('ada@mercy.example'))
      expect(smtp.received.length).toBeGreaterThan(0)
    })
    await post.stop()
  })

  it('stops after what is under way', async () => {
    let release = () => {}
    smtp.script.data = () => new Promise<Answer>((resolve) => (release = () => resolve('ok')))
    const post = startPost(place.database, smtp.url)
    await enqueue(place.database, post.outbox, signInLink('ada@mercy.example'))
    await until(() => expect(smtp.received).toHaveLength(1))
    const stopped = post.stop()
    expect(
      await Promise.race([
        stopped.then(() => 'stopped'),
        new Promise((resolve) => setTimeout(() => resolve('waits'), 200)),
      ]),
    ).toBe('waits')
    release()
    await stopped
    expect(await outboxRows(place.database)).toMatchObject([{ sent: true, attempts: 1 }])
  })

  it(`sends at most ${maxParallelMails} at once`, async () => {
    let [now, most] = [0, 0]
    const transport = {
      async send() {
        now += 1
        most = Math.max(most, now)
        await new Promise((resolve) => setTimeout(resolve, 30))
        now -= 1
      },
      close: () => undefined,
    }
    const post = startPost(place.database, transport)
    await transact(place.database.kysely, async (tx) => {
      for (let count = 0; count < 23; count += 1) await post.outbox.enqueue(tx, signInLink('ada@mercy.example'))
    })
    await until(async () => expect((await outboxRows(place.database)).filter((row) => row.sent)).toHaveLength(23))
    await post.stop()
    expect(most).toBe(maxParallelMails)
  })

  it('cleans what was sent a week ago and given up a month ago, and nothing younger', async () => {
    const outbox = plainOutbox()
    for (let count = 0; count < 5; count += 1) await enqueue(place.database, outbox, { template: 'none' })
    const ids = (await place.database.run('select id from mlpipes_auth.mail_outbox order by id', [])).map(
      (row) => row['id'],
    )
    const set = (index: number, column: string, days: number) =>
      place.database.run(
        `update mlpipes_auth.mail_outbox set ${column} = now() - make_interval(days => $2::integer), last_error = 'ETIMEDOUT' where id = $1::bigint`,
        [ids[index], days],
      )
    await set(0, 'sent_at', 8)
    await set(1, 'sent_at', 6)
    await set(2, 'failed_at', 31)
    await set(3, 'failed_at', 29)
    expect(await outbox.clean(1)).toBe(1)
    expect(await outbox.clean(10)).toBe(1)
    expect(await outbox.clean(10)).toBe(0)
    const left = await place.database.run('select id from mlpipes_auth.mail_outbox order by id', [])
    expect(left.map((row) => row['id'])).toEqual([ids[1], ids[3], ids[4]])
  })

  it('goes with its account', async () => {
    const account = await addAccount(place.database, 'acc_leaver')
    await enqueue(place.database, plainOutbox(), signInLink('leaver@mercy.example'), account)
    await place.database.kysely.deleteFrom('accounts').where('id', '=', account).execute()
    expect(await outboxRows(place.database)).toEqual([])
  })
})

describe('F58: an address', () => {
  let place: MailDatabase
  beforeAll(async () => {
    place = await openMailDatabase('pglite')
  })
  afterAll(() => place.close())
  const outboxOf = () => createOutbox({ database: place.database, secrets })

  it('that could write headers or name another recipient is refused, and nothing is written', async () => {
    const hostile = [
      'ada@mercy.example\r\nBcc: eve@evil.example',
      'ada@mercy.example\nBcc: eve@evil.example',
      'ada@mercy.example, eve@evil.example',
      'ada@mercy.example;eve@evil.example',
      'Ada <eve@evil.example>',
      '"ada@mercy.example" <eve@evil.example>',
      'ada@mercy.example\u0000',
      'ada@mercy',
      `${'a'.repeat(65)}@mercy.example`,
      `a@${'b'.repeat(250)}.example`,
      '',
    ]
    for (const to of hostile)
      await expect(enqueue(place.database, outboxOf(), signInLink(to)), JSON.stringify(to)).rejects.toThrow()
    expect(await outboxRows(place.database)).toEqual([])
  })

  it('that passes reaches that one recipient or none, whatever it is made of', async () => {
    const smtp = await startSmtp()
    const transport = createSmtpTransport(smtp.url)
    const odd = fc.string({ unit: fc.constantFrom(...`ab.()[]\\:'!#$%&*+/=?^_{|}~-é`), minLength: 1, maxLength: 12 })
    await fc.assert(
      fc.asyncProperty(odd, async (local) => {
        const to = `${local}@mercy.example`
        smtp.asked.length = 0
        const outcome = await transport.send({ to, from, subject: 'x', text: 'x', html: 'x' }).then(
          () => 'sent',
          (error: unknown) => error,
        )
        if (outcome !== 'sent') expect(outcome).toBeInstanceOf(DeliveryFailed)
        else expect(smtp.asked.map(unquoted)).toEqual([to])
      }),
      { numRuns: 60 },
    )
    transport.close()
    await smtp.close()
  })

  it('nor a subject brings a header of its own', async () => {
    const smtp = await startSmtp()
    const transport = createSmtpTransport(smtp.url)
    await transport.send({
      to: 'ada@mercy.example',
      from,
      subject: 'x\r\nBcc: eve@evil.example\r\n\r\nhi',
      text: 'x',
      html: 'x',
    })
    transport.close()
    expect(smtp.asked).toEqual(['ada@mercy.example'])
    expect(smtp.received[0]?.mail.headers.has('bcc')).toBe(false)
    await smtp.close()
  })
})

describe('a mail server', () => {
  const failureOf = (work: Promise<void>) =>
    work.then(
      () => 'none',
      (error: unknown) => (error instanceof DeliveryFailed ? [error.code, error.permanent] : error),
    )
  const mail = { to: 'ada@mercy.example', from, subject: 'x', text: 'x', html: 'x' }

  it('that refuses us, rather than the mail, is tried again', async () => {
    const smtp = await startSmtp({ name: 'mercy', password: 'right' })
    const wrong = createSmtpTransport(smtp.url.replace('//', '//mercy:wrong@'))
    expect(await failureOf(wrong.send(mail))).toEqual(['EAUTH 535', false])
    const right = createSmtpTransport(smtp.url.replace('//', '//mercy:right@'))
    expect(await failureOf(right.send(mail))).toBe('none')
    expect(await failureOf(verifySmtp(smtp.url.replace('//', '//mercy:wrong@')))).toEqual(['EAUTH 535', false])
    expect(await failureOf(verifySmtp(smtp.url.replace('//', '//mercy:right@')))).toBe('none')
    wrong.close()
    right.close()
    await smtp.close()
    expect(await failureOf(verifySmtp(smtp.url))).toEqual(['ESOCKET', false])
    expect(smtp.received).toHaveLength(1)
  })

  it('that trickles its replies past every time-out meets the deadline', async () => {
    const { createServer } = await import('node:net')
    const server = createServer((socket) => {
      socket.on('error', () => undefined)
      const timer = setInterval(() => socket.write('220-wait\r\n'), 20)
      socket.on('close', () => clearInterval(timer))
    })
    await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
    const address = server.address()
    const port = typeof address === 'object' ? address?.port : 0
    const transport = createSmtpTransport(`smtp://127.0.0.1:${port}`, { timeoutMs: 60_000, deadlineMs: 300 })
    expect(await failureOf(transport.send(mail))).toEqual(['ETIMEDOUT', false])
    transport.close()
    await new Promise((resolve) => server.close(resolve))
  })

  it('is left within the time that a mail is lent for', () => expect(smtpDeadlineMs).toBeLessThan(leaseSeconds * 500))

  it('elsewhere must offer encryption, unless the operator says otherwise', async () => {
    expect(['smtp://localhost', 'smtp://u:p@127.0.0.1:25', 'smtp://[::1]:25'].map(needsTls)).toEqual([
      false,
      false,
      false,
    ])
    for (const url of ['smtp://mail.mercy.example', 'smtp://10.0.0.5:25', 'smtp://localhost.evil.example'])
      expect(needsTls(url), url).toBe(true)
    const smtp = await startSmtp()
    const strict = createSmtpTransport(`${smtp.url}?requireTLS=true`)
    const [code, permanent] = Object(await failureOf(strict.send(mail)))
    expect(code).toMatch(/^ETLS/)
    expect(permanent).toBe(false)
    strict.close()
    await smtp.close()
  })
})

describe('an outage of the database', () => {
  it('ends no worker on PostgreSQL, and no mail goes out twice', async () => {
    const place = await openMailDatabase('postgres')
    const smtp = await startSmtp()
    const name = new URL(place.ownerUrl ?? '').pathname.slice(1)
    const asAdmin = async (statement: string, values: unknown[] = []) => {
      const admin = new pg.Client({ connectionString: inject('postgresAdminUrl') })
      await admin.connect()
      await admin.query(statement, values).finally(() => admin.end())
    }
    const down = async () => {
      await asAdmin(`alter database ${name} with allow_connections false`)
      await asAdmin('select pg_terminate_backend(pid) from pg_stat_activity where datname = $1', [name])
    }
    const up = () => asAdmin(`alter database ${name} with allow_connections true`)
    const post = startPost(place.database, smtp.url)
    // The first mail is accepted while the database is away, so that how it went is written down only afterwards.
    smtp.script.data = async (): Promise<Answer> => {
      smtp.script.data = () => 'ok'
      await down()
      return 'ok'
    }
    await enqueue(place.database, post.outbox, signInLink('first@mercy.example'))
    await until(() =>
      expect(post.logs.filter((line) => line.includes('cannot read the outbox')).length).toBeGreaterThan(1),
    )
    expect(smtp.received).toHaveLength(1)
    await up()
    await until(async () => expect(await outboxRows(place.database)).toMatchObject([{ sent: true, attempts: 1 }]))
    await enqueue(place.database, post.outbox, signInLink('second@mercy.example'))
    await until(() => expect(smtp.received).toHaveLength(2))
    await post.stop()
    expect(smtp.asked).toEqual(['first@mercy.example', 'second@mercy.example'])
    await smtp.close()
    await place.close()
  })

  it('ends no worker on PGlite', async () => {
    const place = await openMailDatabase('pglite')
    const smtp = await startSmtp()
    const post = startPost(place.database, smtp.url)
    await place.close()
    await until(() =>
      expect(post.logs.filter((line) => line.includes('cannot read the outbox')).length).toBeGreaterThan(1),
    )
    await post.stop()
    await smtp.close()
  })
})

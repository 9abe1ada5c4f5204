// Every mail as it arrives over SMTP: both parts, readable, nothing out of its place.
import fc from 'fast-check'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { mailMessage, usefulSeconds } from '../../src/mail/messages.ts'
import { createMailViews, isPlainName } from '../../src/mail/views.ts'
import { mainDatabase } from '../support/server.ts'
import {
  enqueue,
  issuer,
  type MailDatabase,
  openMailDatabase,
  samples,
  startPost,
  startSmtp,
  until,
} from './support.ts'

const views = createMailViews({ issuer, cache: true })
const nameOf = (message: (typeof samples)[number]) =>
  message.template === 'notice' ? `notice ${message.data.kind}` : message.template

describe.each(mainDatabase)('every template over %s', (kind) => {
  let place: MailDatabase
  beforeAll(async () => {
    place = await openMailDatabase(kind)
  })
  afterAll(() => place.close())

  it('arrives with a text and an HTML part, at its one recipient', async () => {
    const smtp = await startSmtp()
    const post = startPost(place.database, smtp.url)
    for (const message of samples) await enqueue(place.database, post.outbox, message)
    await until(() => expect(smtp.received).toHaveLength(samples.length))
    await post.stop()
    await smtp.close()
    for (const message of samples) {
      const { subject, text, html } = views.render(message)
      const found = smtp.received.find(({ mail }) => mail.subject === subject)
      expect(found, nameOf(message)).toBeDefined()
      expect(found?.recipients).toEqual([message.to])
      expect(found?.mail.from?.value).toEqual([{ name: 'Mercy Sign-in', address: 'no-reply@mercy.example' }])
      expect(found?.mail.text?.trim()).toBe(text.trim())
      expect(String(found?.mail.html).trim()).toBe(html.trim())
      expect(found?.mail.headers.get('auto-submitted')).toBe('auto-generated')
      expect(found?.mail.messageId).toMatch(/^<[0-9a-f]{32}@mercy\.example>$/)
    }
  })
})

describe.each(samples.map((message) => ({ name: nameOf(message), message })))('the words of $name', ({ message }) => {
  const { subject, text, html } = views.render(message)
  const link = `${issuer}/x?token=t0ken&kind=y`

  it('have the bare link in the text, and a button and the address in the HTML', () => {
    if (message.template === 'sign-up-known') return expect(text + html).not.toContain('token')
    expect(text.split(/\s/)).toContain(link)
    const hrefs = [...html.matchAll(/href="([^"]*)"/g)].map((match) => match[1])
    expect(hrefs).toEqual([link.replace('&', '&amp;'), link.replace('&', '&amp;')])
    expect(html).toContain(`>${link.replace('&', '&amp;')}</a>`)
  })
  it('are escaped in HTML and left alone in text', () => {
    expect(html).not.toMatch(/<b>|<i>/)
    expect(text).not.toMatch(/&(amp|lt|gt|quot|#39);/)
    for (const part of [subject, text, html]) expect(part).not.toMatch(/undefined|null|\[object|NaN|<%/)
  })
  it('say the same in both parts', () => {
    const words = (part: string) => part.replace(/<style>[\s\S]*<\/style>/, '').replace(/<[^>]+>/g, ' ')
    const plain = words(html)
      .replace(/&amp;/g, '&')
      .replace(/&lt;/g, '<')
      .replace(/&gt;/g, '>')
      .replace(/&quot;/g, '"')
    const asText = plain.replace(/&#39;/g, "'").replace(/\s+/g, ' ')
    const said = [...text.matchAll(/[^.\n]{25,}\./g)].map((match) => match[0].trim())
    expect(said.length).toBeGreaterThan(0)
    for (const sentence of said) if (!/open this address/.test(sentence)) expect(asText).toContain(sentence)
  })
  it('say how long the link works, or what happened, when and from where', () => {
    if (message.template === 'notice') {
      expect(text).toContain('When: 5 March 2026 at 14:03 UTC')
      expect(text).toContain('From: Firefox on Linux, from 192.0.2.7 & <i>more</i>')
      expect(html).toContain('This was not me')
      expect(text).toContain('“This was not me”')
    } else if (message.template === 'welcome-without-password') {
      expect(text).toMatch(/does not expire/)
      expect(usefulSeconds(message), 'always').toBeUndefined()
    } else if (message.template !== 'sign-up-known') {
      expect(text).toMatch(/(for|within) (10 minutes|15 minutes|30 minutes|24 hours|1 day|3 days)\b/)
      expect(text).toMatch(/do nothing/)
      expect(usefulSeconds(message)).toBeGreaterThan(0)
    }
  })
  it('are a page of one column that follows the reader’s scheme', () => {
    expect(html).toMatch(/^<!doctype html>\s*<html lang="en">/)
    expect(html).toContain('<meta name="color-scheme" content="light dark">')
    expect(html).toContain('max-width:520px')
    expect(html).not.toMatch(/<script|<img|url\(|width="\d{3,}"/)
  })
})

describe('what may stand in a mail', () => {
  it('is no name that reads as an address: anybody may choose the name in a mail to somebody else', () => {
    for (const name of ['Ada Moreno', 'Dr. José Núñez-O’Neil', 'J.R. Smith', '山田 太郎', 'Ada (night shift)'])
      expect(isPlainName(name), name).toBe(true)
    for (const name of [
      '',
      'evil.example',
      'Win at evil.example now',
      'https://evil',
      'a@b.example',
      'a/b',
      'x'.repeat(61),
    ])
      expect(isPlainName(name), name).toBe(false)
    const message = samples.find(({ template }) => template === 'sign-up-link')
    if (message?.template !== 'sign-up-link') throw new Error('there is a sign-up link')
    const { text, html } = views.render({ ...message, data: { ...message.data, name: 'Claim it at evil.example' } })
    expect(text + html).not.toContain('evil.example')
    expect(text).toContain('Hello,')
  })
  it('is no link to anywhere but the issuer', () => {
    for (const link of ['https://evil.example/x', `${issuer}.evil.example/x`, 'http://auth.mercy.example/x']) {
      const message = {
        template: 'reset-link',
        to: 'a@b.example',
        data: { link, minutes: 5, hasSecondFactor: false },
      } as const
      expect(() => views.render(message), link).toThrow(/does not lead to the issuer/)
    }
  })
  it('is no text of more than one line, whatever it was', () => {
    fc.assert(
      fc.property(fc.string({ unit: 'binary', maxLength: 300 }), (clientName) => {
        const data = { link: `${issuer}/x`, minutes: 5, clientName: `a${clientName}` }
        const parsed = mailMessage.parse({ template: 'sign-in-link', to: 'a@b.example', data })
        if (parsed.template !== 'sign-in-link') return false
        const said = parsed.data.clientName
        return !/[\p{Cc}\p{Zl}\p{Zp}\p{Bidi_Control}]/u.test(said) && [...said].length <= 100 && said.isWellFormed()
      }),
    )
  })
  it('has one shape per template', () => {
    const data = { link: `${issuer}/x`, minutes: 5, clientName: 'x' }
    const good = { template: 'sign-in-link', to: 'a@b.example', data }
    expect(mailMessage.safeParse(good).success).toBe(true)
    const left = samples.find((message) => message.template === 'notice' && message.data.kind === 'backup_code_used')
    const bad = [
      { ...good, template: 'other' },
      { ...good, password: 'x' },
      { ...good, data: { ...data, password: 'x' } },
      { ...good, data: { ...data, minutes: 0 } },
      { ...good, data: { ...data, link: 'javascript:alert(1)' } },
      { ...good, data: { ...data, link: `${issuer}/x"><script>` } },
      { ...left, data: { ...left?.data, left: undefined } },
      { template: 'none', to: 'a@b.example' },
    ]
    for (const message of bad) expect(mailMessage.safeParse(message).success, JSON.stringify(message)).toBe(false)
  })
})

// docs/errors.md and the table of refusals say the same.
import { readFileSync } from 'node:fs'
import { describe, expect, it } from 'vitest'
import { Refusal, refusals } from '../../src/errors.ts'

describe('docs/errors.md', () => {
  it('lists every code with its status and title, and no other', () => {
    const [ours = ''] = readFileSync('docs/errors.md', 'utf8').split('## Protocol endpoints')
    const rows = [...ours.matchAll(/^\| `(\w+)` \| (\d{3}) \| ([^|]+) \|/gm)]
    expect(rows.map(([, code, status, title]) => [code, Number(status), title?.trim()])).toEqual(
      Object.entries(refusals).map(([code, { status, title }]) => [code, status, title]),
    )
  })
})

describe('Refusal', () => {
  it('takes what is known better at the place', () => {
    expect(new Refusal('request_unreadable', { status: 405 })).toMatchObject({
      status: 405,
      code: 'request_unreadable',
    })
    expect(new Refusal('outage', { retryAfterSeconds: 5 })).toMatchObject({ status: 503, retryAfterSeconds: 5 })
  })
})

// Client addresses: one spelling for each, and one group for what one client owns (C3).
import { isIP, isIPv6 } from 'node:net'
import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { addressGroup, canonicalAddress } from '../../src/http/address.ts'

describe('a canonical address', () => {
  it.each([
    ['192.0.2.1', '192.0.2.1'],
    ['::ffff:192.0.2.1', '192.0.2.1'],
    ['::FFFF:192.0.2.1', '192.0.2.1'],
    ['::ffff:c000:201', '192.0.2.1'],
    ['0:0:0:0:0:ffff:192.0.2.1', '192.0.2.1'],
    ['0000:0000:0000:0000:0000:FFFF:C000:0201', '192.0.2.1'],
    ['2001:0DB8:0:0::0001', '2001:db8::1'],
    ['2001:db8:0:1:0:0:0:1', '2001:db8:0:1::1'],
    ['fe80::1%eth0', 'fe80::1'],
    ['::1', '::1'],
    ['::', '::'],
  ])('%s is %s', (text, canonical) => expect(canonicalAddress(text)).toBe(canonical))

  it.each([
    undefined,
    '',
    'unknown',
    '192.0.2',
    '192.0.2.256',
    '192.0.2.1, 192.0.2.2',
    '2001:db8::1::',
    '[::1]',
    '%eth0',
  ])('%s is none', (text) => {
    expect(canonicalAddress(text)).toBeUndefined()
    expect(addressGroup(text)).toBeUndefined()
  })

  it('is the same however an address is spelled, and stays as it is', () => {
    fc.assert(
      fc.property(fc.ipV6(), fc.boolean(), (text, upper) => {
        const canonical = canonicalAddress(upper ? text.toUpperCase() : text.toLowerCase())
        expect(isIP(canonical ?? '')).not.toBe(0)
        expect(canonicalAddress(canonical)).toBe(canonical)
        expect(canonicalAddress(text)).toBe(canonical)
      }),
    )
  })

  it('of any text is an address or nothing', () => {
    fc.assert(
      fc.property(fc.oneof(fc.string(), fc.string({ unit: fc.constantFrom(...'0123456789abcdef:.%/') })), (text) => {
        const canonical = canonicalAddress(text)
        expect(canonical === undefined || isIP(canonical) !== 0).toBe(true)
        expect(addressGroup(text) === undefined).toBe(canonical === undefined)
      }),
    )
  })
})

describe('the group of an address', () => {
  it.each([
    ['192.0.2.1', '192.0.2.1'],
    ['::ffff:192.0.2.1', '192.0.2.1'],
    ['2001:db8:1:2::1', '2001:db8:1:2::/64'],
    ['2001:DB8:1:2:ffff:ffff:ffff:ffff', '2001:db8:1:2::/64'],
    ['2001:db8::1:2:3:4', '2001:db8::/64'],
    ['2001:db8:0:1::', '2001:db8:0:1::/64'],
    ['64:ff9b::192.0.2.1', '64:ff9b::/64'],
    ['::1', '::/64'],
    ['fe80::1%eth0', 'fe80::/64'],
  ])('%s is in %s', (text, group) => expect(addressGroup(text)).toBe(group))

  const word = fc.integer({ min: 0, max: 0xffff }).map((value) => value.toString(16))
  const half = fc.array(word, { minLength: 4, maxLength: 4 }).map((words) => words.join(':'))

  it('is shared by all of a /64 and by nothing beside it', () => {
    fc.assert(
      fc.property(half, half, half, half, (network, other, host, next) => {
        fc.pre(network !== '0:0:0:0' && other !== '0:0:0:0')
        expect(addressGroup(`${network}:${host}`)).toBe(addressGroup(`${network}:${next}`))
        expect(addressGroup(`${network}:${host}`) === addressGroup(`${other}:${host}`)).toBe(network === other)
        expect(isIPv6(addressGroup(`${network}:${host}`)?.replace('/64', '') ?? '')).toBe(true)
      }),
    )
  })
})

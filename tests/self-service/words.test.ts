// The audit trail in words, for every event and for whatever may stand in its details.
import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { auditEvents } from '../../src/audit/events.ts'
import { sentenceFor } from '../../src/self-service/activity-words.ts'
import {
  addressOfState,
  confirmationText,
  confirmedAt,
  navigation,
  paths,
  placeOf,
  stateOf,
} from '../../src/self-service/places.ts'
import { rolesInWords, whenInWords } from '../../src/self-service/words.ts'

const neutral = 'Something about your account was recorded.'
/** Events that are about no person: they never carry an account. */
const impersonal = new Set([
  'organization.created',
  'organization.updated',
  'organization.closed',
  'organization.reopened',
  'policy.updated',
  'domain.added',
  'domain.verified',
  'domain.removed',
  'role.created',
  'role.updated',
  'role.deleted',
  'invitation.withdrawn',
  'client.disabled',
  'client.enabled',
  'client.deleted',
  'client.secret_replaced',
  'registration_token.created',
  'registration_token.deleted',
  'registration.refused',
  'webhook.created',
  'webhook.updated',
  'webhook.deleted',
  'client.created',
  'client.updated',
  'client_authentication.failed',
  'keys.created',
  'keys.retired',
])
const entry = { outcome: 'success', app: undefined, bySomebodyElse: false }

const detailNames = [
  'reason',
  'kind',
  'cause',
  'changed',
  'by',
  'method',
  'left',
  'count',
  'sessions',
  'tokens',
  '__proto__',
]
const anyDetails = fc.oneof(
  fc.anything({ withNullPrototype: true }),
  fc.dictionary(fc.constantFrom(...detailNames), fc.anything({ withNullPrototype: true })),
)

describe('the trail', () => {
  it.each(Object.keys(auditEvents).filter((name) => !impersonal.has(name)))(
    'has a sentence of its own for %s',
    (name) => {
      const sentence = sentenceFor({ ...entry, name, details: {} })
      expect(sentence).not.toBe(neutral)
      expect(sentence).toMatch(/^\p{Lu}.*\.$/u)
      expect(sentence).not.toMatch(/undefined|null|\[object/)
    },
  )

  it('has a neutral sentence for what it does not know', () => {
    for (const name of ['nothing.known', 'toString', '__proto__', ''])
      expect(sentenceFor({ ...entry, name, details: {} })).toBe(neutral)
  })

  it('says what happened, and with which app', () => {
    const say = (name: string, details: unknown, more = {}) => sentenceFor({ ...entry, ...more, name, details })
    expect(say('login.succeeded', {}, { app: 'Harbor EHR' })).toBe('You signed in to Harbor EHR.')
    expect(say('login.failed', { reason: 'mismatch' })).toContain('the password was not right')
    expect(say('consent.revoked', {}, { app: 'Harbor EHR' })).toBe('You removed the access of Harbor EHR.')
    expect(say('account.updated', { changed: ['name'] }, { bySomebodyElse: true })).toBe(
      'An administrator changed your account: name.',
    )
    expect(say('session.ended', { reason: 'password_changed' })).toContain('the password was changed')
    expect(say('access.ended', { cause: 'ended_by_owner', sessions: 1, tokens: 2 })).toBe(
      'Access was ended, because you asked for it: one session and 2 tokens of apps.',
    )
  })

  it('never fails, whatever the details are', () => {
    const names = fc.constantFrom(...Object.keys(auditEvents))
    fc.assert(
      fc.property(names, anyDetails, fc.option(fc.string(), { nil: undefined }), (name, details, app) => {
        expect(sentenceFor({ ...entry, name, details, app })).toMatch(/\S/)
      }),
    )
  })
})

describe('places', () => {
  it('come back from their own state, and nothing else leads anywhere', () => {
    const states = Object.keys(paths).map((_, index) => String(index))
    expect(new Set(states.map((state) => placeOf(state))).size).toBe(states.length)
    for (const state of states) expect(stateOf(placeOf(state))).toBe(state)
    fc.assert(fc.property(fc.string(), (state) => states.includes(state) || placeOf(state) === 'overview'))
  })

  it('take the app of a page along, and no state leads out of the pages', () => {
    expect(addressOfState(stateOf('ownAppSecret', 'client_1'))).toBe('/account/apps/manage/client_1/secret')
    expect(addressOfState(stateOf('ownAppSecret'))).toBe(paths.ownApps)
    expect(addressOfState(stateOf('profile', 'client_1'))).toBe(paths.profile)
    const state = fc.tuple(fc.nat(20), fc.oneof(fc.constantFrom('..', '../..', '/x', 'a/b', '%2e'), fc.string()))
    fc.assert(
      fc.property(state, ([number, item]) => {
        const address = addressOfState(`${number}.${item}`)
        expect(new URL(address, 'http://x').pathname).toBe(address)
        expect(address.startsWith('/account')).toBe(true)
      }),
    )
  })

  it('mark where one is, on pages below a part too', () => {
    for (const place of ['factors', 'factorAdd', 'factorsManage'] as const)
      expect(
        navigation(place)
          .filter((link) => link.isCurrent)
          .map((link) => link.label),
      ).toEqual(['Second factor'])
  })

  it('confirm by keys of our own list alone', () => {
    expect(confirmationText(new URL(confirmedAt('profile', 'name'), 'http://x').searchParams.get('done') ?? '')).toBe(
      'Your name is changed.',
    )
    fc.assert(fc.property(fc.string(), (key) => confirmationText(`-${key}`) === undefined))
    expect(confirmationText('toString')).toBeUndefined()
  })
})

describe('words', () => {
  it('name the zone of a time, and the roles that are built in', () => {
    expect(whenInWords(new Date('2026-03-04T17:05:09Z'))).toEqual({
      text: '4 March 2026 at 17:05 UTC',
      iso: '2026-03-04T17:05:09.000Z',
    })
    expect(rolesInWords(['org_admin', 'charge_nurse'])).toEqual(['Administrator of the organisation', 'Charge nurse'])
  })
})

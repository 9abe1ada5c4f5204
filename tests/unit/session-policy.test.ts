// What a policy says about a session's times: the stricter of then and now, to the millisecond (F26).
import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { activityStepSeconds, isActivityDue, sessionLimits, sessionState } from '../../src/sessions/policy.ts'

const origin = Date.UTC(2026, 0, 1)
const at = (seconds: number) => new Date(origin + seconds * 1000)
const seconds = fc.integer({ min: 1, max: 100_000 })
const times = fc
  .record({ signedIn: seconds, idleFor: seconds, idle: seconds, absolute: seconds })
  .map(({ signedIn, idleFor, idle, absolute }) => ({
    signedInAt: at(signedIn),
    lastActivityAt: at(signedIn + idleFor),
    idleExpiresAt: at(signedIn + idleFor + idle),
    absoluteExpiresAt: at(signedIn + absolute),
  }))
const limits = fc.record({ idleSeconds: seconds, absoluteSeconds: seconds })
const now = seconds.map((value) => at(value * 3))

describe('sessionState', () => {
  it('never outlives the promise of then nor the policy of now', () => {
    fc.assert(
      fc.property(times, limits, now, (session, policy, moment) => {
        if (sessionState(session, policy, moment) !== 'live') return
        expect(moment.getTime()).toBeLessThan(session.idleExpiresAt.getTime())
        expect(moment.getTime()).toBeLessThan(session.absoluteExpiresAt.getTime())
        expect(moment.getTime()).toBeLessThan(session.lastActivityAt.getTime() + policy.idleSeconds * 1000)
        expect(moment.getTime()).toBeLessThan(session.signedInAt.getTime() + policy.absoluteSeconds * 1000)
      }),
    )
  })

  it('is monotone: a stricter policy and a later moment never make a session live', () => {
    fc.assert(
      fc.property(times, limits, now, seconds, (session, policy, moment, more) => {
        if (sessionState(session, policy, moment) === 'live') return
        const later = new Date(moment.getTime() + more * 1000)
        const stricter = {
          idleSeconds: Math.max(1, policy.idleSeconds - more),
          absoluteSeconds: policy.absoluteSeconds,
        }
        expect(sessionState(session, policy, later)).not.toBe('live')
        expect(sessionState(session, stricter, moment)).not.toBe('live')
      }),
    )
  })

  it('ends at the limit itself, not one millisecond before', () => {
    const session = {
      signedInAt: at(0),
      lastActivityAt: at(100),
      idleExpiresAt: at(1_000),
      absoluteExpiresAt: at(1_000),
    }
    const policy = { idleSeconds: 60, absoluteSeconds: 500 }
    expect(sessionState(session, policy, new Date(at(160).getTime() - 1))).toBe('live')
    expect(sessionState(session, policy, at(160))).toBe('idle')
    expect(sessionState({ ...session, lastActivityAt: at(499) }, policy, at(500))).toBe('absolute')
  })
})

const policyOf = (session: object = {}) => ({
  session: {
    ...{ idleTimeout: 900, absoluteLifetime: 3_600, updateAge: 300, extendOnActivity: true, maxConcurrent: null },
    ...session,
  },
})
const heldTo = (idle: number, absolute = 3_600) => ({
  lastActivityAt: at(0),
  idleExpiresAt: at(Math.min(idle, absolute)),
  absoluteExpiresAt: at(absolute),
})

describe('activityStepSeconds', () => {
  it.each<readonly [string, object, ReturnType<typeof heldTo> | undefined, number]>([
    ['is updateAge under a longer limit', {}, undefined, 300],
    ['is updateAge where half the idle limit is as long', { idleTimeout: 600 }, undefined, 300],
    ['is half the idle limit from one second below on', { idleTimeout: 599 }, undefined, 299],
    ['is half of an idle limit as long as updateAge', { idleTimeout: 300 }, undefined, 150],
    ['is half of an absolute limit that is shorter', { absoluteLifetime: 200 }, undefined, 100],
    ['is nothing under the shortest limit there is', { idleTimeout: 1 }, undefined, 0],
    ['is half of what the session is held to', {}, heldTo(200), 100],
    ['is half of what the policy says where that is less', { idleTimeout: 100 }, heldTo(200), 50],
    ['does not shrink where only the absolute limit is near', {}, heldTo(900, 20), 300],
  ])('%s', (_name, session, held, step) => {
    expect(activityStepSeconds(policyOf(session), held)).toBe(step)
  })

  it('keeps whoever is there all the time signed in up to the absolute limit', () => {
    fc.assert(
      fc.property(seconds, seconds, fc.integer({ min: 2, max: 100_000 }), (updateAge, absolute, idle) => {
        const policy = policyOf({ updateAge, idleTimeout: idle, absoluteLifetime: absolute })
        const step = activityStepSeconds(policy, heldTo(idle, absolute))
        expect(step).toBeLessThan(Math.max(1, Math.min(idle, absolute)))
        expect(step).toBeLessThanOrEqual(updateAge)
      }),
    )
  })
})

describe('isActivityDue', () => {
  it('is once per step, and never where activity does not extend', () => {
    expect(isActivityDue(heldTo(900), policyOf(), at(299))).toBe(false)
    expect(isActivityDue(heldTo(900), policyOf(), at(300))).toBe(true)
    expect(isActivityDue(heldTo(900), policyOf({ extendOnActivity: false }), at(3_000))).toBe(false)
    expect(isActivityDue(heldTo(200), policyOf(), at(99))).toBe(false)
    expect(isActivityDue(heldTo(200), policyOf(), at(100))).toBe(true)
  })
  it('an idle limit is never longer than the absolute one', () => {
    expect(sessionLimits(policyOf({ absoluteLifetime: 600 }))).toEqual({ idleSeconds: 600, absoluteSeconds: 600 })
  })
})

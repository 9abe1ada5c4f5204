// How these pages ask the admin API: who asks, what is answered to whoever may not, and what is shown beside a form that
// was refused.

import type { PersonCaller } from '../admin/caller.ts'
import { operations } from '../admin/client-operations.ts'
import type { Desk } from '../admin/desk.ts'
import { ApiProblem, type ApiProblemCode } from '../api/problems.ts'
import { Refusal } from '../errors.ts'
import type { Permission } from '../organizations/permissions.ts'
import { itemOf, type Visit } from '../self-service/door.ts'
import { paths } from '../self-service/places.ts'
import { type Wrong, wrong, wrongWith } from './wrongs.ts'

export { operations }

/** Whoever asks, if they may see apps. To everybody else there is nothing here. */
export async function integratorOf(desk: Desk, visit: Visit): Promise<PersonCaller> {
  const caller = await desk.callerOf(visit.session)
  if (!caller) throw new Refusal('not_found')
  return caller
}

export const appIdOf = ({ request }: Visit): string => itemOf(request) ?? ''

/** Does `work`; what the person lacks the permission for is as if it were not there. */
export async function orNothing<T>(work: () => Promise<T>): Promise<T> {
  try {
    return await work()
  } catch (error) {
    if (error instanceof ApiProblem && error.code === 'forbidden' && error.exact.permission?.startsWith('client:'))
      throw new Refusal('not_found')
    throw error
  }
}

export type Outcome<T> =
  | { readonly ok: true; readonly value: T }
  | { readonly ok: false; readonly code: ApiProblemCode; readonly wrongs: Wrong[] }

/** Does `work`; what is refused about a form is told field by field. */
export async function orWrong<T>(sent: Readonly<Record<string, unknown>>, work: () => Promise<T>): Promise<Outcome<T>> {
  try {
    return { ok: true, value: await orNothing(work) }
  } catch (error) {
    if (!(error instanceof ApiProblem)) throw error
    return { ok: false, code: error.code, wrongs: problemsIn(error, sent) }
  }
}

function problemsIn(problem: ApiProblem, sent: Readonly<Record<string, unknown>>): Wrong[] {
  const isPowerful = sent['introspection'] === 'organization'
  if (problem.code === 'step_up_required')
    return [wrong(isPowerful ? 'introspection' : 'general', asksForFactor, confirmLink)]
  const { permission, errors = [] } = problem.exact
  if (problem.code === 'forbidden' && errors.length === 0)
    return [wrong('general', `The app itself holds a permission here that you do not hold: ${permission}.`)]
  return wrongWith(problem, sent)
}

const asksForFactor =
  'This asks for a sign-in of the last five minutes with the second factor. Confirm that it is you, in a tab of its own, and send this form again.'
const confirmLink = { href: paths.confirmed, label: 'Confirm with your second factor' }

/** What of the pages is for this person. */
export function allowedTo({ permissions }: PersonCaller) {
  const may = (permission: Permission) => permissions.has(permission)
  return { register: may('client:create'), update: may('client:update'), switch: may('client:disable') }
}

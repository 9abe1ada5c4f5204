// The policy of an organisation: what it wrote, what is in effect, what it is held to; changing it, and what a change would do.
import { z } from 'zod'
import { ApiProblem } from '../api/problems.ts'
import { runIn, type Tx } from '../db/database.ts'
import { changePolicy } from '../organizations/changes.ts'
import type { Policies } from '../organizations/organizations.ts'
import { type Platform, type PolicyInput, policySchema } from '../organizations/policy.ts'
import { fieldsOf } from '../organizations/policy-order.ts'
import { fieldNames } from '../organizations/strictness.ts'
import type { Call } from './call.ts'
import type { Kernel } from './kernel.ts'
import { operation } from './operation.ts'
import {
  type FieldValue,
  fieldValue,
  floorSchema,
  floorsOf,
  patchPolicy,
  policyPatch,
  refuseBreaches,
  toFieldValue,
  wholePolicy,
} from './policy-input.ts'
import { previewPolicy, previewSchema } from './policy-preview.ts'

const group = 'Policy'
const path = '/api/admin/policy'

const policyAnswer = z
  .strictObject({
    written: wholePolicy,
    effective: z
      .record(z.string(), fieldValue)
      .meta({ description: 'every field by its name, as it is in effect: written, inherited or held to a floor' }),
    floors: z.array(floorSchema).meta({ description: 'what the platform holds every organisation to' }),
    version: z.number().int(),
  })
  .meta({ id: 'PolicyInEffect' })
const afterwards = { status: 200 as const, description: 'The policy afterwards.', schema: policyAnswer }
const effect =
  'A stricter policy acts at once on sessions and tokens that are out: sessions past a new limit are over, sessions outside of new networks end, others prove what is missing at their next use. Under a looser one, sessions that have ended stay ended; what a rule refuses at each use (second factor, ways of signing in, lifetimes of tokens) is accepted again until its own expiry. A field below a floor of the platform is refused, and the floor named.'

export const operations = {
  read: operation({
    id: 'getPolicy',
    method: 'GET',
    path,
    group,
    permission: 'policy:read',
    versioned: 1,
    summary: 'The policy',
    description: 'What the organisation wrote, what is in effect, and what the platform holds it to.',
    answer: { status: 200, description: 'The policy.', schema: policyAnswer },
  }),
  replace: operation({
    id: 'replacePolicy',
    method: 'PUT',
    path,
    group,
    permission: 'policy:write',
    versioned: 1,
    stepUp: true,
    summary: 'Write the policy anew',
    description: `What is absent is inherited. ${effect}`,
    body: wholePolicy,
    answer: afterwards,
  }),
  update: operation({
    id: 'updatePolicy',
    method: 'PATCH',
    path,
    group,
    permission: 'policy:write',
    versioned: 1,
    stepUp: true,
    summary: 'Change fields of the policy',
    description: `What is absent stays; null takes a field away, so that it is inherited again (RFC 7396). ${effect}`,
    body: policyPatch,
    answer: afterwards,
  }),
  preview: operation({
    id: 'previewPolicy',
    method: 'POST',
    path: `${path}/preview`,
    group,
    permission: 'policy:write',
    isQuestion: true,
    summary: 'What a change of policy would do',
    description:
      'Takes a whole policy as PUT does, or a patch as PATCH does, changes nothing, and counts sessions and people that it would reach.',
    body: z.strictObject({ policy: wholePolicy.optional(), patch: policyPatch.optional() }),
    answer: { status: 200, description: 'What would change, and whom it would reach.', schema: previewSchema },
  }),
} as const

export interface PolicyParts {
  readonly platform: Platform
  readonly policies: Policies
}

const find = 'select policy, version from mlpipes_auth.organizations where id = $1'

export function addPolicy({ on }: Kernel, { platform, policies }: PolicyParts): void {
  const answer = ({ written, version }: { readonly written: PolicyInput; readonly version: number }) => ({
    body: { written, effective: effectiveFields(policies, written), floors: floorsOf(platform), version },
    version: [version],
  })

  async function change(tx: Tx, call: Call, next: (before: PolicyInput) => PolicyInput) {
    const { actor, organizationId, clientId, origin } = call.about
    const changed = await changePolicy(tx, {
      organizationId,
      expectedVersion: call.expected[0],
      isConfined: true,
      platform,
      actor,
      clientId,
      origin,
      next(before) {
        const policy = next(before)
        refuseBreaches(policy, platform)
        return policy
      },
    })
    if (!changed) throw new ApiProblem('version_stale')
    return answer(changed)
  }

  on(operations.read, async (tx, { organization }) => answer(await readPolicy(tx, organization.id)))
  on(operations.replace, (tx, call) => change(tx, call, () => call.body))
  on(operations.update, (tx, call) => change(tx, call, (before) => patchPolicy(before, call.body)))

  on(operations.preview, async (tx, { organization, body }) => {
    const { policy, patch } = body
    if ((policy === undefined) === (patch === undefined))
      throw new ApiProblem('input_invalid', [{ path: '', message: 'must hold either policy or patch' }])
    const { written } = await readPolicy(tx, organization.id)
    const next = policy ?? patchPolicy(written, patch ?? {})
    refuseBreaches(next, platform, [policy ? 'policy' : 'patch'])
    return { body: await previewPolicy(tx, organization.id, policies(written), policies(next)) }
  })
}

async function readPolicy(tx: Tx, organizationId: string) {
  const [row] = await runIn(tx, find, [organizationId])
  return { written: policySchema.parse(row?.['policy']), version: Number(row?.['version']) }
}

function effectiveFields(policies: Policies, written: PolicyInput): Record<string, FieldValue> {
  const fields = fieldsOf(policies(written))
  return Object.fromEntries(fieldNames.map((name) => [name, toFieldValue(fields[name])]))
}

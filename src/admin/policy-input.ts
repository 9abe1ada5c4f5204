// How a policy comes in and goes out: whole, or as a merge patch (RFC 7396) in which null takes away what was written, so
// that it is inherited again. Pure.
import { z } from 'zod'
import { parseInput } from '../api/endpoints.ts'
import { ApiProblem } from '../api/problems.ts'
import { findPolicyBreaches, type Platform, type PolicyInput, policySchema } from '../organizations/policy.ts'
import { fieldNames, type PolicyFields, policyTable } from '../organizations/strictness.ts'

/** The whole of what an organisation writes. */
export const wholePolicy = policySchema.meta({
  id: 'Policy',
  description: 'What an organisation wrote; what is absent is inherited. An empty list of networks is anywhere.',
})

/** The same with null beside each value. */
export const policyPatch: z.ZodType<Readonly<Record<string, unknown>>> = z
  .strictObject(removable(policySchema.shape))
  .meta({ id: 'PolicyPatch', description: 'What is to change; null takes away what was written, to inherit it again' })

function removable(shape: Readonly<Record<string, z.ZodType>>): Record<string, z.ZodType> {
  return Object.fromEntries(
    Object.entries(shape).map(([name, field]) => {
      const inner = field instanceof z.ZodOptional ? field.unwrap() : field
      const member = inner instanceof z.ZodObject ? z.strictObject(removable(inner.shape)) : inner
      return [name, z.nullish(member)]
    }),
  )
}

/** @throws ApiProblem when what comes out is no policy */
export function patchPolicy(written: PolicyInput, patch: Readonly<Record<string, unknown>>): PolicyInput {
  return parseInput(policySchema, merge(written, patch))
}

function merge(target: unknown, patch: unknown): unknown {
  if (!isPlain(patch)) return patch
  const merged: Record<string, unknown> = isPlain(target) ? { ...target } : {}
  for (const [name, value] of Object.entries(patch)) {
    const member = value === null || value === undefined ? undefined : merge(merged[name], value)
    if (member === undefined) delete merged[name]
    else merged[name] = member
    if (isPlain(member) && Object.keys(member).length === 0) delete merged[name]
  }
  return merged
}

function isPlain(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value)
}

/** @throws ApiProblem that names each field below a floor or profile, and which */
export function refuseBreaches(policy: PolicyInput, platform: Platform, within: readonly string[] = []): void {
  const breaches = findPolicyBreaches(policy, platform)
  if (breaches.length === 0) return
  const errors = breaches.map(({ field, message }) => ({ path: [...within, field].join('.'), message }))
  throw new ApiProblem('input_invalid', errors)
}

const value = z.union([z.number(), z.boolean(), z.string(), z.array(z.string()), z.null()])
export const fieldName = z.enum(fieldNames)
export const fieldValue = value.meta({ id: 'PolicyValue' })
export type FieldValue = z.input<typeof fieldValue>

export const floorSchema = z
  .strictObject({
    field: fieldName,
    value: fieldValue,
    because: z.string(),
    refuses: z.boolean().meta({ description: 'whether a policy that asks for less is refused; if not, it is lifted' }),
  })
  .meta({ id: 'PolicyFloor' })

/** What the platform holds every organisation to at the moment. */
export function floorsOf(platform: Platform): z.input<typeof floorSchema>[] {
  return fieldNames.flatMap((field) =>
    policyTable[field].floors
      .filter((floor) => floor.isOn(platform))
      .map(({ value: bound, because, isRefused }) => ({
        field,
        value: toFieldValue(bound),
        because,
        refuses: isRefused,
      })),
  )
}

export function toFieldValue(given: PolicyFields[keyof PolicyFields]): FieldValue {
  return isList(given) ? [...given] : given
}

function isList(given: unknown): given is readonly string[] {
  return Array.isArray(given)
}

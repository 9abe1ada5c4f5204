// docs/policy.md is made here, out of the schema, the table and the profiles. After a change of those:
// npx vitest run tests/unit/policy-reference.test.ts --update
import { expect, it } from 'vitest'
import { z } from 'zod'
import { parseConfig } from '../../src/config.ts'
import { effectivePolicy, type PolicyInput, policySchema } from '../../src/organizations/policy.ts'
import { fieldsOf } from '../../src/organizations/policy-order.ts'
import { type FieldName, fieldNames, policyTable } from '../../src/organizations/strictness.ts'

/** A platform without floors and with every switch on, so that the defaults show. */
const platform = parseConfig({
  NODE_ENV: 'test',
  HIPAA_MODE: 'false',
  REQUIRE_MFA: 'false',
  ENABLE_MAGIC_LINKS: 'true',
  ENABLE_SIGNUP: 'true',
})
const defaults = fieldsOf(effectivePolicy({}, platform))
const defaultSetBy: { readonly [K in FieldName]?: string } = {
  'session.idleTimeout': 'SESSION_TIMEOUT',
  'session.updateAge': 'SESSION_UPDATE_AGE',
  'audit.retentionDays': 'AUDIT_RETENTION_DAYS',
}

it('docs/policy.md says what the schema and the table say', async () => {
  await expect(reference()).toMatchFileSnapshot('../../docs/policy.md')
})

it('the variables that set a default do so', () => {
  const moved = { ...platform, sessionTimeoutSeconds: 61, sessionUpdateAgeSeconds: 62, auditRetentionDays: 63 }
  const other = fieldsOf(effectivePolicy({}, moved))
  const changed = fieldNames.filter((name) => JSON.stringify(other[name]) !== JSON.stringify(defaults[name]))
  expect(changed).toEqual(Object.keys(defaultSetBy))
})

const code = (text: unknown) => `\`${typeof text === 'string' ? text : JSON.stringify(text)}\``
const row = (...cells: readonly string[]) => `| ${cells.map((cell) => cell.replaceAll('|', '\\|')).join(' | ')} |`
const table = (head: readonly string[], rows: readonly string[]) =>
  [row(...head), `|${'---|'.repeat(head.length)}`, ...rows].join('\n')

function reference(): string {
  return `# Organisation policy

An organisation rules its people’s sessions, sign-in, passwords, tokens and networks by one document: \`policy\` in the apply file and in the administration API. Every field may be left out; what is absent is inherited from the platform. This page is made from the schema and from the table in \`src/organizations/strictness.ts\`; a test compares it with them.

## Fields

${table(
  ['field', 'value', 'default', 'floor', 'stricter is', 'acts on'],
  fieldNames.map((name) => fieldRow(name)),
)}

Times are in seconds. A floor in **HIPAA mode** (\`HIPAA_MODE\`) refuses a policy that asks for less, and names itself. A switch of the platform (\`REQUIRE_MFA\`, \`ENABLE_…\`) refuses nothing: it narrows what is in effect for as long as it is set.

## Password profiles

The least that each profile asks for. What an organisation writes beside a profile may only be stricter, or the policy is refused; beside \`custom\` it stands as written, down to the floor. The profile \`nist-800-63b-4\` has no composition rules and no periodic changes, and refuses both.

${table(
  [
    'profile',
    'second factor',
    'minLength',
    'requireComplexity',
    'historyCount',
    'maxAgeDays',
    'where nothing is written',
  ],
  profileRows(),
)}

\`pci-4.0.1\` asks for both letters and digits besides. No profile goes without the blocklist, the hash and the throttling of every password.

## What is in effect

1. What the organisation wrote; where it wrote nothing, the default.
2. Held to the floors: of the two values the stricter one, field by field.
3. For an administrator, \`mfa\` \`off\` becomes \`optional\`: the second factor that administrative acts ask for can always be set up.

Writing something stricter never makes another field looser, with one exception: where a second factor becomes required, \`nist-800-63b-4\` asks for 8 characters instead of 15 and \`pci-4.0.1\` no longer asks for a change every 90 days. Another profile is other rules, not stricter ones.

Where more than one policy holds for the same person, each field has the loosest value that is as strict as all of them. Methods and networks are those that every policy allows, which may be none. The profile’s name is the last of \`nist-800-63b-4\`, \`custom\`, \`hipaa\`, \`pci-4.0.1\` among them, because its rules still hold; those of the NIST profile hold only while it stands alone.

A change of policy tightens a field when something that was allowed no longer is, and loosens it when something is allowed that was not; other networks or other methods can do both at once.

An explanation gives for each field the value, what the organisation wrote, and the rule that decided: \`floor\`, \`platform default\`, \`organisation\`, \`profile\`, \`other membership\` or \`client organisation\`, with the name of the floor, of the profile, or of the organisations whose policy it was.

An IPv4 address is the same written as IPv4-mapped IPv6, and \`::/0\` is all of IPv6 and nothing of IPv4. Where networks are listed, an address that is unknown is refused.

## What HIPAA and NIST say

Sections are of 45 CFR Part 164 and of NIST SP 800-63B-4. HIPAA names no figures; the floors are this product’s. 90 FR 898 (RIN 0945-AA22) is a proposed rule: look up where it stands.

${table(
  ['field', 'HIPAA Security Rule', 'NIST and others'],
  fieldNames.map((name) => row(code(name), policyTable[name].hipaa, policyTable[name].nist)),
)}
`
}

function fieldRow(name: FieldName): string {
  const { stricterIs, actsOn, floors } = policyTable[name]
  const setBy = defaultSetBy[name]
  // In a policy that is in effect null is anywhere; who writes a policy writes an empty list.
  const fallback = name === 'network.allowedCidrs' ? [] : defaults[name]
  return row(
    code(name),
    valuesOf(name),
    code(fallback) + (setBy === undefined ? '' : ` (\`${setBy}\`)`),
    name.startsWith('password.')
      ? 'see below'
      : floors.map((floor) => `${floor.because}: ${code(floor.value)}`).join('; ') || '—',
    stricterIs,
    actsOn,
  )
}

const shapeSchema = z.object({
  type: z.string().optional(),
  minimum: z.number().optional(),
  maximum: z.number().optional(),
  minItems: z.number().optional(),
  maxItems: z.number().optional(),
  enum: z.array(z.string()).optional(),
  format: z.string().optional(),
  get anyOf() {
    return z.array(shapeSchema).optional()
  },
  get items() {
    return shapeSchema.optional()
  },
  get properties() {
    return z.record(z.string(), shapeSchema).optional()
  },
})
const shape = shapeSchema.parse(z.toJSONSchema(policySchema))

function valuesOf(name: FieldName): string {
  const field = name
    .split('.')
    .reduce<z.infer<typeof shapeSchema> | undefined>((at, key) => at?.properties?.[key], shape)
  if (field === undefined) throw new Error(`${name} is not in the schema`)
  return inWords(field)
}

function inWords(field: z.infer<typeof shapeSchema>): string {
  const { type, minimum, maximum, minItems = 0, maxItems, items, anyOf, format } = field
  if (anyOf) return anyOf.map(inWords).join(' or ')
  if (field.enum) return field.enum.map(code).join(', ')
  if (items) return `${minItems} to ${maxItems} of: ${inWords(items)}`
  if (type === 'integer') return `${minimum} to ${maximum}`
  if (type === 'boolean') return '`true`, `false`'
  if (type === 'null') return '`null`'
  return { cidrv4: 'IPv4 range', cidrv6: 'IPv6 range' }[format ?? ''] ?? `${type}`
}

function profileRows(): string[] {
  const profiles = ['hipaa', 'nist-800-63b-4', 'pci-4.0.1', 'custom'] as const
  return profiles.flatMap((profile) =>
    (['optional', 'required'] as const).map((mfa) => {
      const of = (input: PolicyInput, hipaaMode: boolean) =>
        effectivePolicy({ mfa, password: { ...input.password, profile } }, { ...platform, hipaaMode }).password
      const loosest = { minLength: 8, requireComplexity: false, historyCount: 0, maxAgeDays: null }
      const [least, hipaa, bare] = [of({ password: loosest }, false), of({ password: loosest }, true), of({}, true)]
      const length = least.minLength === hipaa.minLength ? '' : ` (HIPAA mode: ${hipaa.minLength})`
      return row(
        code(profile),
        mfa,
        `${least.minLength}${length}`,
        code(least.requireComplexity),
        `${least.historyCount}`,
        code(least.maxAgeDays),
        [bare.minLength, bare.requireComplexity, bare.historyCount, bare.maxAgeDays].map(code).join(', '),
      )
    }),
  )
}

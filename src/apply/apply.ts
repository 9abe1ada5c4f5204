// `apply`: brings the database to what a file says. Idempotent, one transaction, all problems at once.
import { z } from 'zod'
import { isEmailShaped, normalizeEmail } from '../accounts/accounts.ts'
import { appendAudit } from '../audit/audit.ts'
import type { AuditEvent } from '../audit/events.ts'
import { type ClientInput, clientSchema } from '../clients/clients.ts'
import { isSameJson } from '../clients/same-json.ts'
import { saveClient } from '../clients/save.ts'
import { isArgon2idPhc, isPasswordShaped, type Passwords } from '../credentials/password.ts'
import { type PasswordSetting, rehashDigest, setPassword } from '../credentials/password-store.ts'
import { totpSealContext } from '../credentials/totp.ts'
import { randomId, type Secrets } from '../crypto/secrets.ts'
import type { Db, Tx } from '../db/database.ts'
import { transact } from '../db/transaction.ts'
import { enqueueForMemberships } from '../deliveries/webhooks.ts'
import { changePolicy } from '../organizations/changes.ts'
import { slugSchema } from '../organizations/organizations.ts'
import { effectivePolicy, type Platform, policyBreaches, policySchema } from '../organizations/policy.ts'
import { type EndingCause, endAccess } from '../sessions/ending.ts'
import { setHome } from './home.ts'

const printable = z
  .string()
  .min(1)
  .max(200)
  .refine((text) => !/[\p{Cc}\p{Bidi_Control}]/u.test(text), 'must not contain control or bidirectional characters')
const maxEntries = 10_000

const accountSchema = z.strictObject({
  email: z.string().refine(isEmailShaped, 'must be an e-mail address'),
  name: printable,
  password: z
    .string()
    .refine(
      (text) => isArgon2idPhc(text) || (!text.startsWith('$argon2') && isPasswordShaped(text) && [...text].length >= 8),
      'must be 8 to 256 characters, or an argon2id PHC string',
    )
    .optional(),
  emailVerified: z.boolean().default(false),
  organization: slugSchema,
  roles: z
    .array(z.string().regex(/^[a-z][a-z0-9_]{0,62}$/, 'must be a-z 0-9 _ and start with a letter'))
    .max(50)
    .default(['member']),
  metadata: z.record(z.string().max(64), z.union([z.string().max(1_000), z.number(), z.boolean()])).default({}),
  totpSecret: z
    .string()
    .regex(/^[A-Z2-7]{26,104}=*$/, 'must be base32 of at least 128 bits')
    .optional(),
  disabled: z.boolean().default(false),
})

const applySchema = z.strictObject({
  organizations: z
    .array(z.strictObject({ slug: slugSchema, name: printable, policy: policySchema.default({}) }))
    .max(maxEntries)
    .default([]),
  accounts: z.array(accountSchema).max(maxEntries).default([]),
  clients: z.array(clientSchema).max(maxEntries).default([]),
})

type ApplyFile = z.output<typeof applySchema>
export type ApplyInput = z.input<typeof applySchema>

export interface Change {
  readonly kind: 'organization' | 'account' | 'client'
  readonly id: string
  readonly change: 'created' | 'updated'
  readonly fields: readonly string[]
}

export interface Problem {
  readonly path: string
  readonly message: string
}

/** Thrown when a file cannot be applied: every problem, each with the path it is at. Nothing was changed. */
export class ApplyError extends Error {
  readonly problems: readonly Problem[]
  constructor(problems: readonly Problem[]) {
    super(problems.map((problem) => `${problem.path}: ${problem.message}`).join('\n'))
    this.problems = problems
  }
}

export interface ApplyParts {
  readonly db: Db
  readonly secrets: Secrets
  readonly passwords: Passwords
  readonly platform: Platform
}

/**
 * Applies a file. What it does not name stays as it is.
 * @returns what changed; empty when the database says so already
 * @throws ApplyError
 */
export async function apply(parts: ApplyParts, input: unknown): Promise<Change[]> {
  const file = await check(parts, input)
  // Hashing is slow and happens before the transaction.
  const hashes = await prepareHashes(parts, file)
  return transact(parts.db, async (tx) => {
    const changes: Change[] = []
    for (const organization of file.organizations) changes.push(...(await applyOrganization(tx, parts, organization)))
    const organizations = await readOrganizations(tx, parts.platform)
    for (const account of file.accounts)
      changes.push(...(await applyAccount(tx, parts, account, organizations, hashes.get(account))))
    for (const client of file.clients) changes.push(...(await applyClient(tx, parts, client, organizations)))
    return changes
  })
}

async function check(parts: ApplyParts, input: unknown): Promise<ApplyFile> {
  const parsed = applySchema.safeParse(input)
  if (parsed.success) {
    const problems = await relationProblems(parts, parsed.data)
    if (problems.length > 0) throw new ApplyError(problems)
    return parsed.data
  }
  throw new ApplyError(
    parsed.error.issues.map((issue) => ({ path: issue.path.join('.') || '(file)', message: issue.message })),
  )
}

/** What the shapes alone do not tell: floors, organisations that are not there, entries that stand twice. */
async function relationProblems({ db, platform }: ApplyParts, file: ApplyFile): Promise<Problem[]> {
  const rows = await db.selectFrom('organizations').select('slug').execute()
  const known = new Set([...rows, ...file.organizations].map((organization) => organization.slug))
  const homeless = (['accounts', 'clients'] as const).flatMap((kind) =>
    file[kind].flatMap((entry, index) =>
      known.has(entry.organization)
        ? []
        : [{ path: `${kind}.${index}.organization`, message: `there is no organisation ${entry.organization}` }],
    ),
  )
  return [
    ...file.organizations.flatMap((organization, index) =>
      policyBreaches(organization.policy, platform).map((message) => ({
        path: `organizations.${index}.policy`,
        message,
      })),
    ),
    ...homeless,
    ...repeated('organizations', file.organizations, (entry) => entry.slug),
    ...repeated('accounts', file.accounts, (entry) => normalizeEmail(entry.email)),
    ...repeated('clients', file.clients, (entry) => entry.client_id),
  ]
}

function repeated<T>(kind: string, entries: readonly T[], key: (entry: T) => string) {
  const seen = new Set<string>()
  return entries.flatMap((entry, index) => {
    const value = key(entry)
    if (!seen.has(value)) {
      seen.add(value)
      return []
    }
    return [{ path: `${kind}.${index}`, message: `${value} stands in the file twice` }]
  })
}

/** The hash each account needs, where its password is given in clear and is not the one it has. */
async function prepareHashes(
  { db, passwords }: ApplyParts,
  file: ApplyFile,
): Promise<Map<ApplyFile['accounts'][number], string>> {
  const hashes = new Map<ApplyFile['accounts'][number], string>()
  for (const account of file.accounts) {
    if (account.password === undefined) continue
    if (isArgon2idPhc(account.password)) {
      hashes.set(account, account.password)
      continue
    }
    const row = await db
      .selectFrom('accounts as a')
      .innerJoin('password_credentials as p', 'p.account_id', 'a.id')
      .select('p.hash')
      .where('a.email_normalized', '=', normalizeEmail(account.email))
      .executeTakeFirst()
    const isSame = row !== undefined && (await passwords.check(account.password, row.hash)).ok
    hashes.set(account, isSame ? row.hash : await passwords.hash(account.password))
  }
  return hashes
}

/** What accounts and clients need to know of the organisation they belong to. */
interface KnownOrganization {
  readonly id: string
  readonly passwordHistory: number
}

async function readOrganizations(tx: Tx, platform: Platform): Promise<Map<string, KnownOrganization>> {
  const rows = await tx.selectFrom('organizations').select(['id', 'slug', 'policy']).execute()
  return new Map(
    rows.map(({ id, slug, policy }) => {
      const { historyCount } = effectivePolicy(policySchema.parse(policy), platform).password
      return [slug, { id, passwordHistory: historyCount }]
    }),
  )
}

function operatorEvent<T extends Partial<AuditEvent>>(event: T) {
  return { outcome: 'success' as const, actor: { type: 'operator' as const }, origin: {}, ...event }
}

async function applyOrganization(
  tx: Tx,
  { platform }: ApplyParts,
  input: ApplyFile['organizations'][number],
): Promise<Change[]> {
  const before = await tx
    .selectFrom('organizations')
    .select(['id', 'name', 'policy'])
    .where('slug', '=', input.slug)
    .forUpdate()
    .executeTakeFirst()
  const change = (kind: Change['change'], fields: string[]): Change => ({
    kind: 'organization',
    id: input.slug,
    change: kind,
    fields,
  })
  if (!before) {
    const id = randomId('org')
    const policy = JSON.stringify(input.policy)
    await tx.insertInto('organizations').values({ id, slug: input.slug, name: input.name, policy }).execute()
    await appendAudit(
      tx,
      operatorEvent({ name: 'organization.created' as const, organizationId: id, details: { slug: input.slug } }),
    )
    return [change('created', ['name', 'policy'])]
  }
  const fields = [
    ...(before.name === input.name ? [] : ['name']),
    ...(isSameJson(before.policy, input.policy) ? [] : ['policy']),
  ]
  if (fields.length === 0) return []
  if (fields.includes('name'))
    await tx
      .updateTable('organizations')
      .set((eb) => ({ name: input.name, updated_at: eb.fn<Date>('now') }))
      .where('id', '=', before.id)
      .execute()
  const operator = { actor: { type: 'operator' as const }, origin: {} }
  if (fields.includes('policy'))
    await changePolicy(tx, {
      organizationId: before.id,
      next: () => input.policy,
      isConfined: false,
      platform,
      ...operator,
    })
  await appendAudit(
    tx,
    operatorEvent({
      name: 'organization.updated' as const,
      organizationId: before.id,
      details: { slug: input.slug, changed: fields },
    }),
  )
  return [change('updated', fields)]
}

async function applyAccount(
  tx: Tx,
  parts: ApplyParts,
  input: ApplyFile['accounts'][number],
  organizations: Map<string, KnownOrganization>,
  hash: string | undefined,
): Promise<Change[]> {
  const { id: organizationId, passwordHistory } = required(organizations.get(input.organization))
  const email = normalizeEmail(input.email)
  const before = await tx
    .selectFrom('accounts as a')
    .leftJoin('memberships as m', (join) =>
      join.onRef('m.account_id', '=', 'a.id').onRef('m.organization_id', '=', 'a.organization_id'),
    )
    .select(['a.id', 'a.name', 'a.organization_id', 'a.metadata', 'a.email_verified_at', 'a.disabled_at', 'm.roles'])
    .where('a.email_normalized', '=', email)
    .forUpdate('a')
    .executeTakeFirst()
  const id = before?.id ?? randomId('acc')
  const fields: string[] = []
  if (!before) {
    await tx
      .insertInto('accounts')
      .values((eb) => ({
        id,
        email: input.email.trim(),
        email_normalized: email,
        name: input.name,
        organization_id: organizationId,
        metadata: JSON.stringify(input.metadata),
        email_verified_at: input.emailVerified ? eb.fn<Date>('now') : null,
        disabled_at: input.disabled ? eb.fn<Date>('now') : null,
      }))
      .execute()
    fields.push('name', 'organization', 'roles')
  } else {
    if (before.name !== input.name) fields.push('name')
    if (before.organization_id !== organizationId) fields.push('organization')
    if (!isSameJson(before.metadata, input.metadata)) fields.push('metadata')
    if ((before.email_verified_at !== null) !== input.emailVerified) fields.push('emailVerified')
    if ((before.disabled_at !== null) !== input.disabled) fields.push('disabled')
    if (fields.length > 0) {
      await tx
        .updateTable('accounts')
        .set((eb) => ({
          name: input.name,
          organization_id: organizationId,
          metadata: JSON.stringify(input.metadata),
          email_verified_at: input.emailVerified ? (before.email_verified_at ?? eb.fn<Date>('now')) : null,
          disabled_at: input.disabled ? (before.disabled_at ?? eb.fn<Date>('now')) : null,
          updated_at: eb.fn<Date>('now'),
        }))
        .where('id', '=', id)
        .execute()
    }
    if (!isSameJson(before.roles, input.roles) || before.organization_id !== organizationId) fields.push('roles')
  }
  const about = { accountId: id, organizationId, historyCount: passwordHistory }
  if (hash !== undefined && (await replacePassword(tx, { ...about, hash }))) fields.push('password')
  if (input.totpSecret !== undefined && (await setTotp(tx, parts.secrets, id, input.totpSecret)))
    fields.push('totpSecret')
  if (fields.length === 0) return []
  const event = before
    ? operatorEvent({ name: 'account.updated' as const, accountId: id, organizationId, details: { changed: fields } })
    : operatorEvent({
        name: 'account.created' as const,
        accountId: id,
        organizationId,
        details: { roles: input.roles },
      })
  await appendAudit(tx, event)
  if (fields.includes('roles')) await setHome(tx, { accountId: id, organizationId, roles: input.roles })
  const cause = endingOf(fields, input.disabled)
  if (before && cause)
    await endAccess(tx, { accountId: id, organizationId, cause, actor: { type: 'operator' }, origin: {} })
  if (before && !input.disabled && fields.includes('disabled'))
    await enqueueForMemberships(tx, { type: 'account.enabled', data: { accountId: id } })
  return [{ kind: 'account', id: email, change: before ? 'updated' : 'created', fields }]
}

/** What a change of these fields ends; one ending takes everything, whichever of them it is for. */
function endingOf(fields: readonly string[], disabled: boolean): EndingCause | undefined {
  // Enabled again, the person signs in anew: nothing of before comes back (ASVS 7.4.2).
  if (disabled && fields.includes('disabled')) return 'disabled'
  // Whoever signed in with what was replaced may be why it was.
  if (fields.includes('password')) return 'password_changed'
  return fields.includes('totpSecret') ? 'factor_changed' : undefined
}

/** Makes a hash the account's password, whatever stands there. False when it stands there already. */
async function replacePassword(
  tx: Tx,
  wanted: Pick<PasswordSetting, 'accountId' | 'organizationId' | 'historyCount' | 'hash'>,
): Promise<boolean> {
  const before = await tx
    .selectFrom('password_credentials')
    .select(['hash', 'rehash_digest'])
    .where('account_id', '=', wanted.accountId)
    .forUpdate()
    .executeTakeFirst()
  if (before?.hash === wanted.hash) return false
  // A sign-in made it stronger since: the file names the same password as before.
  if (before && before.rehash_digest === rehashDigest(wanted.hash, before.hash)) return false
  const isSet = await setPassword(tx, {
    ...wanted,
    expectedHash: before?.hash,
    by: 'operator',
    actor: { type: 'operator' },
    origin: {},
  })
  // The account and its password are locked by this transaction, or came with it.
  if (!isSet) throw new Error('a locked password changed')
  return true
}

/** Enrols a confirmed authenticator with this secret. False when the account has it already. */
async function setTotp(tx: Tx, secrets: Secrets, accountId: string, secret: string): Promise<boolean> {
  const rows = await tx
    .selectFrom('totp_credentials')
    .select(['id', 'sealed_secret'])
    .where('account_id', '=', accountId)
    .execute()
  if (rows.some((row) => secrets.open(row.sealed_secret, totpSealContext(row.id)) === secret)) return false
  const id = randomId('totp')
  await tx
    .insertInto('totp_credentials')
    .values((eb) => ({
      id,
      account_id: accountId,
      name: 'Authenticator',
      sealed_secret: secrets.seal(secret, totpSealContext(id)),
      confirmed_at: eb.fn<Date>('now'),
    }))
    .execute()
  return true
}

async function applyClient(
  tx: Tx,
  { secrets }: ApplyParts,
  input: ClientInput,
  organizations: Map<string, KnownOrganization>,
): Promise<Change[]> {
  const { client_id: clientId, client_secret: secret, organization, ...members } = input
  const { kind, fields } = await saveClient(tx, secrets, {
    clientId,
    organizationId: required(organizations.get(organization)).id,
    members,
    secret,
    actor: { type: 'operator' },
    origin: {},
  })
  return kind === 'unchanged' ? [] : [{ kind: 'client', id: clientId, change: kind, fields }]
}

function required<T>(value: T | undefined): T {
  if (value === undefined) throw new Error('checked before: every organisation is known')
  return value
}

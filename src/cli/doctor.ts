// `mlpipes-auth doctor`: checks what a server needs and says how to mend what is wrong.
import { sql } from 'kysely'
import pino from 'pino'
import type { Config } from '../config.ts'
import { createSecrets } from '../crypto/secrets.ts'
import { appRole, type Database, organizationRole, runIn } from '../db/database.ts'
import { migrationState } from '../db/migrate.ts'
import { transactFor } from '../db/organization-transaction.ts'
import { createOutbox } from '../mail/outbox.ts'
import { verifySmtp } from '../mail/smtp.ts'
import { DeliveryFailed } from '../mail/transport.ts'
import { createKeys } from '../oidc/keys.ts'
import { openDatabase, resolveSecret } from '../process.ts'

export interface Finding {
  readonly check: string
  readonly ok: boolean
  readonly detail: string
}

const maxClockDriftMs = 5_000
const mailTimeoutMs = 3_000

/** Runs every check; a failed one never hides the next. */
export async function examine(config: Config): Promise<Finding[]> {
  const findings: Finding[] = [{ check: 'configuration', ok: true, detail: `issuer ${config.issuer}` }]
  findings.push(await checkMail(config))
  let database: Database
  try {
    database = await openDatabase(config, pino({ level: 'silent' }))
  } catch (error) {
    return [...findings, { check: 'database', ok: false, detail: `${messageOf(error)}` }]
  }
  const checks: [string, () => Promise<Omit<Finding, 'check'>>][] = [
    ['database role', () => checkRole(database)],
    ['schema', () => checkSchema(database)],
    ['isolation', () => checkIsolation(database)],
    ['clock', () => checkClock(database)],
    ['signing keys', () => checkKeys(config, database)],
    ['dead letters', () => checkDeadLetters(config, database)],
  ]
  for (const [check, run] of checks) {
    const result = await run().catch((error: unknown) => ({ ok: false, detail: messageOf(error) }))
    findings.push({ check, ...result })
  }
  await database.close()
  return findings
}

async function checkRole(database: Database) {
  const { rows } = await sql<{ user: string; login: string; owns: boolean; can_update: boolean; super: boolean }>`
    select current_user as user, session_user as login,
      pg_has_role(session_user, (select tableowner from pg_tables where schemaname = 'mlpipes_auth' and tablename = 'audit_events'), 'member') as owns,
      has_table_privilege(current_user, 'mlpipes_auth.audit_events', 'update') as can_update,
      (select rolsuper from pg_roles where rolname = current_user) as super`.execute(database.kysely)
  const row = rows[0]
  if (row?.user !== appRole || row.super || row.can_update)
    return {
      ok: false,
      detail: `runs as ${row?.user}; grant ${appRole} to the login role and use that in DATABASE_URL`,
    }
  if (row.owns && database.kind === 'postgres') {
    return {
      ok: false,
      detail: `the login role ${row.login} can act as the owner of the tables; use a login of its own in DATABASE_URL and the owner in DATABASE_ADMIN_URL`,
    }
  }
  return { ok: true, detail: `works as ${row.user}, owns nothing, cannot change audit rows` }
}

async function checkSchema(database: Database) {
  const { applied, pending } = await migrationState(database.kysely)
  return pending.length === 0
    ? { ok: true, detail: `at ${applied.at(-1)}` }
    : { ok: false, detail: `missing ${pending.join(', ')}; run: mlpipes-auth migrate` }
}

// The partitions of the audit log are closed to everybody; what others have no right to needs no policy.
const openTables = `select coalesce(string_agg(c.relname, ', ' order by c.relname), '') as open from pg_class c
    where c.relnamespace = 'mlpipes_auth'::regnamespace and c.relkind in ('r', 'p')
      and not (c.relrowsecurity and c.relforcerowsecurity)
      and (c.relispartition or has_any_column_privilege($1::name, c.oid, 'select, insert, update')
        or has_table_privilege($1::name, c.oid, 'delete'))`
const seenByNobody = `select current_user as role, exists (select from mlpipes_auth.organizations) as sees`

/** Does what every request for one organisation does, for an organisation that is none: nothing may be seen. */
async function checkIsolation(database: Database) {
  const [table] = await database.run(openTables, [organizationRole])
  if (table?.['open'] !== '')
    return { ok: false, detail: `no row-level security on ${table?.['open']}; enable and force it there` }
  let row: Awaited<ReturnType<typeof runIn>>[number] | undefined
  try {
    ;[row] = await transactFor(database.kysely, 'none', (tx) => runIn(tx, seenByNobody, []))
  } catch (error) {
    return { ok: false, detail: `${messageOf(error)}; run: grant ${organizationRole} to ${appRole}` }
  }
  return row?.['role'] === organizationRole && row['sees'] === false
    ? { ok: true, detail: 'an organisation sees its own rows only' }
    : {
        ok: false,
        detail: `${row?.['role']} sees rows of every organisation; it must not be a superuser or bypass policies`,
      }
}

async function checkClock(database: Database) {
  const { rows } = await sql<{ now: Date }>`select clock_timestamp() as now`.execute(database.kysely)
  const driftMs = Math.abs(Date.now() - (rows[0]?.now.getTime() ?? 0))
  return {
    ok: driftMs <= maxClockDriftMs,
    detail:
      driftMs <= maxClockDriftMs
        ? 'agrees with the database'
        : `is ${driftMs} ms away from the database's; synchronise both with NTP`,
  }
}

async function checkKeys(config: Config, database: Database) {
  const keys = createKeys(database.kysely, createSecrets(await resolveSecret(config), config.previousSecret))
  const { jwks } = await keys.load()
  const listed = await keys.list()
  const signing = listed.filter((key) => key.state === 'signing')
  if (jwks.length === 0) return { ok: true, detail: 'none yet; the first start makes them' }
  return {
    ok: signing.length > 0,
    detail:
      signing.length > 0
        ? `${signing.map((key) => key.alg).join(' and ')} signing, all readable`
        : 'none is signing; run: mlpipes-auth keys rotate',
  }
}

async function checkMail(config: Config): Promise<Finding> {
  const check = 'mail'
  if (config.smtpUrl === undefined) {
    const detail = config.production ? 'SMTP_URL is not set' : `stays here: ${config.issuer}/dev/mailbox shows it`
    return { check, ok: !config.production, detail }
  }
  const url = new URL(config.smtpUrl)
  const server = `${url.hostname}:${url.port || (url.protocol === 'smtps:' ? 465 : 587)}`
  try {
    await verifySmtp(config.smtpUrl, mailTimeoutMs)
    return { check, ok: true, detail: `${server} takes mail from us` }
  } catch (error) {
    const code = error instanceof DeliveryFailed ? error.code : 'EINTERNAL'
    return { check, ok: false, detail: `${server} cannot be used (${code}); ${mailAdvice(code)}` }
  }
}

const adviceByCode: Readonly<Record<string, string>> = {
  EAUTH: 'check the user and password in SMTP_URL',
  ENOAUTH: 'the server wants a user and password in SMTP_URL',
  ETLS: 'it offers no encryption that we accept; see docs/guides/mail.md',
  EDNS: 'check the host name in SMTP_URL',
}

function mailAdvice(code: string): string {
  return adviceByCode[code.split(' ', 1)[0] ?? ''] ?? 'check SMTP_URL and the network'
}

/** A mail that its receiver refused is a wrong address; any other that was given up says that mail does not work here. */
async function checkDeadLetters(config: Config, database: Database) {
  const secrets = createSecrets(await resolveSecret(config), config.previousSecret)
  const { count, refused, newest } = await createOutbox({ database, secrets }).deadLetters()
  if (count === 0) return { ok: true, detail: 'none' }
  const list = newest.map((letter) => `${letter.template} of ${letter.createdAt.toISOString()}: ${letter.lastError}`)
  const detail = `${count} in the last 30 days, ${refused} of them refused by their receiver; newest: ${list.join(', ')}`
  return count === refused ? { ok: true, detail } : { ok: false, detail: `${detail}; see docs/guides/mail.md` }
}

function messageOf(error: unknown): string {
  return error instanceof Error ? error.message || String('code' in error ? error.code : error.name) : String(error)
}

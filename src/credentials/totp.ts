// TOTP (RFC 6238): SHA-1, 6 digits, 30 s, one step either way. Spending a step is one conditional update, and so is
// turning an authenticator on. Who may set one up, and the pages for it, belong to sign-in and the account pages.
import { sql } from 'kysely'
import { generateSecret, verify } from 'otplib'
import { appendAudit } from '../audit/audit.ts'
import { randomId, type Secrets } from '../crypto/secrets.ts'
import { type Database, type Db, runIn, type Tx } from '../db/database.ts'
import { type FactorChange, lockFactors, removeBackupCodes } from './backup-codes.ts'

export type { FactorChange } from './backup-codes.ts'

const periodSeconds = 30
const digits = 6
/** SP 800-63B-4 §3.1.4 asks for 112 bits; RFC 4226 §4 (R6) recommends 160. */
const secretBytes = 20
export const maxAuthenticators = 5
export const maxOpenSetups = 3
/** How long a set-up may be finished. */
export const setupSeconds = 900
const abandonedSetupSeconds = 3_600
const maxNameCodePoints = 64
const maxIssuerNameCodePoints = 32
const maxLabelCodePoints = 64

/** An authenticator that waits for its first code, with what its owner's app needs. */
export interface TotpSetup {
  readonly totpId: string
  readonly secretBase32: string
  /** `otpauth://totp/…`, for a QR code or a link. */
  readonly uri: string
}

/** Whose authenticator it is, as their app shall name it. */
export interface TotpOwner {
  readonly accountId: string
  readonly email: string
  readonly organizationName: string
}

export type StartedTotpSetup =
  | ({ readonly ok: true } & TotpSetup)
  | { readonly ok: false; readonly reason: 'limit' | 'name' }

/** A confirmed authenticator, without its secret. */
export interface Authenticator {
  readonly id: string
  readonly name: string
  readonly createdAt: Date
  readonly confirmedAt: Date
}

// The oldest set-ups beyond the limit go, the new one comes. `clock_timestamp` because `now()` would order them by when
// their transactions began to wait for the lock.
const start = `with older as (
    delete from mlpipes_auth.totp_credentials where id in (
      select id from mlpipes_auth.totp_credentials where account_id = $2 and confirmed_at is null
      order by created_at desc, id offset ${maxOpenSetups - 1})
  )
  insert into mlpipes_auth.totp_credentials (id, account_id, name, sealed_secret, created_at)
  select $1, $2, $3, $4, clock_timestamp()
  where (select count(*) from mlpipes_auth.totp_credentials where account_id = $2 and confirmed_at is not null) < ${maxAuthenticators}
  returning id`
const open = `confirmed_at is null and created_at > now() - make_interval(secs => ${setupSeconds})`
const readOpen = `select sealed_secret from mlpipes_auth.totp_credentials where id = $1 and account_id = $2 and ${open}`
const confirm = `update mlpipes_auth.totp_credentials set confirmed_at = now(), last_step = $3::bigint
    where id = $1 and account_id = $2 and ${open}
      and (select count(*) from mlpipes_auth.totp_credentials where account_id = $2 and confirmed_at is not null) < ${maxAuthenticators}
    returning id`
// Every authenticator of the account moves on to the step, so that one step opens one sign-in whichever of them it was.
const spendStep = `update mlpipes_auth.totp_credentials set last_step = $2::bigint
    where account_id = (select account_id from mlpipes_auth.totp_credentials where id = $1)
      and confirmed_at is not null and last_step < $2::bigint
    returning id`
const rename = `update mlpipes_auth.totp_credentials set name = $3
    where id = $1 and account_id = $2 and confirmed_at is not null returning id`
const remove = `with standing as (
    select id from mlpipes_auth.totp_credentials where account_id = $2 and confirmed_at is not null
  ), removed as (
    delete from mlpipes_auth.totp_credentials where id = $1 and id in (select id from standing)
      and ($3::boolean or (select count(*) from standing) > 1)
    returning id
  )
  select exists (select from removed) as removed, exists (select from standing where id = $1) as known,
    (select count(*)::integer from standing) as standing`
const removeAll = `delete from mlpipes_auth.totp_credentials where account_id = $1
    returning id, confirmed_at is not null as confirmed`
const clean = `delete from mlpipes_auth.totp_credentials where id = any(array(
    select id from mlpipes_auth.totp_credentials
    where confirmed_at is null and created_at < now() - make_interval(secs => ${abandonedSetupSeconds})
    limit $1::integer for update skip locked))`

/**
 * Begins to set up an authenticator: it proves nothing before `confirmTotp`. Older set-ups beyond the limit end.
 * @returns `limit` when the account has as many authenticators as it may have, `name` when it cannot be called that
 */
export async function startTotpSetup(
  tx: Tx,
  secrets: Secrets,
  request: FactorChange & TotpOwner & { readonly name: string },
): Promise<StartedTotpSetup> {
  const { email, organizationName, name: wanted, ...change } = request
  const name = parseTotpName(wanted)
  if (name === undefined) return { ok: false, reason: 'name' }
  const totpId = randomId('totp')
  const secretBase32 = generateSecret({ length: secretBytes })
  await lockFactors(tx, change.accountId)
  const sealed = secrets.seal(secretBase32, totpSealContext(totpId))
  const started = await runIn(tx, start, [totpId, change.accountId, name, sealed])
  if (started.length === 0) return { ok: false, reason: 'limit' }
  await appendAudit(tx, { ...change, name: 'totp.setup_started', outcome: 'success', details: { totpId } })
  return { ok: true, totpId, secretBase32, uri: totpUri(secretBase32, request) }
}

/** The same set-up again, for a page that is loaded once more; undefined once it is confirmed, lapsed or replaced. */
export async function readTotpSetup(
  db: Db,
  secrets: Secrets,
  { totpId, ...owner }: TotpOwner & { readonly totpId: string },
): Promise<TotpSetup | undefined> {
  const row = await db
    .selectFrom('totp_credentials')
    .select('sealed_secret')
    .where('id', '=', totpId)
    .where('account_id', '=', owner.accountId)
    .where('confirmed_at', 'is', null)
    .where((eb) => eb('created_at', '>', sql<Date>`now() - make_interval(secs => ${setupSeconds}::integer)`))
    .executeTakeFirst()
  if (!row) return undefined
  const secretBase32 = secrets.open(row.sealed_secret, totpSealContext(totpId))
  return { totpId, secretBase32, uri: totpUri(secretBase32, owner) }
}

/**
 * Turns an authenticator on with its first code, and spends that code's step with it.
 * @returns `gone` when the set-up is confirmed already, lapsed, replaced, or one more than the account may have
 */
export async function confirmTotp(
  tx: Tx,
  secrets: Secrets,
  request: FactorChange & { readonly totpId: string; readonly code: string; readonly now: Date },
): Promise<'confirmed' | 'mismatch' | 'gone'> {
  const { totpId, code, now, ...change } = request
  await lockFactors(tx, change.accountId)
  const [row] = await runIn(tx, readOpen, [totpId, change.accountId])
  if (!row) return 'gone'
  const step = await matchTotpStep(secrets.open(String(row['sealed_secret']), totpSealContext(totpId)), code, now)
  if (step === undefined) return 'mismatch'
  const confirmed = await runIn(tx, confirm, [totpId, change.accountId, step])
  if (confirmed.length === 0) return 'gone'
  await appendAudit(tx, { ...change, name: 'totp.enabled', outcome: 'success', details: { totpId } })
  return 'confirmed'
}

/**
 * Finds the authenticator that a code belongs to.
 * @returns its id and the step, to be spent with `spendTotpStep`
 */
export async function findTotpMatch(tx: Tx, secrets: Secrets, accountId: string, code: string, now: Date) {
  const rows = await tx
    .selectFrom('totp_credentials')
    .select(['id', 'sealed_secret'])
    .where('account_id', '=', accountId)
    .where('confirmed_at', 'is not', null)
    .execute()
  for (const row of rows) {
    const step = await matchTotpStep(secrets.open(row.sealed_secret, totpSealContext(row.id)), code, now)
    if (step !== undefined) return { id: row.id, step }
  }
  return undefined
}

/**
 * Spends a step on all confirmed authenticators of the account: true for the one caller who was first with it or a
 * later one (F60).
 */
export async function spendTotpStep(tx: Tx, match: { readonly id: string; readonly step: number }): Promise<boolean> {
  const moved = await runIn(tx, spendStep, [match.id, match.step])
  return moved.some((row) => row['id'] === match.id)
}

/** Gives an authenticator another name. The row count says whether it was there. */
export async function renameTotp(
  tx: Tx,
  request: FactorChange & { readonly totpId: string; readonly name: string },
): Promise<'renamed' | 'gone' | 'name'> {
  const { totpId, name: wanted, ...change } = request
  const name = parseTotpName(wanted)
  if (name === undefined) return 'name'
  const renamed = await runIn(tx, rename, [totpId, change.accountId, name])
  if (renamed.length === 0) return 'gone'
  await appendAudit(tx, { ...change, name: 'account.updated', outcome: 'success', details: { changed: ['totpName'] } })
  return 'renamed'
}

/**
 * Takes one authenticator away; the backup codes go with the last one.
 * @param request.mayBeLast false where policy demands a second factor: the last one is then refused as `last`
 * @returns how many authenticators are left
 */
export async function removeTotp(
  tx: Tx,
  request: FactorChange & { readonly totpId: string; readonly by: RemovedBy; readonly mayBeLast: boolean },
): Promise<{ readonly ok: true; readonly left: number } | { readonly ok: false; readonly reason: 'gone' | 'last' }> {
  const { totpId, by, mayBeLast, ...change } = request
  // Two authenticators removed at once would otherwise each take the other for the one that stays.
  await lockFactors(tx, change.accountId)
  const [row] = await runIn(tx, remove, [totpId, change.accountId, mayBeLast])
  if (row?.['removed'] !== true) return { ok: false, reason: row?.['known'] === true ? 'last' : 'gone' }
  const left = Number(row['standing']) - 1
  await appendAudit(tx, { ...change, name: 'totp.removed', outcome: 'success', details: { totpId, by } })
  if (left === 0) await removeBackupCodes(tx, change)
  return { ok: true, left }
}

/** Takes every authenticator, open set-up and backup code away. Returns how many confirmed authenticators there were. */
export async function removeAllFactors(tx: Tx, change: FactorChange, by: RemovedBy): Promise<number> {
  await lockFactors(tx, change.accountId)
  const removed = await runIn(tx, removeAll, [change.accountId])
  const authenticators = removed.filter((row) => row['confirmed'] === true)
  for (const row of authenticators) {
    const details = { totpId: String(row['id']), by }
    await appendAudit(tx, { ...change, name: 'totp.removed', outcome: 'success', details })
  }
  await removeBackupCodes(tx, change)
  return authenticators.length
}

type RemovedBy = 'self' | 'administrator'

/** The confirmed authenticators of an account, oldest first. */
export async function listTotp(db: Db, accountId: string): Promise<Authenticator[]> {
  const rows = await db
    .selectFrom('totp_credentials')
    .select(['id', 'name', 'created_at', 'confirmed_at'])
    .where('account_id', '=', accountId)
    .where('confirmed_at', 'is not', null)
    .orderBy('confirmed_at')
    .orderBy('id')
    .$narrowType<{ confirmed_at: Date }>()
    .execute()
  return rows.map((row) => ({
    id: row.id,
    name: row.name,
    createdAt: row.created_at,
    confirmedAt: row.confirmed_at,
  }))
}

/** Deletes set-ups that nobody finished; they stopped working long before. At most `limit` at a time. */
export async function cleanTotpSetups(database: Pick<Database, 'run'>, limit: number): Promise<void> {
  await database.run(clean, [limit])
}

/** The step that a code belongs to, or undefined when it fits none around `now`. */
export async function matchTotpStep(secretBase32: string, code: string, now: Date): Promise<number | undefined> {
  if (!/^\d{6}$/.test(code)) return undefined
  const result = await verify({
    secret: secretBase32,
    token: code,
    epoch: Math.floor(now.getTime() / 1000),
    epochTolerance: periodSeconds,
  })
  return result.valid && 'timeStep' in result ? result.timeStep : undefined
}

/** Context that a TOTP secret is sealed with. */
export function totpSealContext(id: string): string {
  return `totp:${id}`
}

/**
 * The name of an authenticator as it is kept: NFC, without space around it.
 * @returns undefined unless it is 1 to 64 printable characters, one of them visible, none of them turning the text round
 */
export function parseTotpName(text: string): string | undefined {
  const name = text.normalize('NFC').trim()
  const isPrintable = !/[\p{Cc}\p{Cs}\p{Co}\p{Cn}\p{Zl}\p{Zp}\p{Bidi_Control}]/u.test(name)
  const isVisible = /[\p{L}\p{N}\p{P}\p{S}]/u.test(name)
  return isPrintable && isVisible && [...name].length <= maxNameCodePoints ? name : undefined
}

/**
 * The address that authenticator apps read. The issuer names the organisation too, because people may have accounts at
 * several; a colon in it would end it early. Algorithm, digits and period are spelled out, although they are what apps
 * assume. Long names are cut, so that the QR code stays one that a phone can read.
 */
export function totpUri(secretBase32: string, { email, organizationName }: TotpOwner): string {
  const organization = cut(organizationName.replaceAll(':', ' '), maxIssuerNameCodePoints)
  const issuer = encodeURIComponent(`MLPipes (${organization})`)
  const label = encodeURIComponent(cut(email, maxLabelCodePoints))
  return `otpauth://totp/${issuer}:${label}?secret=${secretBase32}&issuer=${issuer}&algorithm=SHA1&digits=${digits}&period=${periodSeconds}`
}

function cut(text: string, maxCodePoints: number): string {
  const points = [...text.toWellFormed()]
  return points.length <= maxCodePoints ? points.join('') : `${points.slice(0, maxCodePoints - 1).join('')}…`
}

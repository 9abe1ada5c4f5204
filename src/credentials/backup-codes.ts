// Backup codes: ten look-up secrets (SP 800-63B-4 §3.1.2) for the day on which the phone is lost. Kept as keyed digests,
// each spent once. When they are made, shown and asked for is up to sign-in and the account pages.
import { randomBytes } from 'node:crypto'
import { appendAudit } from '../audit/audit.ts'
import type { Actor, Origin } from '../audit/events.ts'
import type { Secrets } from '../crypto/secrets.ts'
import { type Db, runIn, type Tx } from '../db/database.ts'

export const backupCodeCount = 10
/** With this many left, or fewer, the owner should be told to make new ones. */
export const warnAt = 3

const groupCount = 6
const groupLength = 4
const codeLength = groupCount * groupLength
/** 24 characters of 5 bits. */
const codeBytes = 15
const maxTypedLength = 256
/** Digits and letters without I, L and O, which look like digits, and U, which looks like V. */
const alphabet = '0123456789ABCDEFGHJKMNPQRSTVWXYZ'
const lookalikes: Readonly<Record<string, string>> = { I: '1', L: '1', O: '0', U: 'V' }

/** Whose second factors change, and who changes them from where. */
export interface FactorChange {
  readonly accountId: string
  readonly organizationId: string | undefined
  readonly actor: Actor
  readonly origin: Origin
}

const lock = 'select 1 from mlpipes_auth.accounts where id = $1 for no key update'
const forget = 'delete from mlpipes_auth.backup_codes where account_id = $1 returning account_id'
const keep = 'insert into mlpipes_auth.backup_codes (account_id, code_mac) select $1, unnest($2::text[])'
const spend = `update mlpipes_auth.backup_codes set used_at = now()
    where account_id = $1 and code_mac = any($2::text[]) and used_at is null returning code_mac`
const countLeft =
  'select count(*)::integer as left from mlpipes_auth.backup_codes where account_id = $1 and used_at is null'

/**
 * Makes a new set of codes; every older one is dead when the transaction commits.
 * @returns the codes as they are shown, six groups of four. They are kept nowhere: this is the only time to show them
 */
export async function createBackupCodes(tx: Tx, secrets: Secrets, change: FactorChange): Promise<readonly string[]> {
  const codes = Array.from({ length: backupCodeCount }, () => encode(randomBytes(codeBytes)))
  const macs = codes.map((code) => secrets.mac('backup-code', macText(change.accountId, code)))
  // Two sets made at once would otherwise not see each other's rows, and both would live.
  await lockFactors(tx, change.accountId)
  await runIn(tx, forget, [change.accountId])
  await runIn(tx, keep, [change.accountId, macs])
  await appendAudit(tx, {
    ...change,
    name: 'backup_codes.created',
    outcome: 'success',
    details: { count: backupCodeCount },
  })
  return codes.map(inGroups)
}

/**
 * Spends a code as somebody typed it.
 * @returns how many are left, for the one caller who was first; undefined when it fits no live code
 */
export async function spendBackupCode(
  tx: Tx,
  secrets: Secrets,
  { input, ...change }: FactorChange & { readonly input: string },
): Promise<{ readonly left: number } | undefined> {
  const code = normalizeBackupCode(input)
  if (code === undefined) return undefined
  // For the count: two codes spent at once would both be told the same number.
  await lockFactors(tx, change.accountId)
  const macs = secrets.macs('backup-code', macText(change.accountId, code))
  const spent = await runIn(tx, spend, [change.accountId, macs])
  if (spent.length === 0) return undefined
  const [row] = await runIn(tx, countLeft, [change.accountId])
  const left = Number(row?.['left'])
  await appendAudit(tx, { ...change, name: 'backup_code.used', outcome: 'success', details: { left } })
  return { left }
}

/** How many codes an account can still use. */
export async function countBackupCodes(db: Db, accountId: string): Promise<number> {
  const row = await db
    .selectFrom('backup_codes')
    .select((eb) => eb.fn.countAll<string>().as('left'))
    .where('account_id', '=', accountId)
    .where('used_at', 'is', null)
    .executeTakeFirst()
  return Number(row?.left ?? 0)
}

/** Takes all codes away, used ones too: without an authenticator beside them they would be a factor of their own. */
export async function removeBackupCodes(tx: Tx, change: FactorChange): Promise<void> {
  const removed = await runIn(tx, forget, [change.accountId])
  if (removed.length === 0) return
  await appendAudit(tx, {
    ...change,
    name: 'account.updated',
    outcome: 'success',
    details: { changed: ['backupCodes'] },
  })
}

/**
 * Lets one transaction at a time change the second factors of an account, so that what it counts stays true until it
 * commits. Always taken before any row of theirs: the other order could deadlock.
 */
export async function lockFactors(tx: Tx, accountId: string): Promise<void> {
  await runIn(tx, lock, [accountId])
}

/**
 * What was typed, as the code was made: capitals of the alphabet alone. Spaces, dashes, small letters and letters that
 * look like others make no difference.
 * @returns undefined for what cannot be a code
 */
export function normalizeBackupCode(input: string): string | undefined {
  if (input.length > maxTypedLength) return undefined
  const letters = input
    .normalize('NFKC')
    .toUpperCase()
    .replace(/[\s\p{Pd}\p{Cf}−_]/gu, '')
    .replace(/[ILOU]/g, (letter) => lookalikes[letter] ?? letter)
  return letters.length === codeLength && [...letters].every((letter) => alphabet.includes(letter))
    ? letters
    : undefined
}

/** Bound to the account, so that rows cannot be moved between accounts. */
function macText(accountId: string, code: string): string {
  return `${accountId}:${code}`
}

/** Five bits a character. `bytes` must hold a multiple of five bits. */
function encode(bytes: Uint8Array): string {
  const bits = [...bytes].map((byte) => byte.toString(2).padStart(8, '0')).join('')
  return (bits.match(/.{5}/g) ?? []).map((five) => alphabet[Number.parseInt(five, 2)]).join('')
}

function inGroups(code: string): string {
  return (code.match(/.{4}/g) ?? []).join('-')
}

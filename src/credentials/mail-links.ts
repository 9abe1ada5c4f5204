// Links that are sent by mail: made, looked at without spending, spent once. Only a hash of the token is kept, and what
// the link will do is sealed. A page opened with GET looks; only a POST spends (hospital mail scanners open every link).
import { randomBytes } from 'node:crypto'
import { type Secrets, sha256 } from '../crypto/secrets.ts'
import { type Database, type Row, runIn, type Tx } from '../db/database.ts'

export type LinkKind = 'sign_in' | 'sign_up' | 'reset' | 'invite' | 'email_change' | 'not_me'

/** How long each kind of link works. SP 800-63B-4 §4.2.1.2 allows 24 hours for recovery by mail; ours are shorter. */
export const linkSeconds: Readonly<Record<LinkKind, number>> = {
  sign_in: 600,
  sign_up: 900,
  reset: 1_800,
  invite: 259_200,
  email_change: 86_400,
  not_me: 604_800,
}

export const maxLinkCodeTries = 5
const tokenBytes = 32
const codeAlphabet = 'ABCDEFGHJKMNPQRSTVWXYZ23456789'
const codeLength = 8

export interface LinkRequest {
  readonly kind: LinkKind
  /** Absent for an address that has no account: the row is made all the same, and no mail leads to it. */
  readonly accountId?: string | undefined
  readonly organizationId?: string | undefined
  /** SHA-256 of the interaction's uid, for links that belong to a sign-in. */
  readonly interactionHash?: string | undefined
  /** What the link will do, kept sealed. */
  readonly payload?: Readonly<Record<string, unknown>> | undefined
}

export interface Link {
  readonly accountId: string | undefined
  readonly organizationId: string | undefined
  readonly interactionHash: string | undefined
  readonly payload: Readonly<Record<string, unknown>>
}

export type CodeOutcome = { readonly ok: true; readonly link: Link } | { readonly ok: false; readonly tries: number }

const columns = 'account_id, organization_id, interaction_hash, sealed, id_hash'
// A newer link ends the older ones of its kind, for the account and for the sign-in that asked.
const insert = `with older as (
    update mlpipes_auth.mail_links set used_at = now()
    where kind = $2 and used_at is null and $2 <> 'not_me' and (account_id = $3 or interaction_hash = $5)
  )
  insert into mlpipes_auth.mail_links (id_hash, kind, account_id, organization_id, interaction_hash, code_mac, sealed, expires_at)
  values ($1, $2, $3, $4, $5, $6, $7, now() + make_interval(secs => $8::integer))`
const live = 'used_at is null and expires_at > now()'
const look = `select ${columns} from mlpipes_auth.mail_links where id_hash = $1 and kind = $2 and ${live}`
const spend = `update mlpipes_auth.mail_links set used_at = now() where id_hash = $1 and kind = $2 and ${live}
    and ($3::text is null or interaction_hash = $3) returning ${columns}`
// The try is counted and the code compared in one statement, so that no number of parallel tries gets more than five.
const spendByCode = `update mlpipes_auth.mail_links set code_failures = code_failures + 1,
      used_at = case when code_mac = any($3::text[]) then now() end
    where interaction_hash = $1 and kind = $2 and ${live} and code_failures < ${maxLinkCodeTries}
    returning used_at is not null as matched, code_failures, ${columns}`
const listLive = `select ${columns}, created_at, expires_at from mlpipes_auth.mail_links
    where organization_id = $1 and kind = $2 and ${live} and ($3::text is null or id_hash > $3) order by id_hash limit $4`
const withdraw = `update mlpipes_auth.mail_links set used_at = now()
    where organization_id = $1 and kind = $2 and id_hash = $3 and ${live} returning id_hash`
const newest = `select sealed, id_hash from mlpipes_auth.mail_links where interaction_hash = $1 and kind = $2
    order by created_at desc limit 1`
const clean = `delete from mlpipes_auth.mail_links where ctid = any(array(select ctid from mlpipes_auth.mail_links
    where expires_at < now() - interval '1 day' limit $1::integer for update skip locked))`

export interface MailLinks {
  /** Makes a link; older ones of its kind end. Returns the token for the URL: it is not kept anywhere. */
  issue(tx: Tx, request: LinkRequest): Promise<string>
  /** What a live link is for. Spends nothing. */
  look(kind: LinkKind, token: string): Promise<Link | undefined>
  /**
   * Spends a link: what it was for, for the one caller who is first.
   * @param interactionHash only if it belongs to this sign-in
   */
  spend(tx: Tx, kind: LinkKind, token: string, interactionHash?: string): Promise<Link | undefined>
  /** The address that was entered when a sign-in last asked for such a mail, whether or not one was sent. */
  sentTo(kind: LinkKind, interactionHash: string): Promise<string | undefined>
  /** The short code that a link shows on another device, to be typed where the sign-in began. A function of the token. */
  shownCode(token: string): string
  /** Spends the link of a sign-in by its code. Five tries. */
  spendByCode(tx: Tx, kind: LinkKind, interactionHash: string, code: string): Promise<CodeOutcome>
  /** Live links of a kind in an organisation, by their hash, which opens nothing. */
  list(tx: Tx, kind: LinkKind, organizationId: string, after: string | undefined, limit: number): Promise<ListedLink[]>
  /** Ends a live link by its hash. False when there is none in this organisation. */
  withdraw(tx: Tx, kind: LinkKind, organizationId: string, idHash: string): Promise<boolean>
  clean(limit: number): Promise<void>
}

export interface ListedLink {
  /** SHA-256 of the token. */
  readonly idHash: string
  readonly payload: Link['payload']
  readonly createdAt: Date
  readonly expiresAt: Date
}

export function createMailLinks(database: Database, secrets: Secrets): MailLinks {
  const shownCode = (token: string) => toCode(secrets.mac('link-code', `shown:${token}`))
  const typed = (interactionHash: string, code: string) => `typed:${interactionHash}:${normalizeCode(code)}`
  const sealContext = (idHash: string) => `mail-link:${idHash}`
  const toLink = (row: Row): Link => ({
    accountId: textOf(row['account_id']),
    organizationId: textOf(row['organization_id']),
    interactionHash: textOf(row['interaction_hash']),
    payload:
      row['sealed'] === null
        ? {}
        : JSON.parse(secrets.open(String(row['sealed']), sealContext(String(row['id_hash'])))),
  })
  return {
    async issue(tx, request) {
      const token = randomBytes(tokenBytes).toString('base64url')
      const idHash = sha256(token)
      const { interactionHash } = request
      await runIn(tx, insert, [
        idHash,
        request.kind,
        request.accountId ?? null,
        request.organizationId ?? null,
        interactionHash ?? null,
        interactionHash === undefined ? null : secrets.mac('link-code', typed(interactionHash, shownCode(token))),
        request.payload === undefined ? null : secrets.seal(JSON.stringify(request.payload), sealContext(idHash)),
        linkSeconds[request.kind],
      ])
      return token
    },
    async look(kind, token) {
      const [row] = await database.run(look, [sha256(token), kind])
      return row && toLink(row)
    },
    async spend(tx, kind, token, interactionHash) {
      const [row] = await runIn(tx, spend, [sha256(token), kind, interactionHash ?? null])
      return row && toLink(row)
    },
    async sentTo(kind, interactionHash) {
      const [row] = await database.run(newest, [interactionHash, kind])
      if (!row || row['sealed'] === null) return undefined
      const { sentTo } = JSON.parse(secrets.open(String(row['sealed']), sealContext(String(row['id_hash']))))
      return textOf(sentTo)
    },
    shownCode,
    async spendByCode(tx, kind, interactionHash, code) {
      const [row] = await runIn(tx, spendByCode, [
        interactionHash,
        kind,
        secrets.macs('link-code', typed(interactionHash, code)),
      ])
      if (!row) return { ok: false, tries: maxLinkCodeTries }
      return row['matched'] === true
        ? { ok: true, link: toLink(row) }
        : { ok: false, tries: Number(row['code_failures']) }
    },
    async list(tx, kind, organizationId, after, limit) {
      const rows = await runIn(tx, listLive, [organizationId, kind, after ?? null, limit])
      return rows.map((row) => ({
        idHash: String(row['id_hash']),
        payload: toLink(row).payload,
        createdAt: row['created_at'] as Date,
        expiresAt: row['expires_at'] as Date,
      }))
    },
    withdraw: async (tx, kind, organizationId, idHash) =>
      (await runIn(tx, withdraw, [organizationId, kind, idHash])).length === 1,
    clean: async (limit) => void (await database.run(clean, [limit])),
  }
}

/** Eight letters and digits that are not mistaken for one another, in two groups: 39 bits against five tries. */
function toCode(mac: string): string {
  const bytes = Buffer.from(mac, 'base64url').subarray(0, codeLength)
  const letters = [...bytes].map((byte) => codeAlphabet[byte % codeAlphabet.length]).join('')
  return `${letters.slice(0, codeLength / 2)}-${letters.slice(codeLength / 2)}`
}

/** What was typed, as it was shown: without spaces and dashes, in capitals. */
function normalizeCode(code: string): string {
  return code.toUpperCase().replace(/[^A-Z0-9]/g, '')
}

function textOf(value: unknown): string | undefined {
  return value === null || value === undefined ? undefined : String(value)
}

/** The address of a link. It comes from the configuration alone, never from a request (D6). */
export function linkUrl(issuer: string, path: string, token: string): string {
  return `${issuer}${path}?token=${token}`
}

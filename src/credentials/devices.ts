// Known devices: a random cookie that a browser keeps, and for which accounts it has completed a sign-in. A device proves
// nothing about a person; it only keeps its owner's tries apart from a stranger's (throttle.ts) and a new one is told of.
import { randomBytes } from 'node:crypto'
import { sha256 } from '../crypto/secrets.ts'
import { runIn, type Tx } from '../db/database.ts'

const tokenBytes = 32
const tokenPattern = /^[A-Za-z0-9_-]{43}$/
const maxAgeSeconds = 365 * 24 * 3_600
const maxUserAgentLength = 512

/** Devices kept per account; whichever was not seen for longest makes room. */
export const maxDevicesPerAccount = 20

export interface DeviceCookieOptions {
  readonly path: '/'
  readonly httpOnly: true
  readonly secure: boolean
  readonly sameSite: 'lax'
  readonly maxAge: number
}

/** What can take a cookie; Fastify's reply can. */
export interface CookieTarget {
  setCookie(name: string, value: string, options: DeviceCookieOptions): unknown
}

export interface DeviceCookie {
  readonly name: string
  /** SHA-256 of the cookie's value; undefined when there is none, or none of ours. */
  read(cookies: Readonly<Record<string, string | undefined>>): string | undefined
  /** Gives the browser a new value and returns its SHA-256. The value itself is kept nowhere else. */
  issue(reply: CookieTarget): string
}

/** @param issuer whose scheme decides: over https the name binds the cookie to this very host (RFC 6265bis, `__Host-`) */
export function createDeviceCookie(issuer: string): DeviceCookie {
  const secure = issuer.startsWith('https://')
  const name = secure ? '__Host-mlpipes_device' : 'mlpipes_device'
  const options = { path: '/', httpOnly: true, secure, sameSite: 'lax', maxAge: maxAgeSeconds } as const
  return {
    name,
    read(cookies) {
      const token = cookies[name]
      return token !== undefined && tokenPattern.test(token) ? sha256(token) : undefined
    },
    issue(reply) {
      const token = randomBytes(tokenBytes).toString('base64url')
      reply.setCookie(name, token, options)
      return sha256(token)
    },
  }
}

// Each part sees the table as it was before: `others` without the device if it is new, `dropped` without it in any case.
const remember = `with others as (select device_hash, last_seen_at from mlpipes_auth.known_devices
      where account_id = $1::text),
    saved as (insert into mlpipes_auth.known_devices as d (account_id, device_hash, user_agent)
      values ($1::text, $2::text, $3::text)
      on conflict (account_id, device_hash) do update set last_seen_at = now(), user_agent = excluded.user_agent
      returning old.device_hash is null as is_new),
    dropped as (delete from mlpipes_auth.known_devices where account_id = $1::text and device_hash in (
      select device_hash from others where device_hash <> $2::text
      order by last_seen_at desc, device_hash offset $4::integer))
    select is_new, not exists (select from others) as is_first from saved`

/**
 * Notes that a sign-in to the account was completed on a device. Not to be called before: what is remembered has a
 * budget of its own.
 * @returns `isNew`: this account has not seen it before, true once however many ask at once; `isFirst`: it had seen none
 */
export async function rememberDevice(
  tx: Tx,
  accountId: string,
  deviceHash: string,
  userAgent: string | undefined,
): Promise<{ readonly isNew: boolean; readonly isFirst: boolean }> {
  const agent =
    userAgent
      ?.toWellFormed()
      .replace(/\p{Cc}/gu, ' ')
      .slice(0, maxUserAgentLength) ?? null
  const [row] = await runIn(tx, remember, [accountId, deviceHash, agent, maxDevicesPerAccount - 1])
  return { isNew: row?.['is_new'] === true, isFirst: row?.['is_first'] === true }
}

/** Forgets all devices of an account, as after a reset or "this was not me". Returns how many there were. */
export async function forgetDevices(tx: Tx, accountId: string): Promise<number> {
  const { numDeletedRows } = await tx.deleteFrom('known_devices').where('account_id', '=', accountId).executeTakeFirst()
  return Number(numDeletedRows)
}

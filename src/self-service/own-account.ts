// What an owner does to their account besides credentials: the name, sessions, apps with access, the download.
import type { SignInAccount } from '../accounts/accounts.ts'
import { appendAudit } from '../audit/audit.ts'
import type { AuditEvent, Origin } from '../audit/events.ts'
import type { Notices } from '../credentials/notices.ts'
import type { Database } from '../db/database.ts'
import { transact } from '../db/transaction.ts'
import { endAccess, endSession } from '../sessions/ending.ts'
import { dropApp, readOwnData, setName } from './store.ts'

export interface OwnAccount {
  rename(account: SignInAccount, name: string, origin: Origin): Promise<void>
  /** Ends one session, but never the one in which this is done. False when the account has no such session. */
  endSession(account: SignInAccount, uid: string, currentUid: string, origin: Origin): Promise<boolean>
  endOtherSessions(account: SignInAccount, currentUid: string, origin: Origin): Promise<void>
  /** Takes an app's access away, with every token of it. False when it has none. */
  removeApp(account: SignInAccount, clientId: string, sessionUid: string, origin: Origin): Promise<boolean>
  exportData(account: SignInAccount, sessionUid: string, origin: Origin): Promise<Record<string, unknown>>
}

export function createOwnAccount(parts: { readonly database: Database; readonly notices: Notices }): OwnAccount {
  const db = parts.database.kysely
  const about = (account: SignInAccount, origin: Origin) => ({
    actor: { type: 'account' as const, id: account.id },
    accountId: account.id,
    organizationId: account.organization.id,
    origin,
  })
  return {
    rename: (account, name, origin) =>
      transact(db, async (tx) => {
        if (!(await setName(tx, account.id, name))) return
        const event: AuditEvent = {
          ...about(account, origin),
          name: 'account.updated',
          outcome: 'success',
          details: { changed: ['name'] },
        }
        await appendAudit(tx, event)
      }),

    endSession: (account, uid, currentUid, origin) =>
      transact(db, async (tx) => {
        const ending = { ...about(account, origin), cause: 'ended_by_owner' as const, uid, notSessionUid: currentUid }
        return (await endSession(tx, ending)) !== undefined
      }),

    endOtherSessions: (account, currentUid, origin) =>
      transact(db, async (tx) => {
        const ending = { ...about(account, origin), cause: 'ended_by_owner' as const, exceptSessionUid: currentUid }
        const { sessions } = await endAccess(tx, ending)
        if (sessions > 0) await parts.notices.send(tx, account, 'sessions_ended', origin)
      }),

    removeApp: (account, clientId, sessionUid, origin) =>
      transact(db, async (tx) => {
        const dropped = await dropApp(tx, account.id, clientId)
        if (!dropped) return false
        await appendAudit(tx, {
          ...about(account, origin),
          name: 'consent.revoked',
          outcome: 'success',
          // The app's organisation lost the access, so it stands in that one's log.
          organizationId: dropped.organizationId,
          clientId,
          sessionUid,
          details: {},
        })
        return true
      }),

    exportData: (account, sessionUid, origin) =>
      transact(db, async (tx) => {
        await appendAudit(tx, {
          ...about(account, origin),
          name: 'account.data_exported',
          outcome: 'success',
          sessionUid,
          details: {},
        })
        return readOwnData(tx, account.id)
      }),
  }
}

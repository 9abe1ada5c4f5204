// How long a session has left, and what an app says when the person is still there. Both by the database's clock.
import { type Database, type Row, runIn, type Tx } from '../db/database.ts'

export interface SecondsLeft {
  /** Whole seconds until the idle limit, or the absolute one if that comes first. */
  readonly idle: number
  readonly absolute: number
}

const live = 'ended_at is null and idle_expires_at > now() and absolute_expires_at > now()'
const secondsLeft = `floor(extract(epoch from least(idle_expires_at, absolute_expires_at) - now()))::integer as idle,
    floor(extract(epoch from absolute_expires_at - now()))::integer as absolute`
const look = `select ${secondsLeft} from mlpipes_auth.sessions where uid = $1 and ${live}`
// A session past a limit is never brought back: the condition is the one that every read has.
const extend = `update mlpipes_auth.sessions set last_activity_at = now(),
      idle_expires_at = least(now() + make_interval(secs => $2::integer), absolute_expires_at)
    where uid = $1 and ${live} returning ${secondsLeft}`

/** What a live session has left; undefined when it has ended. Reading it is no activity. */
export async function readSecondsLeft(database: Pick<Database, 'run'>, uid: string): Promise<SecondsLeft | undefined> {
  const [row] = await database.run(look, [uid])
  return row && toSecondsLeft(row)
}

/**
 * Begins the idle limit of a live session anew, within its absolute one.
 * @param idleSeconds what the policy of the moment says
 * @returns undefined when the session has ended
 */
export async function extendIdleLimit(tx: Tx, uid: string, idleSeconds: number): Promise<SecondsLeft | undefined> {
  const [row] = await runIn(tx, extend, [uid, idleSeconds])
  return row && toSecondsLeft(row)
}

function toSecondsLeft(row: Row): SecondsLeft {
  return { idle: Number(row['idle']), absolute: Number(row['absolute']) }
}

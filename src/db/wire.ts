// What goes over a PostgreSQL connection: statements by name, and a transaction's begin together with its first statement.
// Every message that wakes the server costs more than most of our statements do there.
import type pg from 'pg'

const maxNames = 500
const names = new Map<string, string>()

/**
 * A statement with the name under which each connection parses and plans it once. Beyond `maxNames` texts there is none:
 * a connection keeps what it prepared. No statement of ours selects `*`, whose columns a migration would change under
 * a prepared plan.
 */
export function byName(text: string, values: readonly unknown[]): pg.QueryConfig {
  const name = names.get(text) ?? (names.size < maxNames ? `q${names.size}` : undefined)
  if (name !== undefined) names.set(text, name)
  return { text, values: [...values], ...(name === undefined ? {} : { name }) }
}

type Query = (...args: unknown[]) => Promise<unknown>

/**
 * Makes a connection in pipeline mode send what Kysely gives it in fewer messages. Kysely sends text and parameters
 * only, and PostgreSQL would parse and plan each time; and it waits for `begin` before the first statement.
 */
export function tune(client: pg.ClientBase): void {
  const query: Query = client.query.bind(client)
  let isBeginHeld = false
  const send: Query = (...args) => {
    const [text, values] = args
    const isKyselys = args.length === 2 && typeof text === 'string' && Array.isArray(values) && values.length > 0
    return isKyselys ? query(byName(text, values)) : query(...args)
  }
  const tuned: Query = async (...args) => {
    const [text] = args
    if (text === 'begin') {
      isBeginHeld = true
      return nothing
    }
    if (!isBeginHeld) return send(...args)
    isBeginHeld = false
    // A transaction in which nothing was asked never reaches the server.
    if (text === 'commit' || text === 'rollback') return nothing
    const stream = streamOf(client)
    stream?.cork()
    // Not awaited one after the other: both are on their way when the first answer comes. Should begin fail, so does
    // the statement, even if it ran.
    const sent = Promise.all([query('begin'), send(...args)])
    stream?.uncork()
    return (await sent)[1]
  }
  Object.defineProperty(client, 'query', { value: tuned })
}

const nothing = { command: '', rowCount: null, oid: 0, rows: [], fields: [] }

/** The socket of a connection; @types/pg does not know it. */
function streamOf(client: pg.ClientBase): { cork(): void; uncork(): void } | undefined {
  return Reflect.get(Object(Reflect.get(client, 'connection')), 'stream')
}

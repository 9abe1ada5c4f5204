// Where a request came from, for the audit log: set once at the edge, read by whoever writes a row.
import type { IncomingMessage } from 'node:http'
import type { Origin } from '../audit/events.ts'

const origins = new WeakMap<IncomingMessage, Origin>()

export function setOrigin(request: IncomingMessage, origin: Origin): void {
  origins.set(request, origin)
}

/** The origin that the edge set, or an empty one for a request that never passed it. */
export function originOf(request: IncomingMessage): Origin {
  return origins.get(request) ?? {}
}

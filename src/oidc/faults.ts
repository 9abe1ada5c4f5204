// What the provider answers when something of ours fails: it knows only a plain 500. An outage of the database is a 503
// that says when to try again, and nothing leaves without our own words and request id.
import type { Provider } from 'oidc-provider'
import { isOutage } from '../db/pg-errors.ts'
import type { PageContext, ProtocolPages } from './pages.ts'
import { protocolErrors } from './protocol-errors.ts'

const retrySeconds = 5

interface Parts {
  readonly pages: ProtocolPages
  onFault(error: unknown): void
}

/** Call before any other `provider.use`: it must stand outermost. */
export function answerFaults(provider: Provider, { pages, onFault }: Parts): void {
  const faults = new WeakMap<object, unknown>()
  // Emitted inside the request, after the provider wrote its own answer and before the middleware below goes on.
  provider.on('server_error', (context, error) => faults.set(context.req, error))
  provider.use(async (context, next) => {
    try {
      await next()
    } catch (error) {
      faults.set(context.req, error)
    }
    if (!faults.has(context.req)) return
    const fault = faults.get(context.req)
    onFault(fault)
    answer(context, pages, isOutage(fault))
  })
}

interface Answering extends PageContext {
  status: number
  set(name: string, value: string): void
  remove(name: string): void
  accepts(...types: string[]): string | string[] | false
}

function answer(context: Answering, pages: ProtocolPages, outage: boolean): void {
  const error = outage
    ? { error: 'temporarily_unavailable' as const, error_description: 'the service cannot answer right now; try again' }
    : { error: 'server_error' as const, error_description: 'something went wrong on the side of the server' }
  context.remove('Location')
  context.status = protocolErrors.anywhere[error.error].status
  if (outage) context.set('Retry-After', String(retrySeconds))
  context.set('Cache-Control', 'no-store')
  if (context.accepts('json', 'html') === 'html') pages.error(context, error, new Error(error.error))
  else context.body = error
}

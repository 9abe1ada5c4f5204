// Discovery and JWKS change only with the keys: rendered once per provider and answered from memory.
import inject from 'light-my-request'
import type { Provider } from 'oidc-provider'

export const documentPaths = [
  '/.well-known/openid-configuration',
  '/.well-known/oauth-authorization-server',
  '/oauth/jwks',
] as const

export type Documents = ReadonlyMap<string, string>

/** How long a relying party may keep a document. Shorter than a new key is announced before it signs. */
export const documentMaxAgeSeconds = 30

/** Asks the provider for its documents, as a client would. Throws when it does not answer with 200. */
export async function renderDocuments(provider: Provider): Promise<Documents> {
  const { host, protocol } = new URL(provider.issuer)
  const headers = { host, 'x-forwarded-proto': protocol.slice(0, -1), accept: 'application/json' }
  const callback = provider.callback()
  const entries = documentPaths.map(async (path): Promise<[string, string]> => {
    const answer = await inject((request, response) => void callback(request, response), {
      method: 'GET',
      url: path,
      headers,
    })
    if (answer.statusCode !== 200) throw new Error(`the provider answered ${path} with ${answer.statusCode}`)
    return [path, answer.payload]
  })
  return new Map(await Promise.all(entries))
}

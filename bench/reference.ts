// What we measure ourselves against: oidc-provider alone, with its own memory adapter, offering the same grants.
import { createServer } from 'node:http'
import { exportJWK, generateKeyPair } from 'jose'
import { Provider } from 'oidc-provider'

const port = Number(process.env['PORT'])
const { privateKey } = await generateKeyPair('RS256', { extractable: true, modulusLength: 3072 })
const provider = new Provider(`http://localhost:${port}`, {
  jwks: { keys: [{ ...(await exportJWK(privateKey)), alg: 'RS256', use: 'sig' }] as never },
  cookies: { keys: ['a key of the bench'] },
  clients: [
    {
      client_id: 'api',
      client_secret: 'api-secret-0123456789',
      grant_types: ['client_credentials', 'refresh_token', 'authorization_code'],
      redirect_uris: ['http://localhost:9/callback'],
      response_types: ['code'],
    },
  ],
  findAccount: (_context, id) => ({ accountId: id, claims: () => ({ sub: id }) }),
  rotateRefreshToken: true,
  expiresWithSession: () => false,
  features: {
    clientCredentials: { enabled: true },
    introspection: { enabled: true, allowedPolicy: () => true },
    devInteractions: { enabled: false },
  },
})

/** Makes a person's tokens without a browser. */
async function issueTokens(): Promise<string> {
  const client = await provider.Client.find('api')
  if (!client) throw new Error('no client')
  const grant = new provider.Grant({ accountId: 'someone', clientId: 'api' })
  grant.addOIDCScope('openid offline_access')
  const grantId = await grant.save()
  const common = { accountId: 'someone', client, grantId, gty: 'authorization_code', scope: 'openid offline_access' }
  const access = new provider.AccessToken({ ...common, expiresIn: 3600 } as never)
  const refresh = new provider.RefreshToken({ ...common, rotations: 0 } as never)
  return JSON.stringify({ access_token: await access.save(), refresh_token: await refresh.save() })
}

const callback = provider.callback()
createServer((request, response) => {
  if (request.url === '/bench/tokens') {
    issueTokens().then((tokens) => response.end(tokens))
    return
  }
  void callback(request, response)
}).listen(port, '127.0.0.1', () => process.send?.('ready'))

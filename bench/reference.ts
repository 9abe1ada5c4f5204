// What we measure ourselves against: oidc-provider alone, with its own memory adapter, offering the same grants.
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http'
import argon2 from 'argon2'
import { exportJWK, generateKeyPair } from 'jose'
import { Provider } from 'oidc-provider'

const port = Number(process.env['PORT'])
const { privateKey } = await generateKeyPair('RS256', { extractable: true, modulusLength: 3072 })
const provider = new Provider(`http://localhost:${port}`, {
  jwks: { keys: [{ ...(await exportJWK(privateKey)), alg: 'RS256', use: 'sig' }] as never },
  cookies: { keys: ['a key of the bench'] },
  clients: [
    {
      client_id: 'app',
      client_secret: 'app-secret-0123456789',
      redirect_uris: ['http://localhost:9/callback'],
    },
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
  interactions: { url: (_context, interaction) => `/interaction/${interaction.uid}` },
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

const phc = await argon2.hash('Bench-Password-2026', {
  type: argon2.argon2id,
  memoryCost: 19_456,
  timeCost: 2,
  parallelism: 1,
})

/** The least that a sign-in can be: a form, a hash compared, the grant made at once. No policy, no audit, no counting. */
async function interact(request: IncomingMessage, response: ServerResponse): Promise<void> {
  const { uid, params } = await provider.interactionDetails(request, response)
  if (request.method === 'GET') {
    response.end(`<form action="/interaction/${uid}/password"><input name="csrf" value="none"></form>`)
    return
  }
  let body = ''
  for await (const chunk of request) body += String(chunk)
  const form = new URLSearchParams(body)
  if (!(await argon2.verify(phc, form.get('password') ?? ''))) throw new Error('the password is wrong')
  const accountId = form.get('email') ?? ''
  const grant = new provider.Grant({ accountId, clientId: String(params['client_id']) })
  grant.addOIDCScope('openid profile')
  const consent = { grantId: await grant.save() }
  await provider.interactionFinished(request, response, { login: { accountId }, consent })
}

const callback = provider.callback()
createServer((request, response) => {
  if (request.url === '/bench/tokens') {
    issueTokens().then((tokens) => response.end(tokens))
    return
  }
  if (request.url?.startsWith('/interaction/')) {
    interact(request, response).catch((error: Error) => response.writeHead(500).end(error.message))
    return
  }
  void callback(request, response)
}).listen(port, '127.0.0.1', () => process.send?.('ready'))

// What connects an app, to copy: for the libraries that people have, with the app's real values. Pure. A secret is never
// among them, only the name of the environment variable that holds it. Strings are quoted as JSON, which JavaScript, Python,
// C# and YAML read alike; what is registered is printable ASCII.
import { deviceGrant } from '../clients/clients.ts'

export interface SnippetFacts {
  readonly issuer: string
  readonly clientId: string
  readonly grantTypes: readonly string[]
  /** Of the token endpoint. */
  readonly method: string
  readonly redirectUris: readonly string[]
  readonly scope: string
  readonly isFapi: boolean
  readonly idTokenAlg: string | undefined
}

export interface Snippet {
  readonly id: 'node' | 'spring' | 'authlib' | 'aspnet'
  readonly title: string
  readonly file: string
  readonly text: string
}

const quote = (text: string) => JSON.stringify(text)
const lines = (...parts: readonly (string | false | readonly string[])[]) =>
  `${parts
    .filter((part) => part !== false)
    .flat()
    .join('\n')}\n`

/** What fits this app; nothing for a library that cannot do what the app is registered for without code of one's own. */
export function snippetsFor(facts: SnippetFacts): Snippet[] {
  const isCode = facts.grantTypes.includes('authorization_code')
  const isService = facts.grantTypes.includes('client_credentials')
  const isPlain = !facts.isFapi && facts.method !== 'private_key_jwt'
  return [
    { id: 'node', title: 'Node.js, openid-client', file: 'mlpipes.mjs', text: node(facts, isCode) },
    ...(isPlain && (isCode || isService)
      ? ([
          { id: 'spring', title: 'Java, Spring Security', file: 'application.yml', text: spring(facts, isCode) },
          { id: 'authlib', title: 'Python, Authlib', file: 'app.py', text: isCode ? flask(facts) : authlib(facts) },
        ] as const)
      : []),
    ...(isPlain && isCode
      ? ([{ id: 'aspnet', title: 'C#, ASP.NET Core', file: 'Program.cs', text: aspNet(facts) }] as const)
      : []),
  ]
}

/** How to try it from a terminal, for what `mlpipes-auth try` can be: a redirect URI on this machine, or a device. */
export function tryCommand(facts: SnippetFacts): string | undefined {
  const { issuer, clientId, grantTypes, redirectUris, isFapi, scope } = facts
  if (isFapi || !(usesSecret(facts) || facts.method === 'none')) return undefined
  const local = redirectUris.find((uri) => uri.startsWith('http:'))
  const isDevice = grantTypes.includes(deviceGrant)
  if (local === undefined && !isDevice) return undefined
  return [
    `npx mlpipes-auth try --issuer ${issuer} --client-id ${clientId} --scope "${scope}"`,
    ...(usesSecret(facts) ? ['--client-secret "$CLIENT_SECRET"'] : []),
    isDevice ? '--device' : `--redirect-uri ${local}`,
  ].join(' ')
}

const usesSecret = ({ method }: SnippetFacts) => method.startsWith('client_secret_')
const isPlainHttp = ({ issuer }: SnippetFacts) => issuer.startsWith('http:')

function node(facts: SnippetFacts, isCode: boolean): string {
  const isDevice = facts.grantTypes.includes(deviceGrant)
  const flow = isCode ? nodeCode(facts) : isDevice ? nodeDevice(facts) : nodeService(facts)
  return lines('// npm install openid-client', nodeImports(facts), '', nodeConfig(facts), '', flow)
}

function nodeImports({ method }: SnippetFacts): string[] {
  const key = ["import { createPrivateKey } from 'node:crypto'", "import { readFileSync } from 'node:fs'"]
  return [
    ...(method === 'private_key_jwt' ? key : []),
    ...(method === 'none' ? [] : ["import { env } from 'node:process'"]),
    "import * as client from 'openid-client'",
  ]
}

function nodeConfig(facts: SnippetFacts): string[] {
  const { method, issuer, clientId, isFapi, idTokenAlg } = facts
  const alg = idTokenAlg ?? (isFapi ? 'ES256' : undefined)
  const proof =
    method === 'none'
      ? 'client.None()'
      : method === 'private_key_jwt'
        ? 'client.PrivateKeyJwt(privateKey)'
        : method === 'client_secret_post'
          ? 'client.ClientSecretPost(env.CLIENT_SECRET)'
          : 'client.ClientSecretBasic(env.CLIENT_SECRET)'
  return [
    ...(method === 'private_key_jwt'
      ? [
          '// A key on P-256 in PEM (PKCS #8), whose public half is registered.',
          'const privateKey = createPrivateKey(readFileSync(env.PRIVATE_KEY_FILE)).toCryptoKey(',
          "  { name: 'ECDSA', namedCurve: 'P-256' }, false, ['sign'])",
        ]
      : []),
    'const config = await client.discovery(',
    `  new URL(${quote(issuer)}),`,
    `  ${quote(clientId)},`,
    `  ${alg === undefined ? 'undefined' : `{ id_token_signed_response_alg: ${quote(alg)} }`},`,
    `  ${proof},`,
    // Plain http is for a server on this very machine.
    ...(isPlainHttp(facts) ? ['  { execute: [client.allowInsecureRequests] },'] : []),
    ')',
    ...(isFapi ? ['const DPoP = client.getDPoPHandle(config, await client.randomDPoPKeyPair())'] : []),
  ]
}

function nodeCode({ redirectUris: [redirectUri = ''], scope, isFapi }: SnippetFacts): string[] {
  const build = isFapi ? 'await client.buildAuthorizationUrlWithPAR' : 'client.buildAuthorizationUrl'
  return [
    "/** Where to send the browser. Keep `kept` in that browser's session on your server. */",
    'export async function begin() {',
    '  const kept = { codeVerifier: client.randomPKCECodeVerifier(), state: client.randomState() }',
    `  const url = ${build}(config, {`,
    `    redirect_uri: ${quote(redirectUri)},`,
    `    scope: ${quote(scope)},`,
    '    code_challenge: await client.calculatePKCECodeChallenge(kept.codeVerifier),',
    "    code_challenge_method: 'S256',",
    '    state: kept.state,',
    `  }${isFapi ? ', { DPoP }' : ''})`,
    '  return { url: url.href, kept }',
    '}',
    '',
    '/** When the browser comes back: the address it came back to, and what was kept. */',
    'export async function finish(address, { codeVerifier, state }) {',
    '  const tokens = await client.authorizationCodeGrant(config, new URL(address), {',
    '    pkceCodeVerifier: codeVerifier,',
    '    expectedState: state,',
    '    idTokenExpected: true,',
    `  }${isFapi ? ', undefined, { DPoP }' : ''})`,
    '  return { claims: tokens.claims(), accessToken: tokens.access_token, refreshToken: tokens.refresh_token }',
    '}',
  ]
}

function nodeService({ scope, isFapi }: SnippetFacts): string[] {
  return [
    '/** A token of the service itself. Keep it until shortly before it expires. */',
    'export async function getToken() {',
    `  const tokens = await client.clientCredentialsGrant(config, { scope: ${quote(scope)} }${isFapi ? ', { DPoP }' : ''})`,
    '  return { accessToken: tokens.access_token, expiresIn: tokens.expiresIn() }',
    '}',
  ]
}

function nodeDevice({ scope }: SnippetFacts): string[] {
  return [
    '/** @param show shows an address and a code to the person */',
    'export async function signIn(show) {',
    `  const device = await client.initiateDeviceAuthorization(config, { scope: ${quote(scope)} })`,
    '  show(device.verification_uri, device.user_code)',
    '  const tokens = await client.pollDeviceAuthorizationGrant(config, device)',
    '  return { claims: tokens.claims(), accessToken: tokens.access_token }',
    '}',
  ]
}

function spring(facts: SnippetFacts, isCode: boolean): string {
  const {
    issuer,
    clientId,
    method,
    redirectUris: [redirectUri = ''],
    scope,
  } = facts
  return lines(
    isCode && [
      '# spring-boot-starter-oauth2-client. Every sign-in needs PKCE: Spring Security 7 does it by itself; before that, set',
      '# OAuth2AuthorizationRequestCustomizers.withPkce() on the DefaultOAuth2AuthorizationRequestResolver.',
    ],
    'spring:',
    '  security:',
    '    oauth2:',
    '      client:',
    '        registration:',
    '          mlpipes:',
    `            client-id: ${quote(clientId)}`,
    // biome-ignore lint/suspicious/noTemplateCurlyInString: it is Spring that reads it
    usesSecret(facts) && '            client-secret: "${CLIENT_SECRET}"',
    `            client-authentication-method: ${method}`,
    `            authorization-grant-type: ${isCode ? 'authorization_code' : 'client_credentials'}`,
    isCode && `            redirect-uri: ${quote(redirectUri)}`,
    `            scope: [${scope.split(' ').map(quote).join(', ')}]`,
    '        provider:',
    '          mlpipes:',
    `            issuer-uri: ${quote(issuer)}`,
    isCode && '            user-name-attribute: sub',
  )
}

function flask(facts: SnippetFacts): string {
  const {
    issuer,
    clientId,
    method,
    redirectUris: [redirectUri = ''],
    scope,
  } = facts
  return lines(
    '# pip install authlib flask requests',
    'import os',
    'from authlib.integrations.flask_client import OAuth',
    'from flask import Flask',
    '',
    'app = Flask(__name__)',
    'app.secret_key = os.environ["SESSION_SECRET"]',
    'oauth = OAuth(app)',
    'oauth.register(',
    '    name="mlpipes",',
    `    server_metadata_url=${quote(`${issuer}/.well-known/openid-configuration`)},`,
    `    client_id=${quote(clientId)},`,
    usesSecret(facts) && '    client_secret=os.environ["CLIENT_SECRET"],',
    '    client_kwargs={',
    `        "scope": ${quote(scope)},`,
    '        "code_challenge_method": "S256",',
    `        "token_endpoint_auth_method": ${quote(method)},`,
    '    },',
    ')',
    '',
    '@app.get("/sign-in")',
    'def sign_in():',
    `    return oauth.mlpipes.authorize_redirect(${quote(redirectUri)})`,
    '',
    `@app.get(${quote(new URL(redirectUri).pathname)})`,
    'def callback():',
    '    token = oauth.mlpipes.authorize_access_token()',
    '    return token["userinfo"]',
  )
}

function authlib({ issuer, clientId, method, scope }: SnippetFacts): string {
  return lines(
    '# pip install authlib requests',
    'import os',
    'import requests',
    'from authlib.integrations.requests_client import OAuth2Session',
    '',
    `server = requests.get(${quote(`${issuer}/.well-known/openid-configuration`)}, timeout=10).json()`,
    'session = OAuth2Session(',
    `    client_id=${quote(clientId)},`,
    '    client_secret=os.environ["CLIENT_SECRET"],',
    `    token_endpoint_auth_method=${quote(method)},`,
    `    scope=${quote(scope)},`,
    ')',
    'token = session.fetch_token(server["token_endpoint"], grant_type="client_credentials")',
  )
}

function aspNet(facts: SnippetFacts): string {
  const {
    issuer,
    clientId,
    redirectUris: [redirectUri = ''],
    scope,
  } = facts
  return lines(
    '// dotnet add package Microsoft.AspNetCore.Authentication.OpenIdConnect',
    'using Microsoft.AspNetCore.Authentication.Cookies;',
    'using Microsoft.AspNetCore.Authentication.OpenIdConnect;',
    '',
    'var builder = WebApplication.CreateBuilder(args);',
    'builder.Services',
    '    .AddAuthentication(options =>',
    '    {',
    '        options.DefaultScheme = CookieAuthenticationDefaults.AuthenticationScheme;',
    '        options.DefaultChallengeScheme = OpenIdConnectDefaults.AuthenticationScheme;',
    '    })',
    '    .AddCookie()',
    '    .AddOpenIdConnect(options =>',
    '    {',
    `        options.Authority = ${quote(issuer)};`,
    isPlainHttp(facts) && '        options.RequireHttpsMetadata = false; // On this very machine only.',
    `        options.ClientId = ${quote(clientId)};`,
    usesSecret(facts) && '        options.ClientSecret = builder.Configuration["CLIENT_SECRET"];',
    '        options.ResponseType = "code";',
    '        options.ResponseMode = "query";',
    '        options.UsePkce = true;',
    `        // The app is reached at ${new URL(redirectUri).origin}.`,
    `        options.CallbackPath = ${quote(new URL(redirectUri).pathname)};`,
    '        options.Scope.Clear();',
    scope.split(' ').map((name) => `        options.Scope.Add(${quote(name)});`),
    '        options.MapInboundClaims = false;',
    '        options.GetClaimsFromUserInfoEndpoint = true;',
    '        options.SaveTokens = true;',
    '    });',
    'builder.Services.AddAuthorization();',
    '',
    'var app = builder.Build();',
    'app.UseAuthentication();',
    'app.UseAuthorization();',
    'app.MapGet("/", (HttpContext context) => context.User.FindFirst("sub")?.Value).RequireAuthorization();',
    'app.Run();',
  )
}

// What connects an app, to copy: for the libraries that people have, with the app's real values. Pure. A secret is never
// among them, only the name of the environment variable that holds it. Strings are quoted as JSON, which JavaScript, Python,
// Java, C# and YAML read alike; what is registered is printable ASCII.
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
  readonly id: 'node' | 'spring' | 'spring-security' | 'authlib' | 'aspnet'
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

interface Library extends Omit<Snippet, 'text'> {
  fits(facts: SnippetFacts): boolean
  text(facts: SnippetFacts): string
}

/** In the order of the page. */
const libraries: readonly Library[] = [
  { id: 'node', title: 'Node.js, openid-client', file: 'mlpipes.mjs', fits: (facts) => !isPublic(facts), text: node },
  // The same library runs in browsers, and so do its lines.
  { id: 'node', title: 'JavaScript, openid-client', file: 'mlpipes.mjs', fits: isPublic, text: node },
  { id: 'spring', title: 'Java, Spring Security', file: 'application.yml', fits: isOfServer, text: spring },
  {
    id: 'spring-security',
    title: 'Java, Spring Security, second file',
    file: 'SecurityConfig.java',
    fits: isSignInOfServer,
    text: springSecurity,
  },
  { id: 'authlib', title: 'Python, Authlib', file: 'app.py', fits: isOfServer, text: python },
  { id: 'aspnet', title: 'C#, ASP.NET Core', file: 'Program.cs', fits: isSignInOfServer, text: aspNet },
]

/** What fits this app; nothing for a library that cannot do what the app is registered for without code of one's own. */
export function snippetsFor(facts: SnippetFacts): Snippet[] {
  return libraries
    .filter(({ fits }) => fits(facts))
    .map(({ id, title, file, text }) => ({ id, title, file, text: text(facts) }))
}

function isSignIn({ grantTypes }: SnippetFacts): boolean {
  return grantTypes.includes('authorization_code')
}

/** Whether it runs where its person is, in a browser, on a phone or a device, and keeps no secret. */
function isPublic({ method }: SnippetFacts): boolean {
  return method === 'none'
}

/** Whether libraries fit that are made for servers with a secret: nobody runs Flask in a browser or on a phone. */
function isOfServer(facts: SnippetFacts): boolean {
  const isService = facts.grantTypes.includes('client_credentials')
  return usesSecret(facts) && !facts.isFapi && (isSignIn(facts) || isService)
}

function isSignInOfServer(facts: SnippetFacts): boolean {
  return isOfServer(facts) && isSignIn(facts)
}

/** How to try it from a terminal, for what `mlpipes-auth try` can be: a redirect URI on this machine, or a device. */
export function tryCommand(facts: SnippetFacts): string | undefined {
  const { issuer, clientId, grantTypes, redirectUris, isFapi, scope } = facts
  if (isFapi || !(usesSecret(facts) || isPublic(facts))) return undefined
  const local = redirectUris.find((uri) => uri.startsWith('http:'))
  const isDevice = grantTypes.includes(deviceGrant)
  if (local === undefined && !isDevice) return undefined
  return [
    `npx mlpipes-auth try --issuer ${quoted(issuer)} --client-id ${quoted(clientId)} --scope ${quoted(scope)}`,
    ...(usesSecret(facts) ? ['--client-secret "$CLIENT_SECRET"'] : []),
    isDevice ? '--device' : `--redirect-uri ${quoted(listening(local ?? '', facts))}`,
  ].join(' ')
}

/** One word of a shell, whatever is in it: an app that registered itself says what its own address is. */
function quoted(text: string): string {
  return /^[\w:/.@-]+$/.test(text) ? text : `'${text.replaceAll("'", `'\\''`)}'`
}

/** Where `try` listens. RFC 8252 §7.3: an app on the person's own machine takes any free port, as nobody else may have 80. */
function listening(uri: string, facts: SnippetFacts): string {
  const url = new URL(uri)
  if (!isPublic(facts) || url.port !== '') return uri
  url.port = '0'
  return url.href
}

const usesSecret = ({ method }: SnippetFacts) => method.startsWith('client_secret_')
/** OpenID Connect Core §11: without prompt=consent the server leaves offline_access out, and says nothing of it. */
const isOffline = ({ scope, grantTypes }: SnippetFacts) =>
  scope.split(' ').includes('offline_access') && grantTypes.includes('refresh_token')
const whyPrompt = 'Without prompt=consent there is no offline_access.'
const isPlainHttp = ({ issuer }: SnippetFacts) => issuer.startsWith('http:')

function node(facts: SnippetFacts): string {
  const isDevice = facts.grantTypes.includes(deviceGrant)
  const flow = isSignIn(facts) ? nodeCode(facts) : isDevice ? nodeDevice(facts) : nodeService(facts)
  return lines('// npm install openid-client', nodeImports(facts), '', nodeConfig(facts), '', flow)
}

function nodeImports(facts: SnippetFacts): string[] {
  const key = ["import { createPrivateKey } from 'node:crypto'", "import { readFileSync } from 'node:fs'"]
  return [
    ...(facts.method === 'private_key_jwt' ? key : []),
    ...(isPublic(facts) ? [] : ["import { env } from 'node:process'"]),
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

const placeOnServer = "in that browser's session on your server"
const placeHere = 'until it comes back: in sessionStorage of a page, in the memory of a phone or desktop app'

function nodeCode(facts: SnippetFacts): string[] {
  const {
    redirectUris: [redirectUri = ''],
    scope,
    isFapi,
  } = facts
  const build = isFapi ? 'await client.buildAuthorizationUrlWithPAR' : 'client.buildAuthorizationUrl'
  return [
    `/** Where to send the browser. Keep \`kept\` ${isPublic(facts) ? placeHere : placeOnServer}. */`,
    'export async function begin() {',
    '  const kept = { codeVerifier: client.randomPKCECodeVerifier(), state: client.randomState() }',
    `  const url = ${build}(config, {`,
    `    redirect_uri: ${quote(redirectUri)},`,
    `    scope: ${quote(scope)},`,
    ...(isOffline(facts) ? [`    prompt: 'consent', // ${whyPrompt}`] : []),
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

function spring(facts: SnippetFacts): string {
  const isCode = isSignIn(facts)
  const {
    issuer,
    clientId,
    method,
    redirectUris: [redirectUri = ''],
    scope,
  } = facts
  return lines(
    '# spring-boot-starter-oauth2-client',
    isCode && '# SecurityConfig.java belongs to it: without it, the redirect URI is not listened at.',
    'spring:',
    '  security:',
    '    oauth2:',
    '      client:',
    '        registration:',
    '          mlpipes:',
    `            client-id: ${quote(clientId)}`,
    // biome-ignore lint/suspicious/noTemplateCurlyInString: it is Spring that reads it
    '            client-secret: "${CLIENT_SECRET}"',
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

function springSecurity(facts: SnippetFacts): string {
  const {
    redirectUris: [redirectUri = ''],
  } = facts
  const web = 'org.springframework.security.oauth2.client.web'
  return lines(
    '// Spring Security 6 and 7, beside application.yml.',
    'import org.springframework.context.annotation.Bean;',
    'import org.springframework.context.annotation.Configuration;',
    'import org.springframework.security.config.annotation.web.builders.HttpSecurity;',
    'import org.springframework.security.oauth2.client.registration.ClientRegistrationRepository;',
    `import ${web}.DefaultOAuth2AuthorizationRequestResolver;`,
    `import ${web}.OAuth2AuthorizationRequestCustomizers;`,
    'import org.springframework.security.web.SecurityFilterChain;',
    '',
    '@Configuration',
    'public class SecurityConfig {',
    '    @Bean',
    '    SecurityFilterChain security(HttpSecurity http, ClientRegistrationRepository clients) throws Exception {',
    '        var requests = new DefaultOAuth2AuthorizationRequestResolver(clients, "/oauth2/authorization");',
    '        // Every sign-in needs PKCE, which Spring Security 6 does not do by itself for an app with a secret.',
    isOffline(facts) && `        // ${whyPrompt}`,
    '        requests.setAuthorizationRequestCustomizer(OAuth2AuthorizationRequestCustomizers.withPkce()',
    isOffline(facts) &&
      '            .andThen(request -> request.additionalParameters(more -> more.put("prompt", "consent")))',
    '        );',
    '        return http',
    '            .authorizeHttpRequests(all -> all.anyRequest().authenticated())',
    '            .oauth2Login(login -> login',
    '                .authorizationEndpoint(there -> there.authorizationRequestResolver(requests))',
    '                // Without it, only /login/oauth2/code/* is listened at.',
    `                .redirectionEndpoint(back -> back.baseUri(${quote(new URL(redirectUri).pathname)})))`,
    '            .build();',
    '    }',
    '}',
  )
}

function python(facts: SnippetFacts): string {
  return isSignIn(facts) ? flask(facts) : authlib(facts)
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
    '# From the environment: CLIENT_SECRET, and SESSION_SECRET, a long random text of your own that signs the cookies of the app.',
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
    '    client_secret=os.environ["CLIENT_SECRET"],',
    '    client_kwargs={',
    `        "scope": ${quote(scope)},`,
    '        "code_challenge_method": "S256",',
    `        "token_endpoint_auth_method": ${quote(method)},`,
    '    },',
    ')',
    '',
    '@app.get("/sign-in")',
    'def sign_in():',
    isOffline(facts) && `    # ${whyPrompt}`,
    `    return oauth.mlpipes.authorize_redirect(${quote(redirectUri)}${isOffline(facts) ? ', prompt="consent"' : ''})`,
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
    '        options.ClientSecret = builder.Configuration["CLIENT_SECRET"];',
    '        options.ResponseType = "code";',
    '        options.ResponseMode = "query";',
    '        options.UsePkce = true;',
    isOffline(facts) && `        options.Prompt = "consent"; // ${whyPrompt}`,
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

// Faults of apps in words: what the app did, and what mends it, with what is registered now. Pure.
import type { FaultEndpoint, FaultFacts, FaultReason } from './fault-reasons.ts'

/** What of an app's registration the words compare with. */
export interface Registered {
  readonly redirect_uris: readonly string[]
  readonly post_logout_redirect_uris: readonly string[]
  readonly scope: string
  readonly grant_types: readonly string[]
  readonly token_endpoint_auth_method: string
}

interface Words {
  readonly what: string
  readonly mend: string
}

const places: Readonly<Record<FaultEndpoint, string>> = {
  authorize: 'Asking for a sign-in',
  par: 'Pushing a request',
  token: 'Asking for tokens',
  device: 'Asking for a device code',
  introspect: 'Checking a token',
  revoke: 'Revoking a token',
  logout: 'Signing out',
}

const quoted = (values: readonly string[]) => values.map((value) => `“${value}”`).join(', ')
const registeredUris = (uris: readonly string[]) =>
  uris.length === 0 ? 'None is registered.' : `Registered: ${quoted(uris)}.`
const methods: Readonly<Record<NonNullable<FaultFacts['method']>, string>> = {
  secret: 'a secret',
  private_key_jwt: 'a signed assertion (private_key_jwt)',
  none: 'nothing',
}

type Say = (facts: FaultFacts, registered: Registered) => Words
const say =
  (what: string, mend: string): Say =>
  () => ({ what, mend })
const pkce =
  'Most libraries do it once PKCE is turned on: a code_challenge with method S256, kept for this one sign-in.'
const again = 'Send the person through a new sign-in.'

const sentences: Readonly<Record<FaultReason, Say>> = {
  redirect_uri_unknown: ({ redirectUri = 'none' }, registered) => ({
    what: `The app sent redirect_uri “${redirectUri}”. ${registeredUris(registered.redirect_uris)}`,
    mend: 'Register what it sends, letter for letter, or change the app.',
  }),
  code_redirect_uri: ({ redirectUri = 'none' }, registered) => ({
    what: `The app exchanged a code with redirect_uri “${redirectUri}”, which is not the one that it asked for it with. ${registeredUris(registered.redirect_uris)}`,
    mend: 'Send the same redirect_uri both times.',
  }),
  scope_unknown: ({ scope }, registered) => ({
    what: `The app asked for scope “${scope ?? ''}”. Registered: “${registered.scope}”.`,
    mend: 'Register what it asks for, or ask for less in the app.',
  }),
  scope_unreadable: say(
    'The app asked for a scope with characters that no scope has.',
    'Send the names of the scopes with one space between two.',
  ),
  openid_missing: say(
    'The app asked for a sign-in without scope openid.',
    'Add openid to the scopes that it asks for.',
  ),
  parameter_missing: ({ parameters = [] }) => ({
    what: `The app left out ${parameters.length === 0 ? 'a required parameter' : parameters.join(', ')}.`,
    mend: 'Send it with the request.',
  }),
  parameter_twice: ({ parameters = [] }) => ({
    what: `The app sent ${parameters.length === 0 ? 'a parameter' : parameters.join(', ')} twice.`,
    mend: 'Send each parameter once.',
  }),
  pkce_missing: say('The app sent no code_challenge. Every sign-in needs PKCE.', pkce),
  pkce_method: say('The app sent a code_challenge_method other than S256.', pkce),
  challenge_unreadable: say('The app sent a code_challenge that is none.', pkce),
  response_type: say('The app asked for a response_type that it cannot have.', 'Ask for response_type code.'),
  response_mode: say('The app asked for a response_mode that it cannot have.', 'Leave response_mode out.'),
  prompt_unknown: say(
    'The app sent a prompt that this server does not know, or none beside another.',
    'Send none alone; or login, consent, or both with a space between; or leave prompt out.',
  ),
  max_age_unreadable: say(
    'The app sent a max_age that is no number of seconds.',
    'Send whole seconds, 0 or more, or leave max_age out.',
  ),
  claims_unreadable: say(
    'The app sent a claims parameter that could not be read.',
    'Send a JSON object with id_token, userinfo or both, each an object, or leave claims out.',
  ),
  id_token_hint_refused: say(
    'The app sent an id_token_hint that was not accepted.',
    'Send the last ID token that this server gave to this very app, as it came, or leave id_token_hint out.',
  ),
  par_required: say(
    'The app asked for a sign-in without pushing the request first.',
    'Its profile asks for pushed authorization requests (PAR): send the request to the pushed_authorization_request_endpoint first.',
  ),
  request_uri_dead: say(
    'The app used a request_uri that is unknown, used already, or too old.',
    'Push a new request for each sign-in, and use it at once.',
  ),
  request_uri_remote: say(
    'The app sent a request_uri that this server would have to fetch from elsewhere.',
    'Push the request to the pushed_authorization_request_endpoint and use the request_uri of the answer, or send plain parameters.',
  ),
  request_object: say(
    'The app sent a request object that could not be accepted.',
    'Check its signature, its audience and its times, or send plain parameters.',
  ),
  verifier_missing: say('The app exchanged a code without its code_verifier.', pkce),
  verifier_wrong: say(
    'The app exchanged a code with a code_verifier that does not fit.',
    'Keep the verifier of each sign-in in the session of its browser: two tabs must not share one.',
  ),
  verifier_unreadable: say('The app sent a code_verifier that can be none.', pkce),
  code_unknown: say(
    'The app sent a code that is not known: used already, older than a minute, or never one of ours.',
    `Exchange each code once and at once. ${again}`,
  ),
  code_used: say(
    'The app used a code twice. What the first use gave is revoked.',
    'Exchange each code once: a page that is loaded again must not exchange it again.',
  ),
  code_expired: say('The app used a code that had expired. It is good for a minute.', `Exchange it at once. ${again}`),
  refresh_unknown: say(
    'The app used a refresh token that is not good any more: expired, revoked, or its session has ended.',
    again,
  ),
  refresh_used: say(
    'The app used a refresh token that it had used before. Its tokens are revoked.',
    'Store the new refresh token of every answer before using it, and refresh in one place at a time.',
  ),
  refresh_parallel: say(
    'The app used a refresh token twice within ten seconds. The first use gave new tokens, which are good; this one gave none.',
    'Let one refresh run at a time and everybody else wait for its answer, also in other tabs and processes. Keep the newest refresh token and forget the one before it.',
  ),
  refresh_scope: ({ scope }) => ({
    what: `The app asked for scope “${scope ?? ''}” with a refresh token that does not have it.`,
    mend: 'A refresh can ask for less than there was, never for more. Ask for it when the person signs in; offline_access needs prompt=consent there.',
  }),
  refresh_expired: say('The app used a refresh token that had expired.', again),
  grant_over: say('What the person had allowed the app is over.', again),
  of_another_app: say('The app used a code or token that was given to another app.', 'Check which client_id it uses.'),
  app_off: say('The app is switched off.', 'Switch it on when it may be used again.'),
  method_mismatch: ({ method = 'none' }, registered) => ({
    what: `The app proved itself with ${methods[method]}. Registered: ${registered.token_endpoint_auth_method}.`,
    mend: 'Configure the app with what is registered.',
  }),
  method_twice: say(
    'The app proved itself in two ways at once.',
    'Send the secret in the header or in the body, not in both.',
  ),
  secret_wrong: say(
    'The app sent a secret that is not right.',
    'Check that it has the secret of this server and the whole of it; if it is lost, replace it.',
  ),
  credentials_unreadable: say(
    'The app sent credentials that could not be read.',
    'Send client_id and secret URL-encoded in HTTP Basic (RFC 6749 §2.3.1), or a whole client_assertion.',
  ),
  assertion_refused: say(
    'The app’s signed assertion was not accepted.',
    'Its issuer and subject are the client_id, its audience is this server, it has a fresh jti and an exp at most five minutes ahead, and its key is among the registered ones.',
  ),
  grant_type_unregistered: ({ grantType }, { grant_types: grantTypes }) => ({
    what: `The app used ${grantType === undefined ? 'a grant' : `grant ${grantType}`} that it is not registered for. Registered: ${grantTypes.join(', ')}.`,
    mend: 'Register another app of the kind that this one is.',
  }),
  grant_type_unknown: ({ grantType }) => ({
    what: `The app asked with ${grantType === undefined ? 'a grant' : `grant ${grantType}`} that this server does not have.`,
    mend: 'Use authorization_code with PKCE, client_credentials, or the device grant.',
  }),
  dpop_missing: say('The app sent no DPoP proof, or one of another key.', 'Prove the same key with every request.'),
  dpop_refused: say(
    'The app’s DPoP proof was not accepted.',
    'Make a new proof for each request, for its method and address, with the nonce of the last answer.',
  ),
  target_unknown: say(
    'The app named a resource that this server does not know.',
    'Leave resource out, or name one that is known.',
  ),
  token_is_jwt: say(
    'The app sent a token that is a JWT. JWTs are neither checked nor revoked here.',
    'Check its signature in the API that it is for. Revoke the refresh token instead; JWTs end by themselves within minutes.',
  ),
  sign_out_uri_unknown: ({ redirectUri = 'none' }, registered) => ({
    what: `The app sent post_logout_redirect_uri “${redirectUri}”. ${registeredUris(registered.post_logout_redirect_uris)}`,
    mend: 'Register what it sends among the addresses after sign-out, letter for letter, or change the app.',
  }),
  other: say(
    'The app was refused for something else.',
    'What each error code means and what to do about it is in docs/errors.md, under Protocol endpoints. The answer that the app got may say more in error_description.',
  ),
}

/** A fault in words. */
export function wordsFor(
  {
    endpoint,
    reason,
    facts,
  }: { readonly endpoint: FaultEndpoint; readonly reason: FaultReason; readonly facts: FaultFacts },
  registered: Registered,
): Words & { readonly where: string } {
  return { where: places[endpoint], ...sentences[reason](facts, registered) }
}

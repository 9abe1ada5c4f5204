// What the endpoints of the protocols refuse: the `error` of RFC 6749 and its relatives, by where it is answered. The
// provider throws most of it; a test holds this list to its classes and to what our own code answers. Pure.
import type { ErrorText } from '../errors.ts'

const mendRequest = 'Mend what error_description names; the guide of your library says where it is set.'
const askPerson = 'Send the person to sign in without prompt=none.'

export const protocolErrors = {
  /** Any endpoint, when what fails is ours. */
  anywhere: {
    temporarily_unavailable: {
      status: 503,
      title: 'The database did not answer',
      detail: 'Send the same request again after as many seconds as Retry-After says.',
    },
    server_error: {
      status: 500,
      title: 'A fault of ours',
      detail: 'Tell us the request id; the log has the details.',
    },
  },
  /** Where browsers go: back to the app with it, or shown as a page. */
  pages: {
    access_denied: {
      status: 303,
      title: 'The person said no, or may not',
      detail: 'Show that nobody was signed in, with a way to try again.',
      when: 'They denied or cancelled, do not belong to the organisation that was asked for, or it does not allow this network or way of signing in.',
    },
    login_required: {
      status: 303,
      title: 'Nobody is signed in who will do',
      detail: askPerson,
      when: 'With prompt=none: there is no session, or it is over, too old or too weak.',
    },
    consent_required: {
      status: 303,
      title: 'The person has not allowed this app yet',
      detail: askPerson,
      when: 'With prompt=none.',
    },
    interaction_required: {
      status: 303,
      title: 'The person has to be shown something',
      detail: askPerson,
      when: 'With prompt=none.',
    },
    account_selection_required: {
      status: 303,
      title: 'The person has several organisations and has to choose',
      detail: 'Send them without prompt=none, or name one in the parameter organization.',
      when: 'With prompt=none.',
    },
    unmet_authentication_requirements: {
      status: 303,
      title: 'This person, or this server, cannot reach the acr that was asked for',
      detail: 'Ask for one that discovery lists, or have the person set up a second factor.',
    },
    invalid_request: {
      status: 303,
      otherStatuses: [400, 405, 413, 414],
      title: 'A parameter is missing, twice there, or cannot be',
      detail: mendRequest,
      when: 'More than 16,384 bytes by POST are 413, an address of more than 8,192 characters is 414.',
    },
    invalid_scope: {
      status: 303,
      title: 'The app may not have a scope that it asked for',
      detail: 'Register the scope, or ask for less.',
    },
    invalid_target: {
      status: 303,
      title: 'The resource is not known',
      detail: 'Leave resource out, or name one that is known here.',
    },
    unsupported_response_type: {
      status: 303,
      title: 'There is no such response_type',
      detail: 'Ask for response_type code.',
    },
    unsupported_response_mode: {
      status: 303,
      title: 'There is no such response_mode',
      detail: 'Leave it out, or ask for query, fragment or form_post.',
    },
    invalid_request_object: {
      status: 303,
      title: 'The signed request was not accepted',
      detail: 'Check its key, its audience and its times, or send plain parameters.',
    },
    invalid_request_uri: {
      status: 400,
      title: 'The pushed request is unknown, used or too old',
      detail: 'Push a new one for each sign-in, and use it at once.',
    },
    request_uri_not_supported: {
      status: 303,
      title: 'This server fetches no request from elsewhere',
      detail: 'Push it to /oauth/par, or send it by value.',
    },
    registration_not_supported: {
      status: 303,
      title: 'A request cannot register its app',
      detail: 'Leave the parameter registration out.',
    },
    invalid_client: {
      status: 400,
      title: 'The app is not registered, or was switched off',
      detail: 'Check client_id and which server it belongs to.',
      when: 'Shown as a page: there is nowhere to send the person.',
    },
    invalid_redirect_uri: {
      status: 400,
      title: 'The return address is not one of those registered',
      detail: 'Register what the app sends, letter for letter.',
      when: 'Shown as a page, so that nobody is sent to a stranger.',
    },
    too_many_codes: {
      status: 429,
      title: 'Too many device codes were tried from here',
      detail: 'Wait as many seconds as Retry-After says, and start again on the device.',
      when: 'On the page /device.',
    },
  },
  /** What apps ask for with their own credentials. */
  apps: {
    invalid_client: {
      status: 401,
      title: 'The app did not prove who it is',
      detail: 'Check client_id, secret or key, and that the app authenticates as it is registered.',
    },
    invalid_grant: {
      status: 400,
      title: 'The code or refresh token is not good',
      detail: 'Send the person through a new sign-in.',
      when: 'It is unknown, used, too old or another app’s; its code_verifier or redirect_uri does not fit; or the session, the consent or the account behind it is over.',
    },
    invalid_request: {
      status: 400,
      otherStatuses: [405, 414],
      title: 'A parameter is missing, twice there, or cannot be',
      detail: mendRequest,
      when: 'Also when the app uses a grant that it is not registered for. Any method but POST is 405.',
    },
    invalid_scope: {
      status: 400,
      title: 'The app may not have a scope that it asked for',
      detail: 'Register the scope, or ask for less; a refresh cannot ask for more than there was.',
    },
    invalid_target: {
      status: 400,
      title: 'The resource is not known, or was not granted',
      detail: 'Leave resource out, or name one that is known here.',
    },
    unsupported_grant_type: {
      status: 400,
      title: 'There is no such grant_type',
      detail: 'Use one of grant_types_supported in discovery.',
    },
    invalid_dpop_proof: {
      status: 400,
      title: 'The DPoP proof was not accepted',
      detail: 'Make a new one for each request, for its method and address.',
      when: 'Among others: it is for another request, or from more than 60 seconds ahead of our clock.',
    },
    use_dpop_nonce: {
      status: 400,
      title: 'The DPoP proof needs a nonce of now',
      detail: 'Repeat it with the nonce of the header DPoP-Nonce.',
    },
    authorization_pending: {
      status: 400,
      title: 'The person has not decided about the device yet',
      detail: 'Ask again after interval seconds.',
    },
    slow_down: {
      status: 400,
      otherStatuses: [429],
      title: 'Asked too soon, or for too many device codes at once',
      detail: 'Add five seconds to the interval. On 429, wait as long as Retry-After says.',
    },
    expired_token: {
      status: 400,
      title: 'The device code has expired',
      detail: 'Get a new one and show it.',
    },
    access_denied: {
      status: 400,
      title: 'The person did not let the device in',
      detail: 'Stop asking.',
    },
    unmet_authentication_requirements: {
      status: 400,
      title: 'The person cannot sign in as strongly as the device asked',
      detail: 'Stop asking, or ask for less with a new code.',
    },
    temporarily_unavailable: {
      status: 400,
      otherStatuses: [429],
      title: 'Not at this moment',
      detail: 'Ask again. On 429, mend the secret first and wait as many seconds as Retry-After says.',
      when: 'No device code could be made; or so many wrong secrets of the app came from its address that none is looked at, not even the right one (429).',
    },
    unsupported_token_type: {
      status: 400,
      title: 'JWTs are neither introspected nor revoked',
      detail: 'Check their signature; they end by themselves within minutes.',
    },
    invalid_redirect_uri: {
      status: 400,
      title: 'The return address of a pushed request is not one of those registered',
      detail: 'Register what the app sends, letter for letter.',
    },
    invalid_request_object: {
      status: 400,
      title: 'The signed request was not accepted',
      detail: 'Check its key, its audience and its times.',
    },
    unsupported_response_type: {
      status: 400,
      title: 'A pushed request has no such response_type',
      detail: 'Ask for response_type code.',
    },
    unsupported_response_mode: {
      status: 400,
      title: 'A pushed request has no such response_mode',
      detail: 'Leave it out, or ask for query, fragment or form_post.',
    },
    registration_not_supported: {
      status: 400,
      title: 'A request cannot register its app',
      detail: 'Leave the parameter registration out.',
    },
  },
  /** What an access token opens (RFC 6750, RFC 9449, RFC 9470), in `WWW-Authenticate` too. */
  tokens: {
    invalid_request: {
      status: 400,
      title: 'The access token is sent in more than one way',
      detail: 'Send one, in the header Authorization.',
    },
    invalid_token: {
      status: 401,
      title: 'The access token is not good here',
      detail: 'Refresh it, or get a new one.',
      when: 'It is missing, unknown, expired or revoked; its session, person or app is over; it is for another resource; or it is bound to a key that the request does not prove.',
    },
    insufficient_scope: {
      status: 403,
      title: 'The access token does not reach that far',
      detail: 'Get one with the scope that is named.',
    },
    insufficient_user_authentication: {
      status: 401,
      title: 'The person has to prove the second factor again',
      detail: 'Send them to sign in with the acr_values and max_age that are named, and repeat the request.',
    },
    invalid_dpop_proof: {
      status: 401,
      title: 'The DPoP proof was not accepted',
      detail: 'Make a new one for each request, with the hash of this access token.',
      when: 'Among others: it is for another request, or from more than 60 seconds ahead of our clock.',
    },
    use_dpop_nonce: {
      status: 401,
      title: 'The DPoP proof needs a nonce of now',
      detail: 'Repeat it with the nonce of the header DPoP-Nonce.',
    },
  },
} as const satisfies Readonly<Record<string, Readonly<Record<string, ErrorText>>>>

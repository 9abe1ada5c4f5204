// The provider's own pages (error, going back by form, sign out, signed out) in our look.
import type { ErrorOut, KoaContextWithOIDC } from 'oidc-provider'
import { originOf } from '../http/origin.ts'
import type { Views } from '../http/views.ts'
import { createDevicePages, type DevicePages } from './device.ts'

/** What of a request a page needs. */
export type PageContext = Pick<KoaContextWithOIDC, 'req' | 'type' | 'body'>

export interface ProtocolPages {
  error(context: PageContext, out: ErrorOut, error: Error): void
  /** The answer to an app that asked for it with `response_mode=form_post` (OAuth 2.0 Form Post Response Mode §2). */
  goingBack(context: KoaContextWithOIDC, redirectUri: string, answer: Readonly<Record<string, unknown>>): void
  signOut(context: KoaContextWithOIDC, form: string): void
  signedOut(context: KoaContextWithOIDC): void
  readonly device: DevicePages
}

interface ErrorText {
  readonly heading: string
  readonly text: string
}

const goBack =
  'Go back to the app and try again. If it happens again, tell the people who run the app; the request id below helps them.'

const errorTexts: Readonly<Record<string, ErrorText>> = {
  invalid_client: {
    heading: 'This app is not known here',
    text: 'The app that sent you is not registered, or was removed. Tell the people who run the app.',
  },
  invalid_redirect_uri: {
    heading: 'This app sent a wrong return address',
    text: 'For your safety you were not sent on. Tell the people who run the app: its return address must match the registered one exactly.',
  },
  session_not_found: {
    heading: 'This sign-in has expired',
    text: 'It was open too long, was finished already, or belongs to another browser. Go back to the app and sign in again.',
  },
  server_error: {
    heading: 'Something went wrong on our side',
    text: 'Nothing was changed. Please try again in a moment.',
  },
  temporarily_unavailable: {
    heading: 'We cannot sign you in right now',
    text: 'The service is busy or being repaired. Please try again in a moment.',
  },
}

export function createProtocolPages(views: Views): ProtocolPages {
  const send = (context: PageContext, name: string, data: Record<string, unknown>) => {
    context.type = 'html'
    context.body = views.render(name, { ...data }, originOf(context.req).requestId)
  }
  const showError: ProtocolPages['error'] = (context, out, error) => {
    const kind =
      error.name === 'SessionNotFound'
        ? 'session_not_found'
        : error.name === 'InvalidRedirectUri'
          ? 'invalid_redirect_uri'
          : out.error
    const words = errorTexts[kind] ?? { heading: 'This request could not be completed', text: goBack }
    send(context, 'error', { title: words.heading, ...words, code: out.error, detail: out.error_description })
  }
  return {
    error: showError,
    goingBack(context, redirectUri, answer) {
      const { client } = context.oidc
      const appName = client?.clientName ?? client?.clientId
      context.status = 'error' in answer ? 400 : 200
      send(context, 'login/going-back', {
        title: `Going back to ${appName}`,
        appName,
        action: redirectUri,
        fields: Object.entries(answer).map(([name, value]) => ({ name, value: String(value) })),
      })
    },
    device: createDevicePages(views, showError),
    signOut(context, form) {
      const xsrf = /name="xsrf" value="([^"]+)"/.exec(form)?.[1] ?? ''
      const client = context.oidc.client
      send(context, 'login/sign-out', {
        title: 'Sign out',
        action: '/oauth/logout/confirm',
        xsrf,
        clientName: client?.clientName,
      })
    },
    signedOut(context) {
      const client = context.oidc.client
      send(context, 'login/signed-out', {
        title: 'You are signed out',
        clientName: client?.clientName,
        clientUrl: client?.clientUri,
      })
    },
  }
}

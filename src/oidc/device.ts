// The device flow's pages (RFC 8628 §3.3): where somebody types the code that a device shows, sees whom it lets in, and
// hears how it ended. What is kept of a code is in device-codes.ts; the sign-in itself is that of every other app.
import type { Client, ErrorOut, KoaContextWithOIDC, Provider } from 'oidc-provider'
import type { Accounts } from '../accounts/accounts.ts'
import { placeInWords } from '../credentials/notices.ts'
import { originOf } from '../http/origin.ts'
import type { Views } from '../http/views.ts'
import { pollSeconds, TooManyCodes } from './device-codes.ts'
import type { ProtocolPages } from './pages.ts'
import { isProviders } from './token-events.ts'

export const devicePath = '/device'
const codeLength = 64

interface Words {
  readonly title: string
  readonly text: string
}

const check = 'Type the code just as the device shows it. Dashes and small letters make no difference.'
const again = 'Start again on the device: it then shows a new code.'
/** What is wrong with a code, by the name of the provider's error. */
const codeWords: Readonly<Record<string, Words>> = {
  NoCodeError: { title: 'Type the code', text: check },
  NotFoundError: { title: 'This code is not right', text: check },
  ExpiredError: { title: 'This code has expired', text: again },
  AlreadyUsedError: { title: 'This code was used already', text: again },
  InvalidRequest: { title: 'Please try once more', text: 'This page was open too long. The code may still be good.' },
}

export interface DevicePages {
  input(context: KoaContextWithOIDC, form: string, out?: ErrorOut, error?: Error): void
  confirm(
    context: KoaContextWithOIDC,
    client: Client,
    about: { readonly userCode: string; readonly place: unknown; readonly email: string | undefined },
  ): void
  connected(context: KoaContextWithOIDC): void
}

interface DeviceFlowParts {
  readonly pages: Pick<ProtocolPages, 'device'>
  readonly accounts: Pick<Accounts, 'findActive'>
}

/** The provider's feature of the device flow. */
export function createDeviceFlow({ pages: { device }, accounts }: DeviceFlowParts) {
  return {
    enabled: true,
    charset: 'base-20' as const,
    mask: '****-****',
    // Shown to whoever is asked to let the device in.
    deviceInfo: ({ req }: KoaContextWithOIDC) => {
      const { ip, userAgent } = originOf(req)
      return { place: placeInWords({ ip, userAgent }) }
    },
    userCodeInputSource: device.input,
    async userCodeConfirmSource(
      context: KoaContextWithOIDC,
      _form: string,
      client: Client,
      info: Readonly<Record<string, unknown>>,
      userCode: string,
    ) {
      // Whoever is signed in already lets the device in with this one form: it says into whose account.
      const accountId = context.oidc.session?.accountId
      const account = accountId === undefined ? undefined : await accounts.findActive(accountId)
      device.confirm(context, client, { userCode, place: info['place'], email: account?.email })
    },
    successSource: device.connected,
  }
}

type Send = (context: KoaContextWithOIDC, name: string, data: Readonly<Record<string, unknown>>) => void

export function createDevicePages(views: Views, fallback: ProtocolPages['error']): DevicePages {
  const send: Send = (context, name, data) => {
    context.type = 'html'
    context.set('Cache-Control', 'no-store')
    context.body = views.render(name, data, originOf(context.req).requestId)
  }
  return {
    input(context, _form, out, error) {
      const { session } = context.oidc
      // The provider would keep this form's token in the session; a browser without one has to begin with the page.
      if (error && session?.exp === undefined) {
        if (session) Reflect.set(session, 'touched', false)
        return sendInput(send, context, { error: codeWords['InvalidRequest'], isDead: true })
      }
      if (!error || !out) return sendInput(send, context, { userCode: typedIn(context) })
      if (error.name === 'AbortedError')
        return send(context, 'device/denied', { title: 'The device was not connected' })
      if (error instanceof TooManyCodes) {
        context.set('Retry-After', String(error.retryAfterSeconds))
        return sendInput(send, context, { error: waitWords(error.retryAfterSeconds) })
      }
      const words = codeWords[error.name]
      if (!words || (context.oidc.route !== 'code_verification' && error.name === 'InvalidRequest'))
        return fallback(context, out, error)
      context.status = 400
      sendInput(send, context, { error: words, userCode: typedIn(context) })
    },
    confirm(context, client, about) {
      send(context, 'device/confirm', {
        title: 'Connect this device?',
        action: devicePath,
        xsrf: xsrfOf(context),
        clientName: client.clientName ?? client.clientId,
        organizationName: client['organization_name'],
        ...about,
      })
    },
    connected(context) {
      const { client } = context.oidc
      send(context, 'device/connected', {
        title: 'Your device is connected',
        clientName: client?.clientName ?? client?.clientId,
      })
    },
  }
}

function sendInput(
  send: Send,
  context: KoaContextWithOIDC,
  about: { readonly error?: Words | undefined; readonly userCode?: string | undefined; readonly isDead?: boolean },
): void {
  const { error } = about
  send(context, 'device/code', {
    title: 'Connect a device',
    action: devicePath,
    xsrf: xsrfOf(context),
    userCode: about.userCode ?? '',
    error: error && { ...error, field: 'code' },
    isDead: about.isDead === true,
  })
}

/**
 * A link with the code in it opens the page with the code filled in: whoever follows one sees it, compares it and sends it.
 * The provider would send it for them, with a script that our own policy refuses.
 */
export function showCodeOfLink(provider: Provider, { device }: Pick<ProtocolPages, 'device'>): void {
  provider.use(async (context, next) => {
    await next()
    if (context.path !== devicePath || context.method !== 'GET' || !isProviders(context)) return
    if (context.oidc.params?.['user_code'] !== undefined) device.input(context, '')
  })
  provider.on('device_authorization.success', (_context, body) => void Reflect.set(body, 'interval', pollSeconds))
}

function typedIn({ oidc }: KoaContextWithOIDC): string {
  const typed = oidc.params?.['user_code']
  return typeof typed === 'string' ? typed.slice(0, codeLength) : ''
}

function xsrfOf({ oidc }: KoaContextWithOIDC): string {
  return String(oidc.session?.state?.['secret'] ?? '')
}

function waitWords(seconds: number): Words {
  const minutes = Math.ceil(seconds / 60)
  return {
    title: 'Too many codes',
    text: `Wait ${minutes === 1 ? 'a minute' : `${minutes} minutes`}, then type the code of the device again.`,
  }
}

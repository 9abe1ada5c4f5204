// Mail over SMTP. Nothing waits long for a mail server: each stage has a time-out, and a delivery as a whole a deadline,
// because a server that trickles its replies meets every time-out of a stage.
import { createTransport } from 'nodemailer'
import { DeliveryFailed, type MailTransport, refusedPrefix } from './transport.ts'

export const smtpTimeoutMs = 10_000
/** Below the 20 seconds that a stopping server has to finish what is under way. */
export const smtpDeadlineMs = 15_000
const maxConnections = 5
const maxMessagesPerConnection = 100
const idleTimeoutMs = 30_000
const maxCodeLength = 40

export interface SmtpOptions {
  readonly timeoutMs?: number
  readonly deadlineMs?: number
}

/** @param url SMTP_URL: `smtp(s)://user:password@host:port`, with connection options of nodemailer as its query */
export function createSmtpTransport(url: string, options: SmtpOptions = {}): MailTransport {
  const deadlineMs = options.deadlineMs ?? smtpDeadlineMs
  const transporter = createTransport({
    ...connection(url, options.timeoutMs),
    pool: true,
    maxConnections,
    maxMessages: maxMessagesPerConnection,
    idleTimeout: idleTimeoutMs,
    // For a pooled connection that the server had closed. The library repeats only what it has not begun to send.
    maxRequeues: 1,
    disableFileAccess: true,
    disableUrlAccess: true,
  })
  // Failures reach the caller of send; without a listener one on an idle connection would end the process.
  transporter.on('error', () => undefined)
  return {
    async send({ to, from, subject, text, html, messageId }) {
      try {
        await transporter.sendMail({
          // As an object, an address is not parsed: it stays one recipient whatever stands in it (F58).
          to: { name: '', address: to },
          from,
          subject,
          text,
          html,
          ...(messageId === undefined ? {} : { messageId: `<${messageId}>` }),
          // RFC 3834 §5, and the header that Exchange knows: nobody's absence is to be told to us.
          headers: { 'Auto-Submitted': 'auto-generated', 'X-Auto-Response-Suppress': 'All' },
          signal: AbortSignal.timeout(deadlineMs),
        })
      } catch (error) {
        throw deliveryFailed(error)
      }
    },
    close: () => transporter.close(),
  }
}

/**
 * Connects and signs in to the mail server, and sends nothing.
 * @throws DeliveryFailed
 */
export async function verifySmtp(url: string, timeoutMs = smtpTimeoutMs): Promise<void> {
  const transporter = createTransport(connection(url, timeoutMs))
  try {
    await transporter.verify()
  } catch (error) {
    throw deliveryFailed(error)
  } finally {
    transporter.close()
  }
}

function connection(url: string, timeoutMs = smtpTimeoutMs) {
  return {
    url,
    requireTLS: needsTls(url),
    connectionTimeout: timeoutMs,
    greetingTimeout: timeoutMs,
    socketTimeout: timeoutMs,
    dnsTimeout: timeoutMs,
  }
}

const loopbackHosts = new Set(['localhost', '127.0.0.1', '[::1]'])

/** Links in mails sign people in, so they leave the machine encrypted. `?requireTLS=false` in SMTP_URL says otherwise. */
export function needsTls(url: string): boolean {
  return !loopbackHosts.has(new URL(url).hostname)
}

/**
 * RFC 5321 §4.2.1: a 5yz reply is not to be repeated. We count it as one only where it is about this mail or its
 * recipient; a refused sign-in or sender is our mistake, and is mended while the mail waits.
 */
function deliveryFailed(error: unknown): DeliveryFailed {
  const fact = (name: string) => (error instanceof Error ? Reflect.get(error, name) : undefined)
  const [code, reply, command] = [fact('code'), fact('responseCode'), fact('command')]
  const isAboutMail = command === 'RCPT TO' || command === 'DATA'
  if (isAboutMail && typeof reply === 'number' && reply >= 500)
    return new DeliveryFailed(`${refusedPrefix}${reply}`, true)
  // The library itself refuses an address that it cannot put into a command.
  if (code === 'EENVELOPE' && command === 'API') return new DeliveryFailed(`${refusedPrefix}EENVELOPE`, true)
  if (fact('name') === 'AbortError' || fact('name') === 'TimeoutError' || code === 'EABORT')
    return new DeliveryFailed('ETIMEDOUT', false)
  const words = [code, reply].filter((part) => typeof part === 'string' || typeof part === 'number')
  return new DeliveryFailed(words.join(' ').slice(0, maxCodeLength) || 'EUNKNOWN', false)
}

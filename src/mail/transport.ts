// What a way of sending mail looks like to the worker: SMTP, or the developer mailbox.

/** A mail with its words, to one person. */
export interface OutgoingMail {
  readonly to: string
  /** MAIL_FROM: an address, or a name and an address. */
  readonly from: string
  readonly subject: string
  readonly text: string
  readonly html: string
  /** The same for every try, so that a receiver can tell a repetition (RFC 5322 §3.6.4). Without angle brackets. */
  readonly messageId?: string | undefined
}

export interface MailTransport {
  /**
   * Resolves when the mail is somebody else's to deliver.
   * @throws DeliveryFailed
   */
  send(mail: OutgoingMail): Promise<void>
  close(): void
}

/** How the code of a mail begins that its receiver refused for good. */
export const refusedPrefix = 'refused '

/** Why a mail was not taken. `code` is a reply or error code and never what a server said: that may quote the recipient. */
export class DeliveryFailed extends Error {
  readonly code: string
  /** Whether trying again is pointless. */
  readonly permanent: boolean

  constructor(code: string, permanent: boolean) {
    super(`a mail was not delivered (${code})`)
    this.code = code
    this.permanent = permanent
  }
}

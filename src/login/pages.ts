// The pages of a sign-in, one per step, with the words for what was refused.
import type { FastifyReply, FastifyRequest } from 'fastify'
import { placeInWords } from '../credentials/notices.ts'
import type { PasswordProblem } from '../credentials/password-rules.ts'
import { describePasswordRules, effectivePasswordRules } from '../credentials/password-rules.ts'
import { qrDataUri } from '../credentials/qr.ts'
import type { TotpSetup } from '../credentials/totp.ts'
import type { Secrets } from '../crypto/secrets.ts'
import { csrfToken } from '../http/csrf.ts'
import { originOf } from '../http/origin.ts'
import type { Views } from '../http/views.ts'
import type { OpenInteraction } from '../oidc/interactions.ts'
import { describeScopes } from '../oidc/scopes.ts'
import type { Organization } from '../organizations/organizations.ts'
import type { Policy } from '../organizations/policy.ts'
import type { RefusalReason } from './login.ts'

export interface PageError {
  readonly title: string
  readonly text: string
  /** The field that it is about, by name: the page leads there and marks it. Absent when nothing entered was wrong. */
  readonly field?: 'name' | 'email' | 'password' | 'npi' | 'code'
}

export const refusalTexts: Readonly<Record<RefusalReason | 'address_unreadable' | 'address_foreign', PageError>> = {
  mismatch: {
    title: 'E-mail or password is not right',
    text: 'Check both and try again. If you cannot remember your password, choose “Forgot password?”.',
    field: 'password',
  },
  code_mismatch: {
    title: 'That code is not right',
    text: 'Each code works once and for about a minute. Wait for the next one in your authenticator app and enter it.',
    field: 'code',
  },
  backup_mismatch: {
    title: 'That backup code is not right',
    text: 'Each backup code works once. Check the letters, or use another one from your list.',
    field: 'code',
  },
  link_dead: {
    title: 'That did not work',
    text: 'The link or code is not right, was used already, or is too old. Ask for a new one and use the newest mail.',
  },
  disabled_factor: {
    title: 'This second factor is switched off',
    text: 'It failed too often. Use a backup code, or ask your administrator to reset your second factor.',
  },
  address_unreadable: {
    title: 'That is not an e-mail address',
    text: 'Enter the whole address, such as name@hospital.example.',
    field: 'email',
  },
  address_foreign: {
    title: 'This organisation does not take that address',
    text: 'Only addresses of certain domains can sign up here. Use the one that your organisation gave you, or ask it for an invitation.',
    field: 'email',
  },
  stale: {
    title: 'This page was out of date',
    text: 'Another tab or a second click was faster. Please go on from here.',
  },
}

export const nameMissing: PageError = {
  title: 'Your name is missing',
  text: 'Enter it as your patients and colleagues know it.',
  field: 'name',
}

export function throttledText(retryAfterSeconds: number): PageError {
  return {
    title: 'Too many tries',
    text: `To protect this account, please wait ${waitInWords(retryAfterSeconds)} and try again.`,
  }
}

function waitInWords(seconds: number): string {
  if (seconds < 60) return seconds === 1 ? 'a second' : `${seconds} seconds`
  const minutes = Math.ceil(seconds / 60)
  return minutes === 1 ? 'a minute' : `${minutes} minutes`
}

interface SignUpForm {
  readonly email: string
  readonly name: string
  readonly npi: string
  readonly specialty: string
}

/** What somebody reads who comes back to a session that is over. Other ends they caused themselves, a moment ago. */
const endedTexts: Readonly<Record<string, string>> = {
  idle: 'You were signed out because nothing was done for a while. Sign in to go on.',
  absolute: 'You were signed out because a session may only last so long. Sign in to go on.',
  max_concurrent:
    'You were signed out here because you signed in somewhere else. If that was not you, change your password.',
  ended_by_administrator: 'An administrator ended your session. Sign in to go on.',
  ended_by_owner: 'This session was ended from your account page. Sign in to go on.',
  password_changed: 'You were signed out because your password was changed. Sign in with the new one.',
  password_reset: 'You were signed out because your password was reset. Sign in with the new one.',
  factor_changed: 'You were signed out because your second factor was changed. Sign in to go on.',
  network: 'You were signed out because your organisation allows other networks only now.',
}

export interface OrganizationChoice {
  readonly id: string
  readonly name: string
  readonly home: boolean
}

export type TurnedAway = 'wrong_organization' | 'wrong_network' | 'wrong_method'

const turnedAwayTexts: Readonly<Record<TurnedAway, PageError>> = {
  wrong_organization: {
    title: 'You do not belong to this organisation',
    text: 'The app asked for an organisation that your account has no place in. Ask its administrator to invite you, or sign in with another account.',
  },
  wrong_network: {
    title: 'Sign-in is not allowed from here',
    text: 'Your organisation lets people sign in from its own networks only. Connect to the hospital network or its VPN, then sign in again.',
  },
  wrong_method: {
    title: 'Your organisation asks for another way to sign in',
    text: 'It does not take the way that you used. Sign in with the way that it allows, or ask your administrator.',
  },
}

/** Renders the pages of one request. */
export interface LoginPages {
  signIn(offers: Offers, email: string, error?: PageError): FastifyReply
  password(email: string, error?: PageError): FastifyReply
  secondFactor(email: string, error?: PageError): FastifyReply
  backupCode(email: string, error?: PageError): FastifyReply
  setup(email: string, setup: TotpSetup | undefined, error?: PageError): FastifyReply
  backupCodes(email: string, codes: readonly string[], error?: PageError): FastifyReply
  changePassword(email: string, policy: Policy, problems: readonly PasswordProblem[], error?: PageError): FastifyReply
  impossible(): FastifyReply
  chooseOrganization(email: string, choices: readonly OrganizationChoice[], error?: PageError): FastifyReply
  turnedAway(email: string, why: TurnedAway): FastifyReply
  mailSent(
    about: { readonly email: string; readonly codeAction: string | undefined; readonly kind: string },
    error?: PageError,
  ): FastifyReply
  forgot(email: string, error?: PageError): FastifyReply
  signUp(
    organization: Organization,
    form: SignUpForm,
    problems: readonly PasswordProblem[],
    error?: PageError,
  ): FastifyReply
  consent(email: string): FastifyReply
  linkLanding(action: string, heading: string): FastifyReply
}

/** What may be chosen beside the password, by the policy of the app's organisation. */
export interface Offers {
  readonly password: boolean
  readonly link: boolean
  readonly signUp: boolean
}

export function offersOf(organization: Organization | undefined): Offers {
  const methods = organization?.policy.loginMethods ?? ['password']
  return {
    password: methods.includes('password'),
    link: methods.includes('magic_link'),
    signUp: organization?.policy.signup === 'open',
  }
}

export function loginPages(
  { views, secrets }: { readonly views: Views; readonly secrets: Secrets },
  request: FastifyRequest,
  reply: FastifyReply,
  interaction: OpenInteraction,
): LoginPages {
  const path = `/interaction/${interaction.uid}`
  const page = (name: string, title: string, data: Readonly<Record<string, unknown>>) => {
    reply.header('cache-control', 'no-store').type('text/html; charset=utf-8')
    const common = {
      title,
      csrf: csrfToken(secrets, interaction.uid),
      clientName: interaction.client.name,
      organizationName: interaction.client.organizationName,
      cancelAction: `${path}/cancel`,
      backUrl: path,
    }
    return reply.send(views.render(name, { ...common, ...data }, request.id))
  }
  return {
    signIn: (offers, email, error) =>
      page('login/sign-in', `Sign in to ${interaction.client.name}`, {
        action: offers.password ? `${path}/password` : `${path}/link`,
        offersPassword: offers.password,
        email,
        error,
        notice: error ? undefined : endedTexts[interaction.endedBecause ?? ''],
        magicLink: offers.link,
        linkAction: `${path}/link`,
        forgotPassword: offers.password,
        forgotUrl: `${path}/forgot`,
        signup: offers.signUp,
        signupUrl: `${path}/sign-up`,
      }),
    password: (email, error) =>
      page('login/password', 'Enter your password', { action: `${path}/password`, email, error }),
    secondFactor: (email, error) =>
      page('login/second-factor', 'Confirm it is you', {
        action: `${path}/totp`,
        backupUrl: `${path}/backup-code`,
        email,
        error,
      }),
    backupCode: (email, error) =>
      page('login/backup-code', 'Use a backup code', { action: `${path}/backup-code`, totpUrl: path, email, error }),
    setup: (email, setup, error) =>
      setup
        ? page('login/second-factor-setup', 'Set up a second factor', {
            action: `${path}/set-up`,
            email,
            error,
            qr: qrDataUri(setup.uri),
            secret: setup.secretBase32,
            uri: setup.uri,
          })
        : page('login/second-factor-begin', 'Set up a second factor', { action: `${path}/begin-set-up`, email, error }),
    backupCodes: (email, codes, error) =>
      page('login/backup-codes', 'Your backup codes', {
        action: `${path}/codes-kept`,
        renewAction: `${path}/renew-codes`,
        email,
        codes,
        error,
      }),
    changePassword: (email, policy, problems, error) =>
      page('login/change-password', 'Choose a new password', {
        action: `${path}/new-password`,
        email,
        error,
        ...newPasswordData(policy, problems),
      }),
    impossible: () => page('login/impossible', 'A second factor is needed', { action: `${path}/cannot` }),
    chooseOrganization: (email, choices, error) =>
      page('login/choose-organization', 'Choose your organisation', {
        action: `${path}/organization`,
        email,
        choices,
        error,
      }),
    turnedAway: (email, why) =>
      page('login/turned-away', turnedAwayTexts[why].title, {
        action: `${path}/cannot`,
        email,
        why: turnedAwayTexts[why],
      }),
    mailSent: ({ email, codeAction, kind }, error) =>
      page('login/mail-sent', 'Check your email', { email, codeAction, kind, error }),
    forgot: (email, error) => page('login/forgot', 'Forgot your password?', { action: `${path}/forgot`, email, error }),
    signUp: (organization, form, problems, error) =>
      page('login/sign-up', 'Create an account', {
        action: `${path}/sign-up`,
        form,
        error,
        ...newPasswordData(organization.policy, problems, 'first'),
      }),
    consent: (email) =>
      page('login/consent', `Allow ${interaction.client.name}`, {
        action: `${path}/consent`,
        email,
        firstTime: interaction.firstTime,
        scopes: describeScopes(interaction.missingScopes),
        redirectHost: interaction.redirectHost,
      }),
    linkLanding: (action, heading) =>
      page('login/link-landing', heading, { action, heading, place: placeInWords(originOf(request.raw)) }),
  }
}

/** What views/partials/new-password.eta takes. */
export function newPasswordData(policy: Policy, problems: readonly PasswordProblem[], which: 'new' | 'first' = 'new') {
  const isFirst = which === 'first'
  return {
    newPassword: {
      id: 'password',
      name: 'password',
      label: isFirst ? 'Password' : 'New password',
      rules: describePasswordRules(effectivePasswordRules(policy), isFirst),
      problems,
    },
  }
}

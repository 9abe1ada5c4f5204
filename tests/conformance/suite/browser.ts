// What the suite's own browser does on our pages, in the suite's language, so that a plan runs without anybody clicking.
// Selectors are those of views/login; whoever runs a plan by hand in the suite's web pages needs none of it.
import { person } from './clients.ts'

type Command = readonly (string | number)[]
interface Task {
  readonly task: string
  readonly match: string
  readonly optional?: boolean
  readonly commands?: readonly Command[]
}
interface Walk {
  readonly match: string
  readonly tasks: readonly Task[]
}
export interface Automation {
  readonly browser: readonly Walk[]
  readonly override: Readonly<Record<string, { readonly browser: readonly Walk[] }>>
}

const waitSeconds = 10
const mainButton = 'form.form button.button'
/** Waits for these words and files the page as the picture that the module asks for. */
const see = (words: string, picture: 'update-image-placeholder' | 'update-image-placeholder-optional'): Command => [
  'wait',
  'xpath',
  '//*',
  waitSeconds,
  words,
  picture,
]
const back: Task = {
  task: 'Back at the suite',
  match: '*/test/*/callback*',
  commands: [['wait', 'id', 'submission_complete', waitSeconds]],
}

export function automation(issuer: string): Automation {
  const pages = `${issuer}/interaction/*`
  const start = `${issuer}/oauth/authorize*`
  const logout = `${issuer}/oauth/logout*`
  const signIn = (...before: readonly Command[]): Task => ({
    task: 'Sign in',
    match: pages,
    optional: true,
    commands: [
      ...before,
      ['text', 'id', 'email', person.email, 'optional'],
      ['text', 'id', 'password', person.password, 'optional'],
      ['click', 'css', mainButton, 'optional'],
    ],
  })
  const allow: Task = {
    task: 'Allow',
    match: pages,
    optional: true,
    commands: [['click', 'css', 'button[value=allow]']],
  }
  const walk = (...tasks: readonly Task[]): Walk => ({ match: start, tasks })
  const usual = walk(signIn(), allow, back)
  const leave: Task = { task: 'Sign out', match: logout, commands: [['click', 'css', mainButton, 'optional']] }
  const stays: Walk = {
    match: logout,
    tasks: [
      leave,
      {
        task: 'Stays here',
        match: logout,
        commands: [see('You are signed out|could not be completed', 'update-image-placeholder')],
      },
    ],
  }
  const again = { browser: [walk(signIn(see('Sign in', 'update-image-placeholder-optional')), allow, back)] }
  const staysHere = { browser: [usual, stays] }
  return {
    browser: [
      usual,
      { match: logout, tasks: [leave, { task: 'Back at the suite', match: '*/test/*/post_logout_redirect*' }] },
    ],
    override: {
      'oidcc-prompt-login': again,
      'oidcc-max-age-1': again,
      'oidcc-ensure-registered-redirect-uri': {
        browser: [
          walk({
            task: 'Refused',
            match: start,
            commands: [see('This app sent a wrong return address', 'update-image-placeholder')],
          }),
        ],
      },
      ...Object.fromEntries(logoutsThatStay.map((name) => [`oidcc-rp-initiated-logout-${name}`, staysHere])),
      'fapi2-security-profile-final-user-rejects-authentication': {
        browser: [walk({ task: 'Cancel', match: pages, commands: [['click', 'css', 'form.cancel button']] }, back)],
      },
    },
  }
}

const logoutsThatStay = [
  'bad-post-logout-redirect-uri',
  'query-added-to-post-logout-redirect-uri',
  'modified-id-token-hint',
  'bad-id-token-hint',
  'no-id-token-hint',
  'no-params',
  'no-post-logout-redirect-uri',
  'only-state',
]

// What a form that is refused says: each thing that is wrong in plain words, with what was sent and what to do about it, and
// never in the words of a program.
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { visit } from '../self-service/support.ts'
import type { Answer, Browser } from '../support/client.ts'
import type { TestServer } from '../support/server.ts'
import { manage, register, registered, send, startIntegrators, webApp, wrongsOf } from './support.ts'

let server: TestServer
let browser: Browser
let form: Answer
beforeAll(async () => {
  server = await startIntegrators()
  browser = (await visit(server, manage, 'ida@mercy.example')).browser
  form = await browser.request(register)
})
afterAll(() => server.close())

const wrongs = async (typed: object) => {
  const answer = await send(browser, form, register, { ...webApp, ...typed })
  expect(answer.status).toBe(400)
  return wrongsOf(answer)
}
const uriOf = (length: number) => `https://ward.example/${'x'.repeat(length - 'https://ward.example/'.length)}`
const addresses = (count: number) => Array.from({ length: count }, (_, index) => `https://ward.example/${index}`)
const key = 'With a key of its own (private_key_jwt)'

describe('a form that is refused', () => {
  it.each<readonly [string, object, Readonly<Record<string, string>>]>([
    ['no name', { name: '' }, { name: 'Nothing was typed. Type the name by which people know the app.' }],
    ['a blank name', { name: '  \t ' }, { name: 'Nothing was typed. Type the name by which people know the app.' }],
    [
      'a name that is too long',
      { name: 'x'.repeat(500) },
      { name: 'You typed 500 characters, and a name has at most 100. Shorten it.' },
    ],
    [
      'no kind',
      { kind: '' },
      {
        kind: 'Nothing is chosen. Choose one of: Web app with a server, Single-page app, Phone or desktop app, Service or API without people, Device or terminal without a browser.',
      },
    ],
    [
      'a secret for who cannot keep one',
      { kind: 'spa' },
      {
        authentication:
          'You chose “Single-page app”, and whoever has such an app has what is in it. Choose “It does not” here.',
      },
    ],
    [
      'a key for who cannot keep one',
      { kind: 'device', authentication: 'none', introspection: 'none', profile: 'fapi2' },
      {
        profile:
          'You chose “Device or terminal without a browser”, and whoever has such an app has what is in it. “FAPI 2.0” asks for a key that it would have to keep. Choose “Standard”.',
      },
    ],
    [
      'a service that does not prove itself',
      { kind: 'service', authentication: 'none', introspection: 'none', redirectUris: '' },
      {
        authentication: `You chose “It does not”. A service acts in its own name and has to prove itself: choose “With a secret” or “${key}”.`,
      },
    ],
    [
      'no address',
      { redirectUris: ' \n ' },
      {
        redirectUris:
          'Nothing was typed. People come back to the app after signing in: type at least one address where it expects them.',
      },
    ],
    [
      'an address that is too long',
      { redirectUris: uriOf(2_049) },
      {
        redirectUris: `You sent “${uriOf(200)}…”. It has 2,049 characters, and an address has at most 2,048. Register a shorter one.`,
      },
    ],
    [
      'too many addresses',
      { signOutUris: addresses(51).join('\n') },
      { signOutUris: 'You typed 51 addresses, and an app has at most 50. Take some out.' },
    ],
    [
      'an address twice',
      { redirectUris: 'https://ward.example/\nhttps://ward.example/' },
      { redirectUris: 'The same address stands there twice. Take one out.' },
    ],
    [
      'addresses of a service',
      { kind: 'service' },
      { redirectUris: 'A service has nobody who comes back to it in a browser. Leave this empty.' },
    ],
    [
      'nothing ticked',
      { scope: [] },
      {
        scope:
          'Nothing is ticked. Tick at least one: “Know who you are (openid)” if people sign in to it, “Check tokens (introspect)” if it is an API that checks tokens.',
      },
    ],
    [
      'a key without its address',
      { authentication: 'private_key_jwt' },
      {
        jwksUri: `You chose “${key}”. We need its public keys for that: type the https address where we fetch them, or choose another way for it to prove itself.`,
      },
    ],
    [
      'FAPI with a secret',
      { profile: 'fapi2' },
      {
        authentication: `You chose “With a secret”. With the profile “FAPI 2.0” an app proves itself with a key: choose “${key}” and type the address of its public keys, or choose the profile “Standard”.`,
      },
    ],
    [
      'token checks by who does not prove itself',
      { kind: 'spa', authentication: 'none', introspection: 'own' },
      {
        introspection:
          'You chose “Its own”. Only an app that proves itself to us may check tokens: choose “No” here, or another way for it to prove itself.',
      },
    ],
    [
      'nothing chosen about its proof',
      { authentication: '' },
      {
        authentication:
          'Nothing is chosen. Choose one of: With a secret, With a key of its own (private_key_jwt), It does not.',
      },
    ],
  ])('says what to do about %s', async (_, typed, expected) => {
    expect(await wrongs(typed)).toEqual(expected)
  })

  it('takes what is as long as it may be', async () => {
    const longest = { name: 'x'.repeat(100), redirectUris: uriOf(2_048), signOutUris: addresses(50).join('\n') }
    await registered(browser, { ...webApp, ...longest })
  })

  it('says everything that is wrong at once', async () => {
    expect(Object.keys(await wrongs({ kind: '', name: '', redirectUris: 'x', scope: [] })).sort()).toEqual([
      'kind',
      'name',
      'redirectUris',
      'scope',
    ])
  })

  it('says the same about a change', async () => {
    const { clientId } = await registered(browser)
    const path = `${manage}/${clientId}/edit`
    const answer = await send(browser, await browser.request(path), path, { name: '', redirectUris: '', scope: [] })
    expect(wrongsOf(answer)).toMatchObject({
      name: 'Nothing was typed. Type the name by which people know the app.',
      scope: expect.stringContaining('Nothing is ticked.'),
    })
  })

  // A name with U+202E was echoed as it was, and the rest of our sentence stood on the page back to front.
  it('shows characters that nobody sees as their code points, wherever what was sent is shown', async () => {
    const { name, redirectUris } = await wrongs({
      name: 'Ward\u202eRound',
      redirectUris: 'https://ward.example/\u2066x\u200b',
    })
    expect(name).toContain('“Ward‹U+202E›Round”')
    expect(redirectUris).toContain('“https://ward.example/‹U+2066›x‹U+200B›”')
    const answer = await send(browser, form, register, { ...webApp, kind: 'web\u202e' })
    expect(wrongsOf(answer)['kind']).toContain('You sent “web‹U+202E›”.')
  })
})

// `https://localhost./` was taken as jwks_uri and for sign-outs where `https://localhost/` was refused, and so was `.local`:
// names that nobody on the internet has, however they are written.
import { describe, expect, it } from 'vitest'
import { receiverProblem } from '../../src/http/receiver.ts'

const privateHosts = [
  'localhost.',
  'LOCALHOST.',
  'app.localhost',
  'app.localhost.',
  'printer.local',
  'a.b.local.',
  'vault.internal',
  'nas.home.arpa',
  'home.arpa.',
  'intranet',
  'intranet.',
  'intranet..',
  'app:8443',
  // Parsers write it in ASCII.
  'ｌocalhost。',
]

describe('an address to call', () => {
  it.each(privateHosts)('is not at %s, wherever this server runs', (host) => {
    for (const allowsLoopback of [false, true])
      expect(receiverProblem(new URL(`https://${host}/`).href, { allowsLoopback })).toBe(
        'must be on the public internet',
      )
    expect(receiverProblem(`http://${host}/`, { allowsLoopback: true })).toBeDefined()
  })
  it.each([
    'app.example',
    'app.example.',
    'local.example',
    'notlocal.example',
    'mylocalhost.example',
    '1.1.1.1',
    '1.1.1.1.',
  ])('may be at %s', (host) => expect(receiverProblem(`https://${host}/`, { allowsLoopback: false })).toBeUndefined())
  it.each(['localhost', '127.0.0.1', '[::1]'])('may be at %s where that is allowed', (host) => {
    for (const scheme of ['http', 'https']) {
      expect(receiverProblem(`${scheme}://${host}:8080/`, { allowsLoopback: true })).toBeUndefined()
      expect(receiverProblem(`${scheme}://${host}:8080/`, { allowsLoopback: false })).toBeDefined()
    }
  })
})

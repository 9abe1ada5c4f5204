// A self-signed certificate for one name, out of node:crypto alone. X.509 (RFC 5280 §4.1) is written in DER by hand here:
// Node makes keys and signatures but no certificates.
import { generateKeyPairSync, randomBytes, sign } from 'node:crypto'
import { isIP } from 'node:net'

const daysValid = 30
const dayMs = 86_400_000
const tags = { integer: 0x02, bits: 0x03, octets: 0x04, utf8: 0x0c, time: 0x17, sequence: 0x30, set: 0x31 }
const sha256WithRsa = Buffer.from('06092a864886f70d01010b0500', 'hex')
const commonName = Buffer.from('0603550403', 'hex')
const subjectAltName = Buffer.from('0603551d11', 'hex')

export interface Certificate {
  readonly key: string
  readonly cert: string
}

/** @param host the name or address that browsers see */
export function selfSigned(host: string, now: Date): Certificate {
  // RSA, because the cipher suites that FAPI names for TLS 1.2 are of RSA.
  const { privateKey, publicKey } = generateKeyPairSync('rsa', { modulusLength: 2_048 })
  const algorithm = der(tags.sequence, sha256WithRsa)
  const name = der(
    tags.sequence,
    der(tags.set, der(tags.sequence, commonName, der(tags.utf8, Buffer.from(host.slice(0, 64))))),
  )
  // A serial number is positive: its first bit is not set.
  const serial = Buffer.concat([Buffer.from([0x01]), randomBytes(15)])
  const body = der(
    tags.sequence,
    der(0xa0, der(tags.integer, Buffer.from([2]))),
    der(tags.integer, serial),
    algorithm,
    name,
    der(tags.sequence, time(new Date(now.getTime() - dayMs)), time(new Date(now.getTime() + daysValid * dayMs))),
    name,
    publicKey.export({ type: 'spki', format: 'der' }),
    der(0xa3, der(tags.sequence, der(tags.sequence, subjectAltName, der(tags.octets, alternativeName(host))))),
  )
  const signature = der(tags.bits, Buffer.from([0]), sign('sha256', body, privateKey))
  return {
    key: privateKey.export({ type: 'pkcs8', format: 'pem' }).toString(),
    cert: pem(der(tags.sequence, body, algorithm, signature)),
  }
}

function der(tag: number, ...parts: readonly Buffer[]): Buffer {
  const content = Buffer.concat(parts)
  const { length } = content
  const bytes = length < 0x80 ? [length] : length < 0x100 ? [0x81, length] : [0x82, length >> 8, length & 0xff]
  return Buffer.concat([Buffer.from([tag, ...bytes]), content])
}

/** UTCTime: two digits of the year, to the second. */
function time(date: Date): Buffer {
  return der(tags.time, Buffer.from(`${date.toISOString().replace(/\.\d+/, '').replace(/[-:T]/g, '').slice(2)}`))
}

function alternativeName(host: string): Buffer {
  const dnsName = 0x82
  const address = 0x87
  const entry =
    isIP(host) === 4 ? der(address, Buffer.from(host.split('.').map(Number))) : der(dnsName, Buffer.from(host))
  return der(tags.sequence, entry)
}

function pem(bytes: Buffer): string {
  const lines = bytes.toString('base64').match(/.{1,64}/g) ?? []
  return ['-----BEGIN CERTIFICATE-----', ...lines, '-----END CERTIFICATE-----', ''].join('\n')
}

// QR codes: that what is drawn is what was encoded, with its quiet zone, and that nothing but a picture is in the file.
import fc from 'fast-check'
import { encode } from 'uqr'
import { describe, expect, it } from 'vitest'
import { qrDataUri, qrSvg } from '../../src/credentials/qr.ts'
import { totpUri } from '../../src/credentials/totp.ts'

const quiet = 4
const uri =
  'otpauth://totp/MLPipes%20(Mercy):ada%40mercy.example?secret=JBSWY3DPEHPK3PXPJBSWY3DPEHPK3PXP&issuer=MLPipes%20(Mercy)&algorithm=SHA1&digits=6&period=30'

/** The modules that the SVG paints dark, read from its path. */
function paintedModules(svg: string): boolean[][] {
  const size = Number(/viewBox="0 0 (\d+) \1"/.exec(svg)?.[1])
  const modules = Array.from({ length: size }, () => Array.from({ length: size }, () => false))
  const path = /<path fill="#000" d="([^"]*)"/.exec(svg)?.[1] ?? ''
  const runs = [...path.matchAll(/M(\d+) (\d+)h(\d+)v1h-\3z/g)]
  expect(runs.map(([run]) => run).join(''), 'every run is a rectangle one module high').toBe(path)
  for (const [, x, y, length] of runs) {
    for (let offset = 0; offset < Number(length); offset += 1) {
      const row = modules[Number(y)]
      expect(row?.[Number(x) + offset], 'painted once, inside the picture').toBe(false)
      if (row) row[Number(x) + offset] = true
    }
  }
  return modules
}

describe('qrSvg', () => {
  it('paints what the encoder made, inside four light modules on every side', () => {
    fc.assert(
      fc.property(fc.string({ minLength: 1, maxLength: 300 }), (text) => {
        const painted = paintedModules(qrSvg(text, 'x'))
        const plain = encode(text, { ecc: 'M', boostEcc: true, border: 0 })
        const inner = painted.slice(quiet, -quiet).map((row) => row.slice(quiet, -quiet))
        expect(inner).toEqual(plain.data)
        expect(painted).toHaveLength(plain.size + 2 * quiet)
        const dark = (rows: boolean[][]) => rows.flat().filter(Boolean).length
        expect(dark(painted)).toBe(dark(inner))
      }),
      { numRuns: 30 },
    )
  })

  it('has the three finders where readers look for them', () => {
    const painted = paintedModules(qrSvg(uri, 'x'))
    const size = painted.length
    const finder = ['#######', '#     #', '# ### #', '# ### #', '# ### #', '#     #', '#######']
    const corner = (x: number, y: number) =>
      painted.slice(y, y + 7).map((row) =>
        row
          .slice(x, x + 7)
          .map((isDark) => (isDark ? '#' : ' '))
          .join(''),
      )
    const far = size - quiet - 7
    expect(corner(quiet, quiet)).toEqual(finder)
    expect(corner(far, quiet)).toEqual(finder)
    expect(corner(quiet, far)).toEqual(finder)
    expect(corner(far, far)).not.toEqual(finder)
  })

  it('is named for assistive technology, and the name is only text', () => {
    const svg = qrSvg(uri, `<script>"&'\0\u0007\ud800`)
    expect(svg).toContain('role="img"')
    expect(svg).toContain('<title>&lt;script&gt;"&amp;\'  \ufffd</title>')
  })

  it('holds nothing that a policy on styles or scripts would touch', () => {
    const svg = qrSvg(uri, 'QR code')
    expect(svg).not.toMatch(/style|script|href|\son\w+=|<foreignObject|width="\d+px/i)
    expect([...svg.matchAll(/<(\w+)/g)].map((match) => match[1])).toEqual(['svg', 'title', 'rect', 'path'])
    expect(svg, 'dark on light, whatever the scheme').toMatch(/<rect width="(\d+)" height="\1" fill="#fff"\/>/)
  })
})

describe('qrDataUri', () => {
  it('is the SVG', () => {
    const [head, body = ''] = qrDataUri(uri).split(',')
    expect(head).toBe('data:image/svg+xml;base64')
    expect(Buffer.from(body, 'base64').toString()).toBe(qrSvg(uri, 'QR code'))
  })
})

describe('totpUri', () => {
  const secret = 'JBSWY3DPEHPK3PXPJBSWY3DPEHPK3PXP'
  const read = (text: string) => {
    const [, issuer = '', label = '', query = ''] =
      /^otpauth:\/\/totp\/([^:?/#]+):([^:?/#]+)\?([!-~]+)$/.exec(text) ?? []
    return { issuer: decodeURIComponent(issuer), label: decodeURIComponent(label), query: new URLSearchParams(query) }
  }

  it('is read back as it was meant and fits a QR code, whatever people and organisations are called', () => {
    const names = fc.oneof(
      fc.string({ unit: 'binary', minLength: 1, maxLength: 200 }),
      fc.string({ unit: fc.constantFrom('医', '😀', ':', '&', '%', '#'), minLength: 150, maxLength: 200 }),
    )
    fc.assert(
      fc.property(names, names, (organizationName, email) => {
        const text = totpUri(secret, { accountId: 'acc_x', organizationName, email })
        const { issuer, label, query } = read(text)
        expect(issuer).toMatch(/^MLPipes \([^:]*\)$/)
        expect(Object.fromEntries(query)).toEqual({ secret, issuer, algorithm: 'SHA1', digits: '6', period: '30' })
        if ([...email].length <= 64) expect(label).toBe(email.toWellFormed())
        expect(qrDataUri(text)).toContain('base64,')
      }),
    )
  })

  it('cuts what is too long where people see it', () => {
    const { issuer, label } = read(
      totpUri(secret, { accountId: 'acc_x', organizationName: 'o'.repeat(33), email: `${'e'.repeat(60)}@a.example` }),
    )
    expect(issuer).toBe(`MLPipes (${'o'.repeat(31)}…)`)
    expect(label).toBe(`${'e'.repeat(60)}@a.…`)
  })
})

// QR codes as SVG, for the set-up of an authenticator. Knows nothing of what they say.
import { encode } from 'uqr'

/** ISO/IEC 18004 §9.1: four light modules on every side, without which readers do not find the code. */
const quietModules = 4

/**
 * A QR code as an SVG document that scales: dark on light whatever the scheme of the page, because many readers do not
 * see it the other way round. It carries presentation attributes alone, so that no policy on styles touches it.
 * @param label its name for assistive technology
 * @throws RangeError when the text is too long for a QR code (2,331 bytes)
 */
export function qrSvg(text: string, label: string): string {
  const { size, data } = encode(text, { ecc: 'M', boostEcc: true, border: quietModules })
  return (
    `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${size} ${size}" role="img" shape-rendering="crispEdges">` +
    `<title>${escapeXml(label)}</title>` +
    `<rect width="${size}" height="${size}" fill="#fff"/>` +
    `<path fill="#000" d="${data.map(rowPath).join('')}"/></svg>`
  )
}

/** The same as the source of an `<img>`, whose `alt` then names it. */
export function qrDataUri(text: string): string {
  return `data:image/svg+xml;base64,${Buffer.from(qrSvg(text, 'QR code')).toString('base64')}`
}

/** One rectangle for each run of dark modules in a row. */
function rowPath(row: readonly boolean[], y: number): string {
  const cells = row.map((isDark) => (isDark ? '#' : ' ')).join('')
  return [...cells.matchAll(/#+/g)]
    .map(({ 0: run, index }) => `M${index} ${y}h${run.length}v1h-${run.length}z`)
    .join('')
}

const entities: Readonly<Record<string, string>> = { '&': '&amp;', '<': '&lt;', '>': '&gt;' }

/** XML 1.0 §2.2: most control characters cannot stand in a document even as references; they are left out. */
function escapeXml(text: string): string {
  return text
    .toWellFormed()
    .replace(/[\p{Cc}\uFFFE\uFFFF]/gu, ' ')
    .replace(/[&<>]/g, (character) => entities[character] ?? character)
}

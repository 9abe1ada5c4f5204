// A real Chromium out of an npm package, driven by playwright-core.
import { mkdirSync } from 'node:fs'
import { readFile } from 'node:fs/promises'
import { createRequire } from 'node:module'
import { type Browser, type BrowserContextOptions, type Page, chromium as playwright } from 'playwright-core'
import { inject } from 'vitest'

// Not the package's own arguments: those are for functions in a cloud and turn web security off.
const args = [
  '--no-sandbox',
  '--disable-gpu',
  '--disable-background-networking',
  '--disable-component-update',
  '--disable-sync',
  '--no-first-run',
  '--disable-quic',
]

export async function launchBrowser(): Promise<Browser> {
  return playwright.launch({ executablePath: inject('chromiumPath'), args, headless: true, timeout: 60_000 })
}

export interface WatchedPage {
  readonly page: Page
  /** Console errors, page errors and CSP violations so far. */
  readonly complaints: string[]
  close(): Promise<void>
}

export async function newPage(browser: Browser, options: BrowserContextOptions = {}): Promise<WatchedPage> {
  const context = await browser.newContext(options)
  const page = await context.newPage()
  page.setDefaultTimeout(10_000)
  const complaints: string[] = []
  page.on('console', (message) => {
    // A refused form answers 401 or 429 on purpose, which Chromium also reports here.
    if (message.type() === 'error' && !/status of (400|401|404|409|410|429)/.test(message.text()))
      complaints.push(message.text())
  })
  page.on('pageerror', (error) => complaints.push(error.message))
  return { page, complaints, close: () => context.close() }
}

const axePath = createRequire(import.meta.url).resolve('axe-core/axe.min.js')

const everyRule = ['wcag2a', 'wcag2aa', 'wcag21aa', 'wcag22aa', 'best-practice']
/** What another scheme and another width can change about a page that is right otherwise. */
const rulesOfLook = { type: 'rule', values: ['color-contrast', 'target-size'] }

/**
 * Ids of what axe-core finds wrong on the page, with the elements.
 * @param what `look`: only what its colours and sizes can be wrong about
 */
export async function axe(page: Page, what: 'all' | 'look' = 'all'): Promise<string[]> {
  // Evaluated by the debugger protocol, which the page's own policy does not govern; once for each document.
  if (!(await page.evaluate('"axe" in window'))) await page.evaluate(await readFile(axePath, 'utf8'))
  const runOnly = JSON.stringify(what === 'all' ? everyRule : rulesOfLook)
  const found = await page.evaluate(`axe.run(document, { runOnly: ${runOnly}, resultTypes: ["violations"] })`)
  const { violations } = found as { violations: { id: string; nodes: { html: string }[] }[] }
  return violations.map((violation) => `${violation.id}: ${violation.nodes.map((node) => node.html).join(' | ')}`)
}

/** Keeps a picture of the page under test-results/, when somebody wants to look: PICTURES=1 npx vitest run tests/e2e. */
export async function shot(page: Page, name: string): Promise<void> {
  if (process.env['PICTURES'] === undefined) return
  mkdirSync('test-results', { recursive: true })
  await page.screenshot({ path: `test-results/${name}.png`, fullPage: true })
}

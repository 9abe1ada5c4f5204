// What a newcomer runs: `npm start` in a copy of the data folder's absence, a sign-in in the demo app, Ctrl-C, again.
import { type ChildProcess, spawn } from 'node:child_process'
import { mkdtempSync, rmSync, statSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, expect, it } from 'vitest'
import { launchBrowser, newPage } from '../support/browser.ts'
import { freePort } from '../support/free-port.ts'

const folder = mkdtempSync(join(tmpdir(), 'mlpipes start with spaces '))
const children: ChildProcess[] = []
afterAll(() => {
  // A server left behind by a failure would hold the demo app's port, and the next run would sign in there.
  for (const child of children) child.kill('SIGKILL')
  rmSync(folder, { recursive: true, force: true })
})

interface Running {
  readonly child: ChildProcess
  readonly output: () => string
  readonly ended: Promise<number | null>
}

function start(port: number): Promise<Running> {
  const env = {
    PATH: process.env['PATH'],
    HOME: process.env['HOME'],
    NODE_ENV: 'development',
    DATA_DIR: folder,
    PORT: String(port),
    MLPIPES_AUTH_URL: `http://localhost:${port}`,
    LOG_LEVEL: 'warn',
  }
  const child = spawn(process.execPath, ['bin/mlpipes-auth.js', 'start'], { env, stdio: ['ignore', 'pipe', 'pipe'] })
  children.push(child)
  let text = ''
  const ended = new Promise<number | null>((resolve) => child.once('exit', (code) => resolve(code)))
  return new Promise((resolve, reject) => {
    const collect = (chunk: Buffer) => {
      text += chunk.toString()
      if (text.includes('Ctrl-C stops everything')) resolve({ child, output: () => text, ended })
    }
    child.stdout.on('data', collect)
    child.stderr.on('data', collect)
    ended.then((code) => reject(new Error(`ended with ${code}: ${text}`)))
  })
}

it('starts, signs a demo person in, stops cleanly, and finds the same data again', async () => {
  const port = await freePort()
  const browser = await launchBrowser()
  const subjects: string[] = []
  for (const round of [1, 2]) {
    const running = await start(port)
    const [, email, secret] = /Clinician\s+(\S+)\s+password (\S+)/.exec(running.output()) ?? []
    expect(running.output(), 'is port 3002 free?').toContain('Demo EHR app')
    expect(running.output()).toContain('/dev/mailbox')
    expect(statSync(join(folder, 'secret')).mode & 0o777).toBe(0o600)
    const watched = await newPage(browser)
    await watched.page.goto('http://localhost:3002')
    await watched.page.getByRole('link', { name: 'Sign in with MLPipes' }).click()
    await watched.page.getByRole('textbox', { name: 'Email' }).fill(email ?? '')
    await watched.page.getByRole('textbox', { name: 'Password' }).fill(secret ?? '')
    await watched.page.getByRole('button', { name: 'Sign in' }).click()
    if (round === 1) await watched.page.getByRole('button', { name: 'Allow' }).click()
    await watched.page.getByRole('heading', { name: 'Ward list' }).waitFor()
    subjects.push((await watched.page.locator('dl code').first().textContent()) ?? '')
    await watched.close()
    running.child.kill('SIGINT')
    expect(await running.ended, running.output()).toBe(0)
  }
  expect(subjects[0]).toMatch(/^acc_/)
  expect(subjects[1]).toBe(subjects[0])
  await browser.close()
})

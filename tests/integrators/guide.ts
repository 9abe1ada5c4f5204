// The programs of a guide, run as they stand in its text: only what a reader would fill in is filled in.
import { execFile, spawn } from 'node:child_process'
import { cpSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { connect } from 'node:net'
import { resolve } from 'node:path'
import { setTimeout as wait } from 'node:timers/promises'
import { promisify } from 'node:util'

export const root = resolve(import.meta.dirname, '../..')
const startMs = 20_000

export const guide = (name: string) => readFileSync(`${root}/docs/guides/${name}.md`, 'utf8')

/** The one block of a guide that holds this text, without the indentation of the list that it stands in. */
export function blockOf(text: string, holding: string): string {
  const blocks = [...text.matchAll(/^( *)```\w*\n([\s\S]*?)\n\1```$/gm)]
    .map(([, indent = '', code = '']) => code.replaceAll(new RegExp(`^${indent}`, 'gm'), ''))
    .filter((code) => code.includes(holding))
  if (blocks.length !== 1) throw new Error(`${blocks.length} blocks of the guide hold ${holding}`)
  return `${blocks[0]}\n`
}

/** Puts values in the place of those of the guide, which must all be there. */
export function fill(code: string, values: Readonly<Record<string, string>>): string {
  return Object.entries(values).reduce((text, [from, to]) => {
    if (!text.includes(from)) throw new Error(`the guide does not say ${from}`)
    return text.replaceAll(from, to)
  }, code)
}

/** What is running. */
export interface Program {
  output(): string
  /** Resolves when it has ended by itself, with its exit code. */
  readonly ended: Promise<number | null>
}

/** A folder like that of somebody who follows a guide, with our package installed in it as it is published. */
export interface Workshop {
  write(file: string, text: string): void
  /** Runs a command line, here or in another folder. */
  run(command: string, environment?: Readonly<Record<string, string>>, folder?: string): Program
  /** Runs a program that listens; resolves when it does. */
  serve(file: string, port: number, environment?: Readonly<Record<string, string>>): Promise<Program>
  close(): Promise<void>
}

export async function openWorkshop(): Promise<Workshop> {
  mkdirSync(`${root}/test-results`, { recursive: true })
  const folder = mkdtempSync(`${root}/test-results/guide-`)
  const installed = `${folder}/node_modules/@mlpipes/auth-resource-server`
  const build = ['-p', 'packages/resource-server', '--outDir', `${installed}/dist`]
  await promisify(execFile)(`${root}/node_modules/.bin/tsc`, build, { cwd: root })
  cpSync(`${root}/packages/resource-server/package.json`, `${installed}/package.json`)
  const stops: (() => Promise<unknown>)[] = []

  const run: Workshop['run'] = (command, environment = {}, cwd = folder) => {
    const path = `${resolve(process.execPath, '..')}:${process.env['PATH']}`
    const child = spawn('sh', ['-c', `exec ${command}`], { cwd, env: { PATH: path, ...environment } })
    let output = ''
    for (const stream of [child.stdout, child.stderr])
      stream.setEncoding('utf8').on('data', (text: string) => {
        output += text
      })
    const { promise: ended, resolve: end } = Promise.withResolvers<number | null>()
    child.on('close', end).on('error', () => end(null))
    stops.push(() => {
      child.kill()
      return ended
    })
    return { output: () => output, ended }
  }

  return {
    write: (file, text) => writeFileSync(`${folder}/${file}`, text),
    run,
    async serve(file, port, environment) {
      const program = run(`node ${file}`, environment)
      const ended = program.ended.then((code) => {
        throw new Error(`${file} ended with ${code}: ${program.output()}`)
      })
      await Promise.race([listening(port, program), ended])
      return program
    },
    async close() {
      await Promise.all(stops.map((stop) => stop()))
      rmSync(folder, { recursive: true, force: true })
    },
  }
}

/** The address that a program prints for somebody to open. */
export async function printed(program: Program, what: RegExp): Promise<string> {
  return eventually(program, async () => what.exec(program.output())?.[0])
}

async function listening(port: number, program: Program): Promise<void> {
  await eventually(program, async () => ((await answers(port)) ? 'yes' : undefined))
}

async function eventually(program: Program, look: () => Promise<string | undefined>): Promise<string> {
  for (const end = Date.now() + startMs; Date.now() < end; await wait(50)) {
    const found = await look()
    if (found !== undefined) return found
  }
  throw new Error(`nothing came of it: ${program.output()}`)
}

function answers(port: number): Promise<boolean> {
  const { promise, resolve: answer } = Promise.withResolvers<boolean>()
  const socket = connect(port, '127.0.0.1', () => answer(true)).on('error', () => answer(false))
  return promise.finally(() => socket.destroy())
}

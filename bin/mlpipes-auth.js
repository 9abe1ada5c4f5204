#!/usr/bin/env node
// Starts the command line: from the sources in a checkout, from dist/ in the installed package.
import { existsSync } from 'node:fs'
import { fileURLToPath } from 'node:url'

const source = new URL('../src/main.ts', import.meta.url)
const built = new URL('../dist/main.js', import.meta.url)
const { main } = await import(existsSync(fileURLToPath(source)) ? source.href : built.href)
await main(process.argv.slice(2), process.env)

// A port that was free a moment ago on the loopback interface, and is still so a moment later: not out of those that systems
// give to outgoing connections (from 32,768 or 49,152 on), of which tests make thousands, and for each process others.
import { createServer } from 'node:net'

const [lowest, count, ofEach] = [10_000, 22_000, 100] as const
let next = process.pid * ofEach

export async function freePort(): Promise<number> {
  for (let tries = 0; tries < count; tries += 1) {
    const port = lowest + (next++ % count)
    if (await isFree(port)) return port
  }
  throw new Error('no port is free')
}

function isFree(port: number): Promise<boolean> {
  return new Promise((resolve) => {
    const probe = createServer()
    probe.once('error', () => resolve(false))
    probe.listen(port, '127.0.0.1', () => probe.close(() => resolve(true)))
  })
}

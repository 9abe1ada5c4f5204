// A load generator: workers that each repeat one asynchronous step until the time is over.

import { readFileSync } from 'node:fs'
import { Agent, request } from 'node:http'

export interface Reply {
  readonly status: number
  readonly headers: NodeJS.Dict<string | string[]>
  readonly text: string
}

const agent = new Agent({ keepAlive: true, maxSockets: 256 })

export function send(
  url: string,
  options: { method?: string; headers?: Record<string, string>; body?: string } = {},
): Promise<Reply> {
  return new Promise((resolve, reject) => {
    const outgoing = request(
      url,
      {
        agent,
        method: options.method ?? 'GET',
        headers: {
          ...options.headers,
          ...(options.body === undefined
            ? {}
            : {
                'content-type': 'application/x-www-form-urlencoded',
                'content-length': String(Buffer.byteLength(options.body)),
              }),
        },
      },
      (incoming) => {
        const chunks: Buffer[] = []
        incoming.on('data', (chunk: Buffer) => chunks.push(chunk))
        incoming.on('end', () =>
          resolve({
            status: incoming.statusCode ?? 0,
            headers: incoming.headers,
            text: Buffer.concat(chunks).toString(),
          }),
        )
      },
    )
    outgoing.on('error', reject)
    outgoing.end(options.body)
  })
}

export interface Result {
  readonly perSecond: number
  readonly p50Ms: number
  readonly p99Ms: number
  /** CPU microseconds of the server process per request. */
  readonly cpuMicros: number
  readonly rssMib: number
}

const ticksPerSecond = 100
const warmUpMs = 1_000

function cpuSeconds(pid: number): number {
  const fields = readFileSync(`/proc/${pid}/stat`, 'utf8').split(') ')[1]?.split(' ') ?? []
  return (Number(fields[11]) + Number(fields[12])) / ticksPerSecond
}

function rssMib(pid: number): number {
  return Math.round(Number(/VmRSS:\s+(\d+)/.exec(readFileSync(`/proc/${pid}/status`, 'utf8'))?.[1]) / 1024)
}

/**
 * Runs `step` in `workers` parallel loops for `ms` after a warm-up.
 * @param pid the server process, whose CPU and memory are read from /proc
 */
export async function measure(
  pid: number,
  workers: number,
  ms: number,
  step: (worker: number) => Promise<unknown>,
): Promise<Result> {
  const run = async (duration: number, latencies?: number[]) => {
    const end = performance.now() + duration
    await Promise.all(
      Array.from({ length: workers }, async (_, worker) => {
        while (performance.now() < end) {
          const begun = performance.now()
          await step(worker)
          latencies?.push(performance.now() - begun)
        }
      }),
    )
  }
  await run(warmUpMs)
  const latencies: number[] = []
  const [cpuBefore, begun] = [cpuSeconds(pid), performance.now()]
  await run(ms, latencies)
  const [cpu, seconds] = [cpuSeconds(pid) - cpuBefore, (performance.now() - begun) / 1000]
  latencies.sort((a, b) => a - b)
  const at = (share: number) => latencies[Math.min(latencies.length - 1, Math.floor(latencies.length * share))] ?? 0
  return {
    perSecond: latencies.length / seconds,
    p50Ms: at(0.5),
    p99Ms: at(0.99),
    cpuMicros: (cpu * 1e6) / latencies.length,
    rssMib: rssMib(pid),
  }
}

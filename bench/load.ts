// A load generator: workers that each repeat one asynchronous step until the time is over. It speaks HTTP/1.1 over
// plain sockets, because node:http as a client costs more than the servers that it is to measure.
import { readFileSync } from 'node:fs'
import { connect, type Socket } from 'node:net'

export interface Reply {
  readonly status: number
  header(name: string): string | undefined
  /** Every value of a header that may come more than once. */
  headers(name: string): string[]
  readonly text: string
}

export interface Sending {
  readonly method?: string
  readonly headers?: Record<string, string>
  readonly body?: string
  /** Of the body; a form unless said. */
  readonly type?: string
  /** Where to connect, when that is not what the address says: one replica of several that have one address. */
  readonly port?: number
}

/** One kept-alive connection: one request on its way at a time, answers with Content-Length or in chunks. */
class Connection {
  readonly #socket: Socket
  #received: Buffer = Buffer.alloc(0)
  #waiting: { resolve(reply: Reply): void; reject(reason: unknown): void } | undefined

  constructor(port: number) {
    this.#socket = connect({ host: '127.0.0.1', port, noDelay: true })
    this.#socket.on('data', (chunk) => {
      this.#received = this.#received.length === 0 ? chunk : Buffer.concat([this.#received, chunk])
      const reply = parse(this.#received)
      if (!reply) return
      this.#received = Buffer.alloc(0)
      const waiting = this.#waiting
      this.#waiting = undefined
      waiting?.resolve(reply)
    })
    this.#socket.on('error', (error) => this.#waiting?.reject(error))
    this.#socket.on('close', () => this.#waiting?.reject(new Error('the server closed the connection')))
  }

  get isOpen(): boolean {
    return !this.#socket.destroyed && this.#socket.readyState !== 'closed'
  }

  exchange(message: string): Promise<Reply> {
    return new Promise((resolve, reject) => {
      this.#waiting = { resolve, reject }
      this.#socket.write(message, 'latin1')
    })
  }
}

/** The complete answer in `bytes`, or undefined while some of it is still to come. */
function parse(bytes: Buffer): Reply | undefined {
  const end = bytes.indexOf('\r\n\r\n')
  if (end < 0) return undefined
  const head = bytes.toString('latin1', 0, end)
  const headers = (name: string) =>
    [...head.matchAll(new RegExp(`^${name}: (.*)$`, 'gim'))].map(([, value]) => value?.trim() ?? '')
  const body = bytes.subarray(end + 4)
  const length = /\r\ncontent-length: (\d+)/i.exec(head)?.[1]
  const status = Number(head.slice(9, 12))
  const reply = (content: Buffer): Reply => ({
    status,
    headers,
    header: (name) => headers(name)[0],
    text: content.toString(),
  })
  if (length !== undefined) return body.length < Number(length) ? undefined : reply(body)
  if (status === 204 || status === 304) return reply(body)
  if (!body.subarray(-5).equals(lastChunk)) return undefined
  return reply(joinChunks(body))
}

const lastChunk = Buffer.from('0\r\n\r\n')

function joinChunks(body: Buffer): Buffer {
  const chunks: Buffer[] = []
  for (let at = 0; ; ) {
    const lineEnd = body.indexOf('\r\n', at)
    const size = Number.parseInt(body.toString('latin1', at, lineEnd), 16)
    if (size === 0) return Buffer.concat(chunks)
    chunks.push(body.subarray(lineEnd + 2, lineEnd + 2 + size))
    at = lineEnd + 4 + size
  }
}

const idle = new Map<number, Connection[]>()

export async function send(address: string, sending: Sending = {}): Promise<Reply> {
  const url = new URL(address)
  const port = sending.port ?? Number(url.port)
  const connections = idle.get(port) ?? []
  idle.set(port, connections)
  let connection = connections.pop()
  while (connection && !connection.isOpen) connection = connections.pop()
  connection ??= new Connection(port)
  const reply = await connection.exchange(message(url, sending))
  if (reply.header('connection') !== 'close') connections.push(connection)
  return reply
}

const formType = 'application/x-www-form-urlencoded'

function message(url: URL, { method = 'GET', headers = {}, body, type = formType }: Sending): string {
  const lines = Object.entries(headers).map(([name, value]) => `${name}: ${value}\r\n`)
  if (body !== undefined) lines.push(`content-type: ${type}\r\ncontent-length: ${String(Buffer.byteLength(body))}\r\n`)
  return `${method} ${url.pathname}${url.search} HTTP/1.1\r\nhost: ${url.host}\r\n${lines.join('')}\r\n${body ?? ''}`
}

export interface Result {
  readonly perSecond: number
  readonly p50Ms: number
  readonly p95Ms: number
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
 * @param pids the server's processes, whose CPU and memory are read from /proc
 */
export async function measure(
  pids: number | readonly number[],
  workers: number,
  ms: number,
  step: (worker: number) => Promise<unknown>,
): Promise<Result> {
  const until = (end: number) => () => performance.now() < end
  await repeat(workers, until(performance.now() + warmUpMs), step)
  return observe([pids].flat(), () => repeat(workers, until(performance.now() + ms), step))
}

/** Short, so that steps come one by one and not in heaps, which one process would answer together and two apart. */
const paceMs = 1

/** Begins `perSecond` steps a second for `ms`, whatever the server does, after a warm-up: what they cost beside idleness. */
export async function measurePaced(
  pids: number | readonly number[],
  perSecond: number,
  ms: number,
  step: (turn: number) => Promise<unknown>,
): Promise<Result> {
  await pace(perSecond, warmUpMs, step)
  return observe([pids].flat(), () => pace(perSecond, ms, step))
}

async function pace(perSecond: number, ms: number, step: (turn: number) => Promise<unknown>): Promise<number[]> {
  const latencies: number[] = []
  const steps: Promise<unknown>[] = []
  const begun = performance.now()
  for (let now = begun; now - begun < ms; now = performance.now()) {
    const due = Math.floor(((now - begun) / 1_000) * perSecond)
    while (steps.length < due) {
      const at = performance.now()
      steps.push(step(steps.length).then(() => latencies.push(performance.now() - at)))
    }
    await new Promise((resolve) => setTimeout(resolve, paceMs))
  }
  await Promise.all(steps)
  return latencies
}

/** Runs `step` once for each of `items`, `workers` at a time: for what works once. */
export async function measureOnce<Item>(
  pid: number,
  workers: number,
  items: readonly Item[],
  step: (item: Item) => Promise<unknown>,
): Promise<Result> {
  const left = [...items]
  const goesOn = () => left.length > 0
  return observe([pid], () => repeat(workers, goesOn, async () => step(left.pop() as Item)))
}

async function repeat(workers: number, goesOn: () => boolean, step: (worker: number) => Promise<unknown>) {
  const latencies: number[] = []
  await Promise.all(
    Array.from({ length: workers }, async (_, worker) => {
      while (goesOn()) {
        const begun = performance.now()
        await step(worker)
        latencies.push(performance.now() - begun)
      }
    }),
  )
  return latencies
}

async function observe(pids: readonly number[], run: () => Promise<number[]>): Promise<Result> {
  const cpuOfAll = () => pids.reduce((sum, pid) => sum + cpuSeconds(pid), 0)
  const [cpuBefore, begun] = [cpuOfAll(), performance.now()]
  const latencies = await run()
  const [cpu, seconds] = [cpuOfAll() - cpuBefore, (performance.now() - begun) / 1000]
  const at = sharesOf(latencies)
  return {
    perSecond: latencies.length / seconds,
    p50Ms: at(0.5),
    p95Ms: at(0.95),
    p99Ms: at(0.99),
    cpuMicros: (cpu * 1e6) / latencies.length,
    rssMib: pids.reduce((sum, pid) => sum + rssMib(pid), 0),
  }
}

/** Of a figure of several results. */
export function medianOf<Item>(results: readonly Item[], figure: (item: Item) => number): number {
  return sharesOf(results.map(figure))(0.5)
}

/** What so large a share of the values is at most. */
export function sharesOf(values: readonly number[]): (share: number) => number {
  const sorted = values.toSorted((a, b) => a - b)
  return (share) => sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * share))] ?? 0
}

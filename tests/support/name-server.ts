// A real name server on a UDP port of this machine: answers questions for TXT records out of a map, or not at all.
import { createSocket } from 'node:dgram'
import { once } from 'node:events'

export interface NameServer {
  /** As the resolver takes it. */
  readonly address: string
  /** What each name has, in lower case; each record may be in several chunks. A name that is not here is none. */
  readonly records: Map<string, readonly (readonly string[])[]>
  /** Names that were asked for. */
  readonly asked: string[]
  /** `mute`: questions are heard and not answered. `broken`: every answer is SERVFAIL. */
  mood: 'well' | 'mute' | 'broken'
  close(): Promise<void>
}

const txt = 16
const servfail = 2
const nxdomain = 3

export async function startNameServer(): Promise<NameServer> {
  const socket = createSocket('udp4')
  const server: NameServer = {
    get address() {
      return `127.0.0.1:${socket.address().port}`
    },
    records: new Map(),
    asked: [],
    mood: 'well',
    close: () => new Promise((resolve) => socket.close(() => resolve())),
  }
  socket.on('message', (question, from) => {
    const { name, end } = readName(question)
    server.asked.push(name)
    if (server.mood === 'mute') return
    socket.send(
      answerTo(question, end, server.mood === 'broken' ? undefined : server.records.get(name), server.mood),
      from.port,
      from.address,
    )
  })
  socket.bind(0, '127.0.0.1')
  await once(socket, 'listening')
  return server
}

function readName(message: Buffer): { readonly name: string; readonly end: number } {
  const labels: string[] = []
  let at = 12
  for (let length = message.readUInt8(at); length > 0; length = message.readUInt8(at)) {
    labels.push(message.toString('latin1', at + 1, at + 1 + length))
    at += 1 + length
  }
  return { name: labels.join('.').toLowerCase(), end: at + 1 }
}

/** RFC 1035 §4.1: the question again, and one record for each that the name has. */
function answerTo(
  message: Buffer,
  nameEnd: number,
  records: readonly (readonly string[])[] | undefined,
  mood: NameServer['mood'],
): Buffer {
  const question = message.subarray(12, nameEnd + 4)
  const found = message.readUInt16BE(nameEnd) === txt ? (records ?? []) : []
  const code = mood === 'broken' ? servfail : records === undefined ? nxdomain : 0
  const head = Buffer.alloc(12)
  message.copy(head, 0, 0, 2)
  head.writeUInt16BE(0x8180 | code, 2)
  head.writeUInt16BE(1, 4)
  head.writeUInt16BE(found.length, 6)
  return Buffer.concat([head, question, ...found.map(textRecord)])
}

function textRecord(chunks: readonly string[]): Buffer {
  const data = Buffer.concat(chunks.map((chunk) => Buffer.concat([Buffer.from([chunk.length]), Buffer.from(chunk)])))
  const fixed = Buffer.alloc(12)
  // The name of the question, by its place.
  fixed.writeUInt16BE(0xc00c, 0)
  fixed.writeUInt16BE(txt, 2)
  fixed.writeUInt16BE(1, 4)
  fixed.writeUInt32BE(60, 6)
  fixed.writeUInt16BE(data.length, 10)
  return Buffer.concat([fixed, data])
}

// The server at another hash cost than people get, for comparing with figures published at that cost.
import pino from 'pino'
import { parseConfig } from '../src/config.ts'
import { openDatabase, resolveSecret } from '../src/process.ts'
import { createServer } from '../src/server.ts'

const logger = pino({ level: 'warn' })
const config = parseConfig(process.env)
const database = await openDatabase(config, logger)
const secret = await resolveSecret(config)
const server = await createServer({ config, secret, database, logger, hashCost: JSON.parse(process.argv[2] ?? '{}') })
await server.app.listen({ host: config.host, port: config.port })
process.once('SIGTERM', async () => {
  await server.close()
  await database.close()
})

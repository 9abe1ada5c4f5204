// Runs the app alone, against any provider: ISSUER=… CLIENT_ID=… node examples/ehr/main.ts
import { z } from 'zod'
import { startEhr } from './app.ts'

const environment = z.object({
  ISSUER: z.url({ protocol: /^https?$/ }),
  PORT: z.coerce.number().int().min(1).max(65_535).default(3002),
  HOST: z.string().min(1).default('127.0.0.1'),
  CLIENT_ID: z.string().min(1),
  CLIENT_SECRET: z.string().min(1),
  API_CLIENT_ID: z.string().min(1),
  API_CLIENT_SECRET: z.string().min(1),
})

const parsed = environment.safeParse(process.env)
if (parsed.success) {
  const env = parsed.data
  const ehr = await startEhr({
    issuer: env.ISSUER,
    port: env.PORT,
    host: env.HOST,
    clientId: env.CLIENT_ID,
    clientSecret: env.CLIENT_SECRET,
    apiClientId: env.API_CLIENT_ID,
    apiClientSecret: env.API_CLIENT_SECRET,
  })
  process.stdout.write(`Harbor EHR: ${ehr.url}\n`)
} else {
  for (const { path, message } of parsed.error.issues) process.stderr.write(`${path.join('.')}: ${message}\n`)
  process.exitCode = 1
}

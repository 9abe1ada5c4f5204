// Runs the app alone, against any provider: ISSUER=… CLIENT_ID=… node examples/ehr/main.ts
import { startEhr } from './app.ts'

const need = (name: string): string => {
  const value = process.env[name]
  if (!value) throw new Error(`${name} must be set`)
  return value
}

const ehr = await startEhr({
  issuer: need('ISSUER'),
  port: Number(process.env['PORT'] ?? 3002),
  clientId: need('CLIENT_ID'),
  clientSecret: need('CLIENT_SECRET'),
  apiClientId: need('API_CLIENT_ID'),
  apiClientSecret: need('API_CLIENT_SECRET'),
})
process.stdout.write(`Harbor EHR: ${ehr.url}\n`)

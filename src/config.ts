// Configuration: one schema over the environment, parsed once and frozen. It reads no environment itself: the entry
// point hands it in. A wrong value stops the start with one line per variable.
import { isIP } from 'node:net'
import { z } from 'zod'

const flag = (fallback: boolean) =>
  z
    .enum(['true', 'false'], { error: 'must be true or false' })
    .default(fallback ? 'true' : 'false')
    .transform((value) => value === 'true')

const wholeNumber = (fallback: number, min: number, max: number) =>
  z
    .string()
    .regex(/^\d{1,10}$/, `must be a whole number from ${min} to ${max}`)
    .transform(Number)
    .refine((value) => value >= min && value <= max, `must be a whole number from ${min} to ${max}`)
    .default(fallback)

const origin = z.string().refine((value) => {
  const url = URL.parse(value)
  return url !== null && /^https?:$/.test(url.protocol) && url.origin === value
}, 'must be an origin such as https://auth.example.org, without a path or a trailing slash')

const cidr = z.string().refine((value) => {
  const [address, prefix] = value.split('/')
  const family = isIP(address ?? '')
  return (
    family !== 0 && (prefix === undefined || (/^\d{1,3}$/.test(prefix) && Number(prefix) <= (family === 4 ? 32 : 128)))
  )
}, 'must be a comma-separated list of addresses or CIDR ranges such as 10.0.0.0/8')

const postgresUrl = z.string().regex(/^postgres(ql)?:\/\//, 'must start with postgres://')

const environmentSchema = z.object({
  NODE_ENV: z
    .enum(['development', 'test', 'production'], { error: 'must be development, test or production' })
    .default('development'),
  MLPIPES_AUTH_URL: origin.default('http://localhost:3001'),
  PORT: wholeNumber(3001, 0, 65535),
  HOST: z.string().min(1).max(255).optional(),
  DATABASE_URL: postgresUrl.optional(),
  DATABASE_ADMIN_URL: postgresUrl.optional(),
  DATABASE_POOL_SIZE: wholeNumber(20, 2, 500),
  DATA_DIR: z.string().min(1).max(4096).default('./data'),
  MLPIPES_AUTH_SECRET: z
    .string()
    .min(32, 'must be at least 32 characters; make one with: openssl rand -base64 48')
    .max(1024)
    .optional(),
  MLPIPES_AUTH_SECRET_PREVIOUS: z.string().min(32, 'must be at least 32 characters').max(1024).optional(),
  HIPAA_MODE: flag(true),
  REQUIRE_MFA: z.enum(['true', 'false'], { error: 'must be true or false' }).optional(),
  SESSION_TIMEOUT: wholeNumber(1800, 60, 2_592_000),
  SESSION_UPDATE_AGE: wholeNumber(300, 1, 86_400),
  AUDIT_RETENTION_DAYS: wholeNumber(2555, 1, 36_500),
  ENABLE_EMAIL_PASSWORD: flag(true),
  ENABLE_MAGIC_LINKS: z.enum(['true', 'false'], { error: 'must be true or false' }).optional(),
  ENABLE_2FA: flag(true),
  ENABLE_SIGNUP: z.enum(['true', 'false'], { error: 'must be true or false' }).optional(),
  SMTP_URL: z
    .string()
    .regex(/^smtps?:\/\//, 'must start with smtp:// or smtps://')
    .optional(),
  MAIL_FROM: z.string().min(3).max(320).default('MLPipes Auth <no-reply@localhost>'),
  TRUSTED_PROXIES: z
    .string()
    .default('')
    .transform((list) =>
      list
        .split(',')
        .map((item) => item.trim())
        .filter(Boolean),
    )
    .pipe(z.array(cidr)),
  LOG_LEVEL: z
    .enum(['fatal', 'error', 'warn', 'info', 'debug', 'trace', 'silent'], {
      error: 'must be a pino level such as info',
    })
    .default('info'),
  DEMO: z.enum(['true', 'false'], { error: 'must be true or false' }).optional(),
})

/** Every variable that this server reads, in the order of the documentation. */
export const environmentNames: readonly string[] = Object.keys(environmentSchema.shape)

/** The settings of one server, resolved: every default applied, every reference between variables settled. */
export interface Config {
  readonly production: boolean
  readonly test: boolean
  /** Issuer Identifier (RFC 8414 §2): the origin that browsers see. */
  readonly issuer: string
  readonly host: string
  readonly port: number
  readonly databaseUrl: string | undefined
  readonly databaseAdminUrl: string | undefined
  readonly databasePoolSize: number
  readonly dataDir: string
  /** Absent in development until the start reads or makes the one in the data directory. */
  readonly secret: string | undefined
  readonly previousSecret: string | undefined
  readonly hipaaMode: boolean
  readonly requireMfa: boolean
  readonly sessionTimeoutSeconds: number
  readonly sessionUpdateAgeSeconds: number
  readonly auditRetentionDays: number
  readonly enable: Readonly<{ password: boolean; magicLinks: boolean; secondFactor: boolean; signup: boolean }>
  readonly smtpUrl: string | undefined
  readonly mailFrom: string
  readonly trustedProxies: readonly string[]
  readonly logLevel: string
  readonly demo: boolean
}

/** Thrown when the environment cannot be used; `problems` has one line per variable, in words for an operator. */
export class ConfigError extends Error {
  readonly problems: readonly string[]
  constructor(problems: readonly string[]) {
    super(problems.join('\n'))
    this.problems = problems
  }
}

/**
 * Reads the configuration out of an environment.
 * @param environment what `process.env` holds
 * @throws ConfigError with every problem at once
 */
export function parseConfig(environment: Readonly<Record<string, string | undefined>>): Config {
  const given = Object.fromEntries(
    Object.entries(environment).filter(([, value]) => value !== undefined && value !== ''),
  )
  const problems = Object.keys(given)
    .filter((name) => name.startsWith('MLPIPES_') && !environmentNames.includes(name))
    .map((name) => `${name}: is not a variable of this server; remove it or correct its spelling`)
  const parsed = environmentSchema.safeParse(given)
  if (!parsed.success) {
    problems.push(...parsed.error.issues.map((issue) => `${String(issue.path[0])}: ${issue.message}`))
    throw new ConfigError(problems)
  }
  problems.push(...refusals(parsed.data))
  if (problems.length > 0) throw new ConfigError(problems)
  return Object.freeze(resolve(parsed.data))
}

type Environment = z.infer<typeof environmentSchema>

/** What production and HIPAA mode do not allow. */
function refusals(env: Environment): string[] {
  const problems: string[] = []
  if (env.HIPAA_MODE && env.SESSION_TIMEOUT > 3600)
    problems.push('SESSION_TIMEOUT: must be at most 3600 while HIPAA_MODE is true')
  if (env.HIPAA_MODE && env.AUDIT_RETENTION_DAYS < 2190) {
    problems.push('AUDIT_RETENTION_DAYS: must be at least 2190 while HIPAA_MODE is true')
  }
  if (env.NODE_ENV !== 'production') return problems
  const required = 'is required when NODE_ENV=production'
  if (!env.DATABASE_URL) problems.push(`DATABASE_URL: ${required}; set it to postgres://…`)
  if (!env.MLPIPES_AUTH_SECRET)
    problems.push(`MLPIPES_AUTH_SECRET: ${required}; make one with: openssl rand -base64 48`)
  if (!env.SMTP_URL) problems.push(`SMTP_URL: ${required}; set it to smtp:// or smtps://…`)
  if (!env.MLPIPES_AUTH_URL.startsWith('https://'))
    problems.push('MLPIPES_AUTH_URL: must be an https origin when NODE_ENV=production')
  if (env.DEMO === 'true') problems.push('DEMO: must not be true when NODE_ENV=production')
  return problems
}

function resolve(env: Environment): Config {
  const production = env.NODE_ENV === 'production'
  const demo = env.DEMO === undefined ? env.NODE_ENV === 'development' && !env.DATABASE_URL : env.DEMO === 'true'
  return {
    production,
    test: env.NODE_ENV === 'test',
    issuer: env.MLPIPES_AUTH_URL,
    host: env.HOST ?? (production ? '0.0.0.0' : '127.0.0.1'),
    port: env.PORT,
    databaseUrl: env.DATABASE_URL,
    databaseAdminUrl: env.DATABASE_ADMIN_URL ?? env.DATABASE_URL,
    databasePoolSize: env.DATABASE_POOL_SIZE,
    dataDir: env.DATA_DIR,
    secret: env.MLPIPES_AUTH_SECRET,
    previousSecret: env.MLPIPES_AUTH_SECRET_PREVIOUS,
    hipaaMode: env.HIPAA_MODE,
    requireMfa: env.REQUIRE_MFA === undefined ? production : env.REQUIRE_MFA === 'true',
    sessionTimeoutSeconds: env.SESSION_TIMEOUT,
    sessionUpdateAgeSeconds: env.SESSION_UPDATE_AGE,
    auditRetentionDays: env.AUDIT_RETENTION_DAYS,
    enable: {
      password: env.ENABLE_EMAIL_PASSWORD,
      magicLinks: env.ENABLE_MAGIC_LINKS === undefined ? demo : env.ENABLE_MAGIC_LINKS === 'true',
      secondFactor: env.ENABLE_2FA,
      signup: env.ENABLE_SIGNUP === undefined ? demo : env.ENABLE_SIGNUP === 'true',
    },
    smtpUrl: env.SMTP_URL,
    mailFrom: env.MAIL_FROM,
    trustedProxies: env.TRUSTED_PROXIES,
    logLevel: env.LOG_LEVEL,
    demo,
  }
}

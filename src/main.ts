// The process: reads the environment and the command line, and hands both to the commands. Nothing else reads them.
import { readFile } from 'node:fs/promises'
import { Command, CommanderError, InvalidArgumentError } from 'commander'
import pino from 'pino'
import { ApplyError, apply } from './apply/apply.ts'
import { examine } from './cli/doctor.ts'
import { invitePerson, NotPossible, resetFactor } from './cli/people.ts'
import { CannotListen, start } from './cli/start.ts'
import { type TryOptions, trySignIn } from './cli/try.ts'
import { isIssuer, isLoopbackUri } from './cli/try-address.ts'
import { checkInWords, endInWords, stepInWords } from './cli/try-words.ts'
import { type Config, ConfigError, parseConfig } from './config.ts'
import { createPasswords, defaultHashCost } from './credentials/password.ts'
import { createSecrets } from './crypto/secrets.ts'
import type { Database } from './db/database.ts'
import { migrate, migrationState } from './db/migrate.ts'
import { isOutage } from './db/pg-errors.ts'
import { createKeys, RotationPending } from './oidc/keys.ts'
import { openAsOwner, openDatabase, resolveSecret, SchemaTooOld } from './process.ts'

const exitCodes = { done: 0, failed: 1, usage: 2 } as const

/** Thrown by a command for a failure that it has words for. */
class CommandFailed extends Error {}

interface Output {
  readonly json: boolean
}

function print(output: Output, value: unknown, text: string): void {
  process.stdout.write(`${output.json ? JSON.stringify(value, null, 2) : text}\n`)
}

async function withDatabase<T>(config: Config, work: (database: Database, secret: string) => Promise<T>): Promise<T> {
  const secret = await resolveSecret(config)
  const database = await openDatabase(config, pino({ level: 'silent' }))
  try {
    return await work(database, secret)
  } finally {
    await database.close()
  }
}

async function runMigrate(config: Config, options: Output & { status?: boolean }): Promise<void> {
  const database = await openAsOwner(config)
  try {
    if (options.status) {
      const state = await migrationState(database.kysely)
      const lines = [
        ...state.applied.map((name) => `applied  ${name}`),
        ...state.pending.map((name) => `pending  ${name}`),
      ]
      return print(options, state, lines.join('\n') || 'no migrations')
    }
    const applied = await migrate(database.kysely)
    print(
      options,
      { applied },
      applied.length === 0 ? 'The schema is up to date.' : applied.map((name) => `applied  ${name}`).join('\n'),
    )
  } finally {
    await database.close()
  }
}

async function runApply(config: Config, path: string, output: Output): Promise<void> {
  const text = await readFile(path, 'utf8').catch((error: NodeJS.ErrnoException) => {
    throw new CommandFailed(`cannot read ${path}: ${error.code}`)
  })
  const file: unknown = parseJson(text, path)
  const changes = await withDatabase(config, async (database, secret) =>
    apply(
      {
        db: database.kysely,
        secrets: createSecrets(secret, config.previousSecret),
        passwords: await createPasswords(defaultHashCost),
        platform: config,
      },
      file,
    ),
  )
  const lines = changes.map((change) => `${change.change}  ${change.kind} ${change.id}  (${change.fields.join(', ')})`)
  print(output, { changes }, lines.join('\n') || 'Nothing to change.')
}

function parseJson(text: string, path: string): unknown {
  try {
    return JSON.parse(text)
  } catch (error) {
    throw new CommandFailed(`${path} is not JSON: ${error instanceof Error ? error.message : ''}`)
  }
}

async function runKeys(config: Config, action: 'list' | 'rotate', output: Output): Promise<void> {
  const keys = await withDatabase(config, async (database, secret) => {
    const store = createKeys(database.kysely, createSecrets(secret, config.previousSecret))
    await store.ensure()
    return action === 'rotate' ? store.rotate() : store.list()
  })
  const line = (key: (typeof keys)[number]) =>
    `${key.state.padEnd(10)} ${key.alg}  ${key.kid}  signs from ${key.promoteAt.toISOString()}${key.retireAt ? `, ends ${key.retireAt.toISOString()}` : ''}`
  print(output, { keys }, keys.map(line).join('\n'))
}

async function runDoctor(config: Config, output: Output): Promise<void> {
  const findings = await examine(config)
  const text = findings
    .map((finding) => `${finding.ok ? 'ok   ' : 'WRONG'}  ${finding.check}: ${finding.detail}`)
    .join('\n')
  print(output, { ok: findings.every((finding) => finding.ok), findings }, text)
  if (findings.some((finding) => !finding.ok)) process.exitCode = exitCodes.failed
}

async function withPeople<T>(
  config: Config,
  work: (parts: Parameters<typeof resetFactor>[0]) => Promise<T>,
): Promise<T> {
  return withDatabase(config, (database, secret) =>
    work({ database, secrets: createSecrets(secret, config.previousSecret), issuer: config.issuer }),
  ).catch((error: unknown) => {
    throw error instanceof NotPossible ? new CommandFailed(error.message) : error
  })
}

async function runInvite(
  config: Config,
  email: string,
  options: Output & { organization: string; role: readonly string[] },
): Promise<void> {
  const { organization: organizationSlug, role: roles } = options
  await withPeople(config, (parts) => invitePerson(parts, { email, organizationSlug, roles }))
  print(options, { invited: email }, `Invited ${email}; a running server sends the mail.`)
}

async function runResetFactor(config: Config, email: string, output: Output): Promise<void> {
  const until = await withPeople(config, (parts) => resetFactor(parts, email, new Date()))
  print(output, { account: email, until }, `${email} may set up a new second factor until ${until.toISOString()}.`)
}

async function runTry(options: Output & TryOptions): Promise<void> {
  // With --json the document is all that goes to standard output; what the person has to do is said beside it.
  const say = (text: string) => void (options.json ? process.stderr : process.stdout).write(`${text}\n`)
  const report = await trySignIn(options, {
    step: (text) => say(stepInWords(text)),
    check: (check) => say(checkInWords(check)),
  })
  print(options, report, endInWords(report))
  if (!report.ok) process.exitCode = exitCodes.failed
}

/** Refuses an argument in words, as wrong usage. */
const argument = (isGood: (text: string) => boolean, problem: string) => (text: string) => {
  if (!isGood(text)) throw new InvalidArgumentError(problem)
  return text
}

function toSeconds(text: string): number {
  const seconds = Number(text)
  if (!Number.isInteger(seconds) || seconds < 1 || seconds > 3_600)
    throw new InvalidArgumentError('It must be 1 to 3600.')
  return seconds
}

function addTry(program: Command): void {
  program
    .command('try')
    .description('sign in to a server from here, as an app would, and check what it answers')
    .requiredOption('--issuer <url>', 'the server', argument(isIssuer, 'It must be https, or http on this machine.'))
    .requiredOption('--client-id <id>', 'the app')
    .option('--client-secret <secret>', 'its secret, unless it is a public client')
    .option('--device', 'by the device flow instead of a browser on this machine', false)
    .option('--scope <scope>', 'what to ask for', 'openid profile email')
    .option(
      '--redirect-uri <uri>',
      'where to listen; a registered address of the app, port 0 for any',
      argument(isLoopbackUri, 'It must be http on this machine.'),
      'http://127.0.0.1:0/callback',
    )
    .option('--timeout-seconds <seconds>', 'how long to wait for the person', toSeconds, 300)
    .option('--json', 'print one JSON document')
    .action((options) => runTry(options))
}

function createProgram(readConfig: () => Config): Command {
  const program = new Command('mlpipes-auth')
    .description('Sign in with MLPipes: an OpenID Connect identity provider for healthcare')
    .exitOverride()
  const json = ['--json', 'print one JSON document'] as const
  program
    .command('start')
    .description('run the server')
    .action(async () => {
      process.exitCode = await start(readConfig())
    })
  program
    .command('migrate')
    .description('bring the database schema to this release, as the owner role')
    .option('--status', 'only say what is applied and what is pending')
    .option(...json)
    .action((options) => runMigrate(readConfig(), options))
  program
    .command('apply')
    .argument('<file>', 'JSON file with organizations, accounts and clients')
    .description('bring the database to what a file says')
    .option(...json)
    .action((file, options) => runApply(readConfig(), file, options))
  program
    .command('doctor')
    .description('check configuration, database, schema, keys, clock and mail')
    .option(...json)
    .action((options) => runDoctor(readConfig(), options))
  program
    .command('invite')
    .argument('<email>', 'whom to invite')
    .requiredOption('--organization <slug>', 'the organisation that invites')
    .option('--role <name...>', 'roles the invited will have there', ['member'])
    .description('mail an invitation that works once, for 72 hours')
    .option(...json)
    .action((email, options) => runInvite(readConfig(), email, options))
  program
    .command('reset-factor')
    .argument('<email>', 'whose second factors are lost')
    .description('take an account its second factors away; its owner has 24 hours to set up a new one')
    .option(...json)
    .action((email, options) => runResetFactor(readConfig(), email, options))
  addTry(program)
  const keys = program.command('keys').description('signing keys')
  keys
    .command('list')
    .description('list signing keys and what each does now')
    .option(...json)
    .action((options) => runKeys(readConfig(), 'list', options))
  keys
    .command('rotate')
    .description('add new signing keys; they take over by themselves, without a restart')
    .option(...json)
    .action((options) => runKeys(readConfig(), 'rotate', options))
  for (const command of [...program.commands, ...keys.commands]) command.exitOverride()
  return program
}

/** Runs one command. Never throws: what went wrong is printed in words, and the exit code says which kind it was. */
export async function main(
  argv: readonly string[],
  environment: Readonly<Record<string, string | undefined>>,
): Promise<void> {
  const wantsJson = argv.includes('--json')
  const fail = (
    code: number,
    title: string,
    problems: readonly (string | { readonly path: string; readonly message: string })[],
  ) => {
    process.exitCode = code
    const words = problems.map((problem) =>
      typeof problem === 'string' ? problem : `${problem.path}: ${problem.message}`,
    )
    if (wantsJson) process.stdout.write(`${JSON.stringify({ error: title, problems }, null, 2)}\n`)
    else process.stderr.write(`${title}\n${words.map((word) => `  ${word}\n`).join('')}`)
  }
  try {
    await createProgram(() => parseConfig(environment)).parseAsync([...argv], { from: 'user' })
  } catch (error) {
    if (error instanceof CommanderError) {
      process.exitCode = error.exitCode === 0 ? exitCodes.done : exitCodes.usage
    } else if (error instanceof ConfigError) {
      fail(exitCodes.failed, 'The configuration cannot be used:', error.problems)
    } else if (error instanceof ApplyError) {
      fail(exitCodes.failed, 'Nothing was changed, because the file cannot be applied:', error.problems)
    } else if (
      error instanceof CommandFailed ||
      error instanceof SchemaTooOld ||
      error instanceof CannotListen ||
      error instanceof RotationPending
    ) {
      fail(exitCodes.failed, error.message, [])
    } else if (isOutage(error)) {
      fail(exitCodes.failed, 'The database does not answer. Check DATABASE_URL and that PostgreSQL runs.', [
        error instanceof Error ? error.message : '',
      ])
    } else {
      fail(exitCodes.failed, 'This failed in a way nobody expected:', [
        error instanceof Error ? (error.stack ?? error.message) : String(error),
      ])
    }
  }
}

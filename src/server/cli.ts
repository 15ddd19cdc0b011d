import { randomBytes } from 'node:crypto'
import { readFileSync } from 'node:fs'
import { createRequire } from 'node:module'
import { join, resolve } from 'node:path'
import { parseArgs, parseEnv } from 'node:util'
import closeWithGrace from 'close-with-grace'
import type { FastifyInstance } from 'fastify'
import { buildApp, type AppSettings } from './app.js'
import { optionsFromEnv, type Environment } from './env.js'
import { resolveOptions, type ResolvedOptions } from '../options.js'
import { runExport, runImport } from './transfer.js'

const usage = `Usage: fastify-agent-registry [--help] [--version]

Starts a registry of AI agents. Settings are environment variables, also read from
.env in the working directory; .env.example in the repository lists all of them.

  -h, --help     print this text
  -v, --version  print the version

Commands for a stopped registry that stores its agents in a folder (STORE=level):

  export [--data-dir DIR]                       writes the agents as lines of JSON
  import [--data-dir DIR] [--replace] [FILE|-]  imports such lines, a state file of ARCP or a
                                                list of registrations, completely or not at all
`

function version (): string {
  const manifest: { version: string } = createRequire(import.meta.url)('fastify-agent-registry/package.json')
  return manifest.version
}

function readEnvFile (directory: string): Environment {
  try {
    return parseEnv(readFileSync(join(directory, '.env'), 'utf8'))
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return {}
    throw error
  }
}

/** Adds a generated admin password to the settings if they have none; `generated` is that password. */
export function withPassword (settings: AppSettings): { settings: AppSettings, generated: string | null } {
  const { admin = {} } = settings.options
  if (admin.password !== undefined) return { settings, generated: null }
  const generated = randomBytes(15).toString('base64url')
  return { settings: { ...settings, options: { ...settings.options, admin: { ...admin, password: generated } } }, generated }
}

/** Hosts and ports instead of the URL, which may contain a password. */
function redisAddress ({ url, host = '127.0.0.1', port, cluster, sentinels }: ResolvedOptions['redis']): string {
  const address = url === undefined ? `${host}:${port}` : new URL(url, 'unix://').host || url
  return (cluster ?? sentinels ?? [address]).join(', ')
}

function describeStorage ({ storage, level, redis, namespace }: ResolvedOptions): string {
  if (storage === 'memory') return 'data: in memory, lost when this process ends'
  return storage === 'level' ? `data: ${resolve(level.path)}` : `data: Redis at ${redisAddress(redis)}, namespace '${namespace}'`
}

function describeStart (url: string, { options }: AppSettings, generated: string | null): string {
  const resolved = resolveOptions(options)
  const { prefix, routes, publicWs, agentsWs, dashboardWs } = resolved
  const sockets = url.replace('http', 'ws') + prefix
  const lines = [`fastify-agent-registry ${version()} listening at ${url}`]
  lines.push(`  public tier: ${sockets}${publicWs.path}`, `  agents tier: ${sockets}${agentsWs.path}`)
  if (routes.dashboard) lines.push(`  dashboard tier: ${sockets}${dashboardWs.path}`)
  if (routes.docs) lines.push(`  docs: ${url}${prefix}/docs`)
  lines.push(`  ${describeStorage(resolved)}`)
  if (generated !== null) lines.push(`admin password (generated for this run): ${generated}`)
  return `${lines.join('\n')}\n`
}

/** One line with the reason why the server did not start and, for an address, the variable to change. */
export function describeFailure (error: unknown, { host, port }: { host?: string, port?: number } = {}): string {
  const { code, message } = error as NodeJS.ErrnoException
  if (code === 'EADDRINUSE') return `port ${port} on ${host} is in use: set ARCP_PORT (or PORT) to another port`
  if (code === 'EACCES' && port !== undefined) {
    return `port ${port} on ${host} requires privileges: set ARCP_PORT (or PORT) to a port above 1023`
  }
  if (code === 'EADDRNOTAVAIL' || code === 'ENOTFOUND') {
    return `the address ${host} does not belong to this machine: set ARCP_HOST (or HOST)`
  }
  return message ?? String(error)
}

function closeOnSignal (app: FastifyInstance, drainMs: number): void {
  closeWithGrace({ delay: drainMs + 10_000, logger: app.log }, async function closeApp ({ err }) {
    if (err) app.log.fatal(err)
    await app.close()
  })
}

async function start (given: AppSettings): Promise<void> {
  const { settings, generated } = withPassword(given)
  const app = await buildApp(settings)
  closeOnSignal(app, resolveOptions(settings.options).sockets.drainMs)
  process.stdout.write(describeStart(await listen(app, settings.server), settings, generated))
}

/** @returns the URL; closes the app if it cannot listen, so that the store is closed cleanly */
async function listen (app: FastifyInstance, { host, port }: AppSettings['server']): Promise<string> {
  try {
    return await app.listen({ host, port })
  } catch (error) {
    await app.close()
    throw error
  }
}

function fail (error: unknown, server?: AppSettings['server']): number {
  process.stderr.write(`fastify-agent-registry: ${describeFailure(error, server)}\n`)
  return 1
}

async function serve (environment: Environment): Promise<number | null> {
  let settings: AppSettings | undefined
  try {
    settings = optionsFromEnv({ ...readEnvFile(process.cwd()), ...environment })
    await start(settings)
    return null
  } catch (error) {
    return fail(error, settings?.server)
  }
}

function readFlags (args: string[]) {
  const options = {
    help: { type: 'boolean', short: 'h' },
    version: { type: 'boolean', short: 'v' },
    'data-dir': { type: 'string' },
    replace: { type: 'boolean' }
  } as const
  const { values, positionals: [command, ...operands] } = parseArgs({ args, options, allowPositionals: true })
  return { flags: values, command, operands }
}

/** The flags and the number of operands of each command. */
const commands = {
  export: { flags: ['data-dir'], operands: 0, run: runExport },
  import: { flags: ['data-dir', 'replace'], operands: 1, run: runImport }
} as const

const isCommand = (name: string): name is keyof typeof commands => Object.hasOwn(commands, name)

/** @throws an error for unknown commands, flags and operands */
async function runCommand ({ flags, command, operands }: ReturnType<typeof readFlags>, environment: Environment): Promise<number> {
  if (command === undefined) throw new Error('these flags belong to a command; see --help')
  if (!isCommand(command)) throw new Error(`unknown command '${command}'; see --help`)
  const known = commands[command]
  const unknownFlags = Object.keys(flags).filter(flag => !known.flags.some(name => name === flag))
  const unknown = [...unknownFlags.map(flag => `--${flag}`), ...operands.slice(known.operands)]
  if (unknown.length > 0) throw new Error(`${command} does not accept ${unknown.join(', ')}; see --help`)
  const { options } = optionsFromEnv({ ...readEnvFile(process.cwd()), ...environment, NODE_ENV: '' })
  await known.run(resolveOptions(options), flags, ...operands)
  return 0
}

/**
 * Runs the stand-alone server, or a command, with command line flags and environment variables.
 * @returns the exit code, or null while the server runs (a signal ends it)
 */
export async function runCli (args: string[], environment: Environment): Promise<number | null> {
  try {
    const given = readFlags(args)
    if (given.flags.help || given.flags.version) {
      process.stdout.write(given.flags.help ? usage : `${version()}\n`)
      return 0
    }
    return await (args.length === 0 ? serve(environment) : runCommand(given, environment))
  } catch (error) {
    return fail(error)
  }
}

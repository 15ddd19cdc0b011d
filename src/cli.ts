import { randomBytes } from 'node:crypto'
import { readFileSync } from 'node:fs'
import { createRequire } from 'node:module'
import { join } from 'node:path'
import { parseArgs, parseEnv } from 'node:util'
import closeWithGrace from 'close-with-grace'
import type { FastifyInstance } from 'fastify'
import { buildApp, type AppSettings } from './app.js'
import { optionsFromEnv, type Environment } from './env.js'
import { resolveOptions } from './options.js'

const usage = `Usage: fastify-agent-registry [--help] [--version]

Starts a registry of AI agents. Settings are environment variables, also read from
.env in the working directory; .env.example in the repository lists all of them.

  -h, --help     this text
  -v, --version  the version
`

function version (): string {
  const manifest: { version: string } = createRequire(import.meta.url)('fastify-agent-registry/package.json')
  return manifest.version
}

function readEnvFile (directory: string): Environment {
  try {
    return parseEnv(readFileSync(join(directory, '.env'), 'utf8')) as Environment
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return {}
    throw error
  }
}

/** The settings with an admin password and a token secret made up where none is given; `made` is that password. */
export function withSecrets (settings: AppSettings): { settings: AppSettings, made: string | null } {
  const { admin = {}, jwt = {} } = settings.options
  const made = admin.password === undefined ? randomBytes(15).toString('base64url') : null
  const options = {
    ...settings.options,
    admin: { ...admin, password: admin.password ?? made ?? undefined },
    jwt: { ...jwt, secret: jwt.secret ?? randomBytes(48).toString('base64url') }
  }
  return { settings: { ...settings, options }, made }
}

function describeStart (url: string, { options }: AppSettings, made: string | null): string {
  const { prefix, routes, publicWs, agentsWs, dashboardWs } = resolveOptions(options)
  const sockets = url.replace('http', 'ws') + prefix
  const lines = [`fastify-agent-registry ${version()} listening at ${url}`]
  lines.push(`  public tier: ${sockets}${publicWs.path}`, `  agents tier: ${sockets}${agentsWs.path}`)
  if (routes.dashboard) lines.push(`  dashboard tier: ${sockets}${dashboardWs.path}`)
  if (routes.docs) lines.push(`  docs: ${url}${prefix}/docs`)
  if (made !== null) lines.push(`admin password (made for this run): ${made}`)
  return `${lines.join('\n')}\n`
}

/** The one line that says why the server did not start, and for an address which variable to change. */
export function describeFailure (error: unknown, { host, port }: { host?: string, port?: number } = {}): string {
  const { code, message } = error as NodeJS.ErrnoException
  if (code === 'EADDRINUSE') return `port ${port} at ${host} is in use: set ARCP_PORT (or PORT) to another one`
  if (code === 'EACCES' && port !== undefined) return `port ${port} at ${host} may not be opened: set ARCP_PORT (or PORT) to one above 1023`
  if (code === 'EADDRNOTAVAIL' || code === 'ENOTFOUND') return `the address ${host} is not one of this machine: set ARCP_HOST (or HOST)`
  return message ?? String(error)
}

function closeOnSignal (app: FastifyInstance, drainMs: number): void {
  closeWithGrace({ delay: drainMs + 10_000, logger: app.log }, async function closeApp ({ err }) {
    if (err) app.log.fatal(err)
    await app.close()
  })
}

async function start (given: AppSettings): Promise<void> {
  const { settings, made } = withSecrets(given)
  const app = await buildApp(settings)
  closeOnSignal(app, resolveOptions(settings.options).sockets.drainMs)
  const { host, port } = settings.server
  const url = await app.listen({ host, port })
  process.stdout.write(describeStart(url, settings, made))
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
  const options = { help: { type: 'boolean', short: 'h' }, version: { type: 'boolean', short: 'v' } } as const
  return parseArgs({ args, options, allowPositionals: false }).values
}

/**
 * Runs the stand-alone server with command line flags and environment variables.
 * @returns the exit code, or null while the server runs (a signal ends it)
 */
export async function runCli (args: string[], environment: Environment): Promise<number | null> {
  try {
    const flags = readFlags(args)
    if (!flags.help && !flags.version) return await serve(environment)
    process.stdout.write(flags.help ? usage : `${version()}\n`)
    return 0
  } catch (error) {
    return fail(error)
  }
}

import { execFileSync, spawn, type ChildProcess } from 'node:child_process'
import { once } from 'node:events'
import { existsSync, mkdtempSync, readdirSync, rmSync, statSync } from 'node:fs'
import { join, resolve } from 'node:path'
import { text } from 'node:stream/consumers'
import { pathToFileURL } from 'node:url'
import type { Test } from 'tap'
import { runCli } from '../../src/server/cli.js'
import { type Environment, ServerSettingsSchema, settingsOf } from '../../src/server/env.js'
import { OptionsSchema } from '../../src/options.js'
import { until } from './harness.js'

export interface Started {
  child: ChildProcess
  /** The output so far. */
  output: () => string
  /** Code, signal and output, when the process has ended. */
  ended: Promise<{ code: number | null, signal: string | null, out: string, err: string }>
}

function newest (folder: string, extension: string): number {
  const files = readdirSync(folder, { recursive: true, encoding: 'utf8' }).filter(name => name.endsWith(extension))
  return Math.max(0, ...files.map(name => statSync(join(folder, name)).mtimeMs))
}

/** The built server. If dist/ is missing or older than the sources, it is built to another folder. */
export function builtServer (t: Test): string {
  const made = existsSync('dist/src/server/main.js') ? statSync('dist/src/server/main.js').mtimeMs : 0
  if (['src', 'plugins', 'routes'].every(folder => newest(folder, '.ts') < made)) return resolve('dist/src/server/main.js')
  // Not `t.testdir()`, which a test has only once; in the project, so that packages resolve.
  const folder = resolve(mkdtempSync('.tap/built-'))
  t.teardown(() => rmSync(folder, { recursive: true }))
  execFileSync(process.execPath, ['node_modules/typescript/bin/tsc', '-p', 'tsconfig.build.json', '--outDir', folder])
  execFileSync(process.execPath, ['scripts/copy-lua.js', folder])
  return join(folder, 'src/server/main.js')
}

/** Runs a program from source in any folder. */
export const sourceArgs = process.execArgv.map(arg => arg.replace('=./', `=${pathToFileURL(process.cwd()).href}/`))

/** Environment variables that would change a server started here. */
const variables = new Set(
  ['NODE_ENV', ...[...settingsOf(OptionsSchema), ...settingsOf(ServerSettingsSchema)].flatMap(({ names }) => names)]
)

/** Starts a program with this node as a process in `folder`, which ends with the test. */
export function start (t: Test, folder: string, { env = {}, args }: { env?: Environment, args: string[] }): Started {
  const inherited = Object.fromEntries(Object.entries(process.env).filter(([name]) => !variables.has(name)))
  // The built server is excluded from coverage, so that it runs at its usual speed.
  const counted = args.some(arg => arg.endsWith('.ts')) ? {} : { _TAPJS_PROCESSINFO_COVERAGE_: '0' }
  const child = spawn(process.execPath, args, { cwd: folder, env: { ...inherited, ...counted, ...env } })
  let output = ''
  child.stdout.on('data', chunk => { output += chunk })
  const closed = once(child, 'close')
  const printed = Promise.all([text(child.stdout), text(child.stderr)])
  const ended = Promise.all([closed, printed]).then(([[code, signal], [out, err]]) => ({ code, signal, out, err }))
  t.teardown(async () => { child.kill('SIGTERM'); await ended })
  return { child, ended, output: () => output }
}

const listening = /^fastify-agent-registry (\S+) listening at (http:\/\/\S+)$/m

/** The URL of a started server. */
export async function urlOf (started: Started): Promise<string> {
  await until(() => listening.test(started.output()) || started.child.exitCode !== null, 60_000)
  return listening.exec(started.output())?.[2] ?? started.ended.then(({ err }) => { throw new Error(err) })
}

/** Output and result of one call in this process. */
export async function call (args: string[], environment: Environment = {}): Promise<{ code: number | null, out: string, err: string }> {
  const printed = { out: '', err: '' }
  const originals = { out: process.stdout.write, err: process.stderr.write }
  process.stdout.write = ((chunk: string) => { printed.out += chunk; return true }) as typeof originals.out
  process.stderr.write = ((chunk: string) => { printed.err += chunk; return true }) as typeof originals.err
  try {
    return { code: await runCli(args, environment), ...printed }
  } finally {
    process.stdout.write = originals.out
    process.stderr.write = originals.err
  }
}

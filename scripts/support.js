// Helpers of the check scripts: commands, temporary folders, a running registry and the exit code.
import { spawn } from 'node:child_process'
import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { fileURLToPath } from 'node:url'
import { transpile } from './transpile.js'

export const root = fileURLToPath(new URL('..', import.meta.url))
const running = new Set()
const folders = new Set()

/** Makes a folder that the script removes when it ends. Code in a folder inside the project can import the package by its name. */
export function makeFolder (name, insideProject = false) {
  const folder = mkdtempSync(join(insideProject ? root : tmpdir(), `.${name}-`))
  folders.add(folder)
  return folder
}

/**
 * Starts a command. `ended` resolves with its exit code, signal and output, and rejects after `timeoutMs`. With `input: null` the
 * standard input stays open.
 * @param {string} command
 * @param {string[]} args
 * @param {{ cwd?: string, env?: Record<string, string | undefined>, input?: string | null, timeoutMs?: number }} [options]
 */
export function begin (command, args, { cwd = root, env = {}, input = '', timeoutMs = 120_000 } = {}) {
  const child = spawn(command, args, { cwd, env: { ...process.env, ...env } })
  const run = { child, output: '' }
  running.add(child)
  for (const stream of [child.stdout, child.stderr]) stream.setEncoding('utf8').on('data', text => { run.output += text })
  child.stdin.on('error', () => {})
  if (input !== null) child.stdin.end(input)
  const timer = setTimeout(() => child.kill('SIGKILL'), timeoutMs)
  run.ended = new Promise((resolve, reject) => {
    child.once('error', reject)
    child.once('close', (code, signal) => resolve({ code, signal, output: run.output }))
  }).finally(() => {
    clearTimeout(timer)
    running.delete(child)
  })
  run.ended.catch(() => {})
  return run
}

/** Runs a command and resolves with its output. Rejects with the output if the exit code is not 0. */
export async function run (command, args, options) {
  const { code, signal, output } = await begin(command, args, options).ended
  if (code !== 0) throw new Error(`${[command, ...args].join(' ')}: ended with ${code ?? signal}\n${output}`)
  return output
}

/** Waits until the output of a process matches, and resolves with the match. */
export async function waitForOutput (started, pattern, timeoutMs = 30_000) {
  const deadline = Date.now() + timeoutMs
  while (Date.now() < deadline) {
    const match = pattern.exec(started.output)
    if (match) return match
    if (!running.has(started.child)) break
    await sleep(20)
  }
  throw new Error(`the output does not match ${pattern}:\n${started.output}`)
}

/** Sends a signal and rejects unless the process exits with code 0. */
export async function stop (started, signal = 'SIGTERM') {
  started.child.kill(signal)
  const { code, signal: killedBy, output } = await started.ended
  if (code !== 0) throw new Error(`ended with ${code ?? killedBy} after ${signal}\n${output}`)
}

/** The line that the server prints when it listens, with its URL. Log lines are similar but do not match. */
export const startedLine = /^fastify-agent-registry \S+ listening at (http\S+)$/m

export const agentKey = 'script-agent-key-1'
export const adminPassword = 'script-admin-password'

/** Keeps the data in the working directory of the server, regardless of the environment of the script. */
export const ownStorage = { STORE: '', ARCP_DATA_DIR: '', REDIS_URL: '', REDIS_HOST: '', REDIS_SENTINELS: '', REDIS_CLUSTER: '' }

/** Starts the built stand-alone server in an empty folder and resolves with its URL. `more` adds to its environment. */
export async function startRegistry (more = {}) {
  const address = { HOST: '', ARCP_HOST: '', PORT: '0', ARCP_PORT: '' }
  const secrets = { AGENT_KEYS: agentKey, ADMIN_PASSWORD: adminPassword }
  const env = { ...address, LOG_LEVEL: 'warn', NODE_ENV: '', ...ownStorage, ...secrets, ...more }
  const server = begin(process.execPath, [join(root, 'dist/src/server/main.js')], { cwd: makeFolder('registry'), env, timeoutMs: 600_000 })
  const [, url] = await waitForOutput(server, startedLine)
  return { url, stop: () => stop(server) }
}

export function transpileFile (from, to) {
  writeFileSync(to, transpile(readFileSync(from, 'utf8')))
}

/** Transpiles bench/ of a checkout into a folder directly in it. Imports of sources become imports of their build in dist/. */
export function buildBench (checkout, built) {
  for (const name of readdirSync(join(checkout, 'bench'))) {
    const code = transpile(readFileSync(join(checkout, 'bench', name), 'utf8')).replaceAll("'../src/", "'../dist/src/")
    writeFileSync(join(built, name.replace(/\.ts$/, '.js')), code)
  }
}

function cleanUp () {
  for (const child of running) child.kill('SIGKILL')
  for (const folder of folders) rmSync(folder, { recursive: true, force: true, maxRetries: 5 })
}

/** Runs a script's steps, then removes their processes and folders. Exits with 0, or with 1 after an error. */
export async function script (name, steps) {
  process.once('exit', cleanUp)
  for (const signal of ['SIGINT', 'SIGTERM']) process.once(signal, () => process.exit(1))
  try {
    await steps()
    console.log(`${name}: ok`)
    process.exit(0)
  } catch (error) {
    console.error(`${name}: failed: ${error instanceof Error ? error.message : error}`)
    process.exit(1)
  }
}

// Runs the tests: `node scripts/test.js fast` (needs only Node), `all` (with the coverage floor), `rest` (all that `fast` omits,
// then the coverage of both) or `long` (the long forms of tests that kill, fuzz or soak). Arguments after the part go to tap.
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { cpSync, existsSync, mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { ensureTools, isOnPath } from './ensure-tools.js'
import { root } from './support.js'

const folders = {
  fast: ['test/unit', 'test/process'],
  rest: ['test/redis', 'test/browser', 'test/reliability'],
  long: ['test/reliability', 'test/unit/sockets/random.test.ts', 'test/unit/routes/random.test.ts']
}
/** The test files of a part. Given a folder, tap would also run the helpers in it. */
function filesOf (part) {
  return folders[part].flatMap(name => name.endsWith('.ts')
    ? [name]
    : readdirSync(join(root, name), { recursive: true }).filter(file => file.endsWith('.test.ts')).map(file => join(name, file)).sort())
}

const kept = join(root, '.tap/coverage-fast')
const coverage = join(root, '.tap/coverage')
const outputOf = part => join(root, `.tap/${part}.tap`)
const outputTo = part => `--output-file=${outputOf(part)}`

/** The running child process. A signal to this process ends it first. */
const running = new Set()

async function run (program, args) {
  const child = spawn(process.execPath, [program, ...args], { cwd: root, stdio: 'inherit' })
  running.add(child)
  const [code] = await once(child, 'exit')
  running.delete(child)
  return code === 0
}

let isEnding = false
for (const signal of ['SIGINT', 'SIGTERM']) {
  process.on(signal, () => {
    isEnding = true
    for (const child of running) child.kill(signal)
  })
}

const tap = (...args) => run('node_modules/tap/dist/esm/run.mjs', args)

/** tap removes its coverage folder at the start of a run, so a copy of the fast part's folder is kept. */
async function runFast (args) {
  rmSync(kept, { recursive: true, force: true })
  const passed = await tap('run', ...partial, outputTo('fast'), ...filesOf('fast'), ...args)
  if (existsSync(coverage)) cpSync(coverage, kept, { recursive: true })
  return passed
}

/** A single part cannot reach the coverage floor. `report` checks the floor for both parts together. */
const partial = ['--allow-incomplete-coverage', '--allow-empty-coverage', '--coverage-report=none']

/** Runs `work` with a redis-server, whose folder is in TEST_REDIS_FOLDER. */
async function withRedis (work) {
  if (!isOnPath('redis-server')) return work()
  const folder = mkdtempSync(join(tmpdir(), 'redis-'))
  const socket = join(folder, 'redis.sock')
  const args = ['--port', '0', '--unixsocket', socket, '--dir', folder, '--save', '', '--appendonly', 'no']
  const server = spawn('redis-server', args, { stdio: 'ignore' })
  const ended = once(server, 'exit')
  try {
    while (!existsSync(socket) && server.exitCode === null) await sleep(10)
    if (server.exitCode !== null) throw new Error(`redis-server ended with ${server.exitCode}`)
    process.env.TEST_REDIS_FOLDER = folder
    return await work()
  } finally {
    server.kill('SIGKILL')
    await ended
    rmSync(folder, { recursive: true, force: true })
  }
}

async function runRest (args) {
  if (!existsSync(kept)) throw new Error('Run `npm test` first: the report includes its coverage')
  const passed = await withRedis(() => tap('run', ...partial, outputTo('rest'), ...filesOf('rest'), ...args))
  cpSync(kept, coverage, { recursive: true })
  return passed
}

function runLong (args) {
  process.env.TEST_LONG = '1'
  return withRedis(() => tap('run', '--disable-coverage', outputTo('long'), ...filesOf('long'), ...args))
}

/** Counts of assertions from the last line of a TAP file: `# { total: 9, pass: 7, fail: 1, skip: 1 }`. */
function countsOf (part) {
  const text = existsSync(outputOf(part)) ? readFileSync(outputOf(part), 'utf8') : ''
  const summary = /^# \{ total: .*\}$/m.exec(text)?.[0]
  // A killed run leaves no summary. It counts as one failure.
  if (summary === undefined) return { pass: 0, fail: 1, skip: 0 }
  const count = name => Number(new RegExp(`\\b${name}: (\\d+)`).exec(summary)?.[1] ?? 0)
  return { pass: count('pass'), fail: count('fail'), skip: count('skip') + count('todo') }
}

/** A run that fails without a failed assertion, such as by its coverage, counts as one failure. */
function printCounts (parts, passed) {
  const counts = parts.map(countsOf)
  const sum = name => counts.reduce((total, count) => total + count[name], 0)
  console.log(`${sum('pass')} passed, ${sum('fail') || Number(!passed)} failed, ${sum('skip')} skipped`)
}

const report = () => tap('report', 'text', '--no-show-full-coverage')

/** Runs the steps in order. Continues after a failure and stops after a signal. */
async function inOrder (...steps) {
  let passed = true
  for (const step of steps) passed = !isEnding && await step() && passed
  return passed
}

async function runPart (part, args) {
  if (part === 'fast') return runFast(args)
  if (!ensureTools()) return false
  if (part === 'all') return inOrder(() => runFast(args), () => runRest(args), report)
  if (part === 'rest') return inOrder(() => runRest(args), report)
  if (part === 'long') return runLong(args)
  throw new Error(`Unknown part ${part}. Expected: fast, rest, all or long`)
}

const [part = 'fast', ...args] = process.argv.slice(2)
// The rest follows the fast part and keeps its counts.
for (const stale of part === 'all' ? ['fast', 'rest'] : [part]) rmSync(outputOf(stale), { force: true })
const passed = await runPart(part, args)
printCounts(part === 'fast' || part === 'long' ? [part] : ['fast', 'rest'], passed)
process.exitCode = passed ? 0 : 1

// Runs the tests: `node scripts/test.js fast` (needs only Node), `all` (with the coverage floor), `rest` (what `fast` leaves out,
// then the coverage of both) or `long` (the long forms of tests that kill, fuzz or soak). Arguments after the part go to tap.
import { spawnSync } from 'node:child_process'
import { cpSync, existsSync, readFileSync, rmSync } from 'node:fs'
import { join } from 'node:path'
import { root } from './support.js'

const folders = {
  fast: ['test/unit', 'test/process'],
  rest: ['test/redis', 'test/browser', 'test/reliability'],
  long: ['test/reliability', 'test/unit/sockets/random.test.ts', 'test/unit/routes/random.test.ts']
}
const kept = join(root, '.tap/coverage-fast')
const coverage = join(root, '.tap/coverage')
const outputOf = part => join(root, `.tap/${part}.tap`)

function run (program, args) {
  return spawnSync(process.execPath, [program, ...args], { cwd: root, stdio: 'inherit' }).status === 0
}

const tap = (...args) => run('node_modules/tap/dist/esm/run.mjs', args)

/** tap removes its coverage folder at the start of a run: that of the fast part is kept beside it. */
function runFast (args) {
  rmSync(kept, { recursive: true, force: true })
  const passed = tap('run', ...partial, `--output-file=${outputOf('fast')}`, ...folders.fast, ...args)
  if (existsSync(coverage)) cpSync(coverage, kept, { recursive: true })
  return passed
}

/** A part cannot reach the floor of the whole, which `report` checks. */
const partial = ['--allow-incomplete-coverage', '--allow-empty-coverage', '--coverage-report=none']

function runRest (args) {
  if (!existsSync(kept)) throw new Error('Run `npm test` first: its coverage is part of the whole')
  const passed = tap('run', ...partial, `--output-file=${outputOf('rest')}`, ...folders.rest, ...args)
  cpSync(kept, coverage, { recursive: true })
  return passed
}

function runLong (args) {
  process.env.TEST_LONG = '1'
  return tap('run', '--disable-coverage', `--output-file=${outputOf('long')}`, ...folders.long, ...args)
}

/** Counts of assertions from the last line of a TAP file: `# { total: 9, pass: 7, fail: 1, skip: 1 }`. */
function countsOf (part) {
  const text = existsSync(outputOf(part)) ? readFileSync(outputOf(part), 'utf8') : ''
  const summary = /^# \{ total: .*\}$/m.exec(text)?.[0]
  // A run that was killed leaves no summary: that is not "0 failed".
  if (summary === undefined) return { pass: 0, fail: 1, skip: 0 }
  const count = name => Number(new RegExp(`\\b${name}: (\\d+)`).exec(summary)?.[1] ?? 0)
  return { pass: count('pass'), fail: count('fail'), skip: count('skip') + count('todo') }
}

function printCounts (parts) {
  const counts = parts.map(countsOf)
  const sum = name => counts.reduce((total, count) => total + count[name], 0)
  console.log(`${sum('pass')} passed, ${sum('fail')} failed, ${sum('skip')} skipped`)
}

const report = () => tap('report', 'text', '--no-show-full-coverage')
const ensureTools = () => run('scripts/ensure-tools.js', [])

function runParts (part, args) {
  if (part === 'fast') return runFast(args)
  if (!ensureTools()) return false
  if (part === 'all') return [runFast(args), runRest(args), report()].every(Boolean)
  if (part === 'rest') return [runRest(args), report()].every(Boolean)
  if (part === 'long') return runLong(args)
  throw new Error(`Unknown part ${part}: fast, rest, all or long`)
}

const [part = 'fast', ...args] = process.argv.slice(2)
const passed = runParts(part, args)
printCounts(part === 'fast' || part === 'long' ? [part] : ['fast', 'rest'])
process.exitCode = passed ? 0 : 1

// Measures another commit and the working folder alternately on the same machine, and prints the differences.
import { mkdirSync, readFileSync, realpathSync, symlinkSync } from 'node:fs'
import { spawnSync } from 'node:child_process'
import { join } from 'node:path'
import { pathToFileURL } from 'node:url'
import { buildBench, makeFolder, root, run } from './support.js'

const hour = 3_600_000

/** @typedef {{ name: string, folder: string, bench: string }} Checkout a commit or the working folder, with its built bench files */

const git = async (...args) => (await run('git', args)).trim()

/** Finds the line of a program's output that names its error. */
const reasonOf = error => /^\w*Error\b.*$/m.exec(error.message)?.[0] ?? error.message

/** Reads the line of JSON from the output of a bench program, which may also contain warnings. */
async function runBench ({ folder, bench }, ...args) {
  const env = { BENCH_ROUNDS: '1', BENCH_REPORT: undefined, BENCH_CHARTS: undefined }
  const program = [join(bench, 'run.js'), '--json', ...args]
  const output = await run(process.execPath, program, { cwd: folder, env, timeoutMs: hour })
    .catch(error => { throw new Error(reasonOf(error)) })
  const line = output.split('\n').findLast(text => text.startsWith('['))
  if (line === undefined) throw new Error('the output contains no JSON')
  return JSON.parse(line)
}

async function installDependencies (folder) {
  const [ours, theirs] = [root, folder].map(each => readFileSync(join(each, 'package-lock.json'), 'utf8'))
  if (ours === theirs) symlinkSync(realpathSync(join(root, 'node_modules')), join(folder, 'node_modules'))
  else await run('npm', ['ci', '--ignore-scripts'], { cwd: folder, timeoutMs: hour })
}

/** Checks out a commit in a temporary folder and builds it. The script removes the folder when it ends. */
async function checkOut (commit) {
  const folder = join(makeFolder('bench-base'), 'checkout')
  process.prependOnceListener('exit', () => { spawnSync('git', ['worktree', 'remove', '--force', folder], { cwd: root }) })
  await git('worktree', 'add', '--quiet', '--detach', folder, commit)
  await installDependencies(folder)
  await run('npm', ['run', 'build'], { cwd: folder, timeoutMs: hour })
  return folder
}

/** Builds the bench files of a checkout for the build in `folder`. */
function benchFor (folder, checkout, name) {
  const bench = join(folder, name)
  mkdirSync(bench)
  buildBench(checkout, bench)
  return bench
}

/**
 * Prefers the bench files of the commit, because they fit its internals. Uses those of the working folder if the commit has
 * no `--json`.
 * @returns {Promise<{ base: Checkout, parts: string[], notes: string[] }>}
 */
async function prepareBase (commit) {
  const name = await git('rev-parse', '--short', `${commit}^{commit}`)
  const folder = await checkOut(name)
  const own = { name, folder, bench: benchFor(folder, folder, '.bench') }
  try {
    return { base: own, parts: await runBench(own, '--list'), notes: [] }
  } catch {
    const base = { ...own, bench: benchFor(folder, root, '.bench-current') }
    const parts = await runBench(base, '--list').catch(error => {
      throw new Error(`${name} has no --json, and the bench files of this checkout do not run on its build: ${error.message}`)
    })
    return { base, parts, notes: [`${name} has no --json: its build was measured with the bench files of this checkout.`] }
  }
}

/** Runs a part in both checkouts alternately, base first in every other pair, so that drift of the machine affects both. */
async function measurePairs (part, base, current, rounds) {
  const pairs = []
  for (let index = 0; index < rounds; index++) {
    console.error(`${part}: pair ${index + 1} of ${rounds}`)
    const figures = new Map()
    for (const checkout of index % 2 === 0 ? [base, current] : [current, base]) {
      figures.set(checkout, await runBench(checkout, part).catch(error => { throw new Error(`${checkout.name}: ${error.message}`) }))
    }
    pairs.push({ base: figures.get(base), current: figures.get(current) })
  }
  return pairs
}

function unmatchedNotes (pairs) {
  const names = side => new Set(pairs.flatMap(pair => pair[side].map(figure => figure.name)))
  const [base, current] = [names('base'), names('current')]
  const only = (some, others, where) => [...some].filter(name => !others.has(name)).map(name => `${name}: measured only in ${where}.`)
  return [...only(base, current, 'the base'), ...only(current, base, 'this checkout')]
}

/** Measures the parts that both checkouts have, one after another. */
async function measureParts (parts, ofBase, base, current, rounds) {
  const result = { parts: [], notes: [], failures: [] }
  for (const part of parts) {
    if (!ofBase.includes(part)) {
      result.notes.push(`${part}: not measured, ${base.name} does not have this part.`)
      continue
    }
    try {
      const pairs = await measurePairs(part, base, current, rounds)
      result.parts.push(pairs)
      result.notes.push(...unmatchedNotes(pairs))
    } catch (error) {
      result.failures.push(`${part}: not measured, ${error.message}`)
    }
  }
  return result
}

function legendOf (rounds) {
  return `ratio: median of this / base over the pairs; spread: their lowest and highest.
A row is "worse" or "better" when all pairs agree. Of rows that do not differ, one in ${2 ** rounds} is "worse" by chance.`
}

/**
 * @param {string} commit
 * @param {string} bench the built bench files of the working folder
 * @param {{ rounds: number, fail: boolean, parts: string[] }} options
 */
export async function compareWith (commit, bench, { rounds, fail, parts: named }) {
  if (!Number.isInteger(rounds) || rounds < 1) throw new Error('--rounds takes a whole number from 1')
  const { compareFigures, comparisonTable } = await import(pathToFileURL(join(bench, 'statistics.js')).href)
  const current = { name: 'this checkout', folder: root, bench }
  const parts = await runBench(current, '--list', ...named)
  const { base, parts: ofBase, notes } = await prepareBase(commit)
  await run('npm', ['run', 'build'], { timeoutMs: hour })
  const measured = await measureParts(parts, ofBase, base, current, rounds)
  const comparisons = measured.parts.flatMap(compareFigures)

  console.log(`base: ${base.name}, this: working folder at ${await git('rev-parse', '--short', 'HEAD')}, ${rounds} pairs of runs\n`)
  console.log(`${comparisonTable(comparisons)}\n\n${legendOf(rounds)}`)
  for (const note of [...notes, ...measured.notes, ...measured.failures]) console.log(note)
  const worse = comparisons.filter(({ verdict }) => verdict === 'worse').length
  const failed = measured.failures.length
  if (fail && worse + failed > 0) throw new Error(`${worse} rows are worse, ${failed} parts were not measured`)
}

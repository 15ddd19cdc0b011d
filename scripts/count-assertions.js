/**
 * Counts the assertions of each test in the TAP output of `tap --reporter=tap`, by the path of the test's titles. Files
 * may move, so that they are not part of the path.
 *
 *   node scripts/count-assertions.js run.tap [again.tap …]                      prints the counts as JSON
 *   node scripts/count-assertions.js run.tap … --compare counts.json [--renames renames.json]
 *
 * Of several outputs the highest count of a test is taken, of those in which it passes if there are any. A test whose
 * counts differ among these is variable: `--compare` reports it only when it has vanished. Tests of the same path count
 * as one.
 *
 * `--compare` prints tests that are new, that have vanished or that have fewer assertions, and exits with 1 for the last
 * two. Renames are an object from old to new paths, or beginnings of paths; null stands for a test that was dropped.
 */
import { readFileSync } from 'node:fs'
import { parseArgs } from 'node:util'

const levelWidth = 4
const separator = ' > '
/** The path of assertions that a file makes outside of its tests. */
const outside = '(outside of tests)'

const resultLine = /^(?:not )?ok \d+/

/** Results that stand for no assertion. */
const notAsserted = / # SKIP| - timeout!$/i

const indentOf = line => line.length - line.trimStart().length

/** Numbers that a random test puts into its title. */
const normalise = title => title.replace(/\b0x[0-9a-f]+\b|-?\d{5,}/gi, '<number>')

/** The title in a line of the result of a test, without directive and time. */
function titleOf (text) {
  return text.replace(/ \{$/, '').replace(/ # (time=|SKIP|TODO).*$/i, '').replace(/\\([#\\])/g, '$1')
}

/** Lines that are TAP: what a test prints and the diagnostics of results are left out. */
function * tapLines (text) {
  let diagnostics = -1
  let isResult = false
  for (const line of text.split('\n')) {
    const indent = indentOf(line)
    const content = line.trimStart()
    if (diagnostics >= 0) {
      if (content === '...' && indent === diagnostics) diagnostics = -1
    } else if (content === '---' && isResult) diagnostics = indent
    else {
      isResult = resultLine.test(content)
      yield { level: indent / levelWidth, content }
    }
  }
}

/** Calls back with the path of each test, of each assertion in it, and of each failure. */
function parse (text, { onTest, onAssertion, onFailure }) {
  const path = []
  const opened = new Set()
  for (const { level, content } of tapLines(text)) {
    const [, start] = /^# Subtest: (.*)$/.exec(content) ?? []
    const [, title, block] = /^(?:not )?ok \d+ - (.+?)( \{)?$/.exec(content) ?? []
    if (content.startsWith('not ok')) onFailure(path.slice(0, level + 1))
    if (start !== undefined || block) {
      path.length = level
      path.push(titleOf(start ?? title))
      if (start !== undefined) opened.add(level)
      onTest(path)
    } else if (resultLine.test(content)) {
      if (opened.delete(level)) path.length = level
      else if (!notAsserted.test(content)) onAssertion(path.slice(0, level))
    } else if (content === '}') path.length = level
  }
}

/** File and test in one key. */
function keyOf ([file, ...titles]) {
  return JSON.stringify([file, titles.map(normalise).join(separator) || outside])
}

/** Counts of one output by file and test, and those that failed in it. */
function countsOf (text) {
  const counts = new Map()
  const failed = new Set()
  const add = (path, count) => {
    if (path.length > 0) counts.set(keyOf(path), (counts.get(keyOf(path)) ?? 0) + count)
  }
  parse(text, {
    onTest: path => { add(path, 0) },
    onAssertion: path => { add(path, 1) },
    onFailure: path => { failed.add(keyOf(path)) }
  })
  return { counts, failed }
}

/** The counts of several outputs, and the tests whose counts differ though they passed. */
function merge (outputs) {
  const passed = new Map()
  const failed = new Map()
  const variable = new Set()
  const testOf = key => JSON.parse(key)[1]
  for (const output of outputs) {
    for (const [key, count] of output.counts) {
      const known = output.failed.has(key) ? failed : passed
      if (known === passed && passed.has(key) && passed.get(key) !== count) variable.add(testOf(key))
      known.set(key, Math.max(count, known.get(key) ?? 0))
    }
  }
  const counts = new Map()
  for (const [key, count] of new Map([...failed, ...passed])) counts.set(testOf(key), count + (counts.get(testOf(key)) ?? 0))
  return { counts, variable }
}

const compareText = (a, b) => a < b ? -1 : Number(a > b)
const totalOf = counts => [...counts.values()].reduce((sum, count) => sum + count, 0)

function toJson ({ counts, variable }) {
  const tests = Object.fromEntries([...counts].sort(([a], [b]) => compareText(a, b)))
  return `${JSON.stringify({ total: totalOf(counts), variable: [...variable].sort(compareText), tests }, null, 2)}\n`
}

/** The name of a test after the renames; null for one that was dropped. The longest path that fits is renamed. */
function renamed (test, renames) {
  const parts = test.split(separator)
  for (let length = parts.length; length > 0; length--) {
    const name = renames[parts.slice(0, length).join(separator)]
    if (name === null) return null
    if (name !== undefined) return [name, ...parts.slice(length)].join(separator)
  }
  return test
}

/** The counts that are expected now, by the names of now. */
function expectedCounts ({ tests, variable }, renames) {
  const expected = new Map()
  for (const [test, count] of Object.entries(tests)) {
    const name = renamed(test, renames)
    if (name === null) continue
    const known = expected.get(name) ?? { count: 0, isVariable: false }
    expected.set(name, { count: known.count + count, isVariable: known.isVariable || variable.includes(test) })
  }
  return expected
}

/** What is missing of the expected assertions, and what is new. */
function compare (expected, { counts, variable }) {
  const losses = []
  for (const [test, { count, isVariable }] of expected) {
    const now = counts.get(test)
    if (now === undefined) losses.push(`vanished (${count}): ${test}`)
    else if (now < count && !isVariable && !variable.has(test)) losses.push(`${count} → ${now}: ${test}`)
  }
  const added = [...counts].filter(([test]) => !expected.has(test)).map(([test, count]) => `new (${count}): ${test}`)
  return { losses, added }
}

const readJson = name => JSON.parse(readFileSync(name, 'utf8'))

const { values, positionals } = parseArgs({
  options: { compare: { type: 'string' }, renames: { type: 'string' } }, allowPositionals: true
})
const found = merge(positionals.map(name => countsOf(readFileSync(name, 'utf8'))))
if (values.compare === undefined) {
  process.stdout.write(toJson(found))
} else {
  const before = readJson(values.compare)
  const { losses, added } = compare(expectedCounts(before, values.renames === undefined ? {} : readJson(values.renames)), found)
  const tests = `${Object.keys(before.tests).length} → ${found.counts.size}`
  console.log([...added.sort(compareText), ...losses, `assertions: ${before.total} → ${totalOf(found.counts)}; tests: ${tests}`].join('\n'))
  process.exitCode = losses.length > 0 ? 1 : 0
}

/**
 * Counts the assertions of each test in the TAP output of `tap --reporter=tap`, by the path of the test's titles. The path
 * does not contain the file, because files may move.
 *
 *   node scripts/count-assertions.js run.tap [again.tap …]                      prints the counts as JSON
 *   node scripts/count-assertions.js run.tap … --compare counts.json [--renames renames.json]
 *
 * With several outputs, the highest count of a test applies; counts of passed runs take precedence. A test whose counts
 * differ is variable: `--compare` reports it only if it is missing. Tests with the same path count as one.
 *
 * `--compare` prints tests that are new, missing or have fewer assertions, and exits with 1 for the last two. Renames are an
 * object from old to new paths or prefixes of paths; null marks a removed test.
 */
import { readFileSync } from 'node:fs'
import { parseArgs } from 'node:util'

const levelWidth = 4
const separator = ' > '
/** The path of assertions outside of tests. */
const outside = '(outside of tests)'

const resultLine = /^(?:not )?ok \d+/

/** Results that are not assertions. */
const notAsserted = / # SKIP| - timeout!$/i

const indentOf = line => line.length - line.trimStart().length

/** Numbers in the titles of random tests. */
const normalise = title => title.replace(/\b0x[0-9a-f]+\b|-?\d{5,}/gi, '<number>')

/** Reads the title from the result line of a test, without directive and time. */
function titleOf (text) {
  return text.replace(/ \{$/, '').replace(/ # (time=|SKIP|TODO).*$/i, '').replace(/\\([#\\])/g, '$1')
}

/** Yields the lines of TAP, without the output of tests and the diagnostics of results. */
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

/** Calls back with the path of each test, each of its assertions and each failure. */
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

/** Joins file and test into one key. */
function keyOf ([file, ...titles]) {
  return JSON.stringify([file, titles.map(normalise).join(separator) || outside])
}

/** The counts of one output by file and test, and its failed tests. */
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

/** The counts of several outputs, and the passed tests whose counts differ. */
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

/** The name of a test after the renames; null for a removed test. The longest matching prefix applies. */
function renamed (test, renames) {
  const parts = test.split(separator)
  for (let length = parts.length; length > 0; length--) {
    const name = renames[parts.slice(0, length).join(separator)]
    if (name === null) return null
    if (name !== undefined) return [name, ...parts.slice(length)].join(separator)
  }
  return test
}

/** The expected counts by the current names. */
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

/** The missing and the new assertions, compared with the expected counts. */
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
  const summary = `assertions: ${before.total} → ${totalOf(found.counts)}; tests: ${tests}`
  console.log([...added.sort(compareText), ...losses, summary].join('\n'))
  process.exitCode = losses.length > 0 ? 1 : 0
}

/**
 * Prints measures of the structure of the code, each with its limit: `npm run measure`. Options: `--json` prints JSON,
 * `--list` also prints the files behind the counts.
 */
import { readFileSync, readdirSync } from 'node:fs'
import { join } from 'node:path'
import { parseArgs } from 'node:util'
import ts from 'typescript'
import { fewestFiles } from './executed-files.js'
import { createProgram, findCycles, findImports, folderOf, graphOf, sourceFiles, walk } from './source-graph.js'
import { root } from './support.js'

const smallLines = 25
const shortLines = 60
const longLine = 140

const countLines = text => text.split('\n').length - Number(text.endsWith('\n'))
const isIndex = path => path.endsWith('/index.ts')

/** Files that exactly one other file imports. */
function importedOnce (imports) {
  const importers = new Map()
  for (const { from, to } of imports) importers.set(to, (importers.get(to) ?? new Set()).add(from))
  return new Set([...importers].filter(([, files]) => files.size === 1).map(([path]) => path))
}

/** Pairs of first-level folders that import each other. Files directly in src do not count as folders. */
function mutualFolders (imports) {
  const between = new Set(imports.map(({ from, to }) => `${folderOf(from)} ${folderOf(to)}`))
  return [...between]
    .map(pair => pair.split(' '))
    .filter(([a, b]) => a < b && between.has(`${b} ${a}`) && !a.endsWith('.ts') && !b.endsWith('.ts'))
    .map(pair => pair.join(' ↔ '))
}

function isCast (node) {
  if (ts.isTypeAssertionExpression(node)) return true
  return ts.isAsExpression(node) && !(ts.isTypeReferenceNode(node.type) && ts.isConstTypeReference(node.type))
}

/** The positions of nodes of one kind in a syntax tree, as `path:line`. */
function placesOf (files, test) {
  const places = []
  for (const { path, source } of files) {
    walk(source, function collect (node) {
      if (test(node)) places.push(`${path}:${source.getLineAndCharacterOfPosition(node.getEnd()).line + 1}`)
    })
  }
  return places
}

function typeScriptFiles (folder) {
  return readdirSync(join(root, folder), { recursive: true }).filter(name => name.endsWith('.ts')).map(name => `${folder}/${name}`)
}

function longLines () {
  return ['src', 'plugins', 'routes', 'test'].flatMap(typeScriptFiles).flatMap(function find (path) {
    const lines = readFileSync(join(root, path), 'utf8').split('\n')
    return lines.flatMap((line, at) => line.length > longLine ? [`${path}:${at + 1}`] : [])
  })
}

function readmeKilobytes () {
  return readFileSync(join(root, 'README.md')).length / 1000
}

/** The measures of the source text. */
function measureSources () {
  const program = createProgram()
  const files = sourceFiles(program)
  const imports = findImports(program, files)
  const lines = new Map(files.map(({ path, source }) => [path, countLines(source.text)]))
  const paths = [...lines.keys()]
  const once = importedOnce(imports)
  const small = paths.filter(path => lines.get(path) <= smallLines && !isIndex(path))
  const short = paths.filter(path => lines.get(path) < shortLines && once.has(path))
  const total = [...lines.values()].reduce((sum, count) => sum + count, 0)
  const cycles = findCycles(graphOf(imports.map(({ from, to }) => [from, to])))
  const perThousand = places => 1000 * places.length / total
  const casts = placesOf(files, isCast)
  const nonNulls = placesOf(files, ts.isNonNullExpression)
  return [
    listed('files', 220, paths, false),
    listed(`files of ${smallLines} lines or fewer, index.ts apart`, 15, small),
    listed(`files shorter than ${shortLines} lines that one other file imports`, 20, short),
    listed('files in import cycles', 0, cycles.flat()),
    listed('pairs of folders that import each other', 0, mutualFolders(imports)),
    { name: '`as` casts per 1,000 lines', limit: 2, value: perThousand(casts), list: casts },
    { name: 'non-null `!` per 1,000 lines', limit: 3, value: perThousand(nonNulls), list: nonNulls },
    listed(`lines over ${longLine} characters, tests included`, 0, longLines()),
    { name: 'README in KB', limit: 10, value: readmeKilobytes(), list: [] }
  ]
}

function listed (name, limit, list, isShown = true) {
  return { name, limit, value: list.length, list: isShown ? list : [] }
}

/** The measures of the running code. */
async function measureRuns () {
  const { publish, registration } = await fewestFiles()
  return [
    listed('files executed by one publish → one subscriber', 22, publish),
    listed("files executed by one registration → a watcher's delta", 45, registration)
  ]
}

const round = value => Math.round(value * 10) / 10

function toRow ({ name, value, limit }) {
  return `| ${name} | ${round(value).toLocaleString('en')} | ${limit} | ${value <= limit ? 'ok' : 'over'} |`
}

function toMarkdown (measures) {
  const rows = measures.map(toRow)
  return ['| measure | value | limit | |', '| --- | ---: | ---: | --- |', ...rows].join('\n')
}

function toLists (measures) {
  const indent = list => list.map(item => `  ${item}`).join('\n')
  return measures.filter(({ list }) => list.length > 0).map(({ name, list }) => `\n${name}:\n${indent(list)}`).join('\n')
}

const { values: { json: isJson, list: isListing } } = parseArgs({ options: { json: { type: 'boolean' }, list: { type: 'boolean' } } })
const measures = [...measureSources(), ...await measureRuns()]
if (isJson) console.log(JSON.stringify(measures.map(({ list, ...measure }) => isListing ? { ...measure, list } : measure), null, 2))
else console.log(toMarkdown(measures) + (isListing ? `\n${toLists(measures)}` : ''))

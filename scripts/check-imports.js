/**
 * Checks the imports between the files of src, plugins and routes, including type imports: the direction between folders,
 * cycles, and rules of single folders. Part of `npm run lint`.
 */
import { dirname } from 'node:path'
import ts from 'typescript'
import { createProgram, findCycles, findImports, folderOf, graphOf, shortestCycle, sourceFiles } from './source-graph.js'

/**
 * The folders and single files of `src`, and `plugins` and `routes`, from the lowest group to the highest. A folder may
 * import folders of lower groups, and of its own group without a cycle.
 */
const ranks = [
  ['lib'],
  ['protocol', 'errors.ts', 'options.ts', 'hooks.ts'],
  ['storage'],
  ['registry', 'auth', 'limits'],
  ['messaging', 'tasks'],
  ['sockets', 'dashboard', 'search', 'webhooks'],
  ['plugins', 'http'],
  ['routes', 'adapters'],
  ['plugin.ts', 'api.ts', 'agent-registry-options.ts'],
  ['server'],
  ['index.ts']
]

/** Folders outside the ranks. They import only the folders named here; only these folders and `src/index.ts` import them. */
const separate = {
  client: { imports: ['protocol'], onlyTypes: true },
  page: { imports: ['client'], onlyTypes: false }
}

/** The part of `src` that may import plugins and routes. */
const composers = new Set(['plugin.ts', 'server'])

const rankOf = new Map(ranks.flatMap((group, rank) => group.map(folder => [folder, rank])))
const isKnown = folder => rankOf.has(folder) || Object.hasOwn(separate, folder)

function checkFolders (files) {
  const present = new Set(files.map(({ path }) => folderOf(path)))
  return [...present]
    .filter(folder => !isKnown(folder))
    .map(folder => `src/${folder} has no rank: add it to the ranks in scripts/check-imports.js`)
}

/** @returns the reason why one folder may not import another, or undefined */
function folderFault ({ from, to, isType }) {
  const [source, target] = [folderOf(from), folderOf(to)]
  if (source === target || !isKnown(source) || !isKnown(target)) return
  if (separate[source]) return separateFault(source, target, isType)
  if (source !== 'index.ts' && separate[target]) return `${source} may not import ${target}`
  if (from.startsWith('src/') && /^(plugins|routes)\//.test(to) && !composers.has(source) && source !== 'index.ts') {
    return `only ${[...composers].join(' and ')} may import ${target}`
  }
  if (rankOf.get(source) < rankOf.get(target)) return `${source} may not import ${target}`
}

function separateFault (source, target, isType) {
  const { imports, onlyTypes } = separate[source]
  if (!imports.includes(target)) return `${source} may not import ${target}`
  if (onlyTypes && !isType) return `${source} may import only types of ${target}`
}

/** Whether a file imports the index.ts of a folder that contains it. */
function importsOwnIndex ({ from, to }) {
  const folder = dirname(to)
  return to.endsWith('/index.ts') && folder !== 'src' && from.startsWith(`${folder}/`)
}

function checkImport (edge) {
  const fault = importsOwnIndex(edge) ? 'a folder may not import its own index.ts' : folderFault(edge)
  return fault && `${edge.from}:${edge.line} imports ${edge.to}: ${fault}`
}

function checkFileCycles (edges) {
  const graph = graphOf(edges.map(({ from, to }) => [from, to]))
  return findCycles(graph).map(files => `cycle between ${files.length} files: ${shortestCycle(graph, files[0]).join(' → ')}`)
}

function checkFolderCycles (edges) {
  const between = edges.map(edge => ({ edge, source: folderOf(edge.from), target: folderOf(edge.to) }))
    .filter(({ source, target }) => source !== target)
  const graph = graphOf(between.map(({ source, target }) => [source, target]))
  const example = (source, target) => between.find(entry => entry.source === source && entry.target === target).edge
  return findCycles(graph).map(function describe (folders) {
    const way = shortestCycle(graph, folders[0])
    const imports = way.slice(1).map((folder, at) => example(way[at], folder)).map(({ from, to, line }) => `${from}:${line} imports ${to}`)
    return `cycle between ${folders.length} folders: ${way.join(' → ')} (${imports.join(', ')})`
  })
}

/** `src/index.ts` may contain only re-exports. */
function checkEntry (files) {
  const entry = files.find(({ path }) => path === 'src/index.ts')
  if (!entry) return []
  const { source } = entry
  const other = source.statements.find(node => !(ts.isExportDeclaration(node) && node.moduleSpecifier))
  if (!other) return []
  const { line } = source.getLineAndCharacterOfPosition(other.getStart(source))
  return [`src/index.ts:${line + 1} is not a re-export: src/index.ts may contain only re-exports`]
}

const program = createProgram()
const files = sourceFiles(program)
const imports = findImports(program, files)
const faults = [
  ...checkFolders(files),
  ...checkEntry(files),
  ...imports.map(checkImport).filter(fault => fault !== undefined),
  ...checkFileCycles(imports),
  ...checkFolderCycles(imports)
]
for (const fault of faults) console.error(fault)
if (faults.length > 0) process.exitCode = 1

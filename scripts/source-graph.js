// The TypeScript files of the package and the imports between them, including type imports and `import()`.
import { join, relative, sep } from 'node:path'
import ts from 'typescript'
import { root } from './support.js'

/** Paths in the graph are relative to the root of the repository and use slashes. */
const toPath = fileName => relative(root, fileName).split(sep).join('/')

/** The TypeScript program of the build, without the types of dependencies, because only syntax trees are needed. */
export function createProgram () {
  const { config, error } = ts.readConfigFile(join(root, 'tsconfig.build.json'), ts.sys.readFile)
  if (error) throw new Error(ts.flattenDiagnosticMessageText(error.messageText, '\n'))
  const { fileNames, options } = ts.parseJsonConfigFileContent(config, ts.sys, root)
  return ts.createProgram(fileNames, { ...options, noLib: true, noResolve: true, types: [] })
}

/** The files of src, plugins and routes: their path and their syntax tree. */
export function sourceFiles (program) {
  const own = new Set(program.getRootFileNames())
  return program.getSourceFiles()
    .filter(({ fileName }) => own.has(fileName))
    .map(source => ({ path: toPath(source.fileName), source }))
}

/** Whether a declaration imports or re-exports only types. */
function isTypeOnly (node) {
  if (ts.isImportTypeNode(node)) return true
  if (ts.isExportDeclaration(node)) return node.isTypeOnly || allTypes(node.exportClause)
  if (!ts.isImportDeclaration(node)) return false
  const { importClause } = node
  return importClause !== undefined && (importClause.isTypeOnly || (!importClause.name && allTypes(importClause.namedBindings)))
}

function allTypes (bindings) {
  return bindings?.elements !== undefined && bindings.elements.length > 0 && bindings.elements.every(element => element.isTypeOnly)
}

/** The module specifier of an import or re-export; undefined for other nodes. */
function specifierOf (node) {
  if (ts.isImportDeclaration(node) || ts.isExportDeclaration(node)) return node.moduleSpecifier
  if (ts.isImportTypeNode(node) && ts.isLiteralTypeNode(node.argument)) return node.argument.literal
  if (ts.isModuleDeclaration(node) && ts.isStringLiteral(node.name)) return node.name
  if (ts.isCallExpression(node) && node.expression.kind === ts.SyntaxKind.ImportKeyword) return node.arguments[0]
}

/** Calls `visit` for every node below `node`. */
export function walk (node, visit) {
  ts.forEachChild(node, function enter (child) {
    visit(child)
    ts.forEachChild(child, enter)
  })
}

function importsOf ({ path, source }, program) {
  const imports = []
  walk(source, function collect (node) {
    const specifier = specifierOf(node)
    if (!specifier || !ts.isStringLiteralLike(specifier) || !specifier.text.startsWith('.')) return
    const { line } = source.getLineAndCharacterOfPosition(node.getStart(source))
    const to = resolve(specifier.text, source, program)
    imports.push({ from: path, to: to && toPath(to), line: line + 1, specifier: specifier.text, isType: isTypeOnly(node) })
  })
  return imports
}

function resolve (specifier, source, program) {
  const options = program.getCompilerOptions()
  const resolved = ts.resolveModuleName(specifier, source.fileName, options, ts.sys, undefined, undefined, ts.ModuleKind.ESNext)
  return resolved.resolvedModule?.resolvedFileName
}

/** Every import of a file of the package by another: `{ from, to, line, isType }`. */
export function findImports (program, files = sourceFiles(program)) {
  const paths = new Set(files.map(file => file.path))
  return files.flatMap(file => importsOf(file, program)).filter(({ to, from }) => paths.has(to) && to !== from)
}

/** `src/messaging/x.ts` → `messaging`; `src/errors.ts` → `errors.ts`; `plugins/x.ts` → `plugins`. */
export function folderOf (path) {
  const [first, second] = path.split('/')
  return first === 'src' ? second : first
}

/** A map from each node to the nodes that it points to. */
export function graphOf (edges) {
  const graph = new Map()
  for (const [from, to] of edges) {
    if (!graph.has(from)) graph.set(from, new Set())
    if (!graph.has(to)) graph.set(to, new Set())
    graph.get(from).add(to)
  }
  return graph
}

/** The groups of nodes that reach each other, each of at least two (strongly connected components, Tarjan 1972). */
export function findCycles (graph) {
  const state = { graph, index: new Map(), low: new Map(), stack: [], onStack: new Set(), cycles: [] }
  for (const node of graph.keys()) if (!state.index.has(node)) connect(node, state)
  return state.cycles
}

function connect (node, state) {
  const { graph, index, low, stack, onStack } = state
  index.set(node, index.size)
  low.set(node, index.get(node))
  stack.push(node)
  onStack.add(node)
  for (const next of graph.get(node)) {
    if (!index.has(next)) connect(next, state)
    if (onStack.has(next)) low.set(node, Math.min(low.get(node), low.get(next)))
  }
  if (low.get(node) === index.get(node)) closeComponent(node, state)
}

function closeComponent (node, { stack, onStack, cycles }) {
  const component = stack.splice(stack.indexOf(node))
  for (const member of component) onStack.delete(member)
  if (component.length > 1) cycles.push(component.sort())
}

/** The shortest path from a node back to itself: `[a, b, …, a]`. */
export function shortestCycle (graph, start) {
  const cameFrom = new Map()
  const queue = [start]
  for (const node of queue) {
    for (const next of graph.get(node)) {
      if (next === start) return wayTo(node, start, cameFrom)
      if (cameFrom.has(next)) continue
      cameFrom.set(next, node)
      queue.push(next)
    }
  }
}

function wayTo (node, start, cameFrom) {
  const way = [start]
  for (let at = node; at !== start; at = cameFrom.get(at)) way.unshift(at)
  return [start, ...way]
}

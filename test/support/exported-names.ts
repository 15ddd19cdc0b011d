import { existsSync, readFileSync } from 'node:fs'
import { dirname, join, resolve } from 'node:path'
import { pathToFileURL } from 'node:url'
import ts from 'typescript'
import { root } from './snapshot.js'

type Entry = string | { default: string }

/** Source files of the entries in `exports` of package.json, by specifier. */
function entryFiles (): Array<[specifier: string, file: string]> {
  const { exports }: { exports: Record<string, Entry> } = JSON.parse(readFileSync(join(root, 'package.json'), 'utf8'))
  return Object.entries(exports).flatMap(([specifier, entry]) => {
    const built = typeof entry === 'string' ? entry : entry.default
    if (!built.endsWith('.js')) return []
    return [[specifier, join(root, built.replace(/^\.\/dist\//, '').replace(/\.js$/, '.ts'))]]
  })
}

function resolveSource (name: string, importer: string): ts.ResolvedModuleFull | undefined {
  const path = resolve(dirname(importer), name.replace(/\.js$/, '.ts'))
  return name.startsWith('.') && existsSync(path) ? { resolvedFileName: path, extension: ts.Extension.Ts } : undefined
}

/** A program of the sources alone: exported names do not depend on the standard library or on packages. */
function programOf (files: string[]): ts.Program {
  const options: ts.CompilerOptions = { noLib: true, types: [], target: ts.ScriptTarget.ES2023, module: ts.ModuleKind.ESNext }
  const host = ts.createCompilerHost(options)
  host.resolveModuleNameLiterals = (literals, importer) => literals.map(({ text }) => ({ resolvedModule: resolveSource(text, importer) }))
  return ts.createProgram(files, options, host)
}

function moduleSymbol (program: ts.Program, file: string): ts.Symbol {
  const source = program.getSourceFile(file)
  const symbol = source && program.getTypeChecker().getSymbolAtLocation(source)
  if (!symbol) throw new Error(`${file} is not a module`)
  return symbol
}

function typeNames (program: ts.Program, file: string): string[] {
  const checker = program.getTypeChecker()
  const target = (symbol: ts.Symbol) => symbol.flags & ts.SymbolFlags.Alias ? checker.getAliasedSymbol(symbol) : symbol
  return checker.getExportsOfModule(moduleSymbol(program, file)).filter(symbol =>
    target(symbol).flags & ts.SymbolFlags.Type).map(({ name }) => name).sort()
}

/** Names of the members of an exported interface, including inherited ones. */
function memberNames (program: ts.Program, file: string, name: string): string[] {
  const checker = program.getTypeChecker()
  const symbol = checker.getExportsOfModule(moduleSymbol(program, file)).find(exported => exported.name === name)
  if (!symbol) throw new Error(`${file} does not export ${name}`)
  return checker.getDeclaredTypeOfSymbol(checker.getAliasedSymbol(symbol)).getProperties().map(property => property.name).sort()
}

async function valueNames (file: string): Promise<string[]> {
  const exported: object = await import(pathToFileURL(file).href)
  return Object.keys(exported).sort()
}

/** Names of the values and types that each entry of the package exports, and the members of the type `AgentRegistry`. */
export async function exportedNames () {
  const entries = entryFiles()
  const program = programOf(entries.map(([, file]) => file))
  const names: Record<string, { values: string[], types: string[] }> = {}
  for (const [specifier, file] of entries) names[specifier] = { values: await valueNames(file), types: typeNames(program, file) }
  return { entries: names, members: memberNames(program, join(root, 'src/index.ts'), 'AgentRegistry') }
}

/**
 * Compiles TypeScript for the tests with the options of `tsc` and caches the result. All processes share the cache; a file is
 * compiled again only after a change. Used with `node --import`.
 */
import { createHash } from 'node:crypto'
import { existsSync, mkdirSync, readFileSync, renameSync, writeFileSync } from 'node:fs'
import { createRequire, register } from 'node:module'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { isMainThread } from 'node:worker_threads'
import { settings, transpile } from './transpile.js'

const root = fileURLToPath(new URL('..', import.meta.url))
const folder = join(root, '.tap/compiled')
const { version } = createRequire(import.meta.url)('typescript/package.json')

if (isMainThread) {
  mkdirSync(folder, { recursive: true })
  register(import.meta.url)
}

function compiled (path) {
  const source = readFileSync(path, 'utf8')
  const inputs = JSON.stringify([version, settings, String(transpile), path, source])
  const name = join(folder, createHash('sha256').update(inputs).digest('base64url'))
  if (existsSync(name)) return readFileSync(name, 'utf8')
  const output = transpile(source, { fileName: path, inlineSourceMap: true, inlineSources: true })
  // Another process may write the same file at the same time.
  writeFileSync(`${name}.${process.pid}`, output)
  renameSync(`${name}.${process.pid}`, name)
  return output
}

const isOurs = url => url.startsWith('file:') && url.endsWith('.ts') && !url.includes('/node_modules/')

export function resolve (specifier, context, next) {
  if (!/^(\.|file:).*\.js$/.test(specifier)) return next(specifier, context)
  const url = new URL(specifier.replace(/\.js$/, '.ts'), context.parentURL).href
  return existsSync(fileURLToPath(url)) ? { url, format: 'module', shortCircuit: true } : next(specifier, context)
}

export function load (url, context, next) {
  return isOurs(url) ? { format: 'module', source: compiled(fileURLToPath(url)), shortCircuit: true } : next(url, context)
}

import { readFileSync } from 'node:fs'
import { createRequire } from 'node:module'

const require = createRequire(import.meta.url)

/** Of the project, as text. */
export const settings = readFileSync(new URL('../tsconfig.json', import.meta.url), 'utf8')

/**
 * The JavaScript of a TypeScript module. Types are not checked here.
 * @param {string} source
 * @param {{ fileName?: string, [option: string]: unknown }} [options] of the compiler, besides those of the project
 */
export function transpile (source, { fileName, ...more } = {}) {
  // Not before it is needed: it takes longer to load than most of what is loaded instead.
  const ts = require('typescript')
  const { compilerOptions } = JSON.parse(settings)
  const modules = { module: 'esnext', moduleResolution: 'bundler' }
  const { options } = ts.convertCompilerOptionsFromJson({ ...compilerOptions, ...modules, sourceMap: false, ...more })
  return ts.transpileModule(source, { fileName, compilerOptions: options }).outputText
}

import { readFileSync } from 'node:fs'
import { createRequire } from 'node:module'

const require = createRequire(import.meta.url)

/** The tsconfig.json of the project, as text. */
export const settings = readFileSync(new URL('../tsconfig.json', import.meta.url), 'utf8')

/**
 * Transpiles a TypeScript module to JavaScript, without type checks.
 * @param {string} source
 * @param {{ fileName?: string, [option: string]: unknown }} [options] compiler options that override those of the project
 */
export function transpile (source, { fileName, ...more } = {}) {
  // Loaded on demand, because the compiler takes longer to load than most modules of a cached run.
  const ts = require('typescript')
  const { compilerOptions } = JSON.parse(settings)
  const modules = { module: 'esnext', moduleResolution: 'bundler' }
  const { options } = ts.convertCompilerOptionsFromJson({ ...compilerOptions, ...modules, sourceMap: false, ...more })
  return ts.transpileModule(source, { fileName, compilerOptions: options }).outputText
}

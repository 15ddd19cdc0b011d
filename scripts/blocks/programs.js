// JavaScript, TypeScript and Python blocks. Each block is a separate program; the blocks of a page share a folder.
import { spawnSync } from 'node:child_process'
import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { begin, makeFolder, root, run, transpileFile, waitForOutput } from '../support.js'

/** A folder inside the project, in which programs import the package by its name. */
export function programFolder () {
  return makeFolder('readme', true)
}

export const isProgram = ({ language }) => ['js', 'ts', 'py'].includes(language)

/** Writes a block to a file. Later blocks import it as a module by its `name`. */
export function writeProgram (folder, { language, code, marks }, index) {
  const name = marks.find(mark => /\.[jt]s$/.test(mark))?.replace(/\.[jt]s$/, '') ?? `block-${index + 1}`
  const path = join(folder, name)
  writeFileSync(`${path}.${language}`, code)
  if (language === 'ts') transpileFile(`${path}.ts`, `${path}.js`)
  return language === 'py' ? `${path}.py` : `${path}.js`
}

export async function checkTypes (folder) {
  const compilerOptions = { noEmit: true, rootDir: root, noUnusedLocals: false, typeRoots: [join(root, 'node_modules/@types')] }
  writeFileSync(join(folder, 'tsconfig.json'), JSON.stringify({ extends: '../tsconfig.json', compilerOptions, include: ['*.ts'] }))
  await run(process.execPath, [join(root, 'node_modules/typescript/bin/tsc'), '-p', folder])
}

/** Starts a server, sends a request after it listens, and stops it. */
async function tryServer (file, env) {
  const server = begin(process.execPath, [file], { env, timeoutMs: 60_000 })
  const [, url] = await waitForOutput(server, /listening at (http:\/\/[\w.:[\]]+)/i)
  const { status } = await fetch(url)
  if (status >= 500) throw new Error(`GET ${url}: ${status}`)
  server.child.kill('SIGTERM')
  await server.ended
  return server.output
}

export function hasPython () {
  return spawnSync('python3', ['--version']).status === 0
}

/** @returns {Promise<string>} the output of the program */
export async function runProgram (file, { language, marks }, env) {
  if (language === 'py') return run('python3', [file], { env, timeoutMs: 60_000 })
  if (marks.includes('listen')) return tryServer(file, { ...env, PORT: '0' })
  const output = await run(process.execPath, [file], { env: { ...env, PORT: '0' }, timeoutMs: 60_000 })
  // Waits until the registry has closed the sockets of the program, before the next program connects.
  await sleep(50)
  return output
}

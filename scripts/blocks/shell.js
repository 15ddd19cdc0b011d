// Shell blocks. One bash per page runs them. Blocks marked `check` are checked against package.json instead.
import { randomUUID } from 'node:crypto'
import { existsSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { builtinModules } from 'node:module'
import { begin, makeFolder, root, run, waitForOutput } from '../support.js'

/** A bash in an empty folder. Later blocks can use the variables, functions and files of earlier ones. */
export function startShell (env) {
  const path = `${join(root, 'node_modules/.bin')}:${process.env.PATH}`
  const shell = begin('bash', ['-euo', 'pipefail'], { cwd: makeFolder('shell'), env: { ...env, PATH: path }, input: null })
  return {
    /** @returns {Promise<string>} the output of the block */
    async run (code) {
      const start = shell.output.length
      const end = randomUUID()
      shell.child.stdin.write(`${code}\necho; echo ${end}\n`)
      await waitForOutput(shell, new RegExp(`^${end}$`, 'm'), 60_000)
      return shell.output.slice(start, shell.output.indexOf(end))
    },
    async end () {
      shell.child.stdin.end()
      await shell.ended
    }
  }
}

const { scripts, devDependencies, dependencies, name: ownName } = JSON.parse(readFileSync(join(root, 'package.json'), 'utf8'))
const npmCommands = new Set(['ci', 'install', 'i', 'pack'])

function complaintOf (words, variables) {
  const [command, first, second] = words
  if (command === 'npm' && npmCommands.has(first)) return unknownPackages(words.slice(2))
  if (command === 'npm') return checkScript(first === 'run' ? second : first)
  if (command === 'node' || command === 'cp') return existsSync(join(root, first)) ? null : `${first}: file not found`
  if (command === 'npx') return { [ownName]: true, ...devDependencies, ...dependencies }[first] ? null : `npx ${first}: not a dependency`
  if (command === 'export') return null
  return variables && command === undefined ? null : `${command}: this command cannot be checked`
}

function checkScript (name) {
  return name in scripts ? null : `npm run ${name}: script not found`
}

function unknownPackages (names) {
  const known = { [ownName]: true, ...devDependencies, ...dependencies }
  const unknown = names.filter(name => !name.startsWith('-') && !known[name] && !builtinModules.includes(name))
  return unknown.length === 0 ? null : `unknown packages: ${unknown.join(', ')}`
}

/**
 * Checks commands that cannot run here, such as the start of a server: bash can parse them, each npm script and file exists,
 * and each variable before a command is a setting of the server.
 */
export async function checkCommands (code, isSetting) {
  await run('bash', ['-n'], { input: code })
  const commands = code.replaceAll(/#.*$/gm, '').split(/\n|&&|\|\|/).map(text => text.trim()).filter(text => text !== '')
  for (const text of commands) {
    const words = text.split(/\s+/)
    const assignments = words.filter(word => /^[A-Z_]+=/.test(word)).map(word => word.split('=')[0])
    const unknown = assignments.filter(name => !isSetting(name))
    const command = words.slice(words[0] === 'export' ? 0 : assignments.length)
    const finding = unknown.length > 0 ? `${unknown.join(', ')}: unknown setting` : complaintOf(command, assignments.length > 0)
    if (finding) throw new Error(`${text}: ${finding}`)
  }
}

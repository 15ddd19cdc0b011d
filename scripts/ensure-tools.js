// Finds missing programs that tests start, and installs them where possible.
import { spawnSync } from 'node:child_process'
import { accessSync, constants, readFileSync } from 'node:fs'
import { delimiter, join } from 'node:path'

/** The programs that tests start, each with its Debian package. */
const tools = [['redis-server', 'redis-server'], ['chromium', 'chromium']]

export function isOnPath (program) {
  return (process.env.PATH ?? '').split(delimiter).some(folder => {
    try {
      accessSync(join(folder, program), constants.X_OK)
      return true
    } catch {
      return false
    }
  })
}

function isDebian () {
  try {
    return /^ID(_LIKE)?=.*(debian|ubuntu)/m.test(readFileSync('/etc/os-release', 'utf8'))
  } catch {
    return false
  }
}

function canInstall () {
  return process.getuid?.() === 0 && isDebian() && isOnPath('apt-get')
}

function aptGet (...args) {
  const env = { ...process.env, DEBIAN_FRONTEND: 'noninteractive' }
  const { status, stdout, stderr } = spawnSync('apt-get', args, { env, encoding: 'utf8', timeout: 300_000 })
  if (status !== 0) console.error(`apt-get ${args.join(' ')} failed:\n${stdout ?? ''}${stderr ?? ''}`)
  return status === 0
}

function missing () {
  return tools.filter(([program]) => !isOnPath(program))
}

function install (packages) {
  return aptGet('update') && aptGet('install', '-y', '--no-install-recommends', ...packages)
}

/**
 * Installs missing programs, or prints the packages to install. Tests skip if their program is missing.
 * @returns false if a program is missing and CI=true
 */
export function ensureTools () {
  if (missing().length > 0 && canInstall()) install(missing().map(([, name]) => name))
  if (missing().length === 0) return true
  const [programs, names] = [0, 1].map(column => missing().map(tool => tool[column]).join(', '))
  console.error(`Missing: ${programs}. Tests that need them are skipped. Install the packages ${names}.`)
  return process.env.CI !== 'true'
}

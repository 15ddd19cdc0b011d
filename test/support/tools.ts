import { spawnSync } from 'node:child_process'
import t from 'tap'

/**
 * Where a program is. Where it is not there the file of tests that loads this is skipped or, with `CI=true`, fails.
 */
export function find (program: string): string {
  const path = spawnSync('sh', ['-c', `command -v ${program}`], { encoding: 'utf8' }).stdout.trim()
  if (path) return path
  if (process.env.CI === 'true') throw new Error(`${program} is not installed`)
  t.plan(0, `${program} is not installed`)
  process.exit()
}

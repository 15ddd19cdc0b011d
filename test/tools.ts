import { spawnSync } from 'node:child_process'
import t from 'tap'

/** Skips the file of tests that loads it where a program is not there; with `CI=true` it goes on, and fails. */
export function needs (program: string): void {
  const { error } = spawnSync(program, ['--version'], { stdio: 'ignore' })
  if (!error || process.env.CI === 'true') return
  t.plan(0, `${program} is not installed`)
  process.exit()
}

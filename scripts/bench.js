// Builds bench/ into a temporary folder inside the project and runs it: `npm run bench [-- [--json] [<part> …]]`.
import { readdirSync } from 'node:fs'
import { spawnSync } from 'node:child_process'
import { join } from 'node:path'
import { makeFolder, root, script, transpileFile } from './support.js'

await script('bench', async function bench () {
  const built = makeFolder('bench', true)
  const folder = join(root, 'bench')
  for (const name of readdirSync(folder).filter(name => name.endsWith('.ts'))) transpileFile(join(folder, name), join(built, name.replace(/\.ts$/, '.js')))
  const args = process.argv.slice(2)
  const env = { ...process.env, BENCH_REPORT: join(root, 'docs/benchmarks.md') }
  const { status } = spawnSync(process.execPath, [join(built, 'run.js'), ...args], { stdio: 'inherit', env })
  if (status !== 0) throw new Error(`ended with ${status}`)
  // Nothing but JSON on the standard output.
  if (args.includes('--json')) process.exit(0)
})

// Builds bench/ into a temporary folder inside the project and runs it: `npm run bench [-- [--json] [<part> …]]`,
// or compares with another commit: `npm run bench -- --compare <commit> [--rounds <n>] [--fail] [<part> …]`.
import { spawnSync } from 'node:child_process'
import { join } from 'node:path'
import { parseArgs } from 'node:util'
import { compareWith } from './bench-compare.js'
import { buildBench, makeFolder, root, script } from './support.js'

const { values: options, positionals: parts } = parseArgs({
  allowPositionals: true,
  options: {
    json: { type: 'boolean', default: false },
    list: { type: 'boolean', default: false },
    compare: { type: 'string' },
    rounds: { type: 'string', default: '5' },
    fail: { type: 'boolean', default: false }
  }
})

function measure (built) {
  const args = [...options.json ? ['--json'] : [], ...options.list ? ['--list'] : [], ...parts]
  const env = { ...process.env, BENCH_REPORT: join(root, 'docs/benchmarks/results.md') }
  const { status } = spawnSync(process.execPath, [join(built, 'run.js'), ...args], { stdio: 'inherit', env })
  if (status !== 0) throw new Error(`ended with ${status}`)
  // The standard output contains only JSON.
  if (options.json || options.list) process.exit(0)
}

await script('bench', async function bench () {
  const built = makeFolder('bench', true)
  buildBench(root, built)
  if (options.compare === undefined) measure(built)
  else await compareWith(options.compare, built, { rounds: Number(options.rounds), fail: options.fail, parts })
})

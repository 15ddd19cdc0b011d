// Runs all measurements, prints them as a table and writes the table of docs/benchmarks.md and the charts beside it.
import { execFileSync } from 'node:child_process'
import { readFileSync, writeFileSync } from 'node:fs'
import { cpus } from 'node:os'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { svgOf } from './chart.js'
import { channels } from './channels.js'
import { http } from './http.js'
import { deaths } from './deaths.js'
import { direct } from './direct.js'
import { fanOutSockets } from './fan-out-sockets.js'
import { idleMemory } from './idle-memory.js'
import { inbound } from './inbound.js'
import { propagation } from './propagation.js'
import { requests, requestsOverRedis } from './requests.js'
import { restart } from './restart.js'
import { stalled } from './stalled.js'
import { connectStorm } from './storm.js'
import { stores } from './stores.js'
import { rounds, seconds, type Row } from './rounds.js'

const report = process.env.BENCH_REPORT
const only = process.argv[2]
/** Where charts go: beside the report of all, or where somebody wants those of a part. */
const charts = process.env.BENCH_CHARTS ?? (report && only === undefined ? dirname(report) : undefined)

function inProcess (...args: string[]): Row[] {
  const file = fileURLToPath(new URL('./process.js', import.meta.url))
  return JSON.parse(execFileSync(process.execPath, ['--expose-gc', file, ...args], { encoding: 'utf8', stdio: ['ignore', 'pipe', 'inherit'] })) as Row[]
}

const measurements: Record<string, () => Row[] | Promise<Row[]>> = {
  http,
  sweep: () => inProcess('sweep'),
  search: () => inProcess('search'),
  memory: () => [...inProcess('memory'), ...inProcess('memory', 'index')],
  'fan-out': () => inProcess('fan-out'),
  sockets: () => inProcess('sockets'),
  'fan-out-sockets': fanOutSockets,
  inbound,
  'idle-memory': idleMemory,
  stalled,
  storm: connectStorm,
  channels,
  direct,
  requests,
  'requests-redis': requestsOverRedis,
  patterns: () => inProcess('patterns'),
  stores,
  propagation,
  deaths,
  restart
}

function table (rows: Row[]): string {
  const lines = rows.map(({ name, ours, peer, ratio, goal, met }) => `| ${[name, ours, peer, ratio, goal, met ? 'yes' : '**no**'].join(' | ')} |`)
  return ['| what | ours | peer | ratio | goal | met |', '| --- | --- | --- | --- | --- | --- |', ...lines].join('\n')
}

const rows: Row[] = []
for (const [name, measure] of Object.entries(measurements)) {
  if (only !== undefined && only !== name) continue
  rows.push(...await measure())
}
const text = table(rows)
console.log(text)
for (const { chart } of rows) if (chart && charts) writeFileSync(join(charts, `${chart.file}.svg`), svgOf(chart))
if (report && only === undefined) {
  const machine = `Node ${process.version}, ${cpus().length} × ${cpus()[0]?.model.trim()}, ${rounds} rounds of ${seconds} s, medians.`
  const page = readFileSync(report, 'utf8')
  writeFileSync(report, page.replace(/(<!-- results -->)[^]*(<!-- \/results -->)/, `$1\n${machine}\n\n${text}\n$2`))
}
process.exit(0)

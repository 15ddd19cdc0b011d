// Runs all parts, or those that are named, and prints their rows as a table (with `--json`: the values of ours as JSON).
// A run of all parts also writes the table of docs/benchmarks.md and the charts beside it. `--list` prints the names of the parts.
import { execFileSync } from 'node:child_process'
import { readFileSync, writeFileSync } from 'node:fs'
import { cpus } from 'node:os'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { parseArgs } from 'node:util'
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
import { rounds, seconds, type Figure, type Row } from './rounds.js'

const report = process.env.BENCH_REPORT
const { values: options, positionals: named } = parseArgs({
  allowPositionals: true,
  options: { json: { type: 'boolean', default: false }, list: { type: 'boolean', default: false } }
})
/** A run that updates docs/benchmarks.md. */
const isReport = report !== undefined && named.length === 0 && !options.json
/** The folder for charts: beside the report, or chosen by the caller. */
const charts = process.env.BENCH_CHARTS ?? (isReport ? dirname(report) : undefined)

function inProcess (...args: string[]): Row[] {
  const file = fileURLToPath(new URL('./process.js', import.meta.url))
  const output = execFileSync(process.execPath, ['--expose-gc', file, ...args], { encoding: 'utf8', stdio: ['ignore', 'pipe', 'inherit'] })
  return JSON.parse(output) as Row[]
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

function namedParts (): string[] {
  const all = Object.keys(measurements)
  const unknown = named.filter(name => !all.includes(name))
  if (unknown.length > 0) throw new Error(`no such part: ${unknown.join(', ')}; the parts are ${all.join(', ')}`)
  return named.length > 0 ? all.filter(name => named.includes(name)) : all
}

function writeReport (path: string, text: string): void {
  const machine = `Node ${process.version}, ${cpus().length} × ${cpus()[0]?.model.trim()}, ${rounds} rounds of ${seconds} s, medians.`
  const page = readFileSync(path, 'utf8')
  writeFileSync(path, page.replace(/(<!-- results -->)[^]*(<!-- \/results -->)/, `$1\n${machine}\n\n${text}\n$2`))
}

const parts = namedParts()
if (options.list) {
  console.log(JSON.stringify(parts))
  process.exit(0)
}
const rows: Row[] = []
const figures: Figure[] = []
for (const part of parts) {
  const measured = await measurements[part]!()
  rows.push(...measured)
  for (const { figures: some = [] } of measured) figures.push(...some.map(figure => ({ ...figure, name: `${part}: ${figure.name}` })))
}
const text = table(rows)
console.log(options.json ? JSON.stringify(figures) : text)
for (const { chart } of rows) if (chart && charts) writeFileSync(join(charts, `${chart.file}.svg`), svgOf(chart))
if (isReport) writeReport(report, text)
process.exit(0)

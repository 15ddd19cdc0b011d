// Runs one part in a process of its own, which no other part has warmed up or filled, and prints its rows as JSON.
import { fanOut } from './fan-out.js'
import { memory } from './memory.js'
import type { Row } from './report.js'
import { search } from './search.js'
import { sockets } from './sockets.js'
import { sweep } from './sweep.js'

const parts: Record<string, () => Promise<Row[]>> = {
  sweep: async () => [await sweep(100_000), await sweep(1_000_000)],
  memory: () => memory(100_000),
  search: () => search(10_000),
  'fan-out': () => fanOut(50_000, 1_000),
  sockets: () => sockets(5_000),
  patterns: async () => {
    // Loaded here only: it imports internals, which move between commits that are compared.
    const { patterns } = await import('./patterns.js')
    return patterns(100_000)
  }
}

const rows = await parts[process.argv[2]!]!()
process.stdout.write(JSON.stringify(rows), () => process.exit(0))

// Delay of a change from a request to one process to a watcher of another, over Redis.
import { setTimeout as sleep } from 'node:timers/promises'
import { WebSocket } from 'ws'
import { BenchProcess } from './bench-process.js'
import { startRedis } from './redis.js'
import { cost, type Row } from './report.js'
import { percentile } from './statistics.js'

const changes = 2000
const pauseMs = 4

/** Calls `onChange` with the time of each change. */
function watch (server: BenchProcess, onChange: (at: number) => void): Promise<WebSocket> {
  const socket = new WebSocket(`${server.url.replace('http', 'ws')}/public/ws`)
  return new Promise((resolve, reject) => {
    socket.on('error', reject)
    socket.on('open', () => socket.send('{"type":"watch","requestId":"w"}'))
    socket.on('message', data => {
      const frame = JSON.parse(String(data)) as { type: string, changes?: unknown[] }
      if (frame.type === 'ack') resolve(socket)
      frame.changes?.forEach(() => onChange(performance.now()))
    })
  })
}

async function setStatus (server: BenchProcess, status: string): Promise<void> {
  const headers = { authorization: `Bearer ${server.details.token}`, 'content-type': 'application/json' }
  const url = `${server.url}/agents/${server.details.agentId}/status`
  const response = await fetch(url, { method: 'POST', headers, body: JSON.stringify({ status }) })
  if (!response.ok) throw new Error(`${response.status} ${await response.text()}`)
  await response.arrayBuffer()
}

export async function propagation (): Promise<Row[]> {
  const redis = await startRedis()
  const a = await BenchProcess.start('./servers.js', ['ours', '1000', '0', 'redis', redis.url])
  const b = await BenchProcess.start('./servers.js', ['ours', '0', '0', 'redis', redis.url])
  const sent: number[] = []
  const times: number[] = []
  await setStatus(a, 'alive')
  await sleep(200)
  const socket = await watch(b, at => times.push(at - sent[times.length]!))
  for (let index = 0; index < changes; index++) {
    sent.push(performance.now())
    await setStatus(a, index % 2 === 0 ? 'draining' : 'alive')
    await sleep(pauseMs)
  }
  while (times.length < changes) await sleep(10)
  socket.terminate()
  for (const server of [a, b]) await server.close()
  await redis.stop()
  const [p50, p99] = [percentile(times, 0.5), percentile(times, 0.99)]
  return [{
    name: `redis: request to one process → watcher of another, ${changes.toLocaleString('en')} changes`,
    ours: `p50 ${p50.toFixed(2)} ms, p99 ${p99.toFixed(2)} ms`,
    peer: '–',
    ratio: '–',
    goal: 'p50 ≤ 2 ms, p99 ≤ 20 ms',
    met: p50 <= 2 && p99 <= 20,
    figures: [cost('change, p50', 'ms', p50), cost('change, p99', 'ms', p99)]
  }]
}

// Memory of watchers of the public tier.
import { fork } from 'node:child_process'
import { once } from 'node:events'
import type { AddressInfo } from 'node:net'
import fastify from 'fastify'
import agentRegistry from 'fastify-agent-registry'
import { settledRss } from './memory.js'
import { cost, type Row } from './report.js'

/** Opens the watchers from a process of their own. */
export async function sockets (count: number): Promise<Row[]> {
  const app = fastify()
  await app.register(agentRegistry, { publicWs: { maxConnections: count + 10 }, admission: { burst: count + 10 } })
  await app.listen({ port: 0, host: '127.0.0.1' })
  const before = await settledRss()
  const child = fork(new URL('./watchers.js', import.meta.url), [String((app.server.address() as AddressInfo).port), String(count)])
  await once(child, 'message')
  const each = (await settledRss() - before) / count / 1024
  child.kill()
  return [{
    name: `RSS of ${count.toLocaleString('en')} watchers of the public tier`,
    ours: `${each.toFixed(1)} KB each`,
    peer: '–',
    ratio: '–',
    goal: 'reported',
    met: true,
    figures: [cost('RSS per watcher', 'KB', each)]
  }]
}

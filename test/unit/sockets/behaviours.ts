import { once } from 'node:events'
import { randomBytes } from 'node:crypto'
import type { Test } from 'tap'
import type { ClientOptions } from 'ws'
import type { Client, Harness, Json } from '../../support/harness.js'
import { until } from '../../support/harness.js'
import { assertAlive, nextWhere } from './helper.js'
import { rawOf } from './pairs.js'

/** Options with short intervals. */
const scrapeToken = 'a-token-for-prometheus'
export const fastSettings = {
  metricsScrapeToken: scrapeToken,
  sockets: {
    agentsUpdateIntervalMs: 50, drainMs: 200, maxBufferedBytes: 1_000_000
  },
  publicWs: { pingIntervalMs: 500 },
  agentsWs: { intervalMs: 50 }
}

/** A registry, and a function that opens its sockets. */
export interface Scene { registry: Harness, options?: ClientOptions }

const opened = ({ registry, options }: Scene, path: string, protocols?: string[]): Client => registry.socket(path, protocols, options)

async function agentSocket (scene: Scene, id: string): Promise<Client> {
  const client = opened(scene, `/agents/ws?token=${await scene.registry.join(id)}`)
  await client.next('list')
  return client
}

async function follows (t: Test, scene: Scene) {
  const { registry } = scene
  const client = opened(scene, '/public/ws')
  t.equal((await client.next()).type, 'welcome', 'the first frame')
  client.send({ type: 'watch', requestId: 'w' })
  await client.next('ack')
  for (let n = 0; n < 30; n++) await registry.join(`agent-${n}`)
  await registry.app.agentRegistry.unregister('agent-0')
  const changes: Json[] = []
  while (changes.length < 31) changes.push(...(await client.next('agents_delta')).changes)
  const numbers = changes.map(({ revision }) => Number(revision.split(':')[1]))
  t.strictSame(
    changes.map(({ op, agent_id: id }) => `${op} ${id}`), [...Array.from({ length: 30 }, (_, n) => `put agent-${n}`), 'remove agent-0']
  )
  t.strictSame(numbers, [...new Set(numbers)].sort((a, b) => a - b), 'each revision once, in order')
  client.close()
}

async function answersInOrder (t: Test, scene: Scene) {
  const client = opened(scene, '/public/ws')
  await client.next('welcome')
  const ids = Array.from({ length: 50 }, (_, n) => `r${n}`)
  for (const requestId of ids) client.send({ type: Number(requestId.slice(1)) % 5 === 0 ? 'get_discovery' : 'ping', requestId })
  client.send('ping')
  await client.next('pong')
  await nextWhere(client, 'pong', frame => frame === 'pong')
  t.strictSame(client.all.map(({ requestId }) => requestId).filter(Boolean), ids)
  client.close()
}

async function isPinged (t: Test, scene: Scene) {
  const client = opened(scene, '/public/ws')
  await once(client.ws, 'ping')
  await assertAlive(client)
  t.equal(client.ws.readyState, client.ws.OPEN)
  client.close()
}

async function closesBehind (t: Test, scene: Scene) {
  const client = await agentSocket(scene, 'agent-leaves')
  for (let n = 0; n < 5; n++) client.send({ type: 'ping', requestId: `p${n}` })
  client.send({ type: 'goodbye', requestId: 'bye' })
  t.strictSame(await client.closed, { code: 1000, reason: 'Goodbye' })
  t.strictSame(client.all.map(({ requestId }) => requestId).filter(Boolean), ['p0', 'p1', 'p2', 'p3', 'p4', 'bye'])
}

async function speaksMessagePack (t: Test, scene: Scene) {
  const client = opened(scene, '/public/ws', ['agent-registry.msgpack'])
  const kinds: boolean[] = []
  client.ws.on('message', (_data, isBinary) => kinds.push(isBinary))
  t.equal((await client.next()).type, 'welcome')
  await assertAlive(client)
  client.send({ type: 'get_discovery', requestId: 'd' })
  const { data } = await nextWhere(client, 'discovery_data', ({ requestId }) => requestId === 'd')
  t.ok(data.agents.length > 0)
  t.ok(kinds.length > 2 && kinds.every(Boolean))
  client.close()
}

async function slowCloses ({ app }: Harness): Promise<number> {
  const { body } = await app.inject({ url: '/metrics/scrape', headers: { authorization: `Bearer ${scrapeToken}` } })
  return Number(/^agent_registry_websocket_slow_closes_total\{tier="public"\} (\d+)$/m.exec(body)?.[1])
}

async function endsSlowReader (t: Test, scene: Scene) {
  const { registry } = scene
  // Incompressible data.
  for (let n = 0; n < 8; n++) {
    await registry.join(`large-${n}`, { agent_type: 'security', metadata: { text: [randomBytes(70_000).toString('base64')] } })
  }
  const [slow, neighbour] = [opened(scene, '/public/ws'), opened(scene, '/public/ws')]
  await Promise.all([slow, neighbour].map(client => client.next('welcome')))
  rawOf(slow.ws).pause()
  for (let n = 0; n < 60; n++) slow.send({ type: 'get_discovery', agent_type: 'security', page_size: 1 + n % 8 })
  await assertAlive(neighbour)
  neighbour.send({ type: 'get_discovery', agent_type: 'security', page_size: 2, requestId: 'n' })
  t.equal((await nextWhere(neighbour, 'discovery_data', ({ requestId }) => requestId === 'n')).data.agents.length, 2)
  await until(async () => await slowCloses(registry) === 1, 20_000)
  rawOf(slow.ws).resume()
  t.strictSame(await slow.closed, { code: 4008, reason: 'Slow consumer' })
  t.ok(slow.all.filter(({ type }) => type === 'discovery_data').length < 60)
  for (let n = 0; n < 8; n++) await registry.app.agentRegistry.unregister(`large-${n}`)
  neighbour.close()
}

const behaviours: Record<string, (t: Test, scene: Scene) => Promise<void>> = {
  'watch: a watcher gets the welcome and every change once, in order': follows,
  'order: answers have the order of their frames': answersInOrder,
  'heartbeat: a silent socket is pinged and stays open': isPinged,
  'close: it follows earlier frames': closesBehind,
  'MessagePack: frames are binary if negotiated': speaksMessagePack,
  'slow reader: only the slow socket is closed with 4008': endsSlowReader
}

/** Behaviour of sockets that does not depend on the transport. */
export async function testBehaviours (t: Test, scene: Scene): Promise<void> {
  for (const [name, behaviour] of Object.entries(behaviours)) await t.test(name, t => behaviour(t, scene))
}

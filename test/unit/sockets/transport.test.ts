import type { AddressInfo } from 'node:net'
import { Writable } from 'node:stream'
import fastifyWebsocket, { type WebsocketPluginOptions } from '@fastify/websocket'
import fastify, { type FastifyInstance } from 'fastify'
import t, { type Test } from 'tap'
import { WebSocket } from 'ws'
import agentRegistry, { type AgentRegistryOptions } from '../../../src/index.js'
import { Harness, withDefaults } from '../../support/harness.js'
import { behave, lively } from './behaviours.js'
import { tlsClient, tlsServer } from './pairs.js'

const warning = 'frames are sent one by one'

/** A listening registry, and what it warned of. */
async function start (t: Test, { before, server = {}, options = lively }: { before?: (app: FastifyInstance) => unknown, server?: object, options?: AgentRegistryOptions } = {}) {
  const warnings: string[] = []
  const stream = new Writable({ write (chunk, _encoding, done) { warnings.push(String(chunk)); done() } })
  const app = fastify({ ...server, logger: { level: 'warn', stream } }) as unknown as FastifyInstance
  await before?.(app)
  await app.register(agentRegistry, withDefaults(options))
  await app.listen({ port: 0, host: '127.0.0.1' })
  t.teardown(() => app.close())
  return { registry: new Harness(app), warnings }
}

/** A WebSocket of a host that sends what is read as the same and is not the same: a blank behind the JSON. */
class Padded extends WebSocket {
  override send (data: unknown, ...rest: unknown[]): void {
    const isFrame = typeof data === 'string' && data.length > 'pong'.length
    Reflect.apply(super.send, this, [isFrame ? `${data} ` : data, ...rest])
  }
}

const padding = { options: { WebSocket: Padded } } as WebsocketPluginOptions

t.test('frames of ours below ws', async t => {
  const { registry, warnings } = await start(t)
  await behave(t, { registry })
  t.notOk(warnings.some(text => text.includes(warning)))
})

t.test('frames of ours over TLS', async t => {
  const { registry, warnings } = await start(t, { server: { https: tlsServer } })
  const base = `https://127.0.0.1:${(registry.app.server.address() as AddressInfo).port}`
  await behave(t, { registry: Object.assign(registry, { base }), options: tlsClient })
  t.notOk(warnings.some(text => text.includes(warning)))
})

t.test('with a ws that frames in another way the start warns, and ws sends each frame', async t => {
  const { registry, warnings } = await start(t, { before: app => app.register(fastifyWebsocket, padding) })
  const found = warnings.filter(text => text.includes(warning))
  t.equal(found.length, 1)
  t.match(JSON.parse(found[0]!), { fault: 'frames differ' })
  const watcher = await registry.watcher()
  const raw: string[] = []
  watcher.ws.on('message', data => raw.push(String(data)))
  watcher.send({ type: 'ping' })
  await watcher.next('pong')
  t.match(raw[0], /\} $/, 'sent by the host\'s WebSocket')
  watcher.close()
  await behave(t, { registry })
})

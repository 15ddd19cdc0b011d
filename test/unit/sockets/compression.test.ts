import { once } from 'node:events'
import fastifyWebsocket, { type WebsocketPluginOptions } from '@fastify/websocket'
import type { FastifyInstance } from 'fastify'
import t from 'tap'
import type { WebSocket } from 'ws'
import { hardPayloadLimit } from '../../../src/sockets/transport/ws.js'
import { optionsFromEnv } from '../../../src/server/env.js'
import { build, until, withDefaults, type Client, type Harness } from '../../support/harness.js'
import { behave, lively } from './behaviours.js'
import { assertAlive } from './helper.js'
import { rawOf } from './pairs.js'

const compressing = withDefaults({ ...lively, sockets: { ...lively.sockets, compression: true } })
const plain = { perMessageDeflate: false }
/** What can be said in far fewer bytes, and is larger than the least that is compressed. */
const wordy = { metadata: { text: ['the same again and again '.repeat(2000)] } }

async function watcher (registry: Harness, protocols: string[] = [], options = {}): Promise<Client> {
  const client = registry.socket('/public/ws', protocols, options)
  await client.next('welcome')
  client.send({ type: 'watch', requestId: 'w' })
  await client.next('ack')
  return client
}

const bytesRead = ({ ws }: Client) => rawOf(ws).bytesRead
const changesOf = ({ all }: Client) => all.filter(({ type }) => type === 'agents_delta').flatMap(({ changes }) => changes)

t.test('nothing is compressed unless the operator says so', async t => {
  const registry = await build(t, lively)
  const client = await watcher(registry)
  t.equal(client.ws.extensions, '')
  t.equal(optionsFromEnv({ WEBSOCKET_COMPRESSION: 'true' }).options.sockets?.compression, true)
})

t.test('sockets that are compressed keep every promise of those that are not', async t => {
  await behave(t, { registry: await build(t, compressing) })
})

t.test('those of the same registry that do not offer it too', async t => {
  await behave(t, { registry: await build(t, compressing), options: plain })
})

t.test('clients with and without it, in text and in MessagePack, get the same', async t => {
  const registry = await build(t, compressing)
  const packed = ['agent-registry.msgpack']
  const clients = await Promise.all([watcher(registry), watcher(registry, [], plain), watcher(registry, packed), watcher(registry, packed, plain)])
  t.strictSame(clients.map(({ ws }) => ws.extensions !== ''), [true, false, true, false])
  const before = clients.map(bytesRead)
  for (let n = 0; n < 20; n++) await registry.join(`agent-${n}`, n % 2 === 0 ? wordy : {})
  await until(() => clients.every(client => changesOf(client).length === 20))
  const [first, ...others] = clients.map(changesOf)
  for (const other of others) t.strictSame(other, first)
  const [deflated, whole] = clients.map((client, index) => bytesRead(client) - before[index]!) as [number, number]
  t.ok(whole > 500_000 && deflated < whole / 10, `${deflated} of ${whole} bytes`)
})

t.test('neither side keeps a context, and the window of the server is small', async t => {
  const registry = await build(t, compressing)
  const [{ headers }] = await once(registry.socket('/public/ws').ws, 'upgrade')
  t.strictSame(headers['sec-websocket-extensions'].split('; ').sort(), ['client_no_context_takeover', 'permessage-deflate', 'server_max_window_bits=12', 'server_no_context_takeover'])
})

t.test('what a client compresses is understood, and bounded by what it becomes', async t => {
  const registry = await build(t, compressing)
  const [client, neighbour] = [await watcher(registry), await watcher(registry)]
  client.send({ type: 'ping', requestId: 'large', pad: 'x'.repeat(3000) })
  t.equal((await client.next('pong')).requestId, 'large')
  client.send({ type: 'ping', pad: 'x'.repeat(5000) })
  t.equal((await client.next('error')).code, 'message_too_large')
  client.send('x'.repeat(50_000_000))
  t.equal((await client.closed).code, 1009)
  await assertAlive(neighbour)
})

t.test('a host that has @fastify/websocket decides by itself, and what is inflated there is bounded too', async t => {
  const settings = (perMessageDeflate: boolean): WebsocketPluginOptions => ({ options: { perMessageDeflate } })
  const servers: WebSocket[] = []
  async function host (app: FastifyInstance, isCompressing: boolean) {
    await app.register(fastifyWebsocket, settings(isCompressing))
    app.websocketServer.on('connection', (socket: WebSocket) => servers.push(socket))
  }
  const off = await build(t, compressing, { before: app => host(app, false) })
  t.equal((await watcher(off)).ws.extensions, '')
  const on = await build(t, lively, { before: app => host(app, true) })
  const client = await watcher(on)
  t.match(client.ws.extensions, /^permessage-deflate/)
  const { _extensions: extensions } = servers.at(-1) as unknown as { _extensions: Record<string, { _maxPayload: number }> }
  t.equal(extensions['permessage-deflate']!._maxPayload, hardPayloadLimit)
  client.send('x'.repeat(50_000_000))
  t.equal((await client.closed).code, 1009)
})

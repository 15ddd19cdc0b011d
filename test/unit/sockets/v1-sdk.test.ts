import { SignallingClient } from '@metered-ca/realtime'
import fastify from 'fastify'
import t, { type Test } from 'tap'
import type { WebSocket } from 'ws'
import agentRegistry from '../../../src/index.js'
import { build, freePort, until, withDefaults, type Harness, type Json } from '../../support/harness.js'
import { nextWhere } from './helper.js'
import { buildV1, peer, peerToken, publishableKey, sdkClient, sdkOptions, v1Options } from './v1-helper.js'

/** What a client of the SDK has heard, in order. */
function hear (client: SignallingClient): Array<[event: string, payload: Json]> {
  const heard: Array<[string, Json]> = []
  for (const event of ['connected', 'disconnected', 'message', 'direct', 'presence', 'going-away', 'server-error'] as const) {
    client.on(event, payload => { heard.push([event, payload]) })
  }
  return heard
}

const sourceOf = (registry: Harness, peerId: string, more: object = {}) => ({ token: () => peerToken(registry, peerId, more) })

t.test('the signalling client of the SDK', async t => {
  const registry = await buildV1(t)

  await t.test('connects, subscribes, publishes, sends, and sees who is there', async t => {
    const client = sdkClient(t, registry, sourceOf(registry, 'alice', { metadata: { iceServers: [{ urls: ['stun:stun.example.com:3478'] }] } }))
    const heard = hear(client)
    await client.connect()
    t.match(heard[0], ['connected', { peerId: 'alice', isReconnect: false, maxMessageSize: 65_536, iceServers: [{}] }])
    await client.subscribe('app/room-1', { includeSenderMetadata: true })
    await until(() => heard.length > 1)
    t.match(heard[1], ['presence', { channel: 'app/room-1', joined: [{ peerId: 'alice' }], left: [] }])
    const bob = await peer(registry, 'bob', { peerMetadata: { username: 'Bob' } })
    bob.send({ type: 'subscribe', channel: 'app/room-1' })
    await until(() => heard.length > 2)
    t.match(heard[2], ['presence', { joined: [{ peerId: 'bob', metadata: { username: 'Bob' } }] }])
    await client.publish('app/room-1', { hello: 'all' })
    t.match(await bob.next('message'), { from: 'alice', data: { hello: 'all' } })
    await client.send('bob', { hello: 'bob' })
    t.match(await bob.next('direct'), { from: 'alice', data: { hello: 'bob' } })
    bob.send({ type: 'publish', channel: 'app/room-1', data: 1 })
    bob.send({ type: 'send', to: 'alice', data: 2 })
    await until(() => heard.length > 4)
    t.match(heard.slice(3), [['message', { from: 'bob', data: 1, fromMetadata: { username: 'Bob' } }], ['direct', { from: 'bob', data: 2 }]])
    await client.unsubscribe('app/room-1')
    bob.send({ type: 'publish', channel: 'app/room-1', data: 3, requestId: 'p' })
    await nextWhere(bob, 'ack', ({ requestId }) => requestId === 'p')
    await client.send('alice', 'over')
    await until(() => heard.at(-1)![0] === 'direct' && heard.length > 5)
    t.equal(heard.length, 6)
    await client.close()
  })

  await t.test('hears codes as names of errors', async t => {
    const client = sdkClient(t, registry, sourceOf(registry, 'carol', { channels: ['app/*'], permissions: ['subscribe', 'send'] }))
    await client.connect()
    await t.rejects(client.subscribe('other'), { name: 'channel_not_authorized' })
    await t.rejects(client.subscribe('_metered/x'), { name: 'channel_reserved' })
    await t.rejects(client.publish('app/a', 1), { name: 'action_not_permitted' })
    await t.rejects(client.send('nobody', 1), { name: 'peer_not_found' })
  })

  await t.test('with a publishable key', async t => {
    const client = sdkClient(t, registry, { key: publishableKey })
    await client.connect()
    await client.subscribe('lobby')
    await t.rejects(client.subscribe('elsewhere'), { name: 'channel_not_authorized' })
  })

  await t.test('is told why it may not come in', async t => {
    await t.rejects(sdkClient(t, registry, { key: 'pk_live_unknown' }).connect(), { message: /closeCode=4001/ })
    await t.rejects(sdkClient(t, registry, { token: async () => 'nonsense' }).connect(), { message: /closeCode=4001/ })
    await t.rejects(sdkClient(t, registry, { token: () => registry.tempToken('agent-one') }).connect(), { message: /closeCode=4003/ })
  })

  await t.test('an agent uses it with its own token', async t => {
    const token = await registry.join('agent-one')
    const agent = await registry.agentSocket(await registry.join('agent-two'))
    const client = sdkClient(t, registry, { token: async () => token })
    await client.connect()
    await client.send('agent-two', { hello: 1 })
    t.match(await agent.next('direct'), { from: 'agent-one', data: { hello: 1 }, fromMetadata: { agent_id: 'agent-one' } })
  })

  await t.test('stays away when an admin has sent it away', async t => {
    const client = sdkClient(t, registry, sourceOf(registry, 'dave'))
    const heard = hear(client)
    await client.connect()
    t.same((await registry.delete('/v1/peers/dave', await registry.admin())).body, { peerId: 'dave', closed: 1 })
    await until(() => heard.some(([event]) => event === 'disconnected'))
    t.match(heard.at(-1), ['disconnected', { code: 4020, willReconnect: false }])
  })
})

/** Sockets that a client of the SDK has opened. */
function watched (options: ReturnType<typeof sdkOptions>): { sockets: WebSocket[], options: ReturnType<typeof sdkOptions> } {
  const sockets: WebSocket[] = []
  const open = options.webSocketFactory!
  return {
    sockets,
    options: {
      ...options,
      webSocketFactory (url) {
        const socket = open(url)
        sockets.push(socket as unknown as WebSocket)
        return socket
      }
    }
  }
}

t.test('a client that is cut comes back, and is subscribed again', async t => {
  const registry = await buildV1(t)
  const { sockets, options } = watched(sdkOptions(registry, sourceOf(registry, 'alice')))
  const client = new SignallingClient(options)
  t.teardown(() => client.close())
  const heard = hear(client)
  await client.connect()
  await client.subscribe('room')
  await client.subscribe('lobby')
  for (let cut = 1; cut <= 3; cut++) {
    const from = heard.length
    sockets.at(-1)!.terminate()
    await until(() => heard.slice(from).filter(([event]) => event === 'presence').length === 2)
    t.match(heard.slice(from).map(([event]) => event), ['disconnected', 'connected', 'presence', 'presence'])
    t.match(heard[from + 1], ['connected', { isReconnect: true, peerId: 'alice' }])
  }
  const bob = await peer(registry, 'bob')
  for (const channel of ['room', 'lobby']) bob.send({ type: 'publish', channel, data: channel })
  await until(() => heard.filter(([event]) => event === 'message').length === 2)
  t.equal(sockets.length, 4)
})

/** A registry on a port of its own, which can be started again. */
async function serve (t: Test, port: number): Promise<{ close: () => Promise<void> }> {
  const app = fastify()
  await app.register(agentRegistry, withDefaults(v1Options))
  await app.listen({ port, host: '127.0.0.1' })
  t.teardown(() => app.close())
  return app
}

t.test('a server that goes says so, and clients are there again when it is', async t => {
  const port = await freePort()
  const other = await build(t, v1Options)
  const first = await serve(t, port)
  const token = await peerToken(other, 'alice')
  const options = { ...sdkOptions(other, { token: async () => token }), url: `ws://127.0.0.1:${port}` }
  const client = new SignallingClient(options)
  t.teardown(() => client.close())
  const heard = hear(client)
  await client.connect()
  await client.subscribe('room')
  await first.close()
  await until(() => heard.some(([event]) => event === 'disconnected'))
  t.ok(heard.some(([event]) => event === 'going-away'))
  t.match(heard.find(([event]) => event === 'disconnected'), ['disconnected', { code: 1001, willReconnect: true }])
  await serve(t, port)
  await until(() => heard.filter(([event]) => event === 'presence').length === 2, 10_000)
  await client.send('alice', 'again')
  await until(() => heard.at(-1)![0] === 'direct')
})

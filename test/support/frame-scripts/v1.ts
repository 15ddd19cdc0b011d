import type { Test } from 'tap'
import { build, fingerprint, type Harness } from '../harness.js'
import { FrameRecorder, recordedOptions, type RecordedSocket } from '../frame-recorder.js'
import { openAgent } from './agents-auth.js'

const secretKey = 'sk_id_test:sk_secret_0123456789'
const publishableKey = 'pk_live_0123456789'
const peerKeys = [{
  key: publishableKey,
  channels: [
    'room-*'
  ],
  permissions: ['subscribe' as const, 'publish' as const, 'presence' as const],
  maxConnections: 1
}]
const options = { ...recordedOptions, secretKeys: [secretKey], peerKeys }

async function peerToken (registry: Harness, peerId: string, more: object = {}): Promise<string> {
  const { body } = await registry.post('/v1/tokens', { token: secretKey, body: { peerId, channels: ['**'], ...more } })
  return body.token
}

async function openPeer (recorder: FrameRecorder, name: string, token: string, registry?: Harness): Promise<RecordedSocket> {
  const socket = await recorder.open(name, `/v1?token=${token}`, {}, registry).opened()
  await socket.expect('welcome')
  return socket
}

async function publish (recorder: FrameRecorder, registry: Harness) {
  const alice = await openPeer(
    recorder, 'alice', await peerToken(registry, 'alice', { metadata: { ice: [1] }, peerMetadata: { username: 'Alice' } })
  )
  const bob = await openPeer(recorder, 'bob', await peerToken(registry, 'bob'))
  await alice.send({ type: 'subscribe', channel: 'app/room 1', requestId: 'r1' }, 'ack', 'presence')
  await bob.send({ type: 'subscribe', channel: 'app/room 1', includeSenderMetadata: true }, 'presence')
  await alice.expect('presence')
  await alice.send({ type: 'publish', channel: 'app/room 1', data: { text: 'hello' }, requestId: 'r2' }, 'ack')
  await bob.expect('message')
  await bob.send({ type: 'publish', channel: 'app/room 1', data: 1 })
  await alice.expect('message')
  await alice.send({ type: 'subscribe', channel: 'app/room 1', requestId: 'r3' }, 'ack', 'presence')
  await alice.send({ type: 'send', to: 'bob', data: 'direct', requestId: 'r4' }, 'ack')
  await bob.expect('direct')
  await alice.send({ type: 'send', to: 'bob', data: 2 })
  await bob.expect('direct')
  await bob.send({ type: 'unsubscribe', channel: 'app/room 1', requestId: 'r1' }, 'ack')
  await alice.expect('presence')
  await bob.send({ type: 'unsubscribe', channel: 'app/room 1' })
  await bob.send({ type: 'ping', requestId: 'r2' }, 'pong')
  await bob.send({ type: 'ping' }, 'pong')
  await breakRules(alice)
  return { alice, bob }
}

async function breakRules (alice: RecordedSocket) {
  const refused = [
    { type: 'subscribe', channel: '' },
    { type: 'subscribe', channel: '$agents' },
    { type: 'subscribe', channel: '_internal/a' },
    { type: 'subscribe', channel: 'x'.repeat(257) },
    { type: 'subscribe' },
    { type: 'unsubscribe', channel: 5 },
    { type: 'publish', channel: 'app/a' },
    { type: 'publish', channel: '_system/a', data: 1 },
    { type: 'publish', channel: 'app/a', data: 'x'.repeat(66_000) },
    { type: 'send', to: 'nobody', data: 1 },
    { type: 'send', to: 5, data: 1 },
    { type: 'send', data: 1 },
    { type: 'send', to: 'bob' },
    { type: 'history', channel: 'app/a' },
    { type: 'pong' }
  ]
  for (const [index, frame] of refused.entries()) await alice.send({ ...frame, requestId: `e${index}` }, 'error')
  for (const text of ['ping', '{', '[]', '{"type":5}', '{"type":"ping","__proto__":{}}']) await alice.send(text, 'error')
  await alice.send(Buffer.from('{}'), 'error')
}

/** Messages between peers and agents. */
async function crossTiers (recorder: FrameRecorder, registry: Harness, alice: RecordedSocket) {
  const token = await registry.join('agent-one')
  const agent = await openAgent(recorder, 'agents tier: agent-one', token)
  await agent.send({ type: 'send', to: 'alice', data: 'from an agent', requestId: 'r1' }, 'ack')
  await alice.expect('direct')
  await agent.send({ type: 'message', to: 'alice', content: 'small', requestId: 'r2' }, 'ack')
  await alice.expect('direct')
  await alice.send({ type: 'send', to: 'agent-one', data: 'from a peer', requestId: 'r20' }, 'ack')
  await agent.expect('direct')
  const own = await openPeer(recorder, 'an agent on /v1', token)
  await own.send({ type: 'subscribe', channel: 'agents/room', requestId: 'r1' }, 'ack', 'presence')
  await own.send({ type: 'subscribe', channel: 'other', requestId: 'r2' }, 'error')
  await own.send({ type: 'publish', channel: 'agents/room', data: 1, requestId: 'r3' }, 'ack')
  await own.leave()
  await agent.leave()
}

async function limitRights (recorder: FrameRecorder, registry: Harness) {
  const keyed = await recorder.open('a publishable key', `/v1?key=${publishableKey}`).opened()
  await keyed.expect('welcome')
  await keyed.send({ type: 'subscribe', channel: 'room-1', requestId: 'r1' }, 'ack', 'presence')
  await keyed.send({ type: 'subscribe', channel: 'lobby', requestId: 'r2' }, 'error')
  await keyed.send({ type: 'send', to: 'bob', data: 1, requestId: 'r3' }, 'error')
  const second = await recorder.open('more connections than a key may have', `/v1?key=${publishableKey}`).opened()
  await second.ended()
  await keyed.leave()
  const token = await peerToken(registry, 'carol', { channels: ['a'], permissions: ['subscribe'] })
  const carol = await openPeer(recorder, 'a peer that may only subscribe', token)
  await carol.send({ type: 'subscribe', channel: 'a', requestId: 'r1' }, 'ack')
  await carol.send({ type: 'publish', channel: 'a', data: 1, requestId: 'r2' }, 'error')
  await carol.leave()
}

/** Upgrades that the server refuses, and ends of connections. */
async function endConnections (t: Test, recorder: FrameRecorder, registry: Harness, alice: RecordedSocket) {
  const admin = await registry.admin()
  const refused = {
    'no credentials': '/v1',
    'an invalid token': '/v1?token=wrong',
    'an unknown key': '/v1?key=pk_unknown_0123',
    'a temporary token': `/v1?token=${await registry.tempToken()}`
  }
  for (const [name, url] of Object.entries(refused)) {
    const socket = await recorder.open(`upgrade: ${name}`, url).opened()
    await socket.ended()
  }
  await registry.delete('/v1/peers/alice', { token: admin.token, headers: { 'x-client-fingerprint': fingerprint } })
  await alice.ended()
  const limited = await build(t, { ...options, messaging: { maxConnectionsPerPeer: 1 }, sockets: { drainMs: 50 } })
  const first = await openPeer(recorder, 'a server that shuts down', await peerToken(limited, 'dave', { expiresInSec: 60 }), limited)
  const second = await recorder.open('more connections than a peer may have', `/v1?token=${await peerToken(limited, 'dave')}`, {}, limited)
    .opened()
  await second.ended()
  const closed = limited.app.close()
  await first.expect('going_away')
  await first.ended()
  await closed
}

export async function recordV1 (t: Test) {
  const registry = await build(t, options)
  const recorder = new FrameRecorder(registry)
  const { alice, bob } = await publish(recorder, registry)
  await crossTiers(recorder, registry, alice)
  await limitRights(recorder, registry)
  await endConnections(t, recorder, registry, alice)
  await bob.leave()
  t.same(await recorder.unsent('v1'), [], 'every client frame type was sent')
  return await recorder.finish()
}

import type { Test } from 'tap'
import { build, type Harness } from '../harness.js'
import { FrameRecorder, recordedOptions, type RecordedSocket } from '../frame-recorder.js'

const path = '/public/ws'

async function openReader (recorder: FrameRecorder, name: string, registry?: Harness): Promise<RecordedSocket> {
  const reader = await recorder.open(name, path, {}, registry).opened()
  await reader.expect('welcome')
  return reader
}

async function readDiscovery (recorder: FrameRecorder, registry: Harness) {
  const reader = await openReader(recorder, 'discovery and keep-alive')
  await reader.send(' Ping\n', 'pong')
  await reader.send('pong')
  await reader.send({ type: 'ping', requestId: 'r1' }, 'pong')
  await reader.send({ type: 'ping' }, 'pong')
  await reader.send({ type: 'pong' })
  await reader.send({ type: 'get_discovery' }, 'discovery_data')
  await registry.join(
    'agent-one', { features: ['a'], policy_tags: ['b'], language_support: ['en'], max_tokens: 10, ai_context: 'said context' }
  )
  await registry.join('agent-two', { agent_type: 'security' })
  await registry.join('agent-three')
  await reader.send({ type: 'get_discovery', requestId: 'r2' }, 'discovery_data')
  await reader.send({ type: 'get_discovery', page: '1', page_size: 2 }, 'discovery_data')
  await reader.send({ type: 'get_discovery', page: 2, page_size: 2.7 }, 'discovery_data')
  await reader.send({ type: 'get_discovery', page: 9, page_size: 1000 }, 'discovery_data')
  await reader.send({ type: 'get_discovery', agent_type: 'security' }, 'discovery_data')
  await reader.send({ type: 'get_discovery', agent_type: '' }, 'discovery_data')
  await reader.send({ type: 'get_discovery', page: null, requestId: 'r3' }, 'error')
}

async function breakRules (recorder: FrameRecorder) {
  const socket = await openReader(recorder, 'frames that are refused')
  for (const text of ['{', '', '[1]', '5', 'null', '"ping"']) await socket.send(text, 'error')
  await socket.send('{"type":"ping","requestId":"r1","__proto__":{"a":1}}', 'error')
  await socket.send({ type: 'nope', requestId: 'r2' }, 'error')
  for (const type of [undefined, null, 5, { a: [1] }]) await socket.send({ type }, 'error')
  await socket.send({ type: 'subscribe', channel: 'public/a' }, 'error')
  await socket.send({ type: 'watch', since: 5, requestId: 'r3' }, 'error')
  await socket.send({ type: 'watch', filter: { other: 1 } }, 'error')
  await socket.send({ type: 'ping', requestId: 'x'.repeat(129) }, 'error')
  await socket.send('x'.repeat(5000), 'error')
  await socket.send(Buffer.from('{}'), 'error')
  await socket.send('x'.repeat(300_000))
  await socket.ended()
}

async function watch (recorder: FrameRecorder, registry: Harness) {
  const socket = await openReader(recorder, 'feed of changes')
  const { agentRegistry } = registry.app
  const [{ revision: before }] = await socket.send({ type: 'watch', requestId: 'r1', snapshot: true }, 'ack', 'agents_snapshot')
  await agentRegistry.setStatus('agent-two', 'draining')
  await socket.expect('agents_delta')
  await agentRegistry.setStatus('agent-two', 'alive')
  await socket.expect('agents_delta')
  await registry.join('agent-four')
  await socket.expect('agents_delta')
  await registry.join('agent-four', { name: 'Four again' })
  await socket.expect('agents_delta')
  await agentRegistry.unregister('agent-four')
  await socket.expect('agents_delta')
  await socket.send({ type: 'watch', requestId: 'r2', since: before }, 'ack', 'agents_delta')
  await socket.send({ type: 'watch', requestId: 'r3', since: 'another:1' }, 'ack', 'resync', 'agents_snapshot')
  await socket.send({ type: 'watch', requestId: 'r4', snapshot: true, filter: { agent_type: 'security' } }, 'ack', 'agents_snapshot')
  await socket.send({ type: 'unwatch', requestId: 'r5' }, 'ack')
  await socket.send({ type: 'unwatch' })
}

async function packFrames (recorder: FrameRecorder) {
  const socket = await recorder.open('MessagePack', path, { protocols: ['agent-registry.msgpack'] }).opened()
  await socket.expect('welcome')
  await socket.sendPacked({ type: 'get_discovery', page_size: 1, requestId: 'r1' }, 'discovery_data')
  await socket.send({ type: 'ping', requestId: 'r2' }, 'pong')
  await socket.send(Buffer.from([0xc1]), 'error')
  const json = await recorder.open('JSON as a subprotocol', path, { protocols: ['other', 'agent-registry.json'] }).opened()
  await json.expect('welcome')
}

/** Frames that the server sends on its own, and ends of connections. */
async function wait (t: Test, recorder: FrameRecorder) {
  const registry = await build(t, {
    publicWs: { intervalMs: 50, pingIntervalMs: 200 }, feed: { bookmarkIntervalMs: 100 }, sockets: { maxAgentsPerUpdate: 1, drainMs: 50 }
  })
  const [reader, watcher] = [
    await openReader(recorder, 'a server that shuts down', registry), await openReader(recorder, 'a watcher of that server', registry)
  ]
  await watcher.send({ type: 'watch', requestId: 'r1' }, 'ack')
  for (const id of ['agent-one', 'agent-two', 'agent-three']) {
    await registry.join(id)
    await reader.await('agents_update', ({ data }) => id === 'agent-one' || data.truncated)
    await watcher.expect('agents_delta')
  }
  for (const type of ['stats_update', 'ping']) await reader.await(type)
  await watcher.await('bookmark')
  const closed = registry.app.close()
  for (const socket of [reader, watcher]) {
    await socket.expect('going_away')
    await socket.ended()
  }
  await closed
}

async function exceedLimits (t: Test, recorder: FrameRecorder) {
  const registry = await build(t, { publicWs: { maxConnections: 1, messagesPerSecond: 1, burst: 1 } })
  const socket = await openReader(recorder, 'too many frames', registry)
  await recorder.open('a full tier', path, {}, registry).ended()
  await socket.send({ type: 'ping', requestId: 'r1' })
  await socket.send({ type: 'ping', requestId: 'r2' }, 'pong', 'error')
  await socket.leave()
  const impatient = await build(t, { publicWs: { idleTimeoutMs: 100 } })
  const idle = await openReader(recorder, 'an idle connection', impatient)
  await idle.ended()
}

export async function recordPublic (t: Test) {
  const registry = await build(t, recordedOptions)
  const recorder = new FrameRecorder(registry)
  await readDiscovery(recorder, registry)
  await breakRules(recorder)
  await watch(recorder, registry)
  await packFrames(recorder)
  await wait(t, recorder)
  await exceedLimits(t, recorder)
  t.same(await recorder.unsent('public'), [], 'every client frame type was sent')
  return await recorder.finish()
}

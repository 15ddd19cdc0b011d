import type { Harness } from '../harness.js'
import type { FrameRecorder, RecordedSocket } from '../frame-recorder.js'
import { openAgent } from './agents-auth.js'

async function send (recorder: FrameRecorder, registry: Harness, one: RecordedSocket, two: RecordedSocket) {
  await one.send({ type: 'send', to: 'agent-two', data: { text: 'hello' }, requestId: 'r1' }, 'ack')
  await two.expect('direct')
  await one.send({ type: 'send', to: 'agent-two', data: 1, level: 'delivered', msgId: 'm1', requestId: 'r2' }, 'ack')
  await two.expect('direct')
  await one.send({ type: 'send', to: 'agent-two', data: 1, level: 'accepted', msgId: 'm1', requestId: 'r3' }, 'ack')
  await one.send({ type: 'send', to: 'agent-two', data: 2 })
  await two.expect('direct')
  await one.send({ type: 'send', to: 'agent-one', data: 3, requestId: 'r4' }, 'direct', 'ack')
  await one.send({ type: 'message', to: 'agent-two', content: 'small', requestId: 'r5' }, 'ack')
  await two.expect('message')
  await one.send({ type: 'message', to: null, content: 'to all', requestId: 'r6' }, 'error')
  await registry.join('agent-away')
  await one.send({ type: 'send', to: 'agent-away', data: 4, requestId: 'r7' }, 'ack')
  await one.send({ type: 'message', to: 'agent-away', content: 'small and kept', requestId: 'r8' }, 'ack')
  const token = await registry.join('agent-away')
  const away = await openAgent(recorder, 'an agent that was away', token)
  const [{ epoch }] = await away.send({ type: 'inbox', requestId: 'r1' }, 'ack', 'direct', 'message')
  await away.send({ type: 'inbox', since: { epoch, offset: 1 }, requestId: 'r2' }, 'ack')
  const again = await openAgent(recorder, 'another connection of that agent', token)
  await again.send({ type: 'inbox', since: { epoch, offset: 1 }, requestId: 'r1' }, 'ack', 'message')
  await again.send({ type: 'inbox', since: { epoch: 'other', offset: 1 }, requestId: 'r2' }, 'ack', 'direct')
  await again.leave()
  await away.send({ type: 'goodbye', requestId: 'r3' }, 'ack')
  await away.ended()
}

async function broadcast (recorder: FrameRecorder, registry: Harness, one: RecordedSocket, two: RecordedSocket) {
  const admin = await openAgent(recorder, 'direct: an admin who writes to all', (await registry.admin()).token)
  await admin.send({ type: 'message', content: 'to all', requestId: 'r1' }, 'ack')
  for (const socket of [one, two]) await socket.expect('message')
  await admin.leave()
}

async function answerRequests (one: RecordedSocket, two: RecordedSocket) {
  await two.send({ type: 'request', to: 'agent-one', data: { text: 'hello' }, timeoutMs: 30_000, requestId: 'r10' })
  const [first] = await one.expect('request')
  await two.send({ type: 'request', to: 'agent-one', data: 0, timeoutMs: 30_000, requestId: 'r10' }, 'error')
  await one.send({ type: 'accept', rid: first.rid, requestId: 'r10' }, 'ack')
  await one.send({ type: 'reply', rid: first.rid, data: { text: 'world' }, requestId: 'r11' }, 'ack')
  await two.expect('response')
  await one.send({ type: 'reply', rid: first.rid, data: 1, requestId: 'r12' }, 'error')
  await two.send({ type: 'request', capability: 'summarise', data: 1, timeoutMs: 30_000, requestId: 'r11' })
  const [second] = await one.expect('request')
  await one.send({ type: 'reject', rid: second.rid, code: 'busy', message: 'said busy' })
  await two.expect('error')
  await two.send({ type: 'request', to: 'agent-one', data: 2, timeoutMs: 30_000, requestId: 'r12' })
  await one.expect('request')
  await two.send({ type: 'cancel_request', requestId: 'r12' }, 'ack')
  await one.expect('request_cancelled')
  await two.send({ type: 'request', to: 'agent-one', data: 3, timeoutMs: 50, requestId: 'r13' }, 'error')
  const [late] = await one.expect('request')
  for (const frame of [{ type: 'accept' }, { type: 'reply', data: 1 }, { type: 'reject', code: 'late', message: 'said late' }]) {
    await one.send({ ...frame, rid: late.rid, requestId: 'r13' }, 'error')
  }
}

/** Requests that move to another agent, or whose agent disconnects. */
async function moveRequests (recorder: FrameRecorder, registry: Harness, two: RecordedSocket) {
  const open = async (id: string) => openAgent(recorder, `direct: ${id}`, await registry.join(id, { capabilities: ['relay'] }))
  const [silent, relay] = [await open('agent-silent'), await open('agent-relay')]
  await two.send({ type: 'request', to: 'agent-relay', data: 0, timeoutMs: 30_000, requestId: 'r30' })
  await relay.expect('request')
  await two.send({ type: 'request', capability: 'relay', data: 1, timeoutMs: 30_000, requestId: 'r31' })
  await silent.expect('request')
  await silent.expect('request_cancelled')
  const [{ rid }] = await relay.expect('request')
  await relay.send({ type: 'accept', rid, requestId: 'r1' }, 'ack')
  await relay.leave()
  await two.expect('error', 'error')
  await silent.send({ type: 'goodbye', requestId: 'r1' }, 'ack')
  await silent.ended()
}

async function breakRules (one: RecordedSocket) {
  const refused = [
    { type: 'send', to: 'agent-unknown', data: 1 },
    { type: 'send', to: 'agent-two' },
    { type: 'send', data: 1 },
    { type: 'send', to: 'agent-two', data: 'x'.repeat(66_000) },
    { type: 'send', to: 'agent-two', data: 1, level: 'read' },
    { type: 'inbox', since: 5 },
    { type: 'message', to: 'agent-unknown', content: 1 },
    { type: 'message', to: 'agent-two' },
    { type: 'request', capability: 'nothing', data: 1, timeoutMs: 1000 },
    { type: 'request', to: 'agent-away', data: 1, timeoutMs: 1000 },
    { type: 'request', to: 'agent-two', capability: 'summarise', data: 1, timeoutMs: 1000 },
    { type: 'request', data: 1, timeoutMs: 1000 },
    { type: 'request', to: 'agent-two', timeoutMs: 1000 },
    { type: 'request', to: 'agent-two', data: 1, timeoutMs: 0 },
    { type: 'accept', rid: 'unknown' },
    { type: 'reply', rid: 'unknown', data: 1 },
    { type: 'reject', rid: 'unknown', code: 'x', message: 'said x' },
    { type: 'cancel_request' }
  ]
  for (const [index, frame] of refused.entries()) await one.send({ ...frame, requestId: `e${index}` }, 'error')
  await one.send({ type: 'request', to: 'agent-two', data: 1, timeoutMs: 1000 }, 'error')
}

async function watch (registry: Harness, one: RecordedSocket) {
  const { agentRegistry } = registry.app
  await one.send({ type: 'watch', requestId: 'r20', filter: { agent_type: 'monitoring' }, snapshot: true }, 'ack', 'agents_snapshot')
  await registry.join('agent-watched', { agent_type: 'monitoring' })
  await one.expect('agents_delta')
  await agentRegistry.setStatus('agent-watched', 'maintenance')
  await one.expect('agents_delta')
  await agentRegistry.unregister('agent-watched')
  await one.expect('agents_delta')
  await one.send({ type: 'watch', requestId: 'r21', since: 'another:1', filter: { status: 'dead' } }, 'ack', 'resync', 'agents_snapshot')
  await one.send({ type: 'unwatch', requestId: 'r22' }, 'ack')
}

async function packFrames (recorder: FrameRecorder, registry: Harness, two: RecordedSocket) {
  const protocols = ['agent-registry.msgpack', `bearer.${await registry.join('agent-packed')}`]
  const packed = await recorder.open('MessagePack', '/agents/ws', { protocols }).opened()
  await packed.expect('auth_success', 'list')
  await packed.sendPacked({ type: 'subscribe', channel: 'public/packed', requestId: 'r1' }, 'ack')
  await two.send({ type: 'publish', channel: 'public/packed', data: { text: 'hello' }, requestId: 'r40' }, 'ack')
  await packed.expect('message')
  await packed.sendPacked({ type: 'nope', requestId: 'r2' }, 'error')
}

export async function recordDirect (recorder: FrameRecorder, registry: Harness) {
  const one = await openAgent(recorder, 'direct: agent-one', await registry.join('agent-one', { capabilities: ['summarise'] }))
  const two = await openAgent(recorder, 'direct: agent-two', await registry.join('agent-two'))
  await send(recorder, registry, one, two)
  await broadcast(recorder, registry, one, two)
  await answerRequests(one, two)
  await moveRequests(recorder, registry, two)
  await breakRules(one)
  await watch(registry, one)
  await packFrames(recorder, registry, two)
}

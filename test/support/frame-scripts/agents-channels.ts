import type { Test } from 'tap'
import { build, type Harness } from '../harness.js'
import type { FrameRecorder, RecordedSocket } from '../frame-recorder.js'
import { openAgent } from './agents-auth.js'

const channel = 'workflows/run-1'

async function publish (one: RecordedSocket, two: RecordedSocket) {
  const [{ epoch }] = await one.send({ type: 'subscribe', channel, presence: true, requestId: 'r1' }, 'ack', 'presence')
  await two.send({ type: 'subscribe', channel, includeSenderMetadata: true }, 'ack')
  await one.expect('presence')
  await one.send({ type: 'publish', channel, data: { text: 'hello' }, requestId: 'r2' }, 'ack')
  await two.expect('message')
  await two.send({ type: 'publish', channel, data: [1, null, 'x'], echo: true, requestId: 'r3' }, 'message', 'ack')
  await one.expect('message')
  await one.send({ type: 'publish', channel, data: 5, msgId: 'm1', requestId: 'r4' }, 'ack')
  await two.expect('message')
  await one.send({ type: 'publish', channel, data: 5, msgId: 'm1', requestId: 'r5' }, 'ack')
  await one.send({ type: 'publish', channel, data: null })
  await two.expect('message')
  await one.send({ type: 'subscribe', channel, requestId: 'r6', since: { epoch, offset: 0 } }, 'ack')
  await one.send({ type: 'history', channel, requestId: 'r7' }, 'history')
  await one.send({ type: 'history', channel, requestId: 'r8', since: { epoch, offset: 1 }, limit: 1 }, 'history')
  await one.send({ type: 'history', channel, since: { epoch: 'other', offset: 1 } }, 'history')
  await one.send({ type: 'presence', channel, requestId: 'r9' }, 'presence')
  await one.send({ type: 'unsubscribe', channel, requestId: 'r10' }, 'ack')
  await one.send({ type: 'unsubscribe', channel, requestId: 'r11' }, 'ack')
  await two.send({ type: 'unsubscribe', channel })
}

/** Missed messages and presence of a subscriber. */
async function recover (one: RecordedSocket, two: RecordedSocket) {
  const [{ epoch, offset }] = await one.send({ type: 'publish', channel: 'public/missed', data: 1, requestId: 'r20' }, 'ack')
  await one.send({ type: 'publish', channel: 'public/missed', data: 2, requestId: 'r21' }, 'ack')
  await one.send({ type: 'publish', channel: 'public/missed', data: 3, requestId: 'r22' }, 'ack')
  await two.send({ type: 'subscribe', channel: 'public/missed', since: { epoch, offset }, requestId: 'r20' }, 'ack', 'message', 'message')
  await two.send({ type: 'subscribe', channel: 'public/other', since: { epoch: 'other', offset: 4 }, requestId: 'r21' }, 'ack')
  await two.send({ type: 'unsubscribe', channel: 'public/other', requestId: 'r22' }, 'ack')
}

async function usePatterns (one: RecordedSocket, two: RecordedSocket) {
  await one.send({ type: 'subscribe', channel: 'public/**', requestId: 'r30' }, 'ack')
  await one.send({ type: 'subscribe', channel: 'public/b', requestId: 'r31' }, 'ack')
  await two.send({ type: 'publish', channel: 'public/b', data: 'b', requestId: 'r30' }, 'ack')
  await one.expect('message')
  await two.send({ type: 'publish', channel: 'public/b/c', data: 'c', requestId: 'r31' }, 'ack')
  await one.expect('message')
  await one.send({ type: 'presence', channel: 'public/*', requestId: 'r32' }, 'error')
  await one.send({ type: 'unsubscribe', channel: 'public/**', requestId: 'r33' }, 'ack')
}

/** Presence of the whole tier, and metadata of a peer. */
async function watchTier (recorder: FrameRecorder, registry: Harness, one: RecordedSocket, two: RecordedSocket) {
  await one.send({ type: 'subscribe', channel: '$agents', requestId: 'r40' }, 'ack', 'presence')
  await one.send({ type: 'presence', channel: '$agents', requestId: 'r41' }, 'presence')
  await one.send({ type: 'subscribe', channel: '$agents', presence: true, requestId: 'r42' }, 'ack', 'presence')
  await two.send({ type: 'presence_update', metadata: { mood: 'busy', role: 'admin' }, requestId: 'r40' }, 'ack')
  await one.expect('presence')
  await two.send({ type: 'presence_update', metadata: { mood: 'calm' }, requestId: 'r41' }, 'error')
  const three = await openAgent(recorder, 'a peer that comes and goes', await registry.join('agent-three'))
  await one.expect('presence')
  await three.leave()
  await one.expect('presence')
  await one.send({ type: 'unsubscribe', channel: '$agents', requestId: 'r43' }, 'ack')
}

async function breakRules (one: RecordedSocket) {
  const refused = [
    { type: 'subscribe', channel: 'bad name' },
    { type: 'subscribe', channel: '$other' },
    { type: 'subscribe', channel: '_reserved/a' },
    { type: 'subscribe', channel: 'private/a' },
    { type: 'subscribe', channel: '**' },
    { type: 'subscribe', channel: 'public/a', group: 'workers' },
    { type: 'subscribe', channel: 'public/a', since: 5 },
    { type: 'subscribe' },
    { type: 'unsubscribe', channel: 'bad name' },
    { type: 'publish', channel: 'private/a', data: 1 },
    { type: 'publish', channel: 'public/*', data: 1 },
    { type: 'publish', channel: 'public/a' },
    { type: 'publish', channel: 'public/a', data: 'x'.repeat(66_000) },
    { type: 'publish', channel: 'public/a', data: 1, msgId: '' },
    { type: 'history', channel: 'private/a' },
    { type: 'history', channel: 'public/a', limit: 1001 },
    { type: 'presence', channel: 'private/a' },
    { type: 'presence_update', metadata: { text: 'x'.repeat(5000) } },
    { type: 'presence_update', metadata: 5 },
    { type: 'nope' }
  ]
  for (const [index, frame] of refused.entries()) await one.send({ ...frame, requestId: `e${index}` }, 'error')
}

/** A token with fewer rights, which ends subscriptions. */
async function replaceRights (recorder: FrameRecorder, registry: Harness) {
  const admin = await registry.admin()
  const mint = async (channels: string[]) => {
    const grants = [{ channels, allow: ['subscribe', 'presence'] }]
    const {
      body
    } = await registry.post('/tokens/mint', { ...admin, body: { user_id: 'user-rights', agent_id: 'agent-rights', role: 'user', grants } })
    return body.access_token
  }
  const socket = await openAgent(recorder, 'a user whose rights change', await mint(['a/**']))
  await socket.send({ type: 'subscribe', channel: 'a/b', requestId: 'r1' }, 'ack')
  await socket.send({ type: 'publish', channel: 'a/b', data: 1, requestId: 'r2' }, 'error')
  await socket.send({ type: 'auth', token: await mint(['b/**']), requestId: 'r3' }, 'error', 'auth_success')
  await socket.leave()
}

/** Channels with a history of two messages, and connections with one subscription. */
async function exceedLimits (t: Test, recorder: FrameRecorder) {
  const registry = await build(t, { messaging: { historyEntries: 2, maxSubscriptions: 1 } })
  const socket = await openAgent(recorder, 'channels that keep two messages', await registry.join('agent-one'), registry)
  const [{ epoch }] = await socket.send({ type: 'publish', channel, data: 1, requestId: 'r1' }, 'ack')
  for (const data of [2, 3, 4]) await socket.send({ type: 'publish', channel, data, requestId: `p${data}` }, 'ack')
  await socket.send({ type: 'subscribe', channel, since: { epoch, offset: 1 }, requestId: 'r2' }, 'ack')
  await socket.send({ type: 'history', channel, since: { epoch, offset: 1 }, requestId: 'r3' }, 'history')
  await socket.send({ type: 'subscribe', channel: 'public/a', requestId: 'r4' }, 'error')
  await registry.join('agent-two')
  for (const data of [1, 2, 3]) await socket.send({ type: 'send', to: 'agent-two', data, requestId: `s${data}` }, 'ack')
  const two = await openAgent(recorder, 'an inbox that keeps two messages', await registry.join('agent-two'), registry)
  await two.send({ type: 'inbox', requestId: 'r1' }, 'ack', 'direct', 'direct')
}

export async function recordChannels (t: Test, recorder: FrameRecorder, registry: Harness) {
  const one = await openAgent(recorder, 'channels: agent-one', await registry.join('agent-one'))
  const two = await openAgent(recorder, 'channels: agent-two', await registry.join('agent-two'))
  await publish(one, two)
  await recover(one, two)
  await usePatterns(one, two)
  await watchTier(recorder, registry, one, two)
  await breakRules(one)
  await replaceRights(recorder, registry)
  await exceedLimits(t, recorder)
  for (const socket of [one, two]) await socket.leave()
}

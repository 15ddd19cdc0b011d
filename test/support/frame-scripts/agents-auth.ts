import type { Test } from 'tap'
import { build, fingerprint, type Harness } from '../harness.js'
import type { FrameRecorder, RecordedSocket } from '../frame-recorder.js'

const path = '/agents/ws'

/** A socket on which the server waits for the token. */
async function openUnknown (recorder: FrameRecorder, name: string, registry?: Harness): Promise<RecordedSocket> {
  const socket = await recorder.open(name, path, {}, registry).opened()
  await socket.expect('auth_required')
  return socket
}

/** An authenticated socket after its list of agents. */
export async function openAgent (recorder: FrameRecorder, name: string, token: string, registry?: Harness): Promise<RecordedSocket> {
  const socket = await openUnknown(recorder, name, registry)
  await socket.send({ token }, 'auth_success', 'list')
  return socket
}

const bearer = (token: string) => ({ options: { headers: { authorization: `Bearer ${token}` } } })

/** First frames that the server refuses. */
async function refuseFirstFrames (recorder: FrameRecorder, registry: Harness) {
  const frames: Record<string, unknown> = {
    'an object without a token': {},
    'an empty token': { token: '' },
    'an invalid token': { token: 'wrong' },
    'a token that is not a string': { token: 5 },
    'a temporary token': { token: await registry.tempToken('agent-temp') },
    'a text that is not JSON': 'hello',
    'a forbidden member': '{"token":"x","__proto__":{}}',
    'an array': '[1]',
    'an unknown type': { type: 'nope' }
  }
  for (const [name, frame] of Object.entries(frames)) {
    const socket = await openUnknown(recorder, `first frame: ${name}`)
    await socket.send(frame, 'auth_error')
    await socket.ended()
  }
  const binary = await openUnknown(recorder, 'first frame: bytes without MessagePack')
  await binary.send(Buffer.from('{}'), 'error')
  await binary.leave()
}

/** Credentials in the upgrade request. */
async function upgrade (recorder: FrameRecorder, registry: Harness, token: string) {
  const { body: { ticket } } = await registry.post('/ws-tickets', { token, body: {} })
  const accepted = {
    'a token in the header': [path, bearer(token)],
    'a token as a subprotocol': [path, { protocols: ['agent-registry.json', `bearer.${token}`] }],
    'a token in the query': [`${path}?token=${token}`, {}],
    'a ticket': [`${path}?ticket=${ticket}`, {}]
  } as const
  for (const [name, [url, { ...settings }]] of Object.entries(accepted)) {
    const socket = await recorder.open(`upgrade: ${name}`, url, 'protocols' in settings ? { protocols: [...settings.protocols] } : settings)
      .opened()
    await socket.expect('auth_success', 'list')
    await socket.leave()
  }
  const refused = {
    'an invalid token in the header': [path, bearer('wrong')],
    'a temporary token in the header': [path, bearer(await registry.tempToken('agent-temp'))],
    'a ticket that was used': [`${path}?ticket=${ticket}`, {}]
  } as const
  for (const [name, [url, settings]] of Object.entries(refused)) {
    const socket = await recorder.open(`upgrade: ${name}`, url, settings).opened()
    await socket.ended()
  }
  await recorder.open('upgrade: a token as the only subprotocol', path, { protocols: [`bearer.${token}`] }).ended()
}

/** Frames before the token, roles, and a replaced token. */
async function authenticate (recorder: FrameRecorder, registry: Harness, token: string) {
  const early = await openUnknown(recorder, 'frames before the token')
  await early.send({ type: 'ping', requestId: 'r1' }, 'pong')
  await early.send('ping', 'pong')
  await early.send({ type: 'subscribe', channel: 'public/early', requestId: 'r2' })
  await early.send({ token, observe: true, requestId: 'r3' }, 'auth_success', 'list', 'ack')
  await early.send({ type: 'pong' })
  await early.send(' PONG ')
  await early.send({ type: 'auth', token, requestId: 'r4' }, 'auth_success')
  await early.send({ type: 'auth', token: 'wrong', requestId: 'r5' }, 'error')
  await early.send({ type: 'auth', token: await registry.join('agent-other'), requestId: 'r6' }, 'error')
  await early.send({ type: 'auth', requestId: 'r7' }, 'error')
  await early.leave()
}

/** Connections of users and admins, and the ends of their tokens. */
async function otherRoles (recorder: FrameRecorder, registry: Harness) {
  const admin = await registry.admin()
  const {
    body: { access_token: userToken }
  } = await registry.post('/tokens/mint', { ...admin, body: { user_id: 'user-one', agent_id: 'agent-minted', role: 'user' } })
  const user = await openAgent(recorder, 'a user', userToken)
  await user.send({ type: 'status', status: 'draining', requestId: 'r1' }, 'error')
  await user.send({ type: 'goodbye', requestId: 'r2' }, 'error')
  await user.leave()
  const socket = await openAgent(recorder, 'an admin who logs out', admin.token)
  await socket.send({ type: 'status', status: 'draining', requestId: 'r1' }, 'error')
  await registry.post('/auth/logout', { ...admin, headers: { 'x-client-fingerprint': fingerprint } })
  await socket.ended()
}

/** Reasons for which the server closes connections of agents. */
async function endConnections (recorder: FrameRecorder, registry: Harness) {
  const replaced = await openAgent(recorder, 'an instance that a newer one replaces', await registry.join('agent-again'))
  const token = await registry.join('agent-again')
  await replaced.ended()
  const unregistered = await openAgent(recorder, 'an agent that the host unregisters', token)
  await registry.app.agentRegistry.unregister('agent-again')
  await unregistered.ended()
  const leaving = await openAgent(recorder, 'an agent that unregisters itself', await registry.join('agent-again'))
  await leaving.send({ type: 'status', status: 'draining', requestId: 'r1' }, 'ack')
  await leaving.send({ type: 'status', status: 'maintenance' })
  await leaving.send({ type: 'status', status: 'alive', requestId: 'r2' }, 'ack')
  await leaving.send({ type: 'status', status: 'gone', requestId: 'r3' }, 'error')
  await leaving.send({ type: 'goodbye', requestId: 'r4' }, 'ack')
  await leaving.ended()
  const large = await openAgent(recorder, 'a frame over the hard limit', await registry.join('agent-large'))
  await large.send('x'.repeat(70_000), 'error')
  await large.send('x'.repeat(300_000))
  await large.ended()
}

/** Limits of connections and of time. */
async function exceedLimits (t: Test, recorder: FrameRecorder) {
  const impatient = await build(t, { agentsWs: { timeoutMs: 100 } })
  const late = await openUnknown(recorder, 'no token in time', impatient)
  await late.ended()
  const full = await build(t, { agentsWs: { maxConnections: 1, messagesPerSecond: 1, burst: 1 } })
  const token = await full.join('agent-one')
  const other = await openUnknown(recorder, 'authenticated when the tier is full', full)
  const first = await recorder.open('too many frames', path, bearer(token), full).opened()
  await first.expect('auth_success', 'list')
  await other.send({ token })
  await other.ended()
  await recorder.open('an upgrade when the tier is full', path, bearer(token), full).ended()
  await first.send({ type: 'ping', requestId: 'r1' })
  await first.send({ type: 'ping', requestId: 'r2' }, 'pong', 'error')
  await first.leave()
}

async function expire (t: Test, recorder: FrameRecorder) {
  const registry = await build(
    t, { jwt: { expiresInMs: 3000 }, agentsWs: { pingIntervalMs: 300 }, sockets: { maxAgentsPerUpdate: 1, drainMs: 50 } }
  )
  const token = await registry.join('agent-one')
  const socket = await openAgent(recorder, 'a token that expires', token, registry)
  await socket.expect('token_expiring')
  await registry.join('agent-two')
  for (const type of ['list', 'agents_truncated']) await socket.await(type)
  await socket.await('ping')
  await socket.ended()
  const after = await recorder.open('upgrade: an expired token', path, bearer(token), registry).opened()
  await after.ended()
  const drained = await recorder.open('a server that shuts down', path, bearer(await registry.join('agent-two')), registry).opened()
  await drained.expect('auth_success', 'list', 'token_expiring')
  const closed = registry.app.close()
  await drained.expect('going_away')
  await drained.ended()
  await closed
}

export async function recordAuthentication (t: Test, recorder: FrameRecorder, registry: Harness) {
  const token = await registry.join('agent-auth')
  await authenticate(recorder, registry, token)
  const expired = expire(t, recorder)
  await upgrade(recorder, registry, token)
  await refuseFirstFrames(recorder, registry)
  await otherRoles(recorder, registry)
  await endConnections(recorder, registry)
  await exceedLimits(t, recorder)
  await expired
}

import type { Test } from 'tap'
import { build, fingerprint, type Harness, type Json } from '../harness.js'
import { FrameRecorder, recordedOptions, type RecordedSocket } from '../frame-recorder.js'

const path = '/dashboard/ws'
const timestamp = '2030-01-31T12:00:00.000Z'
const firstFrames = ['monitoring', 'health', 'agents', 'logs']

async function openDashboard (recorder: FrameRecorder, name: string, token: string, registry?: Harness): Promise<RecordedSocket> {
  const socket = await recorder.open(name, path, {}, registry).opened()
  await socket.send({ type: 'auth', token, fingerprint }, ...firstFrames)
  return socket
}

const bearer = (token: string) => ({ options: { headers: { authorization: `Bearer ${token}`, 'x-client-fingerprint': fingerprint } } })

/** First frames and upgrades that the server refuses. */
async function refuse (recorder: FrameRecorder, registry: Harness, token: string) {
  const agent = await registry.join('agent-one')
  await registry.post('/agents/agent-one/metrics', { token: agent, body: { total_requests: 4, avg_response_time: 0.5, error_rate: 0.25 } })
  const frames: Record<string, unknown> = {
    'no auth frame': { type: 'refresh_request' },
    'no token': { type: 'auth' },
    'an invalid token': { type: 'auth', token: 'wrong' },
    'a token that is not a string': { type: 'auth', token: 5 },
    'the token of an agent': { type: 'auth', token: agent },
    'another fingerprint': { type: 'auth', token, fingerprint: 'other' },
    'a text that is not JSON': 'hello',
    'an array': '[1]'
  }
  for (const [name, frame] of Object.entries(frames)) {
    const socket = await recorder.open(`first frame: ${name}`, path).opened()
    await socket.send(frame)
    await socket.ended()
  }
  for (const [name, given] of Object.entries({ 'an invalid token': 'wrong', 'the token of an agent': agent })) {
    const socket = await recorder.open(`upgrade: ${name}`, path, bearer(given)).opened()
    await socket.ended()
  }
}

async function accept (recorder: FrameRecorder, registry: Harness, token: string) {
  const { body: { ticket } } = await registry.post('/ws-tickets', { ...bearerCall(token), body: { tier: 'dashboard' } })
  for (const [name, url, settings] of [
    ['a token in the header', path, bearer(token)], ['a ticket', `${path}?ticket=${ticket}`, {}]
  ] as const) {
    const socket = await recorder.open(`upgrade: ${name}`, url, settings).opened()
    await socket.expect(...firstFrames)
    await socket.leave()
  }
  const early = await recorder.open('a ping before the token', `${path}?token=ignored`).opened()
  await early.send({ type: 'ping', requestId: 'r1' }, 'pong')
  await early.send('ping', 'pong')
  await early.send({ type: 'auth', token }, ...firstFrames)
  await early.leave()
}

const bearerCall = (token: string) => ({ token, headers: { 'x-client-fingerprint': fingerprint } })

async function monitor (socket: RecordedSocket) {
  await socket.send({ type: 'pause_monitoring', timestamp, data: { paused: true }, requestId: 'r1' }, 'pause_ack')
  await socket.send({ type: 'refresh_request', requestId: 'r2' }, ...firstFrames, 'refresh_ack')
  await socket.send({ type: 'resume_monitoring', requestId: 'r3' }, 'monitoring', 'health', 'resume_ack')
  await socket.send({ type: 'agents_request' }, 'agents', 'agents_ack')
  const alert = { type: 'tests', title: 'said title', message: 'said message', severity: 'CRITICAL', id: 7, details: { a: 1 } }
  await socket.send({ type: 'dashboard_alert', data: alert, requestId: 'r4' }, 'ack')
  await socket.send(
    { type: 'dashboard_alert', data: { alerts: [{ message: 'said second' }, { title: 'said third' }, 5] }, requestId: 'r5' }, 'ack'
  )
  await socket.send({ type: 'dashboard_alert', data: alert })
  await socket.send({ type: 'resume_monitoring', requestId: 'r6' }, 'monitoring', 'health', 'alert', 'resume_ack')
  await socket.send({ type: 'dashboard_log', data: { level: 'warning', message: 'said hello', timestamp }, requestId: 'r7' }, 'ack')
  const [, , , logs] = await socket.send({ type: 'refresh_request', requestId: 'r8' }, ...firstFrames, 'alert', 'refresh_ack')
  socket.note('entries of the log', logs.data.logs)
  await socket.send({ type: 'clear_alerts', requestId: 'r9' }, 'clear_alerts_ack')
  await socket.send({ type: 'clear_logs', requestId: 'r10' }, 'clear_logs_ack')
  await socket.send({ type: 'refresh_request', requestId: 'r11' }, ...firstFrames, 'refresh_ack')
}

async function breakRules (socket: RecordedSocket) {
  const refused = [
    { type: 'dashboard_alert', data: {} },
    { type: 'dashboard_alert' },
    { type: 'dashboard_log', data: { level: 'LOUD', message: 'said x', timestamp } },
    { type: 'dashboard_log', data: { level: 'INFO', message: '', timestamp } },
    { type: 'auth', token: 'wrong' },
    { type: 'auth' },
    { type: 'nope' }
  ]
  for (const [index, frame] of refused.entries()) await socket.send({ ...frame, requestId: `e${index}` }, 'error')
  for (const text of ['{', '[1]']) await socket.send(text, 'error')
  await socket.send(Buffer.from('{}'), 'error')
}

async function common (registry: Harness, socket: RecordedSocket, token: string) {
  await socket.send(' PING ', 'pong')
  await socket.send('pong')
  await socket.send({ type: 'ping', requestId: 'r20' }, 'pong')
  await socket.send({ type: 'pong' })
  await socket.send({ type: 'watch', snapshot: true, requestId: 'r21' }, 'ack', 'agents_snapshot')
  await registry.join('agent-two')
  await socket.expect('agents_delta')
  await socket.send({ type: 'unwatch', requestId: 'r22' }, 'ack')
  await socket.send({ type: 'auth', token, requestId: 'r23' }, 'ack')
}

const hasRefusal = ({ data }: Json) => data.logs.some((entry: Json) => entry.status_code === 503)

/** Frames that the server sends on its own. */
async function wait (t: Test, recorder: FrameRecorder) {
  const rule = {
    id: 'tests', type: 'tests', metric: 'agents_total' as const, comparison: '>=' as const, threshold: 0, message: 'said {value}'
  }
  const registry = await build(t, {
    ...recordedOptions,
    dashboardWs: { intervalMs: 100, pingIntervalMs: 200, maxConnections: 1 },
    dashboard: { alertRules: [rule], slowRequestMs: 3_600_000 },
    sockets: { drainMs: 50 }
  })
  const impatient = await build(t, { dashboardWs: { timeoutMs: 100 } })
  const late = await recorder.open('no auth frame in time', path, {}, impatient).opened()
  await late.ended()
  const { token } = await registry.admin()
  const socket = await openDashboard(recorder, 'a server that shuts down', token, registry)
  await socket.await('alert')
  await recorder.open('a full tier', path, bearer(token), registry).ended()
  await socket.await('logs', hasRefusal)
  for (const type of ['monitoring', 'health', 'agents', 'ping']) await socket.await(type)
  const closed = registry.app.close()
  await socket.expect('going_away')
  await socket.ended()
  await closed
}

export async function recordDashboard (t: Test) {
  const registry = await build(t, recordedOptions)
  const recorder = new FrameRecorder(registry, [...firstFrames, 'alert'])
  const { token } = await registry.admin()
  await refuse(recorder, registry, token)
  const socket = await openDashboard(recorder, 'an admin', token)
  await monitor(socket)
  await breakRules(socket)
  await common(registry, socket, token)
  await accept(recorder, registry, token)
  await registry.post('/auth/logout', bearerCall(token))
  await socket.ended()
  await wait(t, recorder)
  t.same(await recorder.unsent('dashboard'), [], 'every client frame type was sent')
  return await recorder.finish()
}

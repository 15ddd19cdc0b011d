import t from 'tap'
import { BoundedLabels } from '../../../src/lib/bounded-labels.js'
import { RequestMonitor } from '../../../src/dashboard/request-stats.js'
import { AuditLog } from '../../../src/dashboard/audit.js'
import { LogBuffer, RepeatFilter } from '../../../src/dashboard/logs.js'
import { createLogSink } from '../../../src/dashboard/logs.js'
import { manualClock } from './helper.js'

type Line = [level: string, details: object, message: string]

function build () {
  const now = manualClock()
  const logs = new LogBuffer({ now })
  const lines: Line[] = []
  const write = (level: string) => (details: object, message: string) => { lines.push([level, details, message]) }
  const audit = new AuditLog({ logs, now, log: { info: write('info'), warn: write('warn'), error: write('error') } })
  return { now, logs, lines, audit }
}

t.test('equal events pass once per window, with how many were held back', async t => {
  const now = manualClock()
  const repeats = new RepeatFilter({ now, windowMs: 1_000, maxKeys: 2 })
  t.same([repeats.pass('a'), repeats.pass('a'), repeats.pass('b'), repeats.pass('a')], [0, undefined, 0, undefined])
  now.advance(1_000)
  t.same([repeats.pass('a'), repeats.pass('a'), repeats.pass('b')], [2, undefined, 0])
  repeats.pass('c')
  t.equal(repeats.pass('a'), 0, 'over the limit the oldest are forgotten')
})

t.test('labels are bounded, and what was refused takes none', async t => {
  const labels = new BoundedLabels(['reserved'])
  t.same([labels.known('reserved'), labels.known('new'), labels.known(undefined), labels.of('new'), labels.known('new')], ['reserved', 'other', 'unknown', 'new', 'new'])
  for (let index = 0; index < 60; index++) labels.of(`type-${index}`)
  t.same([labels.of('type-47'), labels.of('type-48'), labels.of('later'), labels.of('new'), labels.of('reserved')], ['type-47', 'other', 'other', 'new', 'reserved'])
})

t.test('every event is told to both logs alike', async t => {
  const { logs, lines, audit } = build()
  const sink = createLogSink(logs)
  audit.record({ type: 'lockout', subject: 'admin', target: 'login', address: '192.0.2.1', details: { attempt_type: 'login', retry_after: 45 } })
  const members = { attempt_type: 'login', retry_after: 45, source: 'security', event_type: 'lockout', user_id: 'admin', target: 'login', client_ip: '192.0.2.1' }
  const entry = { timestamp: '2030-01-01T00:00:00.250Z', level: 'ERR', message: 'Too many failed attempts: login', ...members }
  t.strictSame(logs.frame().logs, [entry])
  t.strictSame(lines, [['error', { ...members, audit: 'agent-registry' }, entry.message]])
  sink.write(JSON.stringify({ level: 50, msg: entry.message, ...lines[0]![1] }))
  t.equal(logs.size, 1, 'and once, also where the one feeds the other')
  audit.record({ type: 'temp_token_failed', subject: 'agent-one' })
  audit.record({ type: 'logout' })
  t.match(logs.frame(2).logs, [{ message: 'Logout', level: 'INFO' }, { message: 'Temporary token failed: agent-one', agent_id: 'agent-one' }])
  t.same(lines.map(([level]) => level), ['error', 'warn', 'info'])
})

t.test('attempts that were not looked at are counted, and told by the lockout alone', async t => {
  const { logs, audit } = build()
  audit.record({ type: 'login_limited', subject: 'admin' })
  audit.record({ type: 'temp_token_limited', subject: 'agent-one' })
  t.same(audit.attempts, { login: { success: 0, failure: 1 }, temp_token: { success: 0, failure: 1 } })
  t.equal(logs.size, 0)
})

t.test('nobody fills the log with refusals', async t => {
  const { now, logs, audit } = build()
  const refuse = (subject: string) => audit.record({ type: 'permission_denied', subject, target: 'GET /agents', address: '192.0.2.1' })
  for (let index = 0; index < 100; index++) refuse('agent-one')
  refuse('agent-two')
  t.equal(logs.size, 2)
  now.advance(60_000)
  refuse('agent-one')
  t.match(logs.frame(1).logs, [{ user_id: 'agent-one', held_back: 99 }])
})

t.test('tokens in what is told are replaced in both logs', async t => {
  const { logs, lines, audit } = build()
  const jwt = `eyJ${'a'.repeat(20)}.eyJ${'b'.repeat(20)}.${'c'.repeat(20)}`
  audit.record({ type: 'login_failed', subject: jwt, details: { pin: '4711', token: jwt, error: `?token=${jwt}` } })
  t.notMatch(JSON.stringify([logs.frame(), lines]), /eyJ|4711/)
})

t.test('of answers only those that failed or were slow are in the log, once per window', async t => {
  const now = manualClock()
  const logs = new LogBuffer({ now })
  const requests = new RequestMonitor({ now, logs, slowMs: 1_000 })
  const heard: number[] = []
  const stop = requests.events.on('request', ({ statusCode }) => { heard.push(statusCode) })
  const request = { method: 'GET', endpoint: '/agents/:id', elapsedMs: 12.4, address: '192.0.2.1', requestId: 'r1' }
  for (const statusCode of [200, 404, 429, 503, 503]) requests.record({ ...request, statusCode })
  requests.record({ ...request, statusCode: 200, elapsedMs: 1_000 })
  stop()
  now.advance(10_000)
  requests.record({ ...request, statusCode: 503 })
  t.same(heard, [200, 404, 429, 503, 503, 200])
  t.equal(requests.stats.summary().total_requests, 7)
  const common = { timestamp: '2030-01-01T00:00:00.250Z', source: 'server', method: 'GET', endpoint: '/agents/:id', client_ip: '192.0.2.1', request_id: 'r1' }
  t.strictSame(logs.frame().logs, [
    { ...common, timestamp: '2030-01-01T00:00:10.250Z', level: 'ERR', message: 'Failed: GET /agents/:id (503, 12 ms)', status_code: 503, response_time: 0.012, held_back: 1 },
    { ...common, level: 'WARN', message: 'Slow: GET /agents/:id (200, 1000 ms)', status_code: 200, response_time: 1 },
    { ...common, level: 'ERR', message: 'Failed: GET /agents/:id (503, 12 ms)', status_code: 503, response_time: 0.012 }
  ])
})

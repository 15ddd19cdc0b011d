import t from 'tap'
import { frameText, maxFrameBytes } from '../../../src/dashboard/frames.js'
import {
  createLogSink, dashboardLog, isSecretName, LogBuffer, type LogEntry, redact, RepeatFilter, truncate
} from '../../../src/dashboard/logs.js'
import { LogsFrame } from '../../../src/protocol/frames/dashboard.js'
import { fieldErrors } from '../../../src/protocol/validation.js'
import { BoundedLabels } from '../../../plugins/metrics.js'
import { RequestMonitor } from '../../../src/dashboard/request-stats.js'
import { AuditLog } from '../../../src/dashboard/audit.js'
import { manualClock, start } from './helper.js'

function build (options: { capacity?: number, maxMessageLength?: number } = {}) {
  const now = manualClock()
  return { now, ring: new LogBuffer({ now, ...options }) }
}
const texts = (ring: LogBuffer, max?: number) => ring.frame(max).logs.map(entry => entry.message)

t.test('log buffer: entries are listed newest first, with the true count', async t => {
  const { now, ring } = build()
  t.same(ring.frame(), { logs: [], count: 0, last_updated: '2030-01-01T00:00:00.250Z' })
  for (const message of ['one', 'two', 'three']) {
    now.advance(1_000)
    ring.add({ level: 'INFO', message, source: 'system' })
  }
  t.same(texts(ring), ['three', 'two', 'one'])
  t.match(ring.frame(2), {
    count: 3,
    last_updated: '2030-01-01T00:00:03.250Z',
    logs: [
      { timestamp: '2030-01-01T00:00:03.250Z', level: 'INFO', source: 'system' }, { message: 'two' }
    ]
  })
  t.same(fieldErrors(LogsFrame, JSON.parse(frameText('logs', start, JSON.stringify(ring.frame())))), [])
})

t.test('log buffer: the ring is bounded and wraps', async t => {
  const { ring } = build({ capacity: 3 })
  for (let n = 1; n <= 7; n++) ring.add({ level: 'INFO', message: String(n), source: 's' })
  t.same(texts(ring), ['7', '6', '5'])
  t.same(texts(ring, 1), ['7'])
  t.equal(ring.size, 3)
})

t.test('log buffer: a cleared buffer is empty and usable', async t => {
  const { now, ring } = build({ capacity: 2 })
  for (let n = 1; n <= 3; n++) ring.add({ level: 'INFO', message: String(n), source: 's' })
  now.advance(1)
  ring.clear()
  t.match(ring.frame(), { logs: [], count: 0, last_updated: '2030-01-01T00:00:00.251Z' })
  ring.add({ level: 'WARN', message: 'cleared', source: 'dashboard' })
  t.same(texts(ring), ['cleared'])
})

t.test('log buffer: levels have one spelling', async t => {
  const { ring } = build()
  const table = {
    info: 'INFO',
    Information: 'INFO',
    debug: 'INFO',
    success: 'SUCS',
    warning: 'WARN',
    critical: 'CRIT',
    fatal: 'CRIT',
    ' error ': 'ERR',
    odd: 'INFO',
    constructor: 'INFO'
  }
  for (const [level, shown] of Object.entries(table)) t.equal(ring.add({ level, message: 'm', source: 's' }).level, shown)
})

t.test('log buffer: external text is not escaped, but truncated', async t => {
  const { ring } = build({ maxMessageLength: 20 })
  const html = '<img src=x onerror=1>'
  t.equal(ring.add({ level: 'INFO', message: html, source: html }).message, '<img src=x onerror=…')
  t.equal(ring.add({ level: 'INFO', message: `${'x'.repeat(18)}💥!`, source: 's' }).message, `${'x'.repeat(18)}…`,
    'no lone surrogate is left')
  const many = Object.fromEntries(Array.from({ length: 100 }, (_, n) => [`n${n}`, n]))
  t.equal(Object.keys(ring.add({ level: 'INFO', message: 'm', source: 's', ...many })).length, 4 + 24)
  t.equal(ring.add({ level: 'INFO', message: 'm', source: 's'.repeat(1_000) }).source.length, 64)
  const odd = JSON.parse(
    '{"__proto__":1,"constructor":2,"nested":{"a":1},"list":[1],"none":null,"yes":true,"timestamp":"1999","text":"t"}'
  ) as object
  const entry = ring.add({ ...odd, level: 'INFO', message: 'm', source: 's', infinite: Infinity, missing: undefined, ['k'.repeat(65)]: 1 })
  t.strictSame(entry, { timestamp: '2030-01-01T00:00:00.250Z', level: 'INFO', message: 'm', source: 's', none: null, yes: true, text: 't' })
})

t.test('log buffer: a frame of 200 long messages is at most 1 MiB', async t => {
  const { ring } = build()
  for (let n = 0; n < 300; n++) ring.add({ level: 'INFO', message: '\u0001'.repeat(5_000), source: 's' })
  const data = ring.frame()
  t.ok(Buffer.byteLength(frameText('logs', start, JSON.stringify(data))) <= maxFrameBytes)
  t.ok(data.logs.length > 80 && data.logs.length < 200, String(data.logs.length))
  t.equal(data.count, 300)
})

t.test('log buffer: listeners receive every entry until they unsubscribe', async t => {
  const { ring } = build()
  const received: LogEntry[] = []
  const stop = ring.events.on('entry', entry => { received.push(entry) })
  const entry = ring.add({ level: 'INFO', message: 'one', source: 's' })
  stop()
  ring.add({ level: 'INFO', message: 'two', source: 's' })
  t.same(received, [entry])
})

t.test('secrets', async t => {
  const jwt = `eyJ${'a'.repeat(20)}.eyJ${'b'.repeat(20)}.${'c'.repeat(20)}`

  t.test('redaction: values of secret parameters are removed from texts', async t => {
    const table: Array<[string, string]> = [
      ['GET /agents/ws?token=abc&x=1', 'GET /agents/ws?token=[redacted]&x=1'],
      ['/v1?x=1&API_KEY=abc#f', '/v1?x=1&API_KEY=[redacted]#f'],
      ['/ws?ticket=a.b-c end', '/ws?ticket=[redacted] end'],
      ['token=abc', 'token=[redacted]'],
      ['body "password=hunter2" sent', 'body "password=[redacted]" sent'],
      ['/x?access_token=1&session-pin=2;3&client_secret=4', '/x?access_token=[redacted]&session-pin=[redacted]&client_secret=[redacted]'],
      ['Authorization: Bearer abcdefghijklmnop', 'Authorization: Bearer [redacted]'],
      [`bearer.${jwt}`, 'bearer [redacted]'],
      [`sent ${jwt} twice: ${jwt}`, 'sent [redacted] twice: [redacted]'],
      ['a bearer of news, basic authentication', 'a bearer of news, basic authentication'],
      ['/agents?capability=x&page=2 is fine', '/agents?capability=x&page=2 is fine']
    ]
    for (const [text, shown] of table) t.equal(redact(text, 2_048), shown)
    t.equal(truncate('abc', 3), 'abc')
  })

  t.test('redaction: members with secret names are removed, in any case', async t => {
    const secret = [
      'token', 'access_token', 'apiKey', 'API-KEY', 'agent_keys', 'ticket', 'Authorization', 'password', 'newPassword', 'pin', 'sessionPin',
      'x-session-pin', 'clientSecret', 'cookie', 'set-cookie', 'apikey', 'accesstoken'
    ]
    for (const name of secret) t.ok(isSecretName(name), name)
    for (const name of ['event_type', 'agent_id', 'spin', 'pinned', 'client_ip', 'status_code', 'keyboard']) {
      t.notOk(isSecretName(name), name)
    }
    const { ring } = build()
    const entry = ring.add({
      level: 'INFO',
      message: `/x?token=abc ${jwt}`,
      source: 'auth',
      token: jwt,
      agentKey: 'k',
      pin: '1234',
      endpoint: '/ws?ticket=abc',
      agent_id: 'agent-one'
    })
    t.strictSame(entry, {
      timestamp: '2030-01-01T00:00:00.250Z',
      level: 'INFO',
      message: '/x?token=[redacted] [redacted]',
      source: 'auth',
      endpoint: '/ws?ticket=[redacted]',
      agent_id: 'agent-one'
    })
  })

  t.test('redaction: truncation does not split a secret', async t => {
    const { ring } = build()
    const entry = ring.add({ level: 'INFO', message: `${'x '.repeat(1_015)}Bearer ${'s'.repeat(100)}`, source: 's' })
    t.notMatch(entry.message, /sss/)
  })

  t.test('redaction: the search takes linear time', async t => {
    const began = performance.now()
    for (const evil of ['token', 'eyJ-', 'eyJa', 'bearer.', '?', 'a.', '=', '?a%']) redact(evil.repeat(100_000), 2_048)
    t.ok(performance.now() - began < 1_000)
  })
})

t.test('dashboard_log', async t => {
  const valid = { level: 'sucs', message: ' done ', timestamp: '2030-01-01T00:00:00Z' }
  t.same(dashboardLog(valid), { level: 'sucs', message: 'done', source: 'dashboard', frontend_timestamp: valid.timestamp })
  for (const level of ['INFORMATION', 'Success', 'WARNING', 'CRITICAL', 'ERROR']) t.ok(dashboardLog({ ...valid, level }), level)
  for (const timestamp of ['2030-01-01', '2030-01-01T10:00', '2030-01-01T10:00:00.123456+02:00']) {
    t.ok(dashboardLog({ ...valid, timestamp }), timestamp)
  }
  const wrong: unknown[] = [
    null, [], 'text', {}, { ...valid, level: 'FATAL' }, { ...valid, level: 1 }, { ...valid, message: ' ' }, { ...valid, message: 1 },
    { ...valid, timestamp: undefined }, { ...valid, timestamp: 5 }, { ...valid, timestamp: 'yesterday' },
    { ...valid, timestamp: '2030-13-01T00:00:00Z' },
    { ...valid, timestamp: `2030-01-01T00:00:00.${'1'.repeat(40)}Z` }
  ]
  for (const data of wrong) t.equal(dashboardLog(data), undefined, JSON.stringify(data))
  t.match(build().ring.add(dashboardLog(valid)!), { level: 'SUCS', message: 'done', frontend_timestamp: valid.timestamp })
})

t.test('dashboard_log: records of a logger become entries', async t => {
  const { ring } = build()
  const sink = createLogSink(ring, { minLevel: 30 })
  const write = (record: object) => {
    sink.write(`${JSON.stringify({ time: 1, pid: 2, hostname: 'h', ...record })}\n`)
    return ring.frame(1).logs[0]!
  }
  t.strictSame(
    write({ level: 30, msg: 'hello' }), { timestamp: '2030-01-01T00:00:00.250Z', level: 'INFO', message: 'hello', source: 'server' }
  )
  t.match(write({ level: 40, msg: 'm', name: 'payments' }), { level: 'WARN', source: 'payments' })
  t.match(write({ level: 60, msg: 'm' }), { level: 'CRIT' })
  t.strictSame(write({ level: 50, err: { type: 'TypeError', message: 'no good', stack: 'at …' } }), {
    timestamp: '2030-01-01T00:00:00.250Z', level: 'ERR', message: '', source: 'server', error: 'no good', error_type: 'TypeError'
  })
  const request = { method: 'GET', url: '/agents/ws?token=abc', remoteAddress: '192.0.2.1', host: 'h' }
  t.strictSame(write({ level: 30, msg: 'incoming', reqId: 'r1', req: request, res: { statusCode: 200 }, responseTime: 1.5, token: 't' }), {
    timestamp: '2030-01-01T00:00:00.250Z',
    level: 'INFO',
    message: 'incoming',
    source: 'server',
    reqId: 'r1',
    responseTime: 1.5,
    method: 'GET',
    endpoint: '/agents/ws?token=[redacted]',
    client_ip: '192.0.2.1',
    status_code: 200
  })
  const { size } = ring
  write({ level: 20, msg: 'debug' })
  t.equal(ring.size, size, 'records below info are skipped')
  createLogSink(ring).write('{"level":30,"msg":"info"}')
  t.equal(ring.size, size, 'and by default records below warn')
  createLogSink(ring).write('{"level":50,"msg":"audited","audit":"agent-registry"}')
  t.equal(ring.size, size, 'and entries already in the ring')
  createLogSink(ring).write('{"level":40,"msg":"warning","audit":"mine"}')
  t.match(ring.frame(1).logs, [{ message: 'warning', level: 'WARN', audit: 'mine' }])
  sink.write('not JSON\n')
  t.match(ring.frame(1).logs, [{ message: 'not JSON', level: 'INFO' }])
  sink.write('[1]')
  t.match(ring.frame(1).logs, [{ message: '[1]' }])
})

type Line = [level: string, details: object, message: string]

function buildAudit () {
  const now = manualClock()
  const logs = new LogBuffer({ now })
  const lines: Line[] = []
  const write = (level: string) => (details: object, message: string) => { lines.push([level, details, message]) }
  const audit = new AuditLog({ logs, now, log: { info: write('info'), warn: write('warn'), error: write('error') } })
  return { now, logs, lines, audit }
}

t.test('audit: equal events pass once per window, with the number suppressed', async t => {
  const now = manualClock()
  const repeats = new RepeatFilter({ now, windowMs: 1_000, maxKeys: 2 })
  t.same([repeats.pass('a'), repeats.pass('a'), repeats.pass('b'), repeats.pass('a')], [0, undefined, 0, undefined])
  now.advance(1_000)
  t.same([repeats.pass('a'), repeats.pass('a'), repeats.pass('b')], [2, undefined, 0])
  repeats.pass('c')
  t.equal(repeats.pass('a'), 0, 'beyond the limit the oldest are evicted')
})

t.test('audit: labels are bounded, and refused calls use none', async t => {
  const labels = new BoundedLabels(['reserved'])
  t.same([
    labels.known('reserved'), labels.known('new'), labels.known(undefined), labels.of('new'), labels.known('new')
  ], ['reserved', 'other', 'unknown', 'new', 'new'])
  for (let index = 0; index < 60; index++) labels.of(`type-${index}`)
  t.same([
    labels.of('type-47'), labels.of('type-48'), labels.of('later'), labels.of('new'), labels.of('reserved')
  ], ['type-47', 'other', 'other', 'new', 'reserved'])
})

t.test('audit: both logs receive every event', async t => {
  const { logs, lines, audit } = buildAudit()
  const sink = createLogSink(logs)
  audit.record(
    { type: 'lockout', subject: 'admin', target: 'login', address: '192.0.2.1', details: { attempt_type: 'login', retry_after: 45 } }
  )
  const members = {
    attempt_type: 'login',
    retry_after: 45,
    source: 'security',
    event_type: 'lockout',
    user_id: 'admin',
    target: 'login',
    client_ip: '192.0.2.1'
  }
  const entry = { timestamp: '2030-01-01T00:00:00.250Z', level: 'ERR', message: 'Too many failed attempts: login', ...members }
  t.strictSame(logs.frame().logs, [entry])
  t.strictSame(lines, [['error', { ...members, audit: 'agent-registry' }, entry.message]])
  sink.write(JSON.stringify({ level: 50, msg: entry.message, ...lines[0]![1] }))
  t.equal(logs.size, 1, 'and once, also when one log feeds the other')
  audit.record({ type: 'temp_token_failed', subject: 'agent-one' })
  audit.record({ type: 'logout' })
  t.match(
    logs.frame(2).logs, [{ message: 'Logout', level: 'INFO' }, { message: 'Temporary token failed: agent-one', agent_id: 'agent-one' }]
  )
  t.same(lines.map(([level]) => level), ['error', 'warn', 'info'])
})

t.test('audit: unchecked attempts are counted, and only the lockout is logged', async t => {
  const { logs, audit } = buildAudit()
  audit.record({ type: 'login_limited', subject: 'admin' })
  audit.record({ type: 'temp_token_limited', subject: 'agent-one' })
  t.same(audit.attempts, { login: { success: 0, failure: 1 }, temp_token: { success: 0, failure: 1 } })
  t.equal(logs.size, 0)
})

t.test('audit: refusals cannot flood the log', async t => {
  const { now, logs, audit } = buildAudit()
  const refuse = (subject: string) => audit.record({ type: 'permission_denied', subject, target: 'GET /agents', address: '192.0.2.1' })
  for (let index = 0; index < 100; index++) refuse('agent-one')
  refuse('agent-two')
  t.equal(logs.size, 2)
  now.advance(60_000)
  refuse('agent-one')
  t.match(logs.frame(1).logs, [{ user_id: 'agent-one', held_back: 99 }])
})

t.test('audit: tokens in messages are redacted in both logs', async t => {
  const { logs, lines, audit } = buildAudit()
  const jwt = `eyJ${'a'.repeat(20)}.eyJ${'b'.repeat(20)}.${'c'.repeat(20)}`
  audit.record({ type: 'login_failed', subject: jwt, details: { pin: '4711', token: jwt, error: `?token=${jwt}` } })
  t.notMatch(JSON.stringify([logs.frame(), lines]), /eyJ|4711/)
})

t.test('audit: only failed and slow responses are logged, once per window', async t => {
  const now = manualClock()
  const logs = new LogBuffer({ now })
  const requests = new RequestMonitor({ now, logs, slowMs: 1_000 })
  const received: number[] = []
  const stop = requests.events.on('request', ({ statusCode }) => { received.push(statusCode) })
  const request = { method: 'GET', endpoint: '/agents/:id', elapsedMs: 12.4, address: '192.0.2.1', requestId: 'r1' }
  for (const statusCode of [200, 404, 429, 503, 503]) requests.record({ ...request, statusCode })
  requests.record({ ...request, statusCode: 200, elapsedMs: 1_000 })
  stop()
  now.advance(10_000)
  requests.record({ ...request, statusCode: 503 })
  t.same(received, [200, 404, 429, 503, 503, 200])
  t.equal(requests.stats.summary().total_requests, 7)
  const common = {
    timestamp: '2030-01-01T00:00:00.250Z',
    source: 'server',
    method: 'GET',
    endpoint: '/agents/:id',
    client_ip: '192.0.2.1',
    request_id: 'r1'
  }
  t.strictSame(logs.frame().logs, [
    {
      ...common,
      timestamp: '2030-01-01T00:00:10.250Z',
      level: 'ERR',
      message: 'Failed: GET /agents/:id (503, 12 ms)',
      status_code: 503,
      response_time: 0.012,
      held_back: 1
    },
    { ...common, level: 'WARN', message: 'Slow: GET /agents/:id (200, 1000 ms)', status_code: 200, response_time: 1 },
    { ...common, level: 'ERR', message: 'Failed: GET /agents/:id (503, 12 ms)', status_code: 503, response_time: 0.012 }
  ])
})

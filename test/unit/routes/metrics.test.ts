import { randomBytes } from 'node:crypto'
import { Value } from '@sinclair/typebox/value'
import t from 'tap'
import { AgentMetrics } from '../../../src/protocol/schemas/agent.js'
import { headerSize } from '../../../src/protocol/encoded-message.js'
import { type Answer, answerChecker, build, type Client, type Harness, type Json, keys, problemOf, until } from '../../support/harness.js'
import { assertAlive } from '../sockets/helper.js'
import { rawOf } from '../sockets/pairs.js'

const answers = answerChecker()
const zero = {
  success_rate: 0,
  avg_response_time: 0,
  total_requests: 0,
  reputation_score: 0,
  requests_processed: 0,
  average_response_time: 0,
  error_rate: 0
}
const message = 'Metrics updated successfully'

const pathsOf = ({ body }: Answer): string[] => body.errors.map(({ path }: Json) => path)

/** Both routes that count one request. */
const counters = ['/agents/report-metrics/agent-one', '/agents/agent-one/metrics/compat']

async function metricsOf (registry: Harness, token: string, id = 'agent-one'): Promise<Json> {
  const { body } = await registry.get(`/agents/${id}/metrics`, { token })
  return body
}

t.test('agent reports', async t => {
  const registry = await build(t, {}, answers)
  const token = await registry.agent()
  const report = (body: unknown) => registry.post('/agents/agent-one/metrics', { token, body })

  await t.test('agent reports: an agent has no metrics at first', async t => {
    const metrics = await metricsOf(registry, token)
    t.match(metrics, { agent_id: 'agent-one', ...zero })
    t.same([...Value.Errors(AgentMetrics, metrics)], [])
  })

  await t.test('agent reports: a report replaces the named fields, visible everywhere', async t => {
    const values = {
      success_rate: 0.5,
      avg_response_time: 1.5,
      total_requests: 4,
      reputation_score: 7.5,
      requests_processed: 3,
      average_response_time: 1.25,
      error_rate: 0.5
    }
    const { status, body } = await report({ ...values, agent_id: 'other-one', last_active: '1970-01-01T00:00:00.000Z', unknown: { a: 1 } })
    t.equal(status, 200)
    t.match(body, { status: 'success', message, metrics: { agent_id: 'agent-one', ...values } })
    t.ok(Date.now() - Date.parse(body.metrics.last_active) < 60_000)
    const after = (await report({ success_rate: '0.75' })).body.metrics
    t.match(after, { ...values, success_rate: 0.75 })
    t.same(await metricsOf(registry, token), after)
    for (const path of ['/agents/agent-one', '/public/agent/agent-one']) {
      t.same((await registry.get(path, { token })).body.metrics, after, path)
    }
    for (const path of ['/agents?include_metrics=true', '/public/discover']) {
      t.same((await registry.get(path, { token })).body[0].metrics, after, path)
    }
  })

  await t.test('agent reports: metrics survive a newer registration', async t => {
    const before = await metricsOf(registry, token)
    const again = await registry.post('/agents/register', { token, body: (await registry.get('/agents/agent-one', { token })).body })
    t.equal(again.status, 200)
    t.match(
      await metricsOf(registry, again.body.access_token), { success_rate: before.success_rate, total_requests: before.total_requests }
    )
    t.equal(problemOf(t, await report({ success_rate: 0 })), 'token-invalid', 'the older instance can no longer report')
  })
})

const wrong: Array<[body: object | string, paths: string[]]> = [
  [{ success_rate: 7 }, ['/success_rate']],
  [{ success_rate: -0.01, error_rate: 1.01 }, ['/success_rate', '/error_rate']],
  [{ avg_response_time: 4000 }, ['/avg_response_time']],
  [{ average_response_time: -1 }, ['/average_response_time']],
  [{ total_requests: -1, requests_processed: 0.5 }, ['/total_requests', '/requests_processed']],
  [{ reputation_score: 10.1 }, ['/reputation_score']],
  [{ success_rate: null, total_requests: 'many' }, ['/success_rate', '/total_requests']],
  ['{"success_rate":1e999}', ['/success_rate']],
  [{ response_time: -1 }, ['/response_time']],
  [{ response_time: 3601, success: 'no way' }, ['/response_time', '/success']],
  [{ success: false, operation: 'x' }, ['/response_time']],
  ['[]', ['']],
  ['7', ['']],
  ['null', ['']],
  ['', ['']]
]

t.test('invalid reports', async t => {
  const registry = await build(t, {}, answers)
  const token = await registry.agent()

  await t.test('invalid reports: each wrong field is refused, and nothing is stored', async t => {
    for (const [body, paths] of wrong) {
      const answer = await registry.post(
        '/agents/agent-one/metrics', { token, raw: typeof body === 'string' ? body : JSON.stringify(body) }
      )
      t.equal(answer.status, 422, JSON.stringify(body))
      t.equal(problemOf(t, answer), 'validation-failed')
      t.same(pathsOf(answer), paths, JSON.stringify(body))
    }
    const partly = await registry.post('/agents/agent-one/metrics', { token, body: { error_rate: 0.5, success_rate: 2 } })
    t.equal(partly.status, 422)
    t.match(await metricsOf(registry, token), zero)
  })

  await t.test('invalid reports: malformed JSON is refused', async t => {
    for (const raw of ['{"success_rate":NaN}', '{', '{"__proto__":{"success_rate":1}}']) {
      t.equal((await registry.post('/agents/agent-one/metrics', { token, raw })).status, 422, raw)
    }
  })

  const queries: Array<[query: string, paths: string[]]> = [
    ['', ['/response_time']],
    ['?response_time=', ['/response_time']],
    ['?response_time=-0.1', ['/response_time']],
    ['?response_time=3600.1', ['/response_time']],
    ['?response_time=NaN', ['/response_time']],
    ['?response_time=Infinity', ['/response_time']],
    ['?response_time=1e999', ['/response_time']],
    ['?response_time=1&response_time=2', ['/response_time']],
    ['?response_time=x&success=perhaps', ['/response_time', '/success']]
  ]
  await t.test('invalid reports: a wrong query is refused too', async t => {
    for (const path of counters) {
      for (const [query, paths] of queries) {
        const answer = await registry.post(path + query, { token })
        t.equal(problemOf(t, answer), 'validation-failed', query)
        t.same(pathsOf(answer), paths, query)
      }
    }
    t.match(await metricsOf(registry, token), zero)
  })
})

t.test('request reports', async t => {
  const registry = await build(t, {}, answers)

  for (const [index, path] of counters.entries()) {
    await t.test(`request reports: ${path} follows the formulas`, async t => {
      const id = `counted-${index}`
      const token = await registry.agent(id)
      const count = (query: string) => registry.post(`${path.replace('agent-one', id)}?${query}`, { token })
      t.match((await count('response_time=2')).body, {
        status: 'success',
        message,
        current_metrics: {
          success_rate: 1, avg_response_time: 2, total_requests: 1, reputation_score: 0.85, last_active: /Z$/
        }
      })
      const { body } = await count('response_time=1&success=false')
      t.match(body.current_metrics, { success_rate: 0.5, avg_response_time: 1.9, total_requests: 2, reputation_score: 0.508 })
      t.same(Object.keys(body.current_metrics), ['success_rate', 'avg_response_time', 'total_requests', 'reputation_score', 'last_active'])
      const whole = await metricsOf(registry, token, id)
      t.match(whole, { error_rate: 0.5, requests_processed: 2, average_response_time: whole.avg_response_time })
      t.ok(Math.abs(whole.avg_response_time - 1.9) < 1e-9)
      t.ok(Math.abs(whole.reputation_score - (0.7 * 0.5 + 0.3 / 1.9)) < 1e-9)
      for (const query of ['response_time=0', 'response_time=3600', 'response_time=1e-05&success=no', 'response_time=0.5&success=1']) {
        t.equal((await count(query)).status, 200, query)
      }
      t.equal((await metricsOf(registry, token, id)).total_requests, 6)
    })
  }

  await t.test('request reports: the body that guides show is accepted', async t => {
    const token = await registry.agent('guided-one')
    const {
      body
    } = await registry.post('/agents/guided-one/metrics', { token, body: { operation: 'translate', response_time: 0.5, success: true } })
    t.match(body.metrics, { total_requests: 1, success_rate: 1, avg_response_time: 0.5, reputation_score: 1, requests_processed: 1 })
  })

  await t.test('request reports: concurrent reports are all counted', async t => {
    const token = await registry.agent('busy-agent')
    const reports = Array.from({ length: 100 }, (_, index) =>
      registry.post(`/agents/report-metrics/busy-agent?response_time=1&success=${index % 2 === 0}`, { token }))
    t.ok((await Promise.all(reports)).every(({ status }) => status === 200))
    const { total_requests: total, success_rate: rate, error_rate: errors } = await metricsOf(registry, token, 'busy-agent')
    t.same([total, rate.toFixed(9), errors.toFixed(9)], [100, '0.500000000', '0.500000000'])
  })
})

const endpoints: Array<[method: string, path: (id: string) => string, body?: object]> = [
  ['POST', id => `/agents/${id}/metrics`, { success_rate: 1 }],
  ['GET', id => `/agents/${id}/metrics`],
  ['POST', id => `/agents/report-metrics/${id}?response_time=1`],
  ['POST', id => `/agents/${id}/metrics/compat?response_time=1`]
]

t.test('report rights', async t => {
  const registry = await build(t, {}, answers)
  const token = await registry.agent()
  await registry.agent('agent-two')
  const admin = await registry.admin()
  const {
    body: { access_token: user }
  } = await registry.post('/tokens/mint', { ...admin, body: { user_id: 'someone', agent_id: 'agent-one', role: 'user' } })
  const temp = await registry.tempToken('agent-one', keys.other)

  for (const [method, path, body] of endpoints) {
    await t.test(`report rights: ${method} ${path(':id')}`, async t => {
      const ask = (id: string, more: object = {}) => registry.call(method, path(id), { body, ...more })
      t.equal((await ask('agent-one', { token })).status, 200)
      t.equal((await ask('agent-two', admin)).status, 200)
      const other = await ask('agent-two', { token })
      t.equal(problemOf(t, other), 'insufficient-permissions')
      t.match(other.body, { status: 403, agent_id: 'agent-one', target_agent_id: 'agent-two' })
      for (const bearer of [user, temp]) t.equal(problemOf(t, await ask('agent-one', { token: bearer })), 'insufficient-permissions')
      t.equal(problemOf(t, await ask('agent-one')), 'authentication-failed')
      t.equal(problemOf(t, await ask('agent-one', { token: 'x.y.z' })), 'token-invalid')
      for (const id of ['nobody-here', '%3Cimg%3E', 'constructor']) t.equal(problemOf(t, await ask(id, admin)), 'agent-not-found', id)
    })
  }
  t.equal((await registry.get('/public/stats')).body.total_agents, 2, 'a report creates no agent')
})

t.test('reports: a report is a heartbeat', async t => {
  const registry = await build(t, { lease: { durationMs: 600, preservation: false } }, answers)
  const token = await registry.agent()
  const seen = async () => (await registry.get('/agents/agent-one', { token })).body
  await until(async () => (await seen()).status === 'dead')
  const before = await seen()
  await registry.post('/agents/agent-one/metrics', { token, body: { success: false, response_time: 1 } })
  const after = await seen()
  t.match(after, { status: 'alive', state: 'alive' })
  t.ok(after.last_seen > before.last_seen)
  t.equal(after.metrics.last_active, after.last_seen)
})

t.test('every response matched its schema', async t => { t.same(answers.findings, []) })

const scrapeToken = 'a-token-for-prometheus'
const quiet = { intervalMs: 600_000, pingIntervalMs: 600_000 }
const options = {
  metricsScrapeToken: scrapeToken, publicWs: quiet, agentsWs: quiet, dashboardWs: quiet, sockets: { agentsUpdateIntervalMs: 600_000 }
}

/** Socket series by name and labels, without the common prefix of the names. */
async function scrape (registry: Harness): Promise<Map<string, number>> {
  const { text } = await registry.get('/metrics/scrape', { token: scrapeToken })
  return new Map([...text.matchAll(/^(?:agent_registry|arcp)_websocket_(\S+) (\S+)$/gm)].map(([, name, value]) => [name!, Number(value)]))
}

const out = (tier: string) => `{tier="${tier}",direction="out"}`
const into = (tier: string) => `{tier="${tier}",direction="in"}`
const of = (tier: string) => `{tier="${tier}"}`

/** Every changed series with its difference. */
async function since (registry: Harness, before: Map<string, number>): Promise<Record<string, number>> {
  return Object.fromEntries([...await scrape(registry)].map(([name, value]) => [name, value - (before.get(name) ?? 0)] as const)
    .filter(([, by]) => by !== 0))
}

/** Client messages in bytes on the wire. */
function measure (client: Client) {
  const measured = { frames: 0, bytes: 0 }
  client.ws.on('message', (data: Buffer) => {
    measured.frames++
    measured.bytes += headerSize(data.length) + data.length
  })
  return measured
}

function sendTogether (client: Client, texts: string[]) {
  rawOf(client.ws).cork()
  for (const text of texts) client.ws.send(text)
  rawOf(client.ws).uncork()
}

t.test('socket metrics: incoming and outgoing frames, bytes and writes are counted by tier', async t => {
  const registry = await build(t, options)
  const begin = await scrape(registry)
  const client = registry.socket('/public/ws')
  const measured = measure(client)
  await client.next('welcome')
  t.strictSame(await since(registry, begin), {
    [`connections${of('public')}`]: 1,
    [`frames_total${out('public')}`]: 1,
    [`bytes_total${out('public')}`]: measured.bytes,
    [`writes_total${of('public')}`]: 1
  })
  const opened = await scrape(registry)
  const [texts, before] = [['{"type":"ping"}', 'ping', '{"type":"ping","requestId":"é"}', '{"type":"nope"}'], { ...measured }]
  sendTogether(client, texts)
  await client.next('error')
  t.strictSame(await since(registry, opened), {
    [`frames_total${into('public')}`]: 4,
    [`bytes_total${into('public')}`]: Buffer.byteLength(texts.join('')),
    [`frames_total${out('public')}`]: 4,
    [`bytes_total${out('public')}`]: measured.bytes - before.bytes,
    [`writes_total${of('public')}`]: 1
  })
  t.equal(measured.frames, 5)
  client.close()
  await client.closed
  await until(async () => (await scrape(registry)).get(`connections${of('public')}`) === 0)
})

t.test('socket metrics: binary frames are counted by tier too', async t => {
  const registry = await build(t, options)
  const token = await registry.join()
  const begin = await scrape(registry)
  const client = registry.socket('/agents/ws', ['agent-registry.msgpack', `bearer.${token}`])
  const measured = measure(client)
  await client.next('list')
  client.send({ type: 'ping' })
  await client.next('pong')
  const changed = await since(registry, begin)
  t.equal(changed[`frames_total${out('agents')}`], measured.frames)
  t.equal(changed[`bytes_total${out('agents')}`], measured.bytes)
  t.equal(changed[`frames_total${into('agents')}`], 1)
  t.ok(changed[`writes_total${of('agents')}`]! < measured.frames)
  t.notOk(Object.keys(changed).some(name => /public|dashboard/.test(name)))
})

t.test('socket metrics: frames over the rate are counted and not handled', async t => {
  const registry = await build(t, { ...options, publicWs: { ...quiet, messagesPerSecond: 1, burst: 5 } })
  const client = await registry.watcher()
  const begin = await scrape(registry)
  sendTogether(client, Array.from({ length: 12 }, () => '{"type":"ping"}'))
  await until(() => client.all.length === 13)
  t.match(await since(registry, begin), {
    [`frames_total${into('public')}`]: 12, [`rate_limited_frames_total${of('public')}`]: 7, [`frames_total${out('public')}`]: 12
  })
})

t.test('socket metrics: lagging sockets and queued bytes are measured on scrape', async t => {
  const registry = await build(t, { ...options, agentsWs: { ...quiet, intervalMs: 1 }, sockets: { maxBufferedBytes: 67_108_864 } })
  const { token } = await registry.admin()
  const [slow, neighbour] = [await registry.agentSocket(token), await registry.agentSocket(token)]
  const queue = async () => {
    const series = await scrape(registry)
    return {
      behind: series.get(
      `backpressured_connections${of('agents')}`
      )!,
      bytes: series.get(`buffered_bytes${of('agents')}`)!,
      superseded: series.get(`superseded_frames_total${of('agents')}`)!
    }
  }
  t.strictSame(await queue(), { behind: 0, bytes: 0, superseded: 0 })
  rawOf(slow.ws).pause()
  // Lists of nearly 1 MB, of which the newest waits for the slow reader.
  for (let n = 0; (await queue()).superseded < 3; n++) {
    await registry.join(`agent-${n % 9}`, { metadata: { text: [randomBytes(70_000).toString('base64')] } })
    await assertAlive(neighbour)
  }
  const { behind, bytes } = await queue()
  t.equal(behind, 1)
  t.ok(bytes > 50_000 && bytes <= 67_108_864, `${bytes} bytes`)
  rawOf(slow.ws).resume()
  await until(async () => (await queue()).bytes === 0)
  t.equal((await queue()).behind, 0)
})

t.test('socket metrics: a closed slow reader counts once', async t => {
  const registry = await build(t, { ...options, sockets: { maxBufferedBytes: 1_000_000 } })
  for (let n = 0; n < 8; n++) await registry.join(`agent-${n}`, { metadata: { text: ['x'.repeat(100_000)] } })
  const [slow, neighbour] = [await registry.watcher(), await registry.watcher()]
  rawOf(slow.ws).pause()
  for (let n = 0; n < 60; n++) slow.send({ type: 'get_discovery' })
  await until(async () => (await scrape(registry)).get(`slow_closes_total${of('public')}`) === 1)
  await assertAlive(neighbour)
  rawOf(slow.ws).resume()
  t.equal((await slow.closed).code, 4008)
  t.equal((await scrape(registry)).get(`slow_closes_total${of('public')}`), 1)
})

t.test('socket metrics: the number of series depends only on the tiers', async t => {
  const registry = await build(t, options)
  const before = [...(await scrape(registry)).keys()]
  const names = [
    'connections', 'frames_total', 'bytes_total', 'writes_total', 'superseded_frames_total', 'rate_limited_frames_total',
    'slow_closes_total', 'backpressured_connections', 'buffered_bytes'
  ]
  t.strictSame([...new Set(before.map(name => name.slice(0, name.indexOf('{'))))].sort(), names.sort())
  for (const tier of ['public', 'agents', 'dashboard']) {
    t.equal(before.filter(name => name.includes(`"${tier}"`)).length, names.length +
    2, tier)
  }
  for (let n = 0; n < 20; n++) {
    const client = await registry.agentSocket(await registry.join(`agent-${n}`))
    client.send({ type: `type-${n}` })
    await client.next('error')
    client.terminate()
  }
  t.strictSame([...(await scrape(registry)).keys()], before)
})

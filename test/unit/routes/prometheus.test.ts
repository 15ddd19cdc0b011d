import { Value } from '@sinclair/typebox/value'
import t from 'tap'
import type { RegistrationBody } from '../../../src/index.js'
import { AgentInfo } from '../../../src/protocol/schemas/agent.js'
import {
  build, fingerprint, Harness, type Json, keys, password, problemOf, registration, serve, sleep, until
} from '../../support/harness.js'

const scrapeToken = 'a-token-for-prometheus'

/** Series by name and labels, as a scraper reads them. */
function parse (text: string): Map<string, number> {
  const lines = text.split('\n').filter(line => line !== '' && !line.startsWith('#'))
  return new Map(lines.map(line => [line.slice(0, line.lastIndexOf(' ')), Number(line.slice(line.lastIndexOf(' ') + 1))]))
}

async function scrape (registry: Harness): Promise<Map<string, number>> {
  const { status, text } = await registry.get('/metrics/scrape', { token: scrapeToken })
  t.equal(status, 200)
  return parse(text)
}

/** Value of a counter; 0 if it has no sample. */
const count = (series: Map<string, number>, name: string) => series.get(name) ?? 0

/** Reads a gauge as the Python client does: the second word of the first line that begins with its name. */
function gaugeOf (text: string, name: string): number {
  const line = text.split('\n').find(line => line.startsWith(name) && !line.startsWith('#'))
  return Number.parseFloat(line?.split(' ')[1] ?? '')
}

t.test('Prometheus access', async t => {
  const registry = await build(t, { metricsScrapeToken: scrapeToken })
  const admin = await registry.admin()

  await t.test('Prometheus access: admins read /metrics', async t => {
    const { status, headers, text } = await registry.get('/metrics', admin)
    t.equal(status, 200)
    t.match(headers.get('content-type'), /^text\/plain; version=.*charset=utf-8/)
    t.match(text, /^# HELP arcp_requests_total /m)
    t.equal(problemOf(t, await registry.get('/metrics')), 'authentication-failed')
    t.equal(problemOf(t, await registry.get('/metrics', { token: await registry.agent() })), 'insufficient-permissions')
    t.equal(problemOf(t, await registry.get('/metrics', { token: scrapeToken })), 'token-invalid')
  })

  await t.test('Prometheus access: the scrape token reads /metrics/scrape', async t => {
    const { status, headers } = await registry.get('/metrics/scrape', { token: scrapeToken })
    t.equal(status, 200)
    t.match(headers.get('content-type'), /^text\/plain; version=/)
    const missing = await registry.get('/metrics/scrape')
    t.same([missing.status, problemOf(t, missing)], [401, 'authentication-failed'])
    for (const token of ['x', `${scrapeToken}x`, scrapeToken.slice(1), admin.token]) {
      const wrong = await registry.get('/metrics/scrape', { token })
      t.same([wrong.status, problemOf(t, wrong), wrong.body.detail], [403, 'insufficient-permissions', 'Invalid scrape token'])
    }
  })

  await t.test('Prometheus access: /metrics/scrape is refused without a token, and absent without the routes', async t => {
    const closed = await build(t)
    const answer = await closed.get('/metrics/scrape', { token: scrapeToken })
    t.same([answer.status, problemOf(t, answer), answer.body.detail], [403, 'insufficient-permissions', 'Metrics scraping not enabled'])
    const none = await build(t, { routes: { metrics: false }, metricsScrapeToken: scrapeToken })
    for (const path of ['/metrics', '/metrics/scrape']) t.equal((await none.get(path, { token: scrapeToken })).status, 404)
  })
})

t.test('compatible series', async t => {
  const registry = await build(t, { metricsScrapeToken: scrapeToken, allowedAgentTypes: ['*'] })

  await t.test('compatible series: utilization is one line without labels', async t => {
    const { text } = await registry.get('/metrics/scrape', { token: scrapeToken })
    for (const name of ['cpu', 'memory', 'disk', 'network']) {
      const value = gaugeOf(text, `arcp_system_${name}_utilization_percent`)
      t.ok(value >= 0 && value <= 100, name)
      t.equal(text.match(new RegExp(`^arcp_system_${name}_utilization_percent `, 'gm'))?.length, 1, name)
    }
    t.ok(gaugeOf(text, 'arcp_system_memory_utilization_percent') > 0)
  })

  await t.test('compatible series: service information and state are exported', async t => {
    const series = await scrape(registry)
    t.ok([...series.keys()].some(key => key.startsWith('arcp_service_info{version="2.1.2"')))
    const states = ['healthy', 'degraded', 'unhealthy'].map(name =>
      series.get(`arcp_service_health_status{arcp_service_health_status="${name}"}`))
    t.same(states, [1, 0, 0])
    for (const name of ['process_cpu_seconds_total', 'process_resident_memory_bytes', 'nodejs_version_info']) {
      t.ok([...series.keys()].some(key => key.startsWith(name)), name)
    }
  })

  await t.test('compatible series: agents are counted when they register, change state and leave', async t => {
    const token = await registry.agent('agent-one', { agent_type: 'cooks' })
    await registry.agent('agent-two', { agent_type: 'cooks' })
    await registry.post('/agents/agent-one/heartbeat', { token })
    const {
      body: { access_token: newer }
    } = await registry.post('/agents/register', { token, body: (await registry.get('/agents/agent-one', { token })).body })
    await registry.post('/agents/agent-one/heartbeat', { token })
    const during = await scrape(registry)
    t.equal(during.get('arcp_active_agents{agent_type="cooks"}'), 2)
    t.equal(during.get('agent_registry_agents{status="alive"}'), 2)
    t.equal(during.get('agent_registry_agents{status="dead"}'), 0)
    t.equal(during.get('arcp_agent_registrations_total{status="success",agent_type="cooks"}'), 3)
    t.equal(during.get('arcp_agent_heartbeats_total{status="success"}'), 1)
    t.equal(during.get('arcp_agent_heartbeats_total{status="refused"}'), 1)
    await registry.delete('/agents/agent-one', { token: newer })
    const after = await scrape(registry)
    t.equal(after.get('arcp_active_agents{agent_type="cooks"}'), 1)
    t.equal(after.get('arcp_agent_unregistrations_total{status="success",reason="left"}'), 1)
    t.equal(after.get('agent_registry_changes_total{event="registered"}'), 3)
    t.equal(after.get('agent_registry_changes_total{event="unregistered"}'), 1)
  })

  await t.test('compatible series: searches, logins and key uses are counted', async t => {
    const before = await scrape(registry)
    const names = ['arcp_vector_search_operations_total{status="success"}', ...['login', 'temp_token'].flatMap(type =>
      ['success', 'failed'].map(status => `arcp_auth_attempts_total{status="${status}",auth_type="${type}"}`))]
    await registry.post('/public/search', { body: { query: 'cooks' } })
    await registry.admin()
    await registry.post('/auth/login', { headers: { 'x-client-fingerprint': 'f' }, body: { username: 'admin', password: 'wrong' } })
    await registry.tempToken('agent-nine')
    await registry.tempToken('agent-nine', 'no-such-key-at-all')
    const after = await scrape(registry)
    for (const name of names) t.equal(count(after, name) - count(before, name), 1, name)
  })

  await t.test('compatible series: sockets are counted by tier', async t => {
    const admin = await registry.admin()
    const dashboard = registry.socket('/dashboard/ws')
    await dashboard.opened
    dashboard.send({ type: 'auth', token: admin.token })
    await dashboard.next('monitoring')
    const clients = [
      await registry.watcher(), await registry.watcher(), await registry.agentSocket(await registry.agent('agent-six')), dashboard
    ]
    const tiers = async () => {
      const series = await scrape(registry)
      return ['public', 'agents', 'dashboard'].map(tier => series.get(`arcp_websocket_connections{tier="${tier}"}`))
    }
    t.same(await tiers(), [2, 1, 1])
    for (const client of clients) client.close()
    await until(async () => (await tiers()).join() === '0,0,0')
  })
})

t.test('request series', async t => {
  const registry = await build(t, { metricsScrapeToken: scrapeToken })
  const name = (labels: string) => `arcp_requests_total{${labels}}`

  await t.test('request series: requests are counted by method, route and status', async t => {
    const token = await registry.agent()
    await registry.get('/public/agent/agent-one')
    for (const id of ['nobody-a', 'nobody-b', '%3Cscript%3E']) await registry.get(`/public/agent/${id}`)
    await registry.get('/public/discover?limit=none')
    await registry.post('/agents/agent-one/heartbeat', { token })
    await registry.call('PUT', '/public/stats')
    const series = await scrape(registry)
    t.equal(series.get(name('method="GET",endpoint="/public/agent/:id",status_code="200"')), 1)
    t.equal(series.get(name('method="GET",endpoint="/public/agent/:id",status_code="404"')), 3)
    t.equal(series.get(name('method="GET",endpoint="/public/discover",status_code="422"')), 1)
    t.equal(series.get(name('method="POST",endpoint="/agents/:id/heartbeat",status_code="200"')), 1)
    t.equal(series.get(name('method="PUT",endpoint="/public/stats",status_code="405"')), 1)
  })

  await t.test('request series: durations are in buckets of seconds', async t => {
    const series = await scrape(registry)
    const labels = 'method="GET",endpoint="/public/agent/:id",status_code="404"'
    const bounds = ['0.001', '0.005', '0.01', '0.025', '0.05', '0.1', '0.25', '0.5', '1', '2.5', '5', '10', '+Inf']
    const buckets = bounds.map(le => series.get(`arcp_request_duration_seconds_bucket{le="${le}",${labels}}`)!)
    t.same(buckets, [...buckets].sort((a, b) => a - b), 'cumulative')
    t.equal(buckets.at(-1), 3)
    t.equal(series.get(`arcp_request_duration_seconds_count{${labels}}`), 3)
    const sum = series.get(`arcp_request_duration_seconds_sum{${labels}}`)!
    t.ok(sum > 0 && sum < 30)
  })

  await t.test('request series: unmatched paths count once in the registry\'s scope, and not in the host\'s', async t => {
    const unmatched = async (registry: Harness) => [...await scrape(registry)].filter(([key]) => /requests_total.*unmatched/.test(key))
    const inside = await build(t, { metricsScrapeToken: scrapeToken, prefix: '/registry' })
    for (const path of ['/nothing', '/agents/x/y/z', '']) await inside.get(path)
    await new Harness(inside.app).get('/elsewhere')
    t.same(await unmatched(inside), [['arcp_requests_total{method="GET",endpoint="unmatched",status_code="404"}', 3]])
    await registry.get('/elsewhere')
    t.same(await unmatched(registry), [])
    registry.app.agentRegistry.countUnmatched({ method: 'GET', statusCode: 404, elapsedMs: 1 })
    t.same(await unmatched(registry), [['arcp_requests_total{method="GET",endpoint="unmatched",status_code="404"}', 1]],
      'unless the host enables it')
  })

  for (const prefix of ['', '/registry']) {
    await t.test(`series: unserved paths, ids and methods add no series (prefix '${prefix}')`, async t => {
      const registry = await build(t, { metricsScrapeToken: scrapeToken, prefix })
      async function requestUnknownPaths (round: number) {
        for (const method of ['GET', 'POST', 'DELETE', 'PROPFIND', 'LOCK', 'MKCOL']) {
          for (const path of [
            `/nothing-${round}`, `/agents/some-${round}/what`, `/public/agent/agent-${round}`, `/agents/agent-${round}/metrics?x=${round}`,
            `/problems/type-${round}`
          ]) await registry.call(method, path)
        }
      }
      /** Names of the request series: process series vary with open sockets. */
      const names = async () => [...(await scrape(registry)).keys()].filter(key => key.startsWith('arcp_'))
      await requestUnknownPaths(0)
      await scrape(registry)
      const before = await names()
      for (const method of ['REPORT', 'UNLOCK', 'SEARCH', 'PROPPATCH']) await registry.call(method, '/nothing')
      for (let round = 1; round <= 5; round++) await requestUnknownPaths(round)
      const after = await names()
      t.same(after.filter(name => !before.includes(name)), [])
      t.notOk(after.some(key => /nothing-|agent-\d|PROPFIND|REPORT/.test(key)))
    })
  }
})

t.test('series: registrations are counted by outcome and type, and failed ones use no label of others', async t => {
  const registry = await build(t, { metricsScrapeToken: scrapeToken, allowedAgentTypes: ['testing', 'security'] })
  const failed = async () => [...await scrape(registry)].flatMap(
    ([key, value]) => /registrations_total\{status="failed",agent_type="(.*)"/.exec(key)?.[1] + ` ${value}`
  ).filter(text => !text.startsWith('undefined')).sort()
  const token = await registry.agent('agent-one')
  t.same(await failed(), [])
  await registry.register('agent-one')
  await registry.post('/agents/register', { token, body: registration('agent-one', { agent_type: 'security', name: '' }) })
  await registry.post('/agents/register', { token, body: registration('agent-one', { agent_type: 'no-such-type' }) })
  await registry.post('/agents/register', { token, body: registration('agent-one', { agent_type: '<script>' }) })
  await registry.post('/agents/register', { body: registration('agent-one', { agent_type: 'another-type' }) })
  await registry.post('/agents/register', { token, body: [] })
  await registry.post('/agents/register', { token, raw: '{"agent_type":' })
  await registry.post('/agents/register', { token, body: registration('agent-one', { agent_type: 7 }) })
  await t.rejects(
    registry.app.agentRegistry.register({ ...registration('agent-two'), agent_type: 'security', endpoint: 'nowhere' } as RegistrationBody)
  )
  await t.rejects(registry.join('agent-two', { agent_type: 'host-type' }))
  await until(async () => (await failed()).length === 4)
  t.same(await failed(), ['other 4', 'security 2', 'testing 1', 'unknown 3'])
  t.equal((await scrape(registry)).get('arcp_agent_registrations_total{status="success",agent_type="testing"}'), 1)
})

t.test('series: the number of agent types is bounded, whatever their names', async t => {
  const registry = await build(t, { metricsScrapeToken: scrapeToken, allowedAgentTypes: ['*'] })
  for (let index = 0; index < 60; index++) await registry.join(`agent-${index}`, { agent_type: `type-${index}` })
  const series = await scrape(registry)
  const types = [...series].filter(([key]) => key.startsWith('arcp_active_agents{'))
  t.equal(types.length, 51)
  t.equal(series.get('arcp_active_agents{agent_type="other"}'), 10)
  t.equal(types.reduce((sum, [, value]) => sum + value, 0), 60)
  t.notOk([...series.keys()].some(key => key.includes('agent-1')))
  const registrations = [...series].filter(([key]) => key.startsWith('arcp_agent_registrations_total{'))
  t.equal(registrations.length, 51)
  t.equal(series.get('arcp_agent_registrations_total{status="success",agent_type="other"}'), 10)
})

function block (ms: number) {
  const end = Date.now() + ms
  while (Date.now() < end);
}

t.test('lag series', async t => {
  const registry = await build(t, { metricsScrapeToken: scrapeToken, lease: { durationMs: 300, preservation: false } })
  const lag = (series: Map<string, number>, quantile: string) =>
    series.get(`agent_registry_event_loop_lag_seconds{quantile="${quantile}"}`)!

  await t.test('lag series: the event loop lag covers the time since the last scrape', async t => {
    await until(async () => {
      await sleep(60)
      block(300)
      await sleep(60)
      return lag(await scrape(registry), '1') >= 0.2
    })
    await until(async () => {
      await sleep(60)
      return lag(await scrape(registry), '0.5') < 0.02
    })
    const series = await scrape(registry)
    t.ok(lag(series, '0.5') <= lag(series, '0.99') && lag(series, '0.99') <= lag(series, '1'))
  })

  await t.test('lag series: the sweep lag is exported', async t => {
    await registry.register('agent-one', {}, keys.other)
    await until(async () => (await scrape(registry)).get('agent_registry_agents{status="dead"}') === 1)
    const value = (await scrape(registry)).get('agent_registry_sweep_lag_seconds')!
    t.ok(value >= 0 && value < 30)
  })
})

t.test('series: two registries in one application have separate series', async t => {
  const registry = await build(t, { metricsScrapeToken: scrapeToken, prefix: '/one' }, {
    before: async app => {
      const { default: agentRegistry } = await import('../../../src/index.js')
      await app.register(
        agentRegistry, { prefix: '/two', decorateAs: 'second', routes: { wellKnown: false }, metricsScrapeToken: scrapeToken }
      )
    }
  })
  await registry.agent()
  t.equal((await scrape(registry)).get('agent_registry_agents{status="alive"}'), 1)
  const second = parse(await (await fetch(
    registry.base.replace('/one', '/two/metrics/scrape'), { headers: { authorization: `Bearer ${scrapeToken}` } }
  )).text())
  t.equal(second.get('agent_registry_agents{status="alive"}'), 0)
})

t.test('metrics', async t => {
  const registry = await build(t)
  const token = await registry.agent()
  const other = await registry.agent('agent-two')

  await t.test('metrics: an agent cannot report its reputation, and a report creates no record', async t => {
    for (const path of ['/agents/report-metrics/agent-one', '/agents/agent-one/metrics/compat']) {
      t.equal(problemOf(t, await registry.post(`${path}?response_time=0.1`, { token: other })), 'insufficient-permissions')
      t.equal((await registry.post(`${path}?response_time=-5`, { token })).status, 422)
    }
    t.equal((await registry.post('/agents/report-metrics/nobody-here?response_time=1', await registry.admin())).status, 404)
    t.equal((await registry.get('/agents/agent-one/metrics', { token })).body.total_requests, 0)
    t.equal((await registry.get('/public/stats')).body.total_agents, 2)
  })

  await t.test('metrics: an invalid report of one agent does not break a list', async t => {
    const poison = [
      '{"success_rate":7}', '{"avg_response_time":4000}', '{"success_rate":1e999}', '{"success_rate":NaN}', '{"reputation_score":"best"}',
      '{"total_requests":null}'
    ]
    for (const raw of poison) t.equal((await registry.post('/agents/agent-one/metrics', { token, raw })).status, 422, raw)
    await registry.post(
      '/agents/agent-one/metrics', { token, body: { agent_id: 'agent-two', last_active: 'never', model_fields: {}, success_rate: 1 } }
    )
    const watcher = await registry.watcher()
    watcher.send({ type: 'get_discovery' })
    const frame = await watcher.next('discovery_data')
    const socket = await registry.agentSocket(other)
    const lists: Json[][] = [(await registry.get(
      '/agents?include_metrics=true', { token: other }
    )).body, (await registry.get('/public/discover')).body, frame.data.agents, socket.all.find(Array.isArray)]
    for (const list of lists) {
      t.equal(list.length, 2)
      for (const agent of list) t.same([...Value.Errors(AgentInfo, agent)], [])
      t.equal(list.find(({ agent_id: id }) => id === 'agent-one')!.metrics.agent_id, 'agent-one')
    }
    watcher.close()
    socket.close()
  })

  await t.test('metrics: concurrent reports are all counted, the error rate included', async t => {
    const reports = Array.from({ length: 200 }, (_, index) =>
      registry.post(`/agents/report-metrics/agent-two?response_time=1&success=${index % 4 !== 0}`, { token: other }))
    await Promise.all(reports)
    const {
      total_requests: total, error_rate: errors, success_rate: rate
    } = (await registry.get('/agents/agent-two/metrics', { token: other })).body
    t.same([total, errors.toFixed(6), rate.toFixed(6)], [200, '0.250000', '0.750000'])
  })

  await t.test('metrics: an agent that reports as the guides show has metrics', async t => {
    const guided = await registry.agent('agent-three')
    await registry.post('/agents/agent-three/metrics', { token: guided, body: { operation: 'x', response_time: 0.5, success: true } })
    t.match((await registry.get('/agents/agent-three/metrics', { token: guided })).body, {
      total_requests: 1, success_rate: 1, avg_response_time: 0.5
    })
  })
})

t.test('calls to agents', async t => {
  const registry = await build(t)
  const token = await registry.agent('sender-one')

  await t.test('calls to agents: a user with an address as its id gets a response with an unguessable id', async t => {
    await registry.agent('agent-one', { endpoint: await serve(t, (_request, response) => { response.end() }) })
    const ids = new Set<string>()
    for (let index = 0; index < 3; index++) {
      const {
        status, body
      } = await registry.post('/public/connect/agent-one', { body: { user_id: 'ann.b@example.org', user_endpoint: 'https://example.org' } })
      t.equal(status, 200)
      t.match(body.request_id, /^[a-zA-Z0-9_-]{5,100}$/)
      ids.add(body.request_id)
    }
    t.equal(ids.size, 3)
  })

  await t.test('calls to agents: a missing field is 422 and a silent agent 504, never 500', async t => {
    t.equal((await registry.post('/agents/sender-one/connection/notify', { token, body: {} })).status, 422)
    t.equal((await registry.post('/public/connect/sender-one', { body: {} })).status, 422)
    t.equal((await registry.get('/agents/search?query=a', { token })).status, 422)
    await registry.agent('silent-one', { endpoint: await serve(t, () => {}) })
    const answer = await registry.post(
      '/agents/silent-one/connection/notify', { token, body: { agent_id: 'sender-one', agent_endpoint: 'http://127.0.0.1:1' } }
    )
    t.same([answer.status, problemOf(t, answer)], [504, 'connection-timeout'])
  })
})

t.test('search', async t => {
  const registry = await build(t)
  await registry.join('agent-ai', { context_brief: 'An expert of AI and QA', capabilities: ['ml'] })
  await registry.join('agent-edu', { context_brief: 'Works in education since long', capabilities: ['teach'], ai_context: 'dinosaurs' })
  const find = async (query: string, more: object = {}) => (await registry.post('/public/search', { body: { query, ...more } })).body

  await t.test('search: words of two letters match, and parts of words do not', async t => {
    for (const word of ['AI', 'QA', 'ML']) t.match(await find(word), [{ id: 'agent-ai' }], word)
    t.same(await find('cat'), [])
  })

  await t.test('search: similarity separates good hits from bad ones, and min_similarity applies', async t => {
    const all: Json[] = await find('expert education AI', { min_similarity: 0 })
    t.equal(all.length, 2)
    t.ok(all[0].similarity > all[1].similarity)
    t.same((await find('expert education AI', { min_similarity: 1 })).length, 1)
  })

  await t.test('search: the AI description of an agent is searchable, also after a change', async t => {
    t.match(await find('dinosaurs'), [{ id: 'agent-edu' }])
    await registry.join('agent-edu', { context_brief: 'Works in education since long', capabilities: ['teach'], ai_context: 'volcanoes' })
    t.same(await find('dinosaurs'), [])
    t.match(await find('volcanoes'), [{ id: 'agent-edu' }])
  })
})

t.test('search: an agent without a vector is found too, and no registration waits for one', async t => {
  let release = () => {}
  const held = new Promise<void>(resolve => { release = resolve })
  const registry = await build(t, {
    embed: async (texts: readonly string[]) => {
      if (texts.some(text => text.includes('Slow'))) await held
      return texts.map(text => [text.includes('quick') ? 1 : 0, 1])
    }
  })
  await registry.agent('fast-one', { context_brief: 'A quick brown fox, no more' })
  await until(async () => (await registry.get('/health')).body.agents.embeddings_stored === 1)
  t.equal((await registry.register('slow-one', { name: 'Slow', context_brief: 'A lazy brown dog, no more' })).status, 200)
  const { body } = await registry.post('/public/search', { body: { query: 'lazy', min_similarity: 0 } })
  t.ok(body.some(({ id }: Json) => id === 'slow-one'))
  release()
  await until(async () => (await registry.get('/health')).body.agents.embeddings_stored === 2)
})

t.test('dashboard: the log has successful and failed logins', async t => {
  const registry = await build(t)
  const headers = { 'x-client-fingerprint': fingerprint }
  const admin = await registry.admin()
  for (const wrong of ['wrong', `${password}x`]) {
    await registry.post('/auth/login', { headers, body: { username: 'admin', password: wrong } })
  }
  await registry.post(
    '/auth/agent/request_temp_token', { body: { agent_id: 'agent-one', agent_type: 'testing', agent_key: 'no-such-key-at-all' } }
  )
  const dashboard = registry.socket('/dashboard/ws')
  await dashboard.opened
  dashboard.send({ type: 'auth', token: admin.token })
  const { data: { logs } } = await dashboard.next('logs')
  const kinds: string[] = logs.filter(({ source }: Json) => source === 'auth').map(({ event_type: type }: Json) => type)
  t.same(kinds.sort(), ['login_failed', 'login_failed', 'login_success', 'temp_token_failed'])
  t.notMatch(JSON.stringify(logs), password)
  dashboard.close()
})

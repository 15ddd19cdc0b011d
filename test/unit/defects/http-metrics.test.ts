import t from 'tap'
import { Value } from '@sinclair/typebox/value'
import { AgentInfo } from '../../../src/protocol/schemas/agent.js'
import { build, fingerprint, password, problemOf, serve, until, type Json } from '../../support/harness.js'

t.test('metrics', async t => {
  const registry = await build(t)
  const token = await registry.agent()
  const other = await registry.agent('agent-two')

  await t.test('reputation is not for others to report, and no report makes a record', async t => {
    for (const path of ['/agents/report-metrics/agent-one', '/agents/agent-one/metrics/compat']) {
      t.equal(problemOf(t, await registry.post(`${path}?response_time=0.1`, { token: other })), 'insufficient-permissions')
      t.equal((await registry.post(`${path}?response_time=-5`, { token })).status, 422)
    }
    t.equal((await registry.post('/agents/report-metrics/nobody-here?response_time=1', await registry.admin())).status, 404)
    t.equal((await registry.get('/agents/agent-one/metrics', { token })).body.total_requests, 0)
    t.equal((await registry.get('/public/stats')).body.total_agents, 2)
  })

  await t.test('no report of one agent breaks a list for the others', async t => {
    const poison = ['{"success_rate":7}', '{"avg_response_time":4000}', '{"success_rate":1e999}', '{"success_rate":NaN}', '{"reputation_score":"best"}', '{"total_requests":null}']
    for (const raw of poison) t.equal((await registry.post('/agents/agent-one/metrics', { token, raw })).status, 422, raw)
    await registry.post('/agents/agent-one/metrics', { token, body: { agent_id: 'agent-two', last_active: 'never', model_fields: {}, success_rate: 1 } })
    const watcher = await registry.watcher()
    watcher.send({ type: 'get_discovery' })
    const frame = await watcher.next('discovery_data')
    const socket = await registry.agentSocket(other)
    const lists: Json[][] = [(await registry.get('/agents?include_metrics=true', { token: other })).body, (await registry.get('/public/discover')).body, frame.data.agents, socket.all.find(Array.isArray)]
    for (const list of lists) {
      t.equal(list.length, 2)
      for (const agent of list) t.same([...Value.Errors(AgentInfo, agent)], [])
      t.equal(list.find(({ agent_id: id }) => id === 'agent-one')!.metrics.agent_id, 'agent-one')
    }
    watcher.close()
    socket.close()
  })

  await t.test('reports that come at once are all counted, and the share of errors with them', async t => {
    const reports = Array.from({ length: 200 }, (_, index) => registry.post(`/agents/report-metrics/agent-two?response_time=1&success=${index % 4 !== 0}`, { token: other }))
    await Promise.all(reports)
    const { total_requests: total, error_rate: errors, success_rate: rate } = (await registry.get('/agents/agent-two/metrics', { token: other })).body
    t.same([total, errors.toFixed(6), rate.toFixed(6)], [200, '0.250000', '0.750000'])
  })

  await t.test('an agent that reports what guides show has metrics', async t => {
    const guided = await registry.agent('agent-three')
    await registry.post('/agents/agent-three/metrics', { token: guided, body: { operation: 'x', response_time: 0.5, success: true } })
    t.match((await registry.get('/agents/agent-three/metrics', { token: guided })).body, { total_requests: 1, success_rate: 1, avg_response_time: 0.5 })
  })
})

t.test('calls to agents', async t => {
  const registry = await build(t)
  const token = await registry.agent('sender-one')

  await t.test('a user whose id is an address gets an answer when the agent was told, with an id that nobody can guess', async t => {
    await registry.agent('agent-one', { endpoint: await serve(t, (_request, response) => { response.end() }) })
    const ids = new Set<string>()
    for (let index = 0; index < 3; index++) {
      const { status, body } = await registry.post('/public/connect/agent-one', { body: { user_id: 'ann.b@example.org', user_endpoint: 'https://example.org' } })
      t.equal(status, 200)
      t.match(body.request_id, /^[a-zA-Z0-9_-]{5,100}$/)
      ids.add(body.request_id)
    }
    t.equal(ids.size, 3)
  })

  await t.test('a missing field is 422 and an agent that is silent 504, never 500', async t => {
    t.equal((await registry.post('/agents/sender-one/connection/notify', { token, body: {} })).status, 422)
    t.equal((await registry.post('/public/connect/sender-one', { body: {} })).status, 422)
    t.equal((await registry.get('/agents/search?query=a', { token })).status, 422)
    await registry.agent('silent-one', { endpoint: await serve(t, () => {}) })
    const answer = await registry.post('/agents/silent-one/connection/notify', { token, body: { agent_id: 'sender-one', agent_endpoint: 'http://127.0.0.1:1' } })
    t.same([answer.status, problemOf(t, answer)], [504, 'connection-timeout'])
  })
})

t.test('search', async t => {
  const registry = await build(t)
  await registry.join('agent-ai', { context_brief: 'An expert of AI and QA', capabilities: ['ml'] })
  await registry.join('agent-edu', { context_brief: 'Works in education since long', capabilities: ['teach'], ai_context: 'dinosaurs' })
  const find = async (query: string, more: object = {}) => (await registry.post('/public/search', { body: { query, ...more } })).body

  await t.test('finds words of two letters and none inside of others', async t => {
    for (const word of ['AI', 'QA', 'ML']) t.match(await find(word), [{ id: 'agent-ai' }], word)
    t.same(await find('cat'), [])
  })

  await t.test('tells good hits from bad ones, and min_similarity counts', async t => {
    const all: Json[] = await find('expert education AI', { min_similarity: 0 })
    t.equal(all.length, 2)
    t.ok(all[0].similarity > all[1].similarity)
    t.same((await find('expert education AI', { min_similarity: 1 })).length, 1)
  })

  await t.test('finds by what an agent says for AI, also after it has changed', async t => {
    t.match(await find('dinosaurs'), [{ id: 'agent-edu' }])
    await registry.join('agent-edu', { context_brief: 'Works in education since long', capabilities: ['teach'], ai_context: 'volcanoes' })
    t.same(await find('dinosaurs'), [])
    t.match(await find('volcanoes'), [{ id: 'agent-edu' }])
  })
})

t.test('with vectors an agent that has none yet is found all the same, and no registration waits for one', async t => {
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

t.test('logins, failed and not, are in the log of the dashboards', async t => {
  const registry = await build(t)
  const headers = { 'x-client-fingerprint': fingerprint }
  const admin = await registry.admin()
  for (const wrong of ['wrong', `${password}x`]) await registry.post('/auth/login', { headers, body: { username: 'admin', password: wrong } })
  await registry.post('/auth/agent/request_temp_token', { body: { agent_id: 'agent-one', agent_type: 'testing', agent_key: 'no-such-key-at-all' } })
  const dashboard = registry.socket('/dashboard/ws')
  await dashboard.opened
  dashboard.send({ type: 'auth', token: admin.token })
  const { data: { logs } } = await dashboard.next('logs')
  const kinds: string[] = logs.filter(({ source }: Json) => source === 'auth').map(({ event_type: type }: Json) => type)
  t.same(kinds.sort(), ['login_failed', 'login_failed', 'login_success', 'temp_token_failed'])
  t.notMatch(JSON.stringify(logs), password)
  dashboard.close()
})

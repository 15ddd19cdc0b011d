import t from 'tap'
import { build, registration, until, type Harness, type Json } from '../../support/harness.js'
import { assertAlive, nextWhere, undocumentedFrames } from './helper.js'

const ids = ({ data }: Json): string[] => data.agents.map((agent: Json) => agent.agent_id)

t.test('public tier: the first frame is the expected welcome, with the revision', async t => {
  const registry = await build(t)
  const client = registry.socket('/public/ws')
  t.strictSame(await client.next(), {
    type: 'welcome',
    message: 'Connected to ARCP Public API WebSocket',
    features: ['agent_updates', 'public_stats', 'discovery_events', 'paginated_discovery'],
    commands: { ping: 'Send ping to check connection', get_discovery: 'Get agent discovery data with pagination' },
    pagination: {
      default_page_size: 30, max_page_size: 100, usage: "Send {type: 'get_discovery', page: 1, page_size: 30, agent_type: 'optional'}"
    },
    revision: registry.app.agentRegistry.revision
  })
  t.strictSame(await client.pending(), [], 'no list and no statistics follow by themselves')
})

t.test('public tier: statistics are sent on their interval to busy and silent sockets', async t => {
  const registry = await build(t, { publicWs: { intervalMs: 300 }, lease: { durationMs: 200 } })
  const [busy, silent] = [await registry.watcher(), await registry.watcher()]
  const sendGroup = setInterval(() => busy.send({ type: 'ping' }), 15)
  t.teardown(() => clearInterval(sendGroup))
  await registry.join('agent-dead')
  for (const client of [busy, silent]) {
    const { timestamp, data } = await nextWhere(client, 'stats_update', ({ data }) => data.dead_agents === 1)
    t.strictSame(data, {
      total_agents: 1, alive_agents: 0, dead_agents: 1, agent_types_count: 1, available_types: ['testing'], system_status: 'operational'
    })
    t.ok(Math.abs(timestamp - Date.now() / 1000) < 10, 'epoch seconds')
    const times = [timestamp]
    for (let i = 0; i < 3; i++) times.push((await client.next('stats_update')).timestamp)
    const gaps = times.slice(1).map((time, i) => time - times[i])
    t.ok(gaps.every(gap => gap > 0.25 && gap < 3), `gaps of ${gaps} s`)
  }
  t.strictSame(undocumentedFrames('public', busy.all), [])
})

t.test('public tier: the first change is sent at once, and twenty concurrent ones in few frames, the last complete', async t => {
  const registry = await build(t, { sockets: { agentsUpdateIntervalMs: 400 } })
  const client = await registry.watcher()
  await registry.join('agent-first')
  const first = await client.next('agents_update')
  t.strictSame(ids(first), ['agent-first'])
  t.equal(first.data.revision, registry.app.agentRegistry.revision)
  const before = client.all.length
  const names = Array.from({ length: 20 }, (_, i) => `agent-${i}`)
  await Promise.all(names.map(id => registry.register(id)))
  const last = await nextWhere(client, 'agents_update', ({ data }) => data.total_count === 21)
  t.strictSame(ids(last).sort(), ['agent-first', ...names].sort())
  const took = last.timestamp - first.timestamp
  t.ok(client.all.length - before <= 2 + Math.ceil(took / 0.4), 'one frame per interval at most')
})

t.test('public tier: the interval starts at the previous frame, and a second change is sent with the newest state', async t => {
  const registry = await build(t, { sockets: { agentsUpdateIntervalMs: 500 } })
  const client = await registry.watcher()
  const token = await registry.join()
  const first = await client.next('agents_update')
  for (const name of ['Second', 'Third']) await registry.patch('/agents/agent-one', { token, body: { name } })
  const second = await client.next('agents_update')
  t.equal(second.data.agents[0].name, 'Third')
  t.ok(second.timestamp - first.timestamp >= 0.45)
})

t.test('public tier: every visible change is followed by an update', async t => {
  const registry = await build(t)
  const client = await registry.watcher()
  const { agentRegistry } = registry.app
  const token = await registry.join()
  const total = (count: number) => nextWhere(client, 'agents_update', ({ data }) => data.total_count === count)
  t.equal((await total(1)).data.agents[0].state, 'starting')
  await registry.patch('/agents/agent-one', { token, body: { name: 'Renamed' } })
  t.equal((await nextWhere(client, 'agents_update', ({ data }) => data.agents[0].name === 'Renamed')).data.total_count, 1)
  await registry.join('agent-one', { name: 'Again' })
  t.equal((await nextWhere(client, 'agents_update', ({ data }) => data.agents[0].name === 'Again')).data.total_count, 1)
  for (const away of ['draining', 'maintenance'] as const) {
    await agentRegistry.setStatus('agent-one', away)
    t.strictSame(ids(await total(0)), [])
    await agentRegistry.setStatus('agent-one', 'alive')
    t.strictSame(ids(await total(1)), ['agent-one'])
  }
  await agentRegistry.unregister('agent-one')
  t.strictSame(ids(await total(0)), [])
})

t.test('public tier: a death and a revival are followed by an update, a heartbeat is not', async t => {
  const registry = await build(t, { lease: { durationMs: 400 } })
  const client = await registry.watcher()
  await registry.join()
  await nextWhere(client, 'agents_update', ({ data }) => data.total_count === 1)
  t.strictSame(ids(await nextWhere(client, 'agents_update', ({ data }) => data.total_count === 0)), [])
  await registry.app.agentRegistry.heartbeat('agent-one')
  const revived = await nextWhere(client, 'agents_update', ({ data }) => data.total_count === 1)
  t.equal(revived.data.agents[0].status, 'alive')
  await registry.app.agentRegistry.heartbeat('agent-one')
  t.strictSame(await client.pending(150), [])
})

async function fill (registry: Harness, count: number, more: object = {}) {
  for (let i = 0; i < count; i++) await registry.join(`agent-${i}`, more)
}

t.test('public tier: a truncated list has the last changes first, then the newest agents, and the true count', async t => {
  const cuts: Array<[string, object, number]> = [['by number', { maxAgentsPerUpdate: 3 }, 3], ['by size', { maxUpdateBytes: 2400 }, 2]]
  for (const [how, limits, shown] of cuts) {
    const registry = await build(t, { sockets: { agentsUpdateIntervalMs: 20, ...limits } })
    await fill(registry, 6)
    const client = await registry.watcher()
    const token = await registry.join('agent-1', { name: 'Changed' })
    const { data } = await client.next('agents_update')
    t.strictSame([data.total_count, data.truncated, data.agents.length], [6, true, shown], how)
    t.strictSame(ids({ data }), ['agent-1', 'agent-5', 'agent-4'].slice(0, shown), how)
    await registry.post('/agents/agent-1/status', { token, body: { status: 'draining' } })
    const next = await nextWhere(client, 'agents_update', ({ data }) => data.total_count === 5)
    t.strictSame(ids(next), ['agent-5', 'agent-4', 'agent-3'].slice(0, shown), 'removed agents are not listed')
  }
})

t.test('public tier: an agent too large for a list does not displace others', async t => {
  const registry = await build(t, { sockets: { maxUpdateBytes: 2400 } })
  await registry.join('agent-small')
  const client = await registry.watcher()
  await registry.join('agent-large', { ai_context: 'x'.repeat(3000) })
  const { data } = await client.next('agents_update')
  t.strictSame([ids({ data }), data.total_count, data.truncated], [['agent-small'], 2, true])
})

t.test('public tier: it shows the configured optional fields, by default all', async t => {
  const more = {
    features: ['fast'], policy_tags: ['internal'], ai_context: 'how to use it', max_tokens: 5, requirements: { permissions: ['net'] }
  }
  const shown: Array<[object, object]> = [
    [{}, more],
    [{ publicFields: [] }, { features: [], policy_tags: [], ai_context: null, max_tokens: null, requirements: null, metrics: null }],
    [{ publicFields: ['features'] }, { features: ['fast'], ai_context: null, metrics: null }]
  ]
  for (const [options, expected] of shown) {
    const registry = await build(t, options)
    const client = await registry.watcher()
    await registry.join('agent-one', more)
    const update = await client.next('agents_update')
    client.send({ type: 'get_discovery' })
    client.send({ type: 'watch', snapshot: true })
    const found = await client.next('discovery_data')
    const { agents: [watched] } = await client.next('agents_snapshot')
    for (const agent of [update.data.agents[0], found.data.agents[0], watched]) t.match(agent, { ...registration(), ...expected })
    t.strictSame(undocumentedFrames('public', client.all), [])
  }
})

t.test('get_discovery', async t => {
  const registry = await build(t)
  await fill(registry, 5)
  await registry.join('agent-other', { agent_type: 'security' })
  await registry.join('agent-away')
  await registry.app.agentRegistry.setStatus('agent-away', 'maintenance')
  const client = await registry.watcher()
  const all = ['agent-0', 'agent-1', 'agent-2', 'agent-3', 'agent-4', 'agent-other']
  const page = (current: number, size: number, total = 6) => {
    const pages = Math.ceil(total / size)
    const [next, previous] = [current < pages, current > 1]
    return {
      current_page: current,
      page_size: size,
      total_agents: total,
      total_pages: pages,
      has_next: next,
      has_previous: previous,
      next_page: next ? current + 1 : null,
      previous_page: previous ? current - 1 : null
    }
  }
  const cases: Array<[string, object, string[], object, string | null]> = [
    ['without parameters: the first thirty', {}, all, page(1, 30), null],
    ['a page in the middle', { page: 2, page_size: 2 }, ['agent-2', 'agent-3'], page(2, 2), null],
    ['a short last page', { page: 2, page_size: 4 }, ['agent-4', 'agent-other'], page(2, 4), null],
    ['a page beyond the end is empty', { page: 9, page_size: 4 }, [], page(9, 4), null],
    ['numbers in strings', { page: '2', page_size: ' 2 ' }, ['agent-2', 'agent-3'], page(2, 2), null],
    ['fractions are truncated', { page: 1.9, page_size: 2.7 }, ['agent-0', 'agent-1'], page(1, 2), null],
    ['the first page is one', { page: -3, page_size: 2 }, ['agent-0', 'agent-1'], page(1, 2), null],
    ['at least one per page', { page: 0, page_size: 0 }, ['agent-0'], page(1, 1), null],
    ['at most a hundred per page', { page_size: 1000 }, all, page(1, 100), null],
    ['a very high page number', { page: 1e15, page_size: 100 }, [], page(1e15, 100), null],
    ['of one type', { agent_type: 'security' }, ['agent-other'], page(1, 30, 1), 'security'],
    ['of an unused type', { agent_type: 'nothing' }, [], page(1, 30, 0), 'nothing'],
    ['an empty type is no filter and is returned', { agent_type: '' }, all, page(1, 30), ''],
    ['null is no filter', { agent_type: null }, all, page(1, 30), null]
  ]
  for (const [name, request, expected, pagination, type] of cases) {
    client.send({ type: 'get_discovery', requestId: name, ...request })
    const frame = await client.next('discovery_data')
    t.equal(frame.requestId, name)
    t.strictSame(ids(frame), expected, name)
    t.strictSame(frame.data.pagination, pagination, name)
    t.strictSame(frame.data.filters, { agent_type: type }, name)
    t.notOk('omitted' in frame.data)
  }
  for (const value of [null, 'two', '', '1.5', {}, [1], true]) {
    for (const field of ['page', 'page_size']) {
      client.send({ type: 'get_discovery', requestId: 'wrong', [field]: value })
      t.match(await client.next('error'), {
        code: 'invalid_frame', message: 'Failed to get discovery data', requestId: 'wrong'
      }, `${field} ${value}`)
    }
  }
  t.strictSame(undocumentedFrames('public', client.all), [])
})

t.test('public tier: pipelined requests are answered at once and in order', async t => {
  const registry = await build(t)
  await fill(registry, 3)
  const client = await registry.watcher()
  const started = Date.now()
  for (let i = 0; i < 100; i++) client.send({ type: 'get_discovery', requestId: `r${i}`, page_size: 2 })
  for (let i = 0; i < 100; i++) t.equal((await client.next('discovery_data')).requestId, `r${i}`)
  t.ok(Date.now() - started < 5000, 'a pause of 0.1 s between answers would take 10 s')
})

t.test('public tier: a discovery page names records that do not fit and keeps its arithmetic', async t => {
  const registry = await build(t)
  await fill(registry, 10, { metadata: { text: ['x'.repeat(110_000)] } })
  const client = await registry.watcher()
  const size = new Promise<number>(resolve =>
    client.ws.on('message', data => { if (String(data).includes('discovery_data')) resolve((data as Buffer).length) }))
  client.send({ type: 'get_discovery' })
  const frame = await client.next('discovery_data')
  t.ok(await size < 1_048_576, 'common clients accept 1 MiB')
  t.strictSame([...ids(frame), ...frame.data.omitted], Array.from({ length: 10 }, (_, i) => `agent-${i}`))
  t.strictSame([frame.data.omitted.length > 0, frame.data.pagination.total_agents], [true, 10])
})

t.test('public tier: a silent socket gets a text ping on its interval, and an active one does not', async t => {
  const registry = await build(t, { publicWs: { pingIntervalMs: 300 } })
  const [silent, busy] = [await registry.watcher(), await registry.watcher()]
  const sendGroup = setInterval(() => busy.send('pong'), 30)
  t.teardown(() => clearInterval(sendGroup))
  for (let i = 0; i < 3; i++) await silent.next('ping')
  t.notOk(busy.all.includes('ping'))
  t.equal(silent.ws.readyState, silent.ws.OPEN, 'protocol pongs count as heartbeats')
})

t.test('public tier: connections over its limit are refused with a retry time', async t => {
  const registry = await build(t, { publicWs: { maxConnections: 2 } })
  const held = [await registry.watcher(), await registry.watcher()]
  const { status, headers, text } = await registry.socket('/public/ws').refused
  t.strictSame([status, headers['retry-after']], [503, '5'])
  t.match(JSON.parse(text), { type: '/problems/too-many-connections', status: 503 })
  held[0]!.close()
  await held[0]!.closed
  await until(async () => {
    const client = registry.socket('/public/ws')
    return Promise.race([client.next('welcome').then(() => true), client.refused.then(() => false)])
  })
  await assertAlive(held[1]!)
})

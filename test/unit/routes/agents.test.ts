import t from 'tap'
import { Value } from '@sinclair/typebox/value'
import { AgentInfo } from '../../../src/protocol/schemas/agent.js'
import { answerChecker, build, keys, problemOf, registration, until, type Answer, type Harness, type Json } from '../../support/harness.js'

const answers = answerChecker()
const ids = ({ body }: Answer): string[] => body.map((agent: Json) => agent.agent_id)

const fleet: Array<[id: string, more: object]> = [
  ['agent-a', { agent_type: 'testing', capabilities: ['read', 'write'] }],
  ['agent-b', { agent_type: 'TESTING', capabilities: ['read'] }],
  ['agent-c', { agent_type: 'security', capabilities: ['read', 'write', 'scan'] }],
  ['agent-d', { agent_type: 'security', capabilities: ['scan'] }],
  ['agent-e', { agent_type: 'monitoring', capabilities: ['Read'] }]
]

/** Registers the fleet in order. @returns the token of each agent */
async function registerAgents (registry: Harness): Promise<Record<string, string>> {
  const tokens: Record<string, string> = {}
  for (const [id, more] of fleet) tokens[id] = (await registry.register(id, more)).body.access_token
  return tokens
}

const filters: Array<[query: string, ids: string[]]> = [
  ['', ['agent-a', 'agent-b', 'agent-c', 'agent-d', 'agent-e']],
  ['?agent_type=testing', ['agent-a', 'agent-b']],
  ['?agent_type=%20Security', ['agent-c', 'agent-d']],
  ['?agent_type=unknown', []],
  ['?capabilities=read', ['agent-a', 'agent-b', 'agent-c']],
  ['?capabilities=read&capabilities=write', ['agent-a', 'agent-c']],
  ['?capabilities=read&capabilities=write&capabilities=scan&agent_type=SECURITY', ['agent-c']],
  ['?capabilities=read&capabilities=nothing', []],
  ['?unknown=1', ['agent-a', 'agent-b', 'agent-c', 'agent-d', 'agent-e']]
]

t.test('lists', async t => {
  const registry = await build(t, {}, answers)
  const tokens = await registerAgents(registry)
  const token = tokens['agent-a']
  const list = (query: string) => registry.get(`/agents${query}`, { token })

  for (const [query, expected] of filters) {
    await t.test(`lists: /agents and /public/discover with '${query}' apply all filters`, async t => {
      t.same(ids(await list(query)), expected)
      t.same(ids(await registry.get(`/public/discover${query}`)).sort(), expected)
    })
  }

  await t.test('lists: metrics are included on request, and always publicly', async t => {
    t.same((await list('')).body.map((agent: Json) => agent.metrics), Array(5).fill(null))
    for (const query of ['?include_metrics=true', '?include_metrics=1']) {
      t.match((await list(query)).body[0].metrics, { agent_id: 'agent-a', last_active: String })
    }
    t.match((await registry.get('/public/discover')).body[0].metrics, { agent_id: String })
    t.equal((await registry.get('/agents/agent-a?include_metrics=false', { token })).body.metrics, null)
    t.match((await registry.get('/agents/agent-a', { token })).body.metrics, { agent_id: 'agent-a' })
  })

  await t.test('lists: alive and dead agents are distinguished', async t => {
    t.equal((await list('?status=alive')).body.length, 5)
    t.same((await list('?status=dead')).body, [])
  })

  const wrong: Array<[path: string, queries: string[], field: string]> = [
    ['/agents', ['status=live', 'status=ALIVE', 'status='], '/status'],
    ['/agents', ['limit=0', 'limit=1001', 'limit=-1', 'limit=1.5', 'limit=x', 'limit='], '/limit'],
    ['/agents', ['cursor=x', 'cursor=-1', 'cursor='], '/cursor'],
    ['/agents', ['include_metrics=perhaps'], '/include_metrics'],
    ['/agents', ['capabilities=a.b', 'capabilities=x'], '/capabilities/0'],
    ['/agents', ['agent_type=a&agent_type=b'], '/agent_type'],
    ['/agents', [`capabilities=${Array(21).fill('ab').join('&capabilities=')}`], '/capabilities'],
    ['/agents/agent-a', ['include_metrics=2'], '/include_metrics'],
    ['/public/discover', ['limit=0', 'limit=101', 'limit=150', 'limit=x', 'limit=1e1'], '/limit'],
    ['/public/discover', ['offset=-1', 'offset=x', 'offset=1.5'], '/offset'],
    ['/public/discover', ['capabilities=%3Cb%3E'], '/capabilities/0'],
    ['/public/discover', [`agent_type=${'x'.repeat(101)}`], '/agent_type']
  ]
  for (const [path, queries, field] of wrong) {
    await t.test(`lists: ${path} refuses a wrong ${field}`, async t => {
      for (const query of queries) {
        const answer = await registry.get(`${path}?${query}`, { token })
        t.equal(answer.status, 422, query)
        t.equal(problemOf(t, answer), 'validation-failed')
        t.same(answer.body.errors.map((error: { path: string }) => error.path), [field])
      }
    })
  }

  await t.test('lists: limits at their bounds are accepted', async t => {
    for (const query of ['limit=1', 'limit=1000', 'cursor=0', `cursor=${'9'.repeat(64)}`]) t.equal((await list(`?${query}`)).status, 200)
    for (const query of ['limit=1', 'limit=100', 'offset=0', 'offset=5', 'offset=999999999']) {
      t.equal((await registry.get(`/public/discover?${query}`)).status, 200)
    }
    t.equal((await registry.get('/public/discover?limit=1')).body.length, 1)
  })

  await t.test('lists: pages use a cursor, with the count and a link to the next page', async t => {
    const seen: string[] = []
    let next: string | undefined = '/agents?limit=2&capabilities=read'
    for (let page = 0; next; page++) {
      const answer: Answer = await registry.get(next, { token })
      t.equal(answer.headers.get('x-total-count'), '3')
      seen.push(...ids(answer))
      t.ok(page < 3)
      next = /^<([^>]+)>; rel="next"$/.exec(answer.headers.get('link') ?? '')?.[1]
    }
    t.same(seen, ['agent-a', 'agent-b', 'agent-c'])
    t.equal((await list('')).headers.get('x-total-count'), null)
    const whole = await list('?limit=5')
    t.same([whole.body.length, whole.headers.get('link')], [5, null])
  })

  await t.test('lists: earlier insertions and removals do not shift a page', async t => {
    const first = await list('?limit=2')
    await registry.delete('/agents/agent-a', { token })
    const [, next] = /^<([^>]+)>/.exec(first.headers.get('link')!)!
    t.same(ids(await registry.get(next!, { token: tokens['agent-b'] })), ['agent-c', 'agent-d'])
    t.same(ids(await registry.get('/public/discover?limit=2&offset=1')), ['agent-c', 'agent-d'])
  })
})

t.test('entity tags', async t => {
  const registry = await build(t, {}, answers)
  const token = await registry.agent('agent-a')
  const tagOf = ({ headers }: Answer) => headers.get('etag')!

  for (const path of ['/agents', '/public/discover']) {
    await t.test(`entity tags: ${path} answers 304 until the next change`, async t => {
      const first = await registry.get(path, { token })
      t.match(tagOf(first), /^W\/"[\w-]+:\d+\.[\w-]*"$/)
      t.equal(first.headers.get('cache-control'), 'no-cache')
      const tag = tagOf(first)
      for (const known of [tag, tag.slice(2), `"x", ${tag}`, '*']) {
        const again = await registry.get(path, { token, headers: { 'if-none-match': known } })
        t.same([again.status, again.text, tagOf(again)], [304, '', tag])
      }
      t.equal((await registry.get(path, { token, headers: { 'if-none-match': 'W/"x"' } })).status, 200)
      t.equal((await registry.get(`${path}?limit=5`, { token, headers: { 'if-none-match': tag } })).status, 200, 'another query')
      await registry.post('/agents/agent-a/heartbeat', { token })
      const beat = await registry.get(path, { token, headers: { 'if-none-match': tagOf(await registry.get(path, { token })) } })
      t.equal(beat.status, 304)
      await registry.register(`agent-${path.length}`)
      t.equal((await registry.get(path, { token, headers: { 'if-none-match': tag } })).status, 200)
    })
  }

  await t.test('entity tags: records answer 304 until a change or a heartbeat', async t => {
    for (const path of ['/agents/agent-a', '/public/agent/agent-a']) {
      const tag = tagOf(await registry.get(path, { token }))
      t.match(tag, /^"[\w-]+:\d+\.\d+"$/)
      t.equal((await registry.get(path, { token, headers: { 'if-none-match': tag } })).status, 304)
      await until(async () => {
        await registry.post('/agents/agent-a/heartbeat', { token })
        return (await registry.get(path, { token, headers: { 'if-none-match': tag } })).status === 200
      })
    }
  })
})

t.test('patch', async t => {
  const registry = await build(t, {}, answers)
  const token = await registry.agent('agent-a', { metadata: { a: '1', b: '2' }, ai_context: 'hints' })
  const admin = await registry.admin()
  const patch = (body: unknown, headers: Record<string, string> = {}) => registry.patch('/agents/agent-a', { token, body, headers })

  await t.test('patch: it merges the body, and null removes a member', async t => {
    const before = (await registry.get('/agents/agent-a', { token })).body
    const answer = await patch({ name: ' Newer ', metadata: { a: null, c: 3 }, ai_context: null, max_tokens: '9' })
    t.equal(answer.status, 200)
    t.match(answer.body, {
      name: 'Newer',
      metadata: {
        b: '2', c: 3
      },
      ai_context: null,
      max_tokens: 9,
      incarnation: before.incarnation,
      registered_at: before.registered_at
    })
    t.notOk('a' in answer.body.metadata)
    t.not(answer.body.revision, before.revision)
    t.same([...Value.Errors(AgentInfo, answer.body)], [])
    t.equal(answer.headers.get('etag'), (await registry.get('/agents/agent-a', { token })).headers.get('etag'))
    t.equal((await patch({ name: 'Typed' }, { 'content-type': 'application/merge-patch+json' })).body.name, 'Typed')
  })

  await t.test('patch: identity, ownership and registry members cannot be changed', async t => {
    for (const member of [
      'agent_id', 'public_key', 'owner', 'status', 'state', 'last_seen', 'registered_at', 'revision', 'incarnation', 'metrics', 'similarity'
    ]) {
      const answer = await patch({ name: 'Other', [member]: null })
      t.equal(problemOf(t, answer), 'validation-failed', member)
      t.match(answer.body.errors, [{ path: `/${member}` }])
    }
    t.equal((await registry.get('/agents/agent-a', { token })).body.name, 'Typed')
  })

  await t.test('patch: the result must be a valid registration', async t => {
    const bad = [{ name: 'x' }, { metadata: null }, {
      metadata: {
        b: null, c: null
      }
    }, { capabilities: [] }, { version: '1' }, { agent_type: 'unknown' }, { endpoint: null }, [], null, 'text', 7]
    for (const body of bad) t.equal(problemOf(t, await patch(body)), 'validation-failed', JSON.stringify(body))
    t.equal(problemOf(t, await registry.patch('/agents/agent-a', { token })), 'validation-failed')
    t.equal(problemOf(t, await registry.patch('/agents/agent-a', { token, raw: '{"__proto__":{"x":1}}' })), 'validation-failed')
    const { body } = await registry.get('/agents', { token })
    t.same([...Value.Errors(AgentInfo, body[0])], [])
  })

  await t.test('patch: it may depend on the client\'s revision, which heartbeats do not change', async t => {
    const tag = (await registry.get('/agents/agent-a', { token })).headers.get('etag')!
    await registry.post('/agents/agent-a/status', { token, body: { status: 'alive' } })
    const current = (await registry.get('/agents/agent-a', { token })).headers.get('etag')!
    t.equal((await patch({ name: 'First' }, { 'if-match': current.replace(/\.\d+"$/, '.1"') })).status, 200)
    for (const stale of [tag, current, '"x"', `W/${tag}`, tag.replace(/"[\w-]+:/, '"other:'), '']) {
      const answer = await patch({ name: 'Second' }, { 'if-match': stale })
      t.equal(answer.status, 412, stale)
      t.equal(problemOf(t, answer), 'precondition-failed')
    }
    t.equal((await patch({ name: 'Third' }, { 'if-match': '*' })).body.name, 'Third')
    const newest = (await registry.get('/agents/agent-a', { token })).headers.get('etag')!
    t.equal((await patch({ name: 'Fourth' }, { 'if-match': `${tag}, "other:1.5" , ${newest}` })).body.name, 'Fourth', 'one of several')
    t.equal((await patch({ name: 'Fifth' }, { 'if-match': `${tag}, ${newest}` })).status, 412)
  })

  await t.test('patch: two concurrent patches are both applied', async t => {
    const both = await Promise.all([patch({ version: '2.0.0' }), patch({ context_brief: 'Another brief of the agent' })])
    t.same(both.map(({ status }) => status), [200, 200])
    t.match((await registry.get('/agents/agent-a', { token })).body, { version: '2.0.0', context_brief: 'Another brief of the agent' })
    const tag = (await registry.get('/agents/agent-a', { token })).headers.get('etag')!
    const racing = await Promise.all(Array.from({ length: 5 }, (_, n) => patch({ name: `Racer ${n}` }, { 'if-match': tag })))
    t.equal(racing.filter(({ status }) => status === 200).length, 1)
  })

  await t.test('patch: only the agent and admins may send one', async t => {
    t.equal((await registry.patch('/agents/agent-a', { ...admin, body: { name: 'By admin' } })).body.name, 'By admin')
    const other = await registry.agent('agent-b')
    t.equal(problemOf(t, await registry.patch('/agents/agent-a', { token: other, body: { name: 'Stolen' } })), 'insufficient-permissions')
    t.equal(problemOf(t, await registry.patch('/agents/agent-a', { body: { name: 'Stolen' } })), 'authentication-failed')
    t.equal(problemOf(t, await registry.patch('/agents/agent-z', { ...admin, body: { name: 'Nobody' } })), 'agent-not-found')
  })
})

t.test('agent status', async t => {
  const registry = await build(t, {}, answers)
  const token = await registry.agent('agent-a')
  const want = (status: unknown, id = 'agent-a') => registry.post(`/agents/${id}/status`, { token, body: { status } })

  await t.test('agent status: draining removes the agent from discovery, and ready restores it', async t => {
    for (const status of ['draining', 'maintenance']) {
      const answer = await want(status)
      t.match(answer.body, { agent_id: 'agent-a', status: 'alive', state: status })
      t.same((await registry.get('/public/discover')).body, [])
      t.equal(problemOf(t, await registry.get('/public/agent/agent-a')), 'agent-not-available')
      t.equal((await registry.post('/agents/agent-a/heartbeat', { token })).status, 200)
      t.equal((await registry.get('/agents/agent-a', { token })).body.state, status, 'a heartbeat does not end it')
      t.equal((await want('alive')).body.state, 'alive')
      t.same(ids(await registry.get('/public/discover')), ['agent-a'])
    }
  })

  await t.test('agent status: it must be one of three words', async t => {
    for (const status of ['dead', 'suspect', 'starting', 'DRAINING', '', null, 1, undefined]) {
      const answer = await want(status)
      t.equal(problemOf(t, answer), 'validation-failed')
      t.match(answer.body.errors, [{ path: '/status' }])
    }
  })

  await t.test('agent status: only the agent itself may set it', async t => {
    await registry.agent('agent-b')
    t.equal(problemOf(t, await want('draining', 'agent-b')), 'insufficient-permissions')
    const admin = await registry.admin()
    t.equal((await registry.post('/agents/agent-b/status', { ...admin, body: { status: 'draining' } })).body.state, 'draining')
    t.equal(problemOf(t, await registry.post('/agents/agent-z/status', { ...admin, body: { status: 'alive' } })), 'agent-not-found')
  })
})

t.test('heartbeats and single records', async t => {
  const registry = await build(t, {}, answers)
  const token = await registry.agent('agent-a')
  const admin = await registry.admin()

  await t.test('heartbeats: they update last_seen, with any body or none', async t => {
    const before = (await registry.get('/agents/agent-a', { token })).body
    for (const call of [{}, { raw: '' }, { body: {} }, { body: { agent_id: 'agent-b' } }]) {
      const { status, body } = await registry.post('/agents/agent-a/heartbeat', { token, ...call })
      t.equal(status, 200)
      t.match(body, { agent_id: 'agent-a', status: 'success', metrics: null })
      t.ok(body.last_seen >= before.last_seen)
    }
    const after = (await registry.get('/agents/agent-a', { token })).body
    t.equal(after.state, 'alive')
    t.equal((await registry.post('/agents/agent-a/heartbeat', { token, raw: '{' })).status, 422)
  })

  await t.test('heartbeats: an agent sends its own, and admins any', async t => {
    await registry.agent('agent-b')
    const other = await registry.post('/agents/agent-b/heartbeat', { token })
    t.equal(problemOf(t, other), 'insufficient-permissions')
    t.match(other.body, { agent_id: 'agent-a', target_agent_id: 'agent-b' })
    t.equal((await registry.post('/agents/agent-b/heartbeat', admin)).status, 200)
    t.equal(problemOf(t, await registry.post('/agents/agent-z/heartbeat', admin)), 'agent-not-found')
  })

  await t.test('records: any agent reads any record, and an unknown id is 404', async t => {
    t.match((await registry.get('/agents/agent-b', { token })).body, { agent_id: 'agent-b' })
    for (const id of ['agent-z', '__proto__', 'constructor', 'report-metrics', 'x', '%3Cimg%3E']) {
      const answer = await registry.get(`/agents/${id}`, { token })
      t.equal(answer.status, 404)
      t.equal(problemOf(t, answer), 'agent-not-found')
      t.equal(problemOf(t, await registry.get(`/public/agent/${id}`)), 'agent-not-found')
    }
  })

  await t.test('records: HEAD equals GET without the body', async t => {
    const head = await registry.call('HEAD', '/agents/agent-a', { token })
    t.same([head.status, head.text], [200, ''])
    t.ok(head.headers.get('etag'))
  })

  await t.test('records: the admin reads the statistics', async t => {
    const watcher = await registry.watcher()
    const { body } = await registry.get('/agents/stats', admin)
    t.match(
      body.registry_statistics, { total_agents: 2, alive_agents: 2, dead_agents: 0, agent_types: { testing: 2 }, redis_connected: false }
    )
    t.match(body.features, { vector_search_enabled: false, metrics_tracking_enabled: true, websocket_broadcasts_enabled: true })
    t.match(body.performance, { active_websocket_connections: 1, vector_embeddings_stored: 0 })
    watcher.close()
  })
})

t.test('records: the public view may have fewer members', async t => {
  const registry = await build(
    t, { publicFields: ['features'], publicView: agent => agent.owner === 'hidden' ? null : { ...agent, owner: 'somebody' } }, answers
  )
  const more = { features: ['f'], ai_context: 'hints', policy_tags: ['p'], requirements: {}, max_tokens: 5 }
  const token = await registry.agent('agent-a', more)
  await registry.register('agent-b', { owner: 'hidden' }, keys.other)
  const [shown, ...others] = (await registry.get('/public/discover')).body
  t.same(others, [])
  t.match(shown, {
    agent_id: 'agent-a',
    owner: 'somebody',
    features: [
      'f'
    ],
    ai_context: null,
    policy_tags: [],
    requirements: null,
    max_tokens: null,
    metrics: null
  })
  t.same((await registry.get('/public/agent/agent-a')).body, shown)
  t.equal(problemOf(t, await registry.get('/public/agent/agent-b')), 'agent-not-found')
  t.match(
    (await registry.get('/agents/agent-a', { token })).body, { owner: 'tests', ai_context: 'hints', policy_tags: ['p'], max_tokens: 5 }
  )
  t.match((await registry.get('/agents/agent-b', { token })).body, registration('agent-b', { owner: 'hidden' }))
})

t.test('responses: they match their schemas', async t => { t.same(answers.findings, []) })

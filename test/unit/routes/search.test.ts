import t from 'tap'
import { type Answer, answerChecker, build, type Call, type Harness, type Json, problemOf, until } from '../../support/harness.js'
const answers = answerChecker()
const idsOf = ({ body }: Answer): string[] => body.map(({ id }: Json) => id)
const pathsOf = ({ body }: Answer): string[] => body.errors.map(({ path }: Json) => path)

const fleet: Array<[id: string, more: object]> = [
  ['lawyer-one', {
    name: 'Lawyer',
    agent_type: 'testing',
    context_brief: 'Summarises legal documents and contracts',
    capabilities: [
      'summarise', 'legal'
    ]
  }],
  ['painter-one', {
    name: 'Painter',
    agent_type: 'automation',
    context_brief: 'Paints pictures of landscapes with care',
    capabilities: [
      'paint'
    ],
    metadata: { style: 'impressionist' }
  }],
  ['teacher-one', {
    name: 'Teacher',
    agent_type: 'Testing',
    context_brief: 'Explains education policies to parents',
    capabilities: [
      'explain', 'summarise'
    ],
    ai_context: 'Knows AI and QA well'
  }],
  ['lawyer-two', {
    name: 'Second',
    agent_type: 'automation',
    context_brief: 'Reads long contracts for a legal team',
    capabilities: [
      'legal', 'read'
    ]
  }]
]

/** A registry with the fleet, and the token of an agent. */
async function registerAgents (registry: Harness): Promise<string> {
  for (const [id, more] of fleet) await registry.join(id, more)
  return registry.agent(
    'seeker-one', { name: 'Zzyzx', context_brief: 'Xylophone quartz vortex', capabilities: ['seek'], agent_type: 'security' }
  )
}

type Find = (request: Record<string, unknown>) => Promise<Answer>

function queryOf (request: Record<string, unknown>): string {
  const pairs: Array<[string, string]> = Object.entries(request)
    .flatMap(([name, value]) => (Array.isArray(value) ? value : [value]).map((item): [string, string] => [name, String(item)]))
  return new URLSearchParams(pairs).toString()
}

/** The three search routes. */
function waysOf (registry: Harness, call: Call): Array<[name: string, find: Find]> {
  return [
    ['POST /agents/search', body => registry.post('/agents/search', { ...call, body })],
    ['GET /agents/search', request => registry.get(`/agents/search?${queryOf(request)}`, call)],
    ['POST /public/search', body => registry.post('/public/search', { body })]
  ]
}

t.test('text search', async t => {
  const registry = await build(t, {}, answers)
  const token = await registerAgents(registry)
  const ways = waysOf(registry, { token })

  for (const [name, find] of ways) {
    await t.test(`text search: ${name} finds matches, best first`, async t => {
      const found = await find({ query: 'legal contracts' })
      t.equal(found.status, 200)
      t.same(idsOf(found).sort(), ['lawyer-one', 'lawyer-two'])
      const [first, ...others] = found.body
      t.same(Object.keys(first), ['id', 'name', 'url', 'capabilities', 'version', 'owner', 'similarity', 'metrics'])
      t.equal(first.similarity, 1)
      for (const { similarity } of others) {
        t.ok(similarity >= 0.5 && similarity <= 1 &&
        similarity === Math.round(similarity * 10_000) / 10_000)
      }
      t.match((await find({ query: 'paints' })).body, [{
        id: 'painter-one',
        name: 'Painter',
        url: 'http://127.0.0.1:9',
        capabilities: [
          'paint'
        ],
        version: '1.0.0',
        owner: 'tests',
        metrics: null
      }])
    })

    await t.test(`text search: ${name} filters by type, case-insensitively, and by all capabilities`, async t => {
      t.same(idsOf(await find({ query: 'summarise', agent_type: 'TESTING' })).sort(), ['lawyer-one', 'teacher-one'])
      t.same(idsOf(await find({ query: 'legal', agent_type: 'automation' })), ['lawyer-two'])
      t.same(idsOf(await find({ query: 'legal', capabilities: ['legal', 'summarise'] })), ['lawyer-one'])
      t.same(idsOf(await find({ query: 'legal', capabilities: ['legal', 'nothing'] })), [])
      t.same(idsOf(await find({ query: 'legal', agent_type: 'unknown' })), [])
    })

    await t.test(`text search: ${name} keeps short words and matches whole words`, async t => {
      t.same(idsOf(await find({ query: 'AI' })), ['teacher-one'])
      t.same(idsOf(await find({ query: 'impressionist' })), ['painter-one'])
      t.same(idsOf(await find({ query: 'cat' })), [])
    })

    await t.test(`text search: ${name} returns as many as requested above the minimum similarity`, async t => {
      t.equal((await find({ query: 'legal summarise paint explain', top_k: 2 })).body.length, 2)
      t.ok((await find({ query: 'legal contracts summarise', min_similarity: 1 })).body.every(({ similarity }: Json) => similarity === 1))
      t.ok((await find({ query: 'legal', top_k: 100, min_similarity: 0, weighted: false })).body.length >= 2)
    })
  }

  await t.test('text search: the default is three results by query string and ten by body', async t => {
    for (let index = 0; index < 11; index++) {
      await registry.join(`swarm-${index}`, { name: 'Swarm', context_brief: 'One of a swarm of bees' })
    }
    const lengths = []
    for (const [, find] of ways) lengths.push((await find({ query: 'swarm' })).body.length)
    t.same(lengths, [10, 3, 10])
    t.same(idsOf(await ways[0]![1]({ query: 'swarm', top_k: 20 })), Array.from({ length: 11 }, (_, index) => `swarm-${index}`).sort(),
      'ties are ordered by id')
  })
})

const x = (length: number) => 'x'.repeat(length)
const right: Array<Record<string, unknown>> = [
  { query: 'ab' }, { query: x(1000) }, { query: '😀'.repeat(1000) }, { query: ' ab ' }, { query: 'ab', top_k: 1 },
  { query: 'ab', top_k: 100 }, { query: 'ab', top_k: '5' }, { query: 'ab', min_similarity: 0 },
  { query: 'ab', min_similarity: 1 }, { query: 'ab', capabilities: ['ab'] }, { query: 'ab', capabilities: Array(20).fill(x(100)) },
  { query: 'ab', capabilities: 'single' },
  { query: 'ab', agent_type: 'ab' }, { query: 'ab', agent_type: x(50) }, { query: 'ab', weighted: 'yes' }, { query: 'ab', unknown: 1 },
  { query: '(*"\\ AND OR' }
]
const wrong: Array<[request: Record<string, unknown>, path: string]> = [
  [{}, '/query'], [{ query: 'a' }, '/query'], [{ query: ' a ' }, '/query'], [{ query: '😀' }, '/query'], [{ query: x(1001) }, '/query'],
  [{ query: '' }, '/query'],
  [{ query: 'ab', top_k: 0 }, '/top_k'], [{ query: 'ab', top_k: 101 }, '/top_k'], [{ query: 'ab', top_k: 1.5 }, '/top_k'],
  [{ query: 'ab', top_k: 'x' }, '/top_k'],
  [{ query: 'ab', min_similarity: -0.1 }, '/min_similarity'], [{ query: 'ab', min_similarity: 1.1 }, '/min_similarity'],
  [{ query: 'ab', min_similarity: 'x' }, '/min_similarity'],
  [{ query: 'ab', capabilities: Array(21).fill('ab') }, '/capabilities'], [{ query: 'ab', capabilities: ['a'] }, '/capabilities/0'],
  [{ query: 'ab', capabilities: ['ab', '<b>'] }, '/capabilities/1'],
  [{ query: 'ab', agent_type: 'a' }, '/agent_type'], [{ query: 'ab', agent_type: x(51) }, '/agent_type'],
  [{ query: 'ab', agent_type: 'a b' }, '/agent_type'],
  [{ query: 'ab', weighted: 'perhaps' }, '/weighted']
]

t.test('search requests', async t => {
  const registry = await build(t, {}, answers)
  const token = await registry.agent()

  for (const [name, find] of waysOf(registry, { token })) {
    await t.test(`search requests: ${name} accepts values at the bounds and refuses others`, async t => {
      for (const request of right) {
        if (name.startsWith('GET') && String(request.query).length > 1500) continue
        t.equal((await find(request)).status, 200, JSON.stringify(request).slice(0, 60))
      }
      for (const [request, path] of wrong) {
        const answer = await find(request)
        t.equal(problemOf(t, answer), 'validation-failed', JSON.stringify(request).slice(0, 60))
        t.same(pathsOf(answer), [path], JSON.stringify(request).slice(0, 60))
      }
    })
  }

  await t.test('search requests: a filter in a body may be null, and not an empty list', async t => {
    for (const path of ['/agents/search', '/public/search']) {
      t.equal((await registry.post(path, { token, body: { query: 'ab', capabilities: null, agent_type: null } })).status, 200)
      t.same(pathsOf(await registry.post(path, { token, body: { query: 'ab', capabilities: [] } })), ['/capabilities'])
      for (const raw of ['', '[]', '7', 'null']) t.equal((await registry.post(path, { token, raw })).status, 422, raw)
    }
  })

  await t.test('search requests: agents and admins search here, others on the public route', async t => {
    const admin = await registry.admin()
    const {
      body: { access_token: user }
    } = await registry.post('/tokens/mint', { ...admin, body: { user_id: 'someone', agent_id: 'agent-one' } })
    for (const ask of [(call: Call) =>
      registry.post('/agents/search', { body: { query: 'ab' }, ...call }), (call: Call) => registry.get('/agents/search?query=ab', call)]) {
      t.equal((await ask(admin)).status, 200)
      t.equal(problemOf(t, await ask({})), 'authentication-failed')
      for (const bearer of [user, await registry.tempToken()]) {
        t.equal(problemOf(t, await ask({ token: bearer })), 'insufficient-permissions')
      }
    }
    t.equal(problemOf(t, await registry.get('/public/search?query=ab')), 'method-not-allowed')
  })
})

t.test('search: results reflect the newest state', async t => {
  const registry = await build(t, { lease: { durationMs: 600, preservation: false }, search: { topK: 1, minSimilarity: 0.9 } }, answers)
  const find = (more: object = {}) => registry.post('/public/search', { body: { query: 'legal contracts', ...more } })

  await t.test('search: defaults are configurable', async t => {
    for (const [id, more] of fleet) await registry.join(id, more)
    t.equal((await find()).body.length, 1)
    t.equal((await find({ top_k: 10, min_similarity: 0 })).body.length, 2)
  })

  await t.test('search: draining, dead and removed agents are not found, and changed ones match their new text', async t => {
    const ids = async (query: string) => idsOf(await find({ query, top_k: 10, min_similarity: 0 }))
    const token = await registry.agent('mover-one', { context_brief: 'Moves houses from here to there' })
    t.same(await ids('houses'), ['mover-one'])
    await registry.patch('/agents/mover-one', { token, body: { context_brief: 'Moves castles from here to there' } })
    t.same([await ids('houses'), await ids('castles')], [[], ['mover-one']])
    await registry.post('/agents/mover-one/status', { token, body: { status: 'draining' } })
    t.same(await ids('castles'), [])
    await registry.post('/agents/mover-one/status', { token, body: { status: 'alive' } })
    t.same(await ids('castles'), ['mover-one'])
    await until(async () => (await ids('castles')).length === 0)
    await registry.post('/agents/mover-one/heartbeat', { token })
    t.same(await ids('castles'), ['mover-one'])
    await registry.delete('/agents/mover-one', { token })
    t.same(await ids('castles'), [])
  })
})

t.test('search: weighted results include reputation and metrics', async t => {
  const registry = await build(t, {}, answers)
  const same = { name: 'Twin', context_brief: 'Translates short texts at once' }
  await registry.agent('twin-one', same)
  const token = await registry.agent('twin-two', same)
  await registry.post('/agents/twin-two/metrics', { token, body: { reputation_score: 1, success_rate: 1 } })
  for (const [name, find] of waysOf(registry, { token })) {
    t.same(idsOf(await find({ query: 'translates' })), ['twin-one', 'twin-two'], name)
    const { body } = await find({ query: 'translates', weighted: true })
    t.match(body, [{
      id: 'twin-two',
      similarity: 1,
      metrics: {
        agent_id: 'twin-two', reputation_score: 1
      }
    }, { id: 'twin-one', similarity: 1, metrics: { reputation_score: 0 } }], name)
  }
})

const words = ['legal', 'paint', 'explain', 'contract']
/** Vectors by the words in a text; a text without known words has a direction of its own. */
const vectorOf = (text: string) => [...words.map(word => text.toLowerCase().includes(word) ? 1 : 0), 0.1]

t.test('vector search', async t => {
  let isDown = false
  const registry = await build(t, {
    embed: async (texts: readonly string[]) => {
      if (isDown) throw new Error('no vectors today')
      return texts.map(vectorOf)
    }
  }, answers)
  const token = await registerAgents(registry)
  const admin = await registry.admin()
  await until(async () => (await registry.get('/health')).body.agents.embeddings_stored === 5)
  const ways = waysOf(registry, { token })

  await t.test('vector search: every service document reports it', async t => {
    t.match((await registry.get('/health')).body, {
      features: { vector_search: true }, ai_services: { embeddings: true }, performance: { ai_client_available: true }
    })
    t.match((await registry.get('/public/info')).body.capabilities, { vector_search: true })
    t.match((await registry.get('/public/stats')).body.features, { semantic_search: true })
    t.match((await registry.get('/agents/stats', admin)).body, {
      registry_statistics: {
        embeddings_available: 5, ai_client_available: true
      },
      features: { vector_search_enabled: true },
      performance: { vector_embeddings_stored: 5 }
    })
  })

  for (const [name, find] of ways) {
    await t.test(`vector search: ${name} ranks by cosine`, async t => {
      const { body } = await find({ query: 'a painting', min_similarity: 0.9 })
      t.match(body, [{ id: 'painter-one', similarity: 1 }])
      const both = await find({ query: 'legal contract', min_similarity: 0.5 })
      t.same(both.body.map(({ id, similarity }: Json) => [id, similarity]), [['lawyer-one', 1], ['lawyer-two', 1]])
      t.same(idsOf(await find({ query: 'legal', agent_type: 'testing' })), ['lawyer-one'])
      const [near] = (await find({ query: 'legal', min_similarity: 0 })).body
      t.equal(near.similarity, Math.round((1.01 / Math.sqrt(1.01 * 2.01)) * 10_000) / 10_000)
    })
  }

  await t.test('vector search: it falls back to words while the host returns no vectors', async t => {
    isDown = true
    for (const [name, find] of ways) t.same(idsOf(await find({ query: 'impressionist' })), ['painter-one'], name)
  })
})

t.test('search: the host API searches without HTTP', async t => {
  const { app: { agentRegistry }, join } = await build(t)
  await join.call({ app: { agentRegistry } } as Harness, ...fleet[0]!)
  t.match(await agentRegistry.search({ query: 'legal' }), [{ id: 'lawyer-one', similarity: 1, metrics: null }])
  t.same(await agentRegistry.search({ query: 'legal', agent_type: 'security' }), [])
  t.match(
    await agentRegistry.search({ query: 'legal', weighted: true, top_k: 1, min_similarity: 1 }), [{ metrics: { agent_id: 'lawyer-one' } }]
  )
})

t.test('every response matched its schema', async t => { t.same(answers.findings, []) })

t.test('search: when disabled it has no routes and no index', async t => {
  const registry = await build(t, { search: { enabled: false } })
  const token = await registry.agent()
  for (const [name, find] of waysOf(registry, { token })) {
    t.equal((await find({ query: 'agent' })).status, name === 'POST /agents/search' ? 405 : 404, name)
  }
  await t.rejects(registry.app.agentRegistry.search({ query: 'agent' }), { message: 'Search is disabled' })
  t.equal((await registry.get('/public/stats')).body.features.search, false)
})

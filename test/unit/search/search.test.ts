import { Value } from '@sinclair/typebox/value'
import t, { type Test } from 'tap'
import { coerce } from '../../../src/lib/coerce.js'
import {
  ConnectionRequest, ConnectionResponse, NotifyRequest, SearchBody, SearchQuery, type SearchRequest, SearchResponse
} from '../../../src/protocol/schemas/search.js'
import { Search, type SearchOptions } from '../../../src/search/search.js'
import { fieldErrors } from '../../../src/protocol/validation.js'
import { until } from '../../support/harness.js'
import { manualEmbed, openRegistry } from './helper.js'

const alive = setInterval(() => {}, 1_000)
t.teardown(() => clearInterval(alive))

type Registering = Parameters<typeof openRegistry>[0]

/** A search over its own registry. */
async function openSearch (t: Test, more: Partial<SearchOptions> = {}, registering: Registering = {}) {
  const { registry, add } = await openRegistry(registering)
  const errors: unknown[] = []
  const search = new Search({
    replica: registry.replica,
    onDifference: listener =>
      registry.on('difference', listener),
    hookTimeoutMs: 500,
    onError: error => { errors.push(error) },
    ...more
  })
  search.open()
  t.teardown(async () => { search.close(); await registry.close() })
  const find = async (query: string, request: Partial<SearchRequest> = {}) =>
    search.search({ query, top_k: 10, min_similarity: 0.5, weighted: false, ...request })
  const ids = async (query: string, request: Partial<SearchRequest> = {}) => (await find(query, request)).map(result => result.id)
  return { registry, add, search, find, ids, errors }
}

t.test('search: agents registered before and after the start are found, and no others', async t => {
  const { registry, add } = await openRegistry()
  await add('before-one', { name: 'Weather maps' })
  const search = new Search({
    replica: registry.replica,
    onDifference: listener =>
      registry.on('difference', listener),
    hookTimeoutMs: 500,
    onError: () => {}
  })
  search.open()
  t.teardown(async () => { search.close(); await registry.close() })
  await add('after-one', { name: 'Weather alerts' })
  const request = { query: 'weather', top_k: 10, min_similarity: 0.5, weighted: false }
  t.strictSame((await search.search(request)).map(({ id }) => id), ['after-one', 'before-one'])
  await registry.unregister({ id: 'after-one' }, 'requested')
  t.strictSame((await search.search(request)).map(({ id }) => id), ['before-one'])
  search.close()
  await add('late-one', { name: 'Weather late' })
  t.strictSame((await search.search(request)).map(({ id }) => id), ['before-one'], 'a closed search no longer follows')
})

t.test('search: results have the shape of the protocol', async t => {
  const { add, find } = await openSearch(t)
  await add('agent-one', { name: 'Weather maps', capabilities: ['maps', 'rain radar'] })
  const results = await find('rain radar')
  t.strictSame(results, [{
    id: 'agent-one',
    name: 'Weather maps',
    url: 'http://127.0.0.1:9',
    capabilities: [
      'maps', 'rain radar'
    ],
    version: '1.0.0',
    owner: 'tests',
    similarity: 1,
    metrics: null
  }])
  const weighted = await find('rain radar', { weighted: true })
  t.match(weighted, [{ similarity: 1, metrics: { agent_id: 'agent-one', reputation_score: 0 } }])
  t.ok(Value.Check(SearchResponse, results) && Value.Check(SearchResponse, weighted))
})

t.test('search: text similarity is from 0.5 to 1 with 4 decimals, and the minimum applies', async t => {
  const { add, find, ids } = await openSearch(t)
  await add('agent-best', { name: 'Invoice archive' })
  await add('agent-less', { context_brief: 'Keeps every invoice for years' })
  const [best, less] = await find('invoice archive')
  t.equal(best!.similarity, 1)
  t.ok(less!.similarity > 0.5 && less!.similarity < 1)
  t.equal(less!.similarity, Number(less!.similarity.toFixed(4)))
  t.strictSame(await ids('invoice archive', { min_similarity: less!.similarity + 0.0001 }), ['agent-best'])
  t.strictSame(await ids('invoice archive', { top_k: 1 }), ['agent-best'])
  t.strictSame(await ids('zebra'), [])
})

t.test('search: only discoverable agents are found', async t => {
  const {
    registry, add, ids
  } = await openSearch(t, {}, { publicView: shown => shown.owner === 'secret' ? null : { ...shown, context_brief: 'Shown to everybody' } })
  for (const id of ['agent-up', 'agent-drained', 'agent-serviced']) await add(id, { name: 'Weather' })
  await add('agent-hidden', { name: 'Weather', owner: 'secret' })
  await registry.setState({ id: 'agent-drained', state: 'draining', reason: 'requested' })
  await registry.setState({ id: 'agent-serviced', state: 'maintenance', reason: 'requested' })
  t.strictSame(await ids('weather'), ['agent-up'])
  t.strictSame(await ids('tests'), [], 'not by hidden fields')
  t.strictSame(await ids('everybody'), ['agent-up'])
  await registry.setState({ id: 'agent-drained', state: 'alive', reason: 'requested' })
  t.strictSame(await ids('weather'), ['agent-drained', 'agent-up'])
})

t.test('search: fields hidden from the public are not searchable', async t => {
  const { add, ids, find } = await openSearch(t, {}, { hiddenFields: ['ai_context', 'metrics'] })
  await add('agent-one', { name: 'Weather', ai_context: 'confidential' })
  t.strictSame(await ids('confidential'), [])
  t.match(await find('weather', { weighted: true }), [{ metrics: null }])
})

t.test('search: filters apply all capabilities, and the type in any case', async t => {
  const { add, ids } = await openSearch(t)
  await add('agent-a', { name: 'Weather', capabilities: ['maps', 'rain'], agent_type: 'Testing' })
  await add('agent-b', { name: 'Weather', capabilities: ['maps'], agent_type: 'security' })
  t.strictSame(await ids('weather', { capabilities: ['maps'] }), ['agent-a', 'agent-b'])
  t.strictSame(await ids('weather', { capabilities: ['rain', 'maps'] }), ['agent-a'])
  t.strictSame(await ids('weather', { agent_type: 'tESTING' }), ['agent-a'])
  t.strictSame(await ids('weather', { agent_type: null, capabilities: null }), ['agent-a', 'agent-b'])
})

t.test('search: a changed agent is found by its new text', async t => {
  const { registry, add, ids } = await openSearch(t)
  await add('agent-one', { name: 'Weather' })
  t.strictSame(await ids('weather'), ['agent-one'])
  await registry.patch('agent-one', { name: 'Traffic' })
  t.strictSame(await ids('weather'), [])
  t.strictSame(await ids('traffic'), ['agent-one'])
})

t.test('search: weighting uses reputation and leaves similarity unchanged', async t => {
  const reputations: Record<string, number | null> = { 'agent-none': null, 'agent-good': 0.9, 'agent-ten': 10, 'agent-odd': -3 }
  const metricsOf: SearchOptions['metricsOf'] = ({ id }) => {
    const reputation = reputations[id]
    return typeof reputation === 'number' ? { reputation_score: reputation } : null
  }
  const { add, find, ids } = await openSearch(t, { metricsOf })
  for (const id of Object.keys(reputations)) await add(id, { name: 'Weather' })
  t.strictSame(await ids('weather'), ['agent-good', 'agent-none', 'agent-odd', 'agent-ten'])
  const weighted = await find('weather', { weighted: true })
  t.strictSame(
    weighted.map(({ id, similarity }) => [id, similarity]), [['agent-ten', 1], ['agent-good', 1], ['agent-none', 1], ['agent-odd', 1]]
  )
  t.strictSame(await ids('weather', { weighted: true, top_k: 1 }), ['agent-ten'], 'before the limit')
})

/** Vectors by the meaning of some words. */
function meaningOf (text: string): number[] {
  const lower = text.toLowerCase()
  return [/rain|weather|umbrella/.test(lower) ? 1 : 0, /money|invoice/.test(lower) ? 1 : 0, 0.1]
}

t.test('search: vectors of the host are used', async t => {
  const { add, find, ids, search } = await openSearch(t, { embed: texts => texts.map(meaningOf) })
  await add('agent-rain', { name: 'Rain radar' })
  await add('agent-bill', { name: 'Invoice reader' })
  t.strictSame(await ids('rain'), ['agent-rain'], 'by words at first')
  await until(() => search.vectorCount === 2)
  const [result, ...others] = await find('umbrella')
  t.match(result, { id: 'agent-rain', similarity: 1 })
  t.strictSame(others, [])
  t.strictSame(await ids('umbrella', { min_similarity: 0 }), ['agent-rain', 'agent-bill'])
  t.strictSame(await ids('umbrella', { min_similarity: 0, weighted: true, top_k: 1 }), ['agent-rain'])
})

t.test('search: agents without a vector are found by words beside the others, each once', async t => {
  const stuck = manualEmbed()
  const embed = (texts: string[]) => texts.some(text => text.includes('stuck')) ? stuck.embed(texts) : texts.map(meaningOf)
  const { registry, add, ids, search } = await openSearch(t, { embed })
  await add('agent-rain', { name: 'Weather radar' })
  await until(() => search.vectorCount === 1)
  await add('agent-late', { name: 'Weather stuck' })
  await until(() => stuck.calls.length === 1)
  t.strictSame((await ids('weather')).sort(), ['agent-late', 'agent-rain'])
  stuck.calls[0]!.resolve(stuck.calls[0]!.texts.map(meaningOf))
  await until(() => search.vectorCount === 2)
  t.strictSame(await ids('weather'), ['agent-late', 'agent-rain'])
  await registry.unregister({ id: 'agent-rain' }, 'requested')
  await until(() => search.vectorCount === 1)
  t.strictSame(await ids('weather'), ['agent-late'])
})

t.test('search: it falls back to words when the query cannot be embedded', async t => {
  const answers: Record<string, () => number[][] | Promise<number[][]>> = {
    thrown: () => { throw new Error('down') },
    hanging: () => new Promise(() => {}),
    short: () => [[1]],
    nowhere: () => [[0, 0, 0]]
  }
  for (const [name, answer] of Object.entries(answers)) {
    let broken = false
    const embed = (texts: string[]) => broken ? answer() : texts.map(meaningOf)
    const { add, ids, search, errors } = await openSearch(t, { embed, hookTimeoutMs: 50 })
    await add('agent-rain', { name: 'Weather radar' })
    await until(() => search.vectorCount === 1)
    broken = true
    t.strictSame(await ids('weather radar'), ['agent-rain'], name)
    t.equal(errors.length, 1)
  }
})

t.test('search requests: they are validated and completed', async t => {
  const complete = { query: 'ab', top_k: 10, min_similarity: 0.5, weighted: false }
  t.strictSame(coerce(SearchBody, { query: ' ab ' }), { query: 'ab', weighted: false })
  t.strictSame(coerce(
    SearchQuery, { query: 'ab', top_k: '10', min_similarity: '0.5', weighted: 'false', capabilities: 'maps' }
  ), { ...complete, capabilities: ['maps'] })
  const wrong = [
    { query: 'a' }, { query: 'a'.repeat(1_001) }, { top_k: 0 }, { top_k: 101 }, { top_k: 1.5 }, { min_similarity: 1.1 },
    { capabilities: [] }, { capabilities: Array(21).fill('maps') }, { capabilities: ['m.a'] }, { agent_type: 'x' }, { weighted: 'maybe' }
  ]
  for (const values of wrong) {
    t.equal(fieldErrors(SearchBody, coerce(SearchBody, { query: 'ab', ...values })).length, 1, JSON.stringify(values).slice(0, 60))
  }
  t.strictSame(fieldErrors(SearchBody, { ...complete, capabilities: null, agent_type: null }), [])
})

t.test('contact requests: they are validated and completed', async t => {
  const request = { user_id: 'me@example.org', user_endpoint: 'https://example.org/me' }
  const completed = coerce(ConnectionRequest, request)
  t.match(completed, { display_name: 'Anonymous User', additional_info: {} })
  t.strictSame(fieldErrors(ConnectionRequest, completed), [])
  t.strictSame(
    fieldErrors(ConnectionRequest, coerce(ConnectionRequest, { ...request, additional_info: { a: 'x', b: 1, c: [], d: {}, e: true } })), []
  )
  for (const values of [{ user_id: 'a b' }, { user_endpoint: 'ftp://x' }, { display_name: 'a\u0007' }, { additional_info: { a: null } }]) {
    t.ok(fieldErrors(ConnectionRequest, coerce(ConnectionRequest, { ...request, ...values })).length > 0, JSON.stringify(values))
  }
  t.strictSame(fieldErrors(NotifyRequest, coerce(NotifyRequest, { agent_id: 'agent-one', agent_endpoint: 'http://a.example' })), [])
  t.ok(fieldErrors(NotifyRequest, { agent_id: 'agent-one' }).length > 0)
  const answer = {
    status: 'connection_requested',
    message: 'Connection request sent to A',
    next_steps: 'The agent will contact you',
    agent_info: { name: 'Ab', agent_type: 'testing', capabilities: ['maps'], requirements: null },
    request_id: 'pub_1234',
    timestamp: '2030-01-01T00:00:00.000Z'
  }
  t.strictSame(fieldErrors(ConnectionResponse, answer), [])
})

t.test('search: searches are counted by outcome', async t => {
  const { add, find, search } = await openSearch(t, { metricsOf: () => { throw new Error('no metrics today') } })
  await add('agent-one', { name: 'Weather maps' })
  t.equal((await find('weather')).length, 1)
  await t.rejects(find('weather', { weighted: true }), { message: 'no metrics today' })
  t.strictSame(search.counters, { succeeded: 1, failed: 1 })
})

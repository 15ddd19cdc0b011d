import t from 'tap'
import { agents, queries } from '../../../bench/sample-data.js'
import { embeddedText, type Fields, fieldsOf, isUnspaced, TextIndex, tokenize } from '../../../src/search/text-index.js'
import type { EmbedHook } from '../../../src/hooks.js'
import { Embedder } from '../../../src/search/embedder.js'
import { VectorIndex, VectorIndexer } from '../../../src/search/vectors.js'
import { until } from '../../support/harness.js'
import { fields, manualEmbed } from './helper.js'

const all = { limit: 10, accept: () => true }

/** An index of texts that a test may change, fully indexed. */
async function indexOf (texts: Record<string, Partial<Fields>>) {
  const map = new Map(Object.entries(texts))
  const index = new TextIndex(id => map.has(id) ? fields(map.get(id)!) : undefined)
  for (const id of map.keys()) index.change(id)
  await index.drain()
  const find = (query: string, options = {}) => index.search(query, { ...all, ...options }).map(hit => hit.id)
  return { map, index, find }
}

t.test('tokenizer: words are letters and digits of any script, without case and accents', async t => {
  t.strictSame(tokenize('Résumé-Parser v2, GPT4 & Ärger!'), ['resume', 'parser', 'v2', 'gpt4', 'arger'])
  t.strictSame(tokenize('AI or ML: a b c'), ['ai', 'or', 'ml'], 'words of two letters are kept, of one dropped')
  t.strictSame(tokenize('Перевод é हिन्दी ｆｕｌｌ'), ['перевод', 'हिन्दी', 'full'])
  t.strictSame(tokenize('翻訳者 AI日本 訳'), ['翻訳', '訳者', 'ai', '日本', '訳'], 'pairs where there are no spaces')
  t.strictSame(tokenize('x'.repeat(100)), ['x'.repeat(40)])
  t.strictSame(tokenize('é'.repeat(3) + 'я'.repeat(100)), ['eee' + 'я'.repeat(37)])
  t.strictSame(tokenize(' … '), [])
  t.strictSame(tokenize('- !'), [])
  t.equal(isUnspaced('訳'), true)
  t.equal(isUnspaced('ai'), false)
})

t.test('text index: the searchable fields of an agent', async t => {
  const agent = {
    name: 'Nº1',
    context_brief: 'brief',
    capabilities: [
      'a b', 'c'
    ],
    agent_type: 'testing',
    features: ['f'],
    metadata: { n: 1, s: 'text', list: ['x', 2, 'y'], b: true },
    ai_context: null
  }
  t.strictSame(fieldsOf(agent), {
    name: 'Nº1', context_brief: 'brief', capabilities: 'a b c', agent_type: 'testing', features: 'f', metadata: 'text x y', ai_context: ''
  })
  t.equal(embeddedText(fieldsOf(agent)), 'Nº1 brief a b c testing f text x y')
  t.equal(fieldsOf({ ...agent, metadata: { long: ['x'.repeat(30_000)] } }).metadata.length, 20_000)
})

t.test('text index: more words and words in weightier fields rank higher', async t => {
  const { find } = await indexOf({
    name: { name: 'Invoice reader' },
    brief: { context_brief: 'Reads an invoice' },
    both: { name: 'Invoice payment' },
    other: { name: 'Weather' }
  })
  t.strictSame(find('invoice payment'), ['both', 'name', 'brief'])
  t.strictSame(find('INVOICE', { accept: (id: string) => id !== 'both' }), ['name', 'brief'])
  t.strictSame(find('invoice', { limit: 1 }).length, 1)
  t.strictSame(find('nothing like it'), [])
  t.strictSame(find('a ?'), [], 'no words at all')
})

t.test('text index: ties are ordered by id, and cut in that order', async t => {
  const { find } = await indexOf({ d: { name: 'same' }, b: { name: 'same' }, c: { name: 'same' }, a: { name: 'same' } })
  t.strictSame(find('same'), ['a', 'b', 'c', 'd'])
  t.strictSame(find('same', { limit: 2 }), ['a', 'b'])
  t.strictSame(find('same', { limit: 2, keep: 3 }), ['a', 'b', 'c'])
})

t.test('text index: only the last word matches as a prefix', async t => {
  const { find } = await indexOf({ one: { name: 'translation' }, two: { name: 'weather' }, three: { name: '翻訳者' } })
  t.strictSame(find('trans'), ['one'])
  t.strictSame(find('trans weather'), ['two'])
  t.strictSame(find('tr'), [], 'two letters are a word, not a prefix')
  t.strictSame(find('翻'), ['three'])
})

t.test('text index: one wrong letter is tolerated when there are few hits, and ranks last', async t => {
  const {
    find, index
  } = await indexOf({ right: { context_brief: 'summarise' }, similar: { name: 'summarize' }, third: { name: 'summarise' } })
  t.strictSame(find('summarise'), ['third', 'right', 'similar'])
  t.strictSame(find('summarise', { limit: 2 }), ['third', 'right'])
  t.strictSame(find('sumarise'), ['third', 'right'])
  const scores = index.search('summarise', all).map(hit => hit.score)
  t.ok(scores[2]! < scores[1]!)
})

t.test('text index: words of four letters get no fuzzy match', async t => {
  const { find } = await indexOf({ one: { name: 'road' }, two: { name: 'load' } })
  t.strictSame(find('road'), ['one'])
})

t.test('text index: at most 16 words of a query count', async t => {
  const { find } = await indexOf({ first: { name: 'w0' }, last: { name: 'w15' }, beyond: { name: 'w16' } })
  const query = Array.from({ length: 20 }, (_value, index) => `w${index} w${index}`).join(' ')
  t.strictSame(find(query), ['first', 'last'])
})

t.test('text index: it follows changes and removals', async t => {
  const { map, index, find } = await indexOf({ one: { name: 'alpha' }, two: { name: 'beta' } })
  map.set('one', { name: 'gamma' })
  index.change('one')
  map.delete('two')
  index.change('two')
  t.equal(index.pending, 2)
  t.strictSame(find('alpha'), ['one'], 'not before it was indexed')
  await index.drain()
  t.equal(index.pending, 0)
  t.strictSame(find('alpha beta'), [])
  t.strictSame(find('gamma'), ['one'])
  t.equal(index.size, 1)
})

t.test('text indexer: it runs in the background, and stops when it is closed', async t => {
  const map = new Map([['one', { name: 'alpha' }]])
  const index = new TextIndex(id => fields(map.get(id)!))
  index.change('one')
  await until(() => index.size === 1)
  index.change('two')
  index.close()
  t.equal(index.pending, 0)
  index.change('one')
  await index.drain()
  await new Promise(resolve => setTimeout(resolve, 20))
  t.equal(index.pending, 1, 'nothing is indexed any more')
})

t.test('text indexer: a search applies 1,000 changes first, and the rest are applied in slices', async t => {
  const index = new TextIndex(id => fields({ name: `agent ${id}` }))
  for (let id = 0; id < 1_500; id++) index.change(String(id))
  await index.drain()
  t.ok(index.size >= 1_000 && index.size <= 1_500)
  await until(() => index.pending === 0)
  t.equal(index.size, 1_500)
})

t.test('text indexer: it yields to other work', async t => {
  const texts = new Map([...agents(300, 5)].map(agent => [agent.agent_id, fieldsOf({ ai_context: null, ...agent })]))
  const index = new TextIndex(id => texts.get(id))
  for (const id of texts.keys()) index.change(id)
  let turns = 0
  const counter = setInterval(() => { turns++ }, 0)
  await index.drain()
  clearInterval(counter)
  t.equal(index.size, 300)
  t.ok(turns > 1, `${turns} times`)
})

t.test('text indexer: an unchanged text is not indexed again', async t => {
  const { index, find } = await indexOf({ one: { name: 'alpha' } })
  for (let times = 0; times < 2_000; times++) {
    index.change('one')
    await index.drain()
  }
  t.strictSame(find('alpha'), ['one'])
  t.equal(index.stale, 0)
})

t.test('text index: it is rebuilt during use after many replacements', async t => {
  const { map, index, find } = await indexOf({ one: { name: 'alpha' }, two: { name: 'beta' }, three: { name: 'delta' } })
  for (let version = 0; version <= 1_000; version++) {
    map.set('one', { name: `version${version}` })
    index.change('one')
    await index.drain()
    if (index.stale === 999) map.delete('three')
  }
  map.set('two', { name: 'omega' })
  index.change('two')
  await until(() => index.stale < 10 && index.pending === 0)
  t.strictSame(find('version1000'), ['one'])
  t.strictSame(find('omega'), ['two'])
  t.strictSame(find('version10 alpha beta'), [], 'old texts match nothing')
  index.change('three')
  await index.drain()
  t.equal(index.size, 2)
})

t.test('text index: in a large index, long queries skip words that most agents have', async t => {
  const texts: Record<string, Partial<Fields>> = {}
  for (let id = 0; id < 1_200; id++) texts[`agent-${id}`] = { name: `common ${id % 2 ? 'frequent' : 'usual'} word${id}` }
  const { index, find } = await indexOf(texts)
  await index.drain()
  t.strictSame(find('common word7', { keep: 5 })[0], 'agent-7')
  t.notOk(index.search('common word7 usual', { ...all, keep: Infinity }).some(hit => hit.id === 'agent-9'),
    'agents that share only common words')
  t.strictSame(find('common word7', { accept: (id: string) => id === 'agent-9' }), ['agent-9'], 'unless no other agent matches')
  t.equal(index.search('common', { ...all, keep: Infinity }).length, 1_200, 'common words match when the query has no others')
})

t.test('corpus: one seed gives the same corpus of about 1 KB per agent', async t => {
  const some = [...agents(50, 3)]
  t.strictSame(some, [...agents(50, 3)])
  t.notSame(some, [...agents(50, 4)])
  const bytes = JSON.stringify(some).length / some.length
  t.ok(bytes > 800 && bytes < 1_300, `${bytes} bytes`)
  t.strictSame([...queries(30, 1)], [...queries(30, 1)])
  t.ok([...queries(100, 1)].every(query => query.length >= 2))
})

const allVectors = { limit: 10, minSimilarity: -1, accept: () => true }
const failed = { code: 'AGENT_REGISTRY_EMBEDDING_FAILED', statusCode: 503 }

t.test('vector index: nearest by cosine, best first, ties by id', async t => {
  const index = new VectorIndex()
  t.strictSame(index.nearest([1], allVectors), [])
  index.set('b', [2, 0])
  index.set('a', [1, 0])
  index.set('c', Float32Array.of(0, 3))
  index.set('d', [-1, 0])
  t.strictSame(index.nearest([5, 0], allVectors).map(({ id, similarity }) => [id, similarity]), [['a', 1], ['b', 1], ['c', 0], ['d', -1]])
  t.strictSame(index.nearest([1, 0], { ...allVectors, limit: 1 }).map(({ id }) => id), ['a'])
  t.strictSame(index.nearest([1, 0], { ...allVectors, minSimilarity: 0.5, accept: id => id !== 'a' }).map(({ id }) => id), ['b'])
  t.equal(index.size, 4)
  t.equal(index.dimension, 2)
})

t.test('vector index: vectors are replaced and removed in any row', async t => {
  const index = new VectorIndex()
  const rows = 300
  for (let row = 0; row < rows; row++) index.set(`v${row}`, [Math.cos(row / 100), Math.sin(row / 100)])
  index.delete('v0')
  index.delete('v299')
  index.delete('v299')
  index.set('v1', [Math.cos(2), Math.sin(2)])
  t.equal(index.size, rows - 2)
  t.equal(index.has('v0'), false)
  for (const row of [2, 50, 298]) t.equal(index.nearest([Math.cos(row / 100), Math.sin(row / 100)], allVectors)[0]!.id, `v${row}`)
  t.strictSame(index.nearest([Math.cos(2), Math.sin(2)], allVectors).slice(0, 2).map(({ id }) => id).sort(), ['v1', 'v200'])
})

t.test('vector index: a vector of another length or without a direction is refused', async t => {
  const index = new VectorIndex()
  for (const vector of [[], [0, 0], [NaN, 1], [Infinity, 1]]) t.throws(() => index.set('a', vector), failed)
  index.set('a', [1, 2])
  t.throws(() => index.set('b', [1, 2, 3]), { ...failed, message: /3 numbers.*2/ })
  t.throws(() => index.nearest([1], allVectors), failed)
  t.equal(index.size, 1)
})

const lengths: EmbedHook = texts => texts.map(text => [text.length, 1])
// The timers here are unreferenced.
const alive = setInterval(() => {}, 1_000)
t.teardown(() => clearInterval(alive))

const quick = { timeoutMs: 1_000, backOffMs: 1 }

t.test('embedder: concurrent texts share one call of at most 64, each text once', async t => {
  const calls: string[][] = []
  const embedder = new Embedder({ ...quick, embed: async texts => { calls.push(texts); return lengths(texts) } })
  const texts = Array.from({ length: 70 }, (_value, index) => `text ${index}`)
  const vectors = await Promise.all([...texts, 'text 3', 'text 3'].map(text => embedder.embed(text)))
  t.strictSame(calls.map(call => call.length), [64, 6])
  t.strictSame([...vectors[0]!], [6, 1])
  t.equal(vectors[70], vectors[3])
  t.equal(await embedder.embed('text 3'), vectors[3], 'cached')
  t.equal(calls.length, 2)
})

t.test('embedder: the least recently used vectors are evicted first', async t => {
  const calls: string[][] = []
  const embedder = new Embedder({ ...quick, cacheSize: 2, embed: texts => { calls.push(texts); return lengths(texts) } })
  for (const text of ['a', 'b', 'a', 'c', 'a', 'b']) await embedder.embed(text)
  t.strictSame(calls.flat(), ['a', 'b', 'c', 'b'])
})

t.test('embedder: a failed call is tried three times', async t => {
  let calls = 0
  const embedder = new Embedder({
    ...quick,
    embed: texts => {
      if (++calls < 3) throw new Error(`failure ${calls}`)
      return lengths(texts)
    }
  })
  t.strictSame([...await embedder.embed('abc')], [3, 1])
  t.equal(calls, 3)
  const hopeless = new Embedder({ ...quick, embed: async () => { calls++; throw new Error('no') } })
  await t.rejects(hopeless.embed('abc'), { message: 'no' })
  t.equal(calls, 6)
})

t.test('embedder: a text that the host refuses does not delay the others', async t => {
  const embedder = new Embedder(
    { ...quick, embed: texts => { if (texts.includes('bad')) throw new Error('too long'); return lengths(texts) } }
  )
  const results = await Promise.allSettled(['a', 'b', 'bad', 'c', 'd'].map(text => embedder.embed(text)))
  t.strictSame(results.map(result => result.status), ['fulfilled', 'fulfilled', 'rejected', 'fulfilled', 'fulfilled'])
})

t.test('embedder: during an outage texts are not retried one by one', async t => {
  let calls = 0
  const embedder = new Embedder({ ...quick, embed: () => { calls++; throw new Error('down') } })
  const results = await Promise.allSettled(['a', 'b', 'c', 'd'].map(text => embedder.embed(text)))
  t.ok(results.every(result => result.status === 'rejected'))
  t.equal(calls, 5, 'three attempts and two halves')
})

t.test('embedder: invalid results are errors', async t => {
  const answers: Record<string, unknown> = {
    none: undefined, few: [], empty: [[]], nothing: [null], nan: [[1, NaN]], endless: [[Infinity]], text: ['ab']
  }
  for (const [name, answer] of Object.entries(answers)) {
    const embedder = new Embedder({ ...quick, embed: () => answer as number[][] })
    await t.rejects(embedder.embed('x'), failed, name)
  }
  const growing = new Embedder({ ...quick, embed: ([text]) => [new Array(text!.length).fill(1)] })
  await growing.embed('12')
  await t.rejects(growing.embed('123'), { ...failed, message: /length/ })
})

t.test('embedder: a call that hangs times out', async t => {
  const { embed, calls } = manualEmbed()
  const embedder = new Embedder({ embed, timeoutMs: 5, backOffMs: 1 })
  await t.rejects(embedder.embed('x'), { code: 'AGENT_REGISTRY_HOOK_TIMEOUT' })
  t.equal(calls.length, 3)
})

t.test('embedder: the queue and the number of concurrent calls are bounded', async t => {
  const { embed, calls } = manualEmbed()
  const embedder = new Embedder({ embed, timeoutMs: 60_000, maxQueued: 1 })
  const first = embedder.embed('a')
  await until(() => calls.length === 1)
  const second = embedder.embed('b')
  await t.rejects(embedder.embed('c'), { ...failed, message: /queued/ })
  t.equal(embedder.embed('b') instanceof Promise, true, 'a queued text can be requested again')
  calls[0]!.resolve([[1]])
  await first
  await until(() => calls.length === 2)
  calls[1]!.resolve([[2]])
  t.strictSame([...await second], [2])
})

t.test('embedder: closing rejects waiting texts', async t => {
  const { embed, calls } = manualEmbed()
  const embedder = new Embedder({ embed, timeoutMs: 60_000 })
  const flying = embedder.embed('a')
  await until(() => calls.length === 1)
  const waiting = embedder.embed('b')
  embedder.close()
  await t.rejects(flying, failed)
  await t.rejects(waiting, failed)
  await t.rejects(embedder.embed('c'), { ...failed, message: /closed/ })
  calls[0]!.reject(new Error('too late'))
  await new Promise(resolve => setTimeout(resolve, 5))
  t.equal(calls.length, 1)
})

t.test('embedder: closing ends the pause before a retry, also of a batch', async t => {
  let calls = 0
  const embedder = new Embedder({ timeoutMs: 1_000, backOffMs: 60_000, embed: () => { calls++; throw new Error('no') } })
  const both = Promise.allSettled([embedder.embed('a'), embedder.embed('b')])
  await until(() => calls === 1)
  embedder.close()
  t.strictSame((await both).map(result => result.status), ['rejected', 'rejected'])
  t.equal(calls, 1)
})

/** An indexer of texts that a test may change. */
function feedOf (texts: Map<string, string>, embed: EmbedHook, retryMs = 5) {
  const errors: unknown[] = []
  const vectors = new VectorIndex()
  const embedder = new Embedder({ ...quick, embed })
  const feed = new VectorIndexer({ embedder, vectors, textOf: id => texts.get(id), retryMs, onError: error => { errors.push(error) } })
  return { feed, vectors, errors }
}

t.test('embedding indexer: it follows changes, and embeds only changed texts', async t => {
  const asked: string[] = []
  const texts = new Map(Array.from({ length: 100 }, (_value, index) => [`id${index}`, `text of ${index}`]))
  const { feed, vectors } = feedOf(texts, list => { asked.push(...list); return lengths(list) })
  for (const id of texts.keys()) feed.change(id)
  t.equal(asked.length, 0, 'not while the change is made')
  await until(() => feed.pending === 0 && vectors.size === 100)
  feed.change('id1')
  texts.delete('id2')
  feed.change('id2')
  texts.set('id3', 'a much longer text than before')
  feed.change('id3')
  await until(() => vectors.size === 99 && asked.length === 101)
  t.equal(vectors.nearest([30, 1], allVectors)[0]!.id, 'id3')
  feed.close()
  feed.change('id4')
  await new Promise(resolve => setTimeout(resolve, 20))
  t.equal(feed.pending, 1)
})

t.test('embedding indexer: a failed text is retried later', async t => {
  let broken = true
  const texts = new Map([['a', 'alpha']])
  const { feed, vectors, errors } = feedOf(texts, list => { if (broken) throw new Error('down'); return lengths(list) })
  feed.change('a')
  await until(() => errors.length === 1)
  t.equal(vectors.size, 0)
  broken = false
  await until(() => vectors.size === 1)
  feed.close()
})

t.test('embedding indexer: closing it during a call leaves no state', async t => {
  const { embed, calls } = manualEmbed()
  const { feed, errors } = feedOf(new Map([['a', 'alpha']]), embed)
  feed.change('a')
  await until(() => calls.length === 1)
  feed.close()
  for (const call of calls) call.resolve([])
  await new Promise(resolve => setTimeout(resolve, 20))
  t.equal(errors.length, 0)
  t.equal(feed.pending, 0)
})

t.test('embedding indexer: a vector without a direction is reported', async t => {
  const { feed, errors } = feedOf(new Map([['a', 'alpha']]), () => [[0, 0]], 60_000)
  feed.change('a')
  await until(() => errors.length === 1)
  t.match(errors[0], failed)
  feed.close()
})

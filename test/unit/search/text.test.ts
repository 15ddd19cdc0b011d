import t from 'tap'
import { agents, queries } from '../../../bench/sample-data.js'
import { embeddedText, fieldsOf, isUnspaced, TextIndex, tokenize, type Fields } from '../../../src/search/text-index.js'
import { fields, until } from './helper.js'

const all = { limit: 10, accept: () => true }

/** An index over texts that a test may change, with all of them indexed. */
async function indexOf (texts: Record<string, Partial<Fields>>) {
  const map = new Map(Object.entries(texts))
  const index = new TextIndex(id => map.has(id) ? fields(map.get(id)!) : undefined)
  for (const id of map.keys()) index.change(id)
  await index.drain()
  const find = (query: string, options = {}) => index.search(query, { ...all, ...options }).map(hit => hit.id)
  return { map, index, find }
}

t.test('words are letters and digits of any script, without case and accents', async t => {
  t.strictSame(tokenize('Résumé-Parser v2, GPT4 & Ärger!'), ['resume', 'parser', 'v2', 'gpt4', 'arger'])
  t.strictSame(tokenize('AI or ML: a b c'), ['ai', 'or', 'ml'], 'words of two letters stay, of one go')
  t.strictSame(tokenize('Перевод é हिन्दी ｆｕｌｌ'), ['перевод', 'हिन्दी', 'full'])
  t.strictSame(tokenize('翻訳者 AI日本 訳'), ['翻訳', '訳者', 'ai', '日本', '訳'], 'pairs where there are no spaces')
  t.strictSame(tokenize('x'.repeat(100)), ['x'.repeat(40)])
  t.strictSame(tokenize('é'.repeat(3) + 'я'.repeat(100)), ['eee' + 'я'.repeat(37)])
  t.strictSame(tokenize(' … '), [])
  t.strictSame(tokenize('- !'), [])
  t.equal(isUnspaced('訳'), true)
  t.equal(isUnspaced('ai'), false)
})

t.test('what is searchable of an agent', async t => {
  const agent = { name: 'Nº1', context_brief: 'brief', capabilities: ['a b', 'c'], agent_type: 'testing', features: ['f'], metadata: { n: 1, s: 'text', list: ['x', 2, 'y'], b: true }, ai_context: null }
  t.strictSame(fieldsOf(agent), { name: 'Nº1', context_brief: 'brief', capabilities: 'a b c', agent_type: 'testing', features: 'f', metadata: 'text x y', ai_context: '' })
  t.equal(embeddedText(fieldsOf(agent)), 'Nº1 brief a b c testing f text x y')
  t.equal(fieldsOf({ ...agent, metadata: { long: ['x'.repeat(30_000)] } }).metadata.length, 20_000)
})

t.test('best first: more words, and words in more telling places', async t => {
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

t.test('ties are in the order of ids, and cut in that order', async t => {
  const { find } = await indexOf({ d: { name: 'same' }, b: { name: 'same' }, c: { name: 'same' }, a: { name: 'same' } })
  t.strictSame(find('same'), ['a', 'b', 'c', 'd'])
  t.strictSame(find('same', { limit: 2 }), ['a', 'b'])
  t.strictSame(find('same', { limit: 2, keep: 3 }), ['a', 'b', 'c'])
})

t.test('the last word may be a beginning, the others not', async t => {
  const { find } = await indexOf({ one: { name: 'translation' }, two: { name: 'weather' }, three: { name: '翻訳者' } })
  t.strictSame(find('trans'), ['one'])
  t.strictSame(find('trans weather'), ['two'])
  t.strictSame(find('tr'), [], 'two letters are a word, not a beginning')
  t.strictSame(find('翻'), ['three'])
})

t.test('one wrong letter is forgiven when there are too few hits, and comes last', async t => {
  const { find, index } = await indexOf({ right: { context_brief: 'summarise' }, similar: { name: 'summarize' }, third: { name: 'summarise' } })
  t.strictSame(find('summarise'), ['third', 'right', 'similar'])
  t.strictSame(find('summarise', { limit: 2 }), ['third', 'right'])
  t.strictSame(find('sumarise'), ['third', 'right'])
  const scores = index.search('summarise', all).map(hit => hit.score)
  t.ok(scores[2]! < scores[1]!)
})

t.test('words of four letters are not guessed', async t => {
  const { find } = await indexOf({ one: { name: 'road' }, two: { name: 'load' } })
  t.strictSame(find('road'), ['one'])
})

t.test('at most 16 words of a query count', async t => {
  const { find } = await indexOf({ first: { name: 'w0' }, last: { name: 'w15' }, beyond: { name: 'w16' } })
  const query = Array.from({ length: 20 }, (_value, index) => `w${index} w${index}`).join(' ')
  t.strictSame(find(query), ['first', 'last'])
})

t.test('changes and removals are followed', async t => {
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

t.test('the index works by itself, and stops when it is closed', async t => {
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

t.test('a search waits for 1,000 changes, others wait for the slices', async t => {
  const index = new TextIndex(id => fields({ name: `agent ${id}` }))
  for (let id = 0; id < 1_500; id++) index.change(String(id))
  await index.drain()
  t.ok(index.size >= 1_000 && index.size <= 1_500)
  await until(() => index.pending === 0)
  t.equal(index.size, 1_500)
})

t.test('indexing lets others in', async t => {
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

t.test('the same text again does not touch the index', async t => {
  const { index, find } = await indexOf({ one: { name: 'alpha' } })
  for (let times = 0; times < 2_000; times++) {
    index.change('one')
    await index.drain()
  }
  t.strictSame(find('alpha'), ['one'])
  t.equal(index.stale, 0)
})

t.test('an index with much that was replaced is made anew while it is used', async t => {
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
  t.strictSame(find('version10 alpha beta'), [], 'nothing is found by what it was')
  index.change('three')
  await index.drain()
  t.equal(index.size, 2)
})

t.test('words that most agents have are left out of long queries, in a large index', async t => {
  const texts: Record<string, Partial<Fields>> = {}
  for (let id = 0; id < 1_200; id++) texts[`agent-${id}`] = { name: `common ${id % 2 ? 'frequent' : 'usual'} word${id}` }
  const { index, find } = await indexOf(texts)
  await index.drain()
  t.strictSame(find('common word7', { keep: 5 })[0], 'agent-7')
  t.notOk(index.search('common word7 usual', { ...all, keep: Infinity }).some(hit => hit.id === 'agent-9'), 'agents that only share what all have')
  t.strictSame(find('common word7', { accept: (id: string) => id === 'agent-9' }), ['agent-9'], 'unless nobody else may be found')
  t.equal(index.search('common', { ...all, keep: Infinity }).length, 1_200, 'which are found when there is nothing else to go by')
})

t.test('the corpus is the same for the same seed and about 1 KB an agent', async t => {
  const some = [...agents(50, 3)]
  t.strictSame(some, [...agents(50, 3)])
  t.notSame(some, [...agents(50, 4)])
  const bytes = JSON.stringify(some).length / some.length
  t.ok(bytes > 800 && bytes < 1_300, `${bytes} bytes`)
  t.strictSame([...queries(30, 1)], [...queries(30, 1)])
  t.ok([...queries(100, 1)].every(query => query.length >= 2))
})

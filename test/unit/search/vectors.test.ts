import t from 'tap'
import type { EmbedHook } from '../../../src/options.js'
import { Embedder } from '../../../src/search/embedder.js'
import { VectorIndex, VectorIndexer } from '../../../src/search/vectors.js'
import { manualEmbed, until } from './helper.js'

const all = { limit: 10, minSimilarity: -1, accept: () => true }
const failed = { code: 'AGENT_REGISTRY_EMBEDDING_FAILED', statusCode: 503 }

t.test('nearest by cosine, best first, ties by id', async t => {
  const index = new VectorIndex()
  t.strictSame(index.nearest([1], all), [])
  index.set('b', [2, 0])
  index.set('a', [1, 0])
  index.set('c', Float32Array.of(0, 3))
  index.set('d', [-1, 0])
  t.strictSame(index.nearest([5, 0], all).map(({ id, similarity }) => [id, similarity]), [['a', 1], ['b', 1], ['c', 0], ['d', -1]])
  t.strictSame(index.nearest([1, 0], { ...all, limit: 1 }).map(({ id }) => id), ['a'])
  t.strictSame(index.nearest([1, 0], { ...all, minSimilarity: 0.5, accept: id => id !== 'a' }).map(({ id }) => id), ['b'])
  t.equal(index.size, 4)
  t.equal(index.dimension, 2)
})

t.test('vectors are replaced and removed, whatever row they are in', async t => {
  const index = new VectorIndex()
  const rows = 300
  for (let row = 0; row < rows; row++) index.set(`v${row}`, [Math.cos(row / 100), Math.sin(row / 100)])
  index.delete('v0')
  index.delete('v299')
  index.delete('v299')
  index.set('v1', [Math.cos(2), Math.sin(2)])
  t.equal(index.size, rows - 2)
  t.equal(index.has('v0'), false)
  for (const row of [2, 50, 298]) t.equal(index.nearest([Math.cos(row / 100), Math.sin(row / 100)], all)[0]!.id, `v${row}`)
  t.strictSame(index.nearest([Math.cos(2), Math.sin(2)], all).slice(0, 2).map(({ id }) => id).sort(), ['v1', 'v200'])
})

t.test('a vector of another length or without a direction is refused', async t => {
  const index = new VectorIndex()
  for (const vector of [[], [0, 0], [NaN, 1], [Infinity, 1]]) t.throws(() => index.set('a', vector), failed)
  index.set('a', [1, 2])
  t.throws(() => index.set('b', [1, 2, 3]), { ...failed, message: /3 numbers.*2/ })
  t.throws(() => index.nearest([1], all), failed)
  t.equal(index.size, 1)
})

const lengths: EmbedHook = texts => texts.map(text => [text.length, 1])
// What waits here keeps no process alive by itself.
const alive = setInterval(() => {}, 1_000)
t.teardown(() => clearInterval(alive))

const quick = { timeoutMs: 1_000, backOffMs: 1 }

t.test('texts of one moment go in one call, 64 at most, each once', async t => {
  const calls: string[][] = []
  const embedder = new Embedder({ ...quick, embed: async texts => { calls.push(texts); return lengths(texts) } })
  const texts = Array.from({ length: 70 }, (_value, index) => `text ${index}`)
  const vectors = await Promise.all([...texts, 'text 3', 'text 3'].map(text => embedder.embed(text)))
  t.strictSame(calls.map(call => call.length), [64, 6])
  t.strictSame([...vectors[0]!], [6, 1])
  t.equal(vectors[70], vectors[3])
  t.equal(await embedder.embed('text 3'), vectors[3], 'kept')
  t.equal(calls.length, 2)
})

t.test('vectors that were not asked for longest are forgotten first', async t => {
  const calls: string[][] = []
  const embedder = new Embedder({ ...quick, cacheSize: 2, embed: texts => { calls.push(texts); return lengths(texts) } })
  for (const text of ['a', 'b', 'a', 'c', 'a', 'b']) await embedder.embed(text)
  t.strictSame(calls.flat(), ['a', 'b', 'c', 'b'])
})

t.test('a call that fails is tried three times', async t => {
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

t.test('one text that the host cannot take does not hold up the others', async t => {
  const embedder = new Embedder({ ...quick, embed: texts => { if (texts.includes('bad')) throw new Error('too long'); return lengths(texts) } })
  const results = await Promise.allSettled(['a', 'b', 'bad', 'c', 'd'].map(text => embedder.embed(text)))
  t.strictSame(results.map(result => result.status), ['fulfilled', 'fulfilled', 'rejected', 'fulfilled', 'fulfilled'])
})

t.test('in an outage no text is tried alone', async t => {
  let calls = 0
  const embedder = new Embedder({ ...quick, embed: () => { calls++; throw new Error('down') } })
  const results = await Promise.allSettled(['a', 'b', 'c', 'd'].map(text => embedder.embed(text)))
  t.ok(results.every(result => result.status === 'rejected'))
  t.equal(calls, 5, 'three tries and two halves')
})

t.test('wrong answers are errors', async t => {
  const answers: Record<string, unknown> = { none: undefined, few: [], empty: [[]], nothing: [null], nan: [[1, NaN]], endless: [[Infinity]], text: ['ab'] }
  for (const [name, answer] of Object.entries(answers)) {
    const embedder = new Embedder({ ...quick, embed: () => answer as number[][] })
    await t.rejects(embedder.embed('x'), failed, name)
  }
  const growing = new Embedder({ ...quick, embed: ([text]) => [new Array(text!.length).fill(1)] })
  await growing.embed('12')
  await t.rejects(growing.embed('123'), { ...failed, message: /length/ })
})

t.test('a call that hangs is given up', async t => {
  const { embed, calls } = manualEmbed()
  const embedder = new Embedder({ embed, timeoutMs: 5, backOffMs: 1 })
  await t.rejects(embedder.embed('x'), { code: 'AGENT_REGISTRY_HOOK_TIMEOUT' })
  t.equal(calls.length, 3)
})

t.test('the queue and the number of concurrent calls are bounded', async t => {
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

t.test('closing ends what waits', async t => {
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

t.test('closing ends the pause before a second try, for texts together too', async t => {
  let calls = 0
  const embedder = new Embedder({ timeoutMs: 1_000, backOffMs: 60_000, embed: () => { calls++; throw new Error('no') } })
  const both = Promise.allSettled([embedder.embed('a'), embedder.embed('b')])
  await until(() => calls === 1)
  embedder.close()
  t.strictSame((await both).map(result => result.status), ['rejected', 'rejected'])
  t.equal(calls, 1)
})

/** A feed over texts that a test may change. */
function feedOf (texts: Map<string, string>, embed: EmbedHook, retryMs = 5) {
  const errors: unknown[] = []
  const vectors = new VectorIndex()
  const embedder = new Embedder({ ...quick, embed })
  const feed = new VectorIndexer({ embedder, vectors, textOf: id => texts.get(id), retryMs, onError: error => { errors.push(error) } })
  return { feed, vectors, errors }
}

t.test('the feed follows changes, and embeds only what is another text', async t => {
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
  t.equal(vectors.nearest([30, 1], all)[0]!.id, 'id3')
  feed.close()
  feed.change('id4')
  await new Promise(resolve => setTimeout(resolve, 20))
  t.equal(feed.pending, 1)
})

t.test('what could not be embedded is tried again later', async t => {
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

t.test('closing the indexer during a call leaves nothing behind', async t => {
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

t.test('a vector without a direction is reported by the indexer', async t => {
  const { feed, errors } = feedOf(new Map([['a', 'alpha']]), () => [[0, 0]], 60_000)
  feed.change('a')
  await until(() => errors.length === 1)
  t.match(errors[0], failed)
  feed.close()
})

import fc from 'fast-check'
import t from 'tap'
import { MemoryMessageBroker } from '../../../src/storage/memory/message-broker.js'
import type { LogEntry, LogPage, LogPosition } from '../../../src/storage/message-broker.js'
import { type LogsLimits, MemoryLogs } from '../../../src/storage/memory/message-logs.js'
import { decodeName, encodeName, globOf, packEntry, unpackEntry } from '../../../src/storage/redis/broker-commands.js'
import { CommandBatch } from '../../../src/storage/redis/broker-commands.js'
import { LogFollower } from '../../../src/storage/redis/log-followers.js'
import { isWithin, matchesPattern, PatternTrie } from '../../../src/lib/pattern-trie.js'
import { brokerContract } from '../../../src/storage/contract/index.js'
import { BrokerProcess, numbers } from '../../../src/storage/contract/broker-scene.js'
import { seed } from '../../support/lengths.js'

t.test('memory broker: passes the broker contract', async t => {
  brokerContract({
    test: (name, run) => t.test(name, async t => { await t.resolves(run()) }),
    build: async settings => ({ broker: new MemoryMessageBroker(settings) })
  })
})

const entryOf = (offset: number): LogEntry => ({ offset, from: 'a', data: String(offset), metadata: undefined, origin: undefined, at: 1 })
const live = (offset: number, epoch = 'e') => ({ epoch, entry: entryOf(offset) })
const entries = (from: number, to: number) => numbers(to - from + 1, from).map(n => entryOf(Number(n)))

/** A log follower with its events, and the pages that it reads one after the other. */
function followerOf () {
  const events: string[] = []
  const reads: Array<LogPosition & { give: (page: LogPage) => Promise<void>, fail: () => Promise<void> }> = []
  const settled = () => new Promise<void>(resolve => { setImmediate(resolve) })
  const follower = new LogFollower('c:x', {
    read: (_log, since) => new Promise((resolve, reject) => {
      reads.push(
        { ...since, give: page => { resolve(page); return settled() }, fail: () => { reject(new Error('away')); return settled() } }
      )
    }),
    appended: (_log, epoch, { offset }) => { events.push(`${epoch}${offset}`) },
    gap: (_log, { epoch, offset }) => { events.push(`lost ${epoch}${offset}`) },
    readFailed: () => { events.push('behind') }
  })
  return { follower, events, reads }
}

const page = (from: number, to: number, more: Partial<LogPage> = {}): LogPage =>
  ({ epoch: 'e', offset: to, entries: entries(from, to), recovered: true, ...more })

t.test('log reader: entries that arrive before the position is known are delivered once in order', async t => {
  const { follower, events } = followerOf()
  for (const offset of [4, 5, 6]) follower.offer(live(offset))
  await follower.locate({ epoch: 'e', offset: 5 })
  follower.offer(live(6))
  follower.offer(live(7))
  await follower.locate({ epoch: 'e', offset: 7 })
  t.same(events, ['e4', 'e5', 'e6', 'e7'])
})

t.test('log reader: an empty log starts at its position', async t => {
  const { follower, events } = followerOf()
  follower.offer(live(9, 'former'))
  await follower.locate({ epoch: 'e', offset: 5 })
  t.same([follower.epoch, follower.offset, events], ['e', 5, []])
})

t.test('log reader: entries that arrive while a gap is filled wait, and may leave another gap', async t => {
  const { follower, events, reads } = followerOf()
  follower.begin(live(1))
  for (const offset of [1, 3, 4, 7]) follower.offer(live(offset))
  t.match(reads, [{ epoch: 'e', offset: 1 }])
  await follower.locate({ epoch: 'e', offset: 7 })
  await reads[0]!.give(page(2, 4))
  t.match(reads[1], { offset: 4 })
  await reads[1]!.give(page(5, 7))
  follower.offer(live(8))
  t.same(events, ['e1', 'e2', 'e3', 'e4', 'e5', 'e6', 'e7', 'e8'])
})

t.test('log reader: a long gap is read in pages', async t => {
  const { follower, events, reads } = followerOf()
  follower.begin(live(1))
  follower.offer(live(1000))
  await reads[0]!.give(page(1, 500))
  await reads[1]!.give(page(501, 1000))
  await reads[2]!.give(page(1001, 1000))
  t.same(events, numbers(1000, 1).map(n => `e${n}`))
})

t.test('log reader: lost entries are reported as a gap before the next entry', async t => {
  const { follower, events, reads } = followerOf()
  follower.begin(live(1))
  follower.offer(live(1))
  follower.offer(live(10))
  await reads[0]!.give(page(8, 10, { recovered: false }))
  follower.offer(live(1, 'f'))
  await reads[1]!.give(page(1, 0, { epoch: 'f', offset: 4, recovered: false }))
  follower.offer(live(5, 'f'))
  follower.offer(live(11, 'e'))
  await reads[2]!.give(page(6, 5, { epoch: 'f', offset: 5 }))
  t.same(events, ['e1', 'lost e7', 'e8', 'e9', 'e10', 'lost f4', 'f5'])
})

t.test('log reader: a gap that could not be read is read later', async t => {
  const { follower, events, reads } = followerOf()
  follower.begin(live(1))
  follower.offer(live(3))
  follower.offer(live(5))
  await reads[0]!.fail()
  t.same(events, ['behind'])
  const located = follower.locate({ epoch: 'e', offset: 5 })
  await reads[1]!.give(page(1, 5))
  await located
  t.same(events, ['behind', 'e1', 'e2', 'e3', 'e4', 'e5'])
})

t.test('log reader: entries beyond the queue limit are read from the log', async t => {
  const { follower, events, reads } = followerOf()
  follower.begin(live(1))
  follower.offer(live(2))
  for (const n of numbers(6000, 3)) follower.offer(live(Number(n)))
  await reads[0]!.give(page(1, 2))
  t.equal(reads[1]!.offset, 2)
  await reads[1]!.give(page(3, 400))
  t.same(events, numbers(400, 1).map(n => `e${n}`))
})

t.test('log reader: a reader that has ended delivers nothing, and returns undelivered entries', async t => {
  const { follower, events, reads } = followerOf()
  follower.begin(live(1))
  follower.offer(live(3))
  t.same(follower.end(), [])
  await reads[0]!.give(page(5, 504, { recovered: false }))
  t.same([events, reads.length], [[], 1])
  const other = followerOf()
  other.follower.offer(live(3))
  t.same(other.follower.end(), [live(3)])
})

t.test('batches: a failed batch sends nothing, and every call in it is rejected', async t => {
  const sent: number[][] = []
  const batch = new CommandBatch<number, string>(2, async commands => {
    sent.push([...commands])
    return commands.map(String)
  })
  const failed = [batch.add(1), batch.add(2)].map(call => call.catch((error: Error) => error.message))
  batch.fail(new Error('closed'))
  t.same(await Promise.all([...failed, ...[3, 4, 5].map(n => batch.add(n))]), ['closed', 'closed', '3', '4', '5'])
  t.same(sent, [[3, 4], [5]])
})

t.test('entries: texts survive an encode and decode unchanged', t => {
  for (const name of ['', 'a', '"\\', 'a\nb', '☃ 🚀', '\ud800', '\ud800a', '\udc00']) {
    t.equal(decodeName(Buffer.from(encodeName(name)).toString()), name)
    const command = { log: 'x', from: name, data: '{"a":\n1}', metadata: '{\n}', origin: name }
    t.same(
      unpackEntry(1, 2, packEntry(command)), { offset: 1, at: 2, from: name, data: command.data, metadata: command.metadata, origin: name }
    )
  }
  t.equal(globOf('{ar:n}:c:', 'a/*/[x]/**'), '{ar:n}:c:a/*/\\[x\\]/*')
  t.equal(globOf('', '?"'), '\\?\\\\"')
  t.end()
})

const limits: LogsLimits = { entries: 1000, bytes: 100_000, ageMs: 1000, msgIdMs: 1000, logs: 10, totalBytes: 10_000 }

function logsOf (followed: readonly string[] = [], more: Partial<LogsLimits> = {}) {
  const time = { now: 1_000_000 }
  const logs = new MemoryLogs(() => time.now, { ...limits, ...more }, name => followed.includes(name))
  const say = (name: string, size = 1) => logs.append(name, { from: '', data: 'x'.repeat(size), at: time.now })
  return { logs, time, say }
}

t.test('log cache: logs unused for long are dropped, and the size is bounded', t => {
  const { logs, time, say } = logsOf()
  const first = say('0')
  for (const name of numbers(1000)) say(name)
  t.equal(logs.count, 10)
  t.not(logs.read('0', { limit: 1 }).epoch, first.epoch)
  for (const name of numbers(10)) say(name, 5000)
  t.ok(logs.size <= 10_000 && logs.count === 2)
  time.now += 2000
  say('x')
  t.same([logs.count, logs.size], [1, 1])
  t.end()
})

t.test('log cache: of followed logs only the entries are dropped', t => {
  const followed = numbers(30)
  const { logs, time, say } = logsOf(followed)
  const positions = followed.map(name => logs.position(name))
  for (const name of followed) say(name, 1000)
  t.ok(logs.size <= 10_000)
  t.equal(logs.count, 30)
  time.now += 2000
  for (const name of followed) say(name)
  t.same(followed.map(name => logs.position(name)), positions.map(({ epoch }) => ({ epoch, offset: 2 })))
  t.end()
})

t.test('ring: after many wraps it holds the right entries', t => {
  const { logs, say } = logsOf(['a'], { entries: 100 })
  for (let count = 0; count < 10_000; count++) say('a')
  const { epoch, entries } = logs.read('a', { limit: 1000 })
  t.same(entries.map(({ offset }) => offset), numbers(100, 9901).map(Number))
  t.same(logs.read('a', { since: { epoch, offset: 9950 }, limit: 2 }).entries.map(({ offset }) => offset), [9951, 9952])
  t.equal(logs.size, 100)
  t.end()
})

t.test('listeners: a listener that throws does not affect others', async t => {
  const broker = new MemoryMessageBroker()
  const side = await new BrokerProcess(broker).open()
  await broker.follow('c:x')
  const thrown = new Promise(resolve => { process.once('uncaughtException', resolve) })
  side.onEntry = () => { side.onEntry = () => {}; throw new Error('mine') }
  side.sayAll('c:x', ['1', '2'])
  t.match(await thrown, { message: 'mine' })
  await side.sayAll('c:x', ['3'])
  t.same(await side.receives('c:x', 3), ['1', '2', '3'])
})

t.test('listeners: pending events are dropped after unfollow, unwatch or close', async t => {
  const broker = new MemoryMessageBroker()
  const side = await new BrokerProcess(broker).open()
  await Promise.all([broker.follow('c:x'), broker.watch('c:x')])
  side.say('c:x', '1')
  broker.enter('c:x', 'p', '{}')
  broker.unfollow('c:x')
  broker.unwatch('c:x')
  await new Promise(resolve => setImmediate(resolve))
  t.same([side.received, side.changes], [[], []])
})

/** A reference implementation of pattern matching. */
function naivelyMatches (pattern: string, channel: string): boolean {
  const [wanted, given] = [pattern.split('/'), channel.split('/')]
  const hasRest = wanted.at(-1) === '**'
  if (hasRest ? given.length < wanted.length : given.length !== wanted.length) return false
  return wanted.every((segment, index) => segment === '*' || segment === given[index] || (hasRest && index === wanted.length - 1))
}

const segment = fc.constantFrom('a', 'b', 'c.d', 'ü')
const pattern = fc.array(fc.oneof(segment, fc.constant('*')), { maxLength: 3 })
  .chain(segments => fc.constantFrom('a', '*', '**').map(last => [...segments, last].join('/')))
const channel = fc.array(segment, { minLength: 1, maxLength: 4 }).map(segments => segments.join('/'))
const step = fc.record({ isSet: fc.boolean(), pattern, value: fc.nat(3) })

t.test(`PatternTrie: finds what a naive matcher finds after any sequence of set and delete (TEST_SEED=${seed})`, async t => {
  t.doesNotThrow(() => fc.assert(fc.property(fc.array(
    step, { maxLength: 40 }
  ), fc.array(channel, { minLength: 1, maxLength: 5 }), (steps, channels) => {
    const trie = new PatternTrie<number>()
    const model = new Map<string, number>()
    for (const { isSet, pattern, value } of steps) {
      if (isSet) trie.set(pattern, value)
      else if (trie.delete(pattern) !== model.has(pattern)) return false
      if (isSet) model.set(pattern, value)
      else model.delete(pattern)
      if (trie.get(pattern) !== model.get(pattern)) return false
    }
    return trie.size === model.size && channels.every(channel => {
      const wanted = [...model].flatMap(([pattern, value]) => naivelyMatches(pattern, channel) ? [value] : []).sort()
      const one = trie.find(channel)
      return trie.match(channel).sort().join() === wanted.join() && (one === undefined ? wanted.length === 0 : wanted.includes(one))
    })
  }), { numRuns: 2000 }))
})

t.test(`matchesPattern: agrees with a naive matcher (TEST_SEED=${seed})`, async t => {
  t.doesNotThrow(() => fc.assert(fc.property(pattern, channel, (pattern, channel) => {
    return matchesPattern(pattern, channel) === naivelyMatches(pattern, channel)
  }), { numRuns: 2000 }))
})

t.test(`isWithin: a granted pattern matches all channels of a pattern within it (TEST_SEED=${seed})`, async t => {
  t.doesNotThrow(() => fc.assert(fc.property(pattern, pattern, channel, (granted, pattern, channel) => {
    return !isWithin(granted, pattern) || !matchesPattern(pattern, channel) || matchesPattern(granted, channel)
  }), { numRuns: 2000 }))
})

t.test('PatternTrie: one value per pattern, and nothing after its deletion', async t => {
  const trie = new PatternTrie<string>()
  for (const pattern of ['a/*', 'a/*', 'a/b/**', '**', '*']) trie.set(pattern, pattern)
  t.same([trie.size, trie.get('a/*'), trie.get('a'), trie.get('a/b/c')], [4, 'a/*', undefined, undefined])
  t.equal(trie.find('x'), '**')
  t.same(['**', '*', '*', 'b/**', 'a'].map(pattern => trie.delete(pattern)), [true, true, false, false, false])
  t.same(['x', 'a/x', 'a/b', 'a/b/c', 'a'].map(channel => trie.find(channel)), [undefined, 'a/*', 'a/*', 'a/b/**', undefined])
  trie.set('a/*', 'other')
  t.same([trie.size, trie.match('a/b')], [2, ['other']])
  for (const pattern of ['a/*', 'a/b/**']) t.equal(trie.delete(pattern), true)
  t.same([trie.size, trie.find('a/x'), trie.match('a/b/c')], [0, undefined, []])
  trie.set('a/*', 'again')
  trie.clear()
  t.same([trie.size, trie.find('a/x')], [0, undefined])
})

t.test('PatternTrie: finds a match among a hundred thousand patterns in microseconds', async t => {
  const trie = new PatternTrie<number>()
  for (let n = 0; n < 100_000; n++) trie.set(n % 2 ? `workflows/run-${n}/*` : `agents/agent-${n % 1000}/${n}/**`, n)
  const matches = 20_000
  let found = 0
  const started = performance.now()
  for (let n = 0; n < matches; n++) found += trie.match(`workflows/run-${2 * n + 1}/subtasks`).length
  const each = (performance.now() - started) * 1000 / matches
  t.equal(found, matches)
  t.ok(each < 50, `${each.toFixed(2)} µs`)
})

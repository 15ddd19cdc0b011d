import assert from 'node:assert/strict'
import { assertMatches, log, membersOf, numbers, odd, set, type BrokerCase } from './broker-scene.js'

const logs: BrokerCase[] = [
  ['an entry is delivered as it was appended, with its position and its time', async ({ process, broker }) => {
    const position = await broker.follow(log)
    assert.equal(position.offset, 0)
    const given = { from: 'a', data: '{"text":"1\\n2 ☃"}', metadata: '{ "n": "a\\nb" }', origin: 'socket-1' }
    const before = broker.now()
    const { epoch, offset, duplicate } = await broker.append({ log, ...given })
    await process.waitUntil(() => process.received.length === 1)
    assert.deepEqual([epoch, offset, duplicate], [position.epoch, 1, false])
    const [{ at, ...entry } = { at: 0 }] = process.received
    assert.deepEqual(entry, { log, epoch, offset, ...given })
    assert.ok(Math.abs(at - before) < 10_000)
    assert.deepEqual((await broker.read(log, { limit: 1 })).entries, [{ at, offset, ...given }])
  }],
  ['an entry without metadata and origin has neither', async ({ process, broker }) => {
    await broker.follow(log)
    await broker.append({ log, from: '', data: '' })
    await process.waitUntil(() => process.received.length === 1)
    assertMatches(process.received[0], { from: '', data: '', metadata: undefined, origin: undefined })
    assertMatches((await broker.read(log, { limit: 1 })).entries[0], { from: '', data: '', metadata: undefined, origin: undefined })
  }],
  ['the appends of one tick are stored and delivered in the order of the calls', async ({ process, broker }) => {
    await broker.follow(log)
    const answers = await process.sayAll(log, numbers(1234))
    assert.deepEqual(answers.map(({ offset }) => offset), numbers(1234, 1).map(Number))
    assert.deepEqual(await process.receives(log, 1234), numbers(1234))
    assert.deepEqual(process.received.map(({ offset }) => offset), numbers(1234, 1).map(Number))
  }],
  ['an entry that a listener appends comes after the entries in progress', async ({ process, broker }) => {
    await broker.follow(log)
    process.onEntry = ({ data }) => { if (process.received.length <= 3) process.say(log, `${JSON.parse(data)}-answer`) }
    await process.sayAll(log, ['1', '2', '3'])
    assert.deepEqual(await process.receives(log, 6), ['1', '2', '3', '1-answer', '2-answer', '3-answer'])
    assert.deepEqual(process.received.map(({ offset }) => offset), [1, 2, 3, 4, 5, 6])
  }],
  ['entries are delivered between follow and unfollow only', async ({ process, broker }) => {
    await process.sayAll(log, ['before'])
    const { offset } = await broker.follow(log)
    assert.equal(offset, 1)
    await process.sayAll('c:other', ['other'])
    await process.sayAll(log, ['during'])
    await process.receives(log, 1)
    broker.unfollow(log)
    await process.sayAll(log, ['after'])
    broker.unfollow('c:never')
    assertMatches(await broker.follow(log), { offset: 3 })
    await process.sayAll(log, ['again'])
    assert.deepEqual(await process.receives(log, 2), ['during', 'again'])
    assert.deepEqual([process.received.length, process.gaps.length], [2, 0])
  }],
  ['following a log again has no effect and returns its newest position', async ({ process, broker }) => {
    const [first, second] = await Promise.all([broker.follow(log), broker.follow(log)])
    assert.deepEqual(first, second)
    await process.sayAll(log, ['1'])
    await process.receives(log, 1)
    assert.deepEqual(await broker.follow(log), { ...first, offset: 1 })
    await process.sayAll(log, ['2'])
    assert.deepEqual(await process.receives(log, 2), ['1', '2'])
    broker.unfollow(log)
    broker.follow(log)
    broker.unfollow(log)
    assertMatches(await broker.follow(log), { offset: 2 })
    await process.sayAll(log, ['3'])
    assert.deepEqual(await process.receives(log, 3), ['1', '2', '3'])
  }],
  ['read returns the entries after a position', async ({ process, broker }) => {
    await process.sayAll(log, numbers(10))
    const { epoch } = await broker.read(log, { limit: 0 })
    const read = async (offset: number, limit: number) => {
      const page = await broker.read(log, { since: { epoch, offset }, limit })
      assert.deepEqual([page.epoch, page.offset, page.recovered], [epoch, 10, true])
      return page.entries.map(entry => entry.offset).join(' ')
    }
    assert.equal(await read(0, 100), '1 2 3 4 5 6 7 8 9 10')
    assert.equal(await read(7, 100), '8 9 10')
    assert.equal(await read(7, 2), '8 9')
    assert.equal(await read(7, 0), '')
    assert.equal(await read(10, 5), '')
  }],
  ['read without a position returns the newest entries', async ({ process, broker }) => {
    await process.sayAll(log, numbers(5))
    const { entries, recovered } = await broker.read(log, { limit: 2 })
    assert.deepEqual([entries.map(({ offset }) => offset), recovered], [[4, 5], true])
    assert.equal((await broker.read(log, { limit: 100 })).entries.length, 5)
    assert.equal((await broker.read(log, { limit: 0 })).entries.length, 0)
  }],
  ['a position of another epoch or beyond the end is not recovered, and read returns the oldest entries', async ({ process, broker }) => {
    const [{ epoch } = { epoch: '' }] = await process.sayAll(log, ['1', '2', '3'])
    for (const since of [{ epoch: 'other', offset: 2 }, { epoch, offset: 4 }]) {
      const page = await broker.read(log, { since, limit: 2 })
      assert.deepEqual([page.epoch, page.offset, page.recovered, page.entries.map(({ offset }) => offset)], [epoch, 3, false, [1, 2]])
    }
  }],
  ['a new log keeps the epoch that the first read returned', async ({ process, broker }) => {
    const page = await broker.read(log, { limit: 10 })
    assert.deepEqual([page.offset, page.entries, page.recovered], [0, [], true])
    assertMatches(await broker.follow(log), { epoch: page.epoch, offset: 0 })
    await process.sayAll(log, ['1'])
    assertMatches(await broker.read(log, { since: { epoch: page.epoch, offset: 0 }, limit: 10 }), {
      epoch: page.epoch,
      offset: 1,
      recovered: true,
      entries: [{ offset: 1 }]
    })
  }],
  ['the oldest entries are dropped beyond the limit of entries', async ({ process, broker }) => {
    const [{ epoch } = { epoch: '' }] = await process.sayAll(log, numbers(25))
    const { entries, offset } = await broker.read(log, { limit: 100 })
    assert.deepEqual([entries.map(entry => entry.offset), offset], [numbers(10, 16).map(Number), 25])
    assertMatches(await broker.read(log, { since: { epoch, offset: 15 }, limit: 100 }), { recovered: true })
    const page = await broker.read(log, { since: { epoch, offset: 14 }, limit: 3 })
    assert.deepEqual([page.recovered, page.entries.map(entry => entry.offset)], [false, [16, 17, 18]])
  }, { entries: 10 }],
  ['the oldest entries are dropped beyond the byte limit, and the newest one is kept whatever its size', async ({ process, broker }) => {
    const big = 'x'.repeat(1000)
    await process.sayAll(log, numbers(20).map(() => big))
    const { entries, offset } = await broker.read(log, { limit: 100 })
    assert.equal(offset, 20)
    assert.equal(entries.at(-1)?.offset, 20)
    assert.ok(entries.length >= 3 && entries.length <= 5, `${entries.length} are kept`)
    await process.say(log, 'x'.repeat(10_000))
    assert.deepEqual((await broker.read(log, { limit: 100 })).entries.map(entry => entry.offset), [21])
    await process.say(log, 'small')
    assert.deepEqual((await broker.read(log, { limit: 100 })).entries.map(entry => entry.offset), [22])
  }, { bytes: 5500 }],
  ['entries are dropped beyond the age limit, without a gap for followers', async ({ process, broker, pass }) => {
    const { epoch } = await broker.follow(log)
    await process.sayAll(log, ['1', '2'])
    await pass(1800)
    await process.sayAll(log, ['3'])
    await pass(1800)
    const page = await broker.read(log, { since: { epoch, offset: 1 }, limit: 10 })
    assert.deepEqual([page.epoch, page.recovered, page.entries.map(({ offset }) => offset)], [epoch, false, [3]])
    await pass(6000)
    assertMatches(await broker.read(log, { since: { epoch, offset: 3 }, limit: 10 }), { epoch, offset: 3, recovered: true, entries: [] })
    assertMatches(await broker.read(log, { since: { epoch, offset: 2 }, limit: 10 }), { recovered: false, entries: [] })
    await process.sayAll(log, ['4'])
    assert.deepEqual([await process.receives(log, 4), process.gaps], [['1', '2', '3', '4'], []])
  }, { ageMs: 3000 }],
  ['a log that was idle for the age limit begins another epoch', async ({ process, broker, pass }) => {
    const { epoch } = await process.say(log, '1')
    await pass(1500)
    await process.say('c:other', 'time has passed')
    const anew = await process.say(log, '2')
    assert.notEqual(anew.epoch, epoch)
    assert.equal(anew.offset, 1)
    assertMatches(await broker.read(log, { since: { epoch, offset: 1 }, limit: 10 }), {
      epoch: anew.epoch,
      recovered: false,
      entries: [{ offset: 1, data: '"2"' }]
    })
  }, { ageMs: 500 }],
  ['logs with unusual names are separate', async ({ process, broker }) => {
    await Promise.all(odd.map(name => broker.follow(name)))
    await Promise.all(odd.map(name => process.say(name, name, { from: name, origin: name })))
    await process.waitUntil(() => process.received.length >= odd.length)
    const received = new Map(process.received.map(entry => [entry.log, entry]))
    assert.equal(received.size, odd.length)
    for (const name of odd) {
      assertMatches(
        received.get(name),
        { from: name, origin: name, offset: 1, data: JSON.stringify(name) },
        JSON.stringify(name)
      )
    }
  }]
]

const duplicates: BrokerCase[] = [
  ['a message id is stored once per sender and log', async ({ process, broker }) => {
    await broker.follow(log)
    const [first, second] = await Promise.all([process.say(log, '1', { msgId: 'm' }), process.say(log, 'other', { msgId: 'm' })])
    await process.sayAll(log, ['2'])
    const third = await process.say(log, '1', { msgId: 'm' })
    assert.equal(first.duplicate, false)
    for (const again of [second, third]) assert.deepEqual(again, { ...first, duplicate: true })
    assert.deepEqual(await process.receives(log, 2), ['1', '2'])
  }],
  ['the same message id of another sender or in another log is another message', async ({ process }) => {
    await process.say(log, '1', { msgId: 'm', from: 'a' })
    const others = [
      await process.say(log, '1', { msgId: 'm', from: 'b' }),
      await process.say('c:other', '1', { msgId: 'm', from: 'a' }),
      await process.say(log, '1', { msgId: '', from: 'am' }),
      await process.say(log, '1', { from: 'a' }),
      await process.say(`${log}a`, '1', { msgId: 'm', from: '' })
    ]
    assert.deepEqual(others.map(({ duplicate }) => duplicate), others.map(() => false))
    assert.equal((await process.say(log, '1', { msgId: '', from: 'am' })).duplicate, true)
  }],
  ['message ids are forgotten after their time', async ({ process, pass }) => {
    await process.say(log, '1', { msgId: 'm' })
    await pass(600)
    assertMatches(await process.say(log, '1', { msgId: 'm' }), { offset: 2, duplicate: false })
  }, { msgIdMs: 500 }]
]

/** A reference implementation of pattern matching. */
function naivelyMatches (pattern: string, channel: string): boolean {
  const [wanted, given] = [pattern.split('/'), channel.split('/')]
  const hasRest = wanted.at(-1) === '**'
  if (hasRest ? given.length < wanted.length : given.length !== wanted.length) return false
  return wanted.every((segment, index) => segment === '*' || segment === given[index] || (hasRest && index === wanted.length - 1))
}

const segments = ['a', 'b', '', 'a*', '[ab]', '?', '\\', '^', 'ü"']

/** Numbers from 0 to `limit` (exclusive) that only depend on the seed. */
function generator (seed: number): (limit: number) => number {
  let state = seed
  return limit => {
    state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0
    return Math.floor(state / 2 ** 32 * limit)
  }
}

function randomPath (next: (limit: number) => number, maxLength: number, choices: readonly string[], last: readonly string[]): string {
  const path = Array.from({ length: next(maxLength) }, () => choices[next(choices.length)] ?? '')
  return [...path, last[next(last.length)] ?? ''].join('/')
}

function randomPaths (next: (limit: number) => number, count: number, make: () => string): string[] {
  return [...new Set(Array.from({ length: next(count + 1) }, make))]
}

const patterns: BrokerCase[] = [
  ['an entry of a channel that several patterns match is delivered once', async ({ process, broker }) => {
    for (const pattern of ['a/**', 'a/*', '*/b']) await broker.followPattern(pattern)
    await broker.followPattern('a/*')
    await broker.follow('c:a/b')
    for (const name of ['c:a/b', 'c:a', 'c:a/b/c', 'c:b/b', 'c:b', 'i:a/b', 'c:b/a']) await process.sayAll(name, ['1', '2'])
    await process.waitUntil(() => process.textsOf('c:b/b').length === 2)
    assert.deepEqual(
      process.received.map(({ log, offset }) => `${log} ${offset}`),
      ['c:a/b', 'c:a/b/c', 'c:b/b'].flatMap(log => [`${log} 1`, `${log} 2`])
    )
    assert.deepEqual(process.gaps, [])
  }],
  ['a pattern that is no longer followed delivers nothing', async ({ process, broker }) => {
    for (const pattern of ['a/*', 'b/**', '**']) await broker.followPattern(pattern)
    for (const pattern of ['a/*', '**', 'never', '**']) broker.unfollowPattern(pattern)
    await broker.follow('c:a/1')
    broker.unfollow('c:a/1')
    for (const name of ['c:a/1', 'c:b/1']) await process.say(name, '1')
    await process.receives('c:b/1', 1)
    assert.equal(process.received.length, 1)
    broker.unfollowPattern('b/**')
    await broker.follow('c:a/1')
    for (const name of ['c:b/1', 'c:a/1']) await process.say(name, '2')
    assert.deepEqual([await process.receives('c:a/1', 1), process.received.length], [['2'], 2])
  }],
  ['a log that is followed by a pattern and by name loses no entry when either ends', async ({ process, broker }) => {
    await broker.followPattern('a/*')
    await process.say('c:a/1', '1')
    await process.receives('c:a/1', 1)
    assertMatches(await broker.follow('c:a/1'), { offset: 1 })
    broker.unfollowPattern('a/*')
    await process.say('c:a/1', '2')
    await process.receives('c:a/1', 2)
    await broker.followPattern('a/*')
    broker.unfollow('c:a/1')
    await process.say('c:a/1', '3')
    assert.deepEqual([await process.receives('c:a/1', 3), process.gaps], [['1', '2', '3'], []])
  }],
  ['entries that nothing followed are not delivered later', async ({ process, broker }) => {
    await broker.followPattern('a/*')
    await process.say('c:a/1', '1')
    await process.receives('c:a/1', 1)
    broker.unfollowPattern('a/*')
    await process.sayAll('c:a/1', ['2', '3'])
    await Promise.all([broker.followPattern('*/1'), broker.followPattern('*/1')])
    await process.say('c:a/1', '4')
    await process.receives('c:a/1', 2)
    await broker.followPattern('a/**')
    broker.unfollowPattern('*/1')
    await process.say('c:a/1', '5')
    assert.deepEqual([await process.receives('c:a/1', 3), process.gaps], [['1', '4', '5'], []])
  }],
  ['patterns match as a naive matcher does', async ({ process, broker }) => {
    for (let seed = 1; seed <= 60; seed++) {
      const next = generator(seed)
      const wanted = randomPaths(next, 4, () => randomPath(next, 4, [...segments, '*'], ['a', '*', '**']))
      const channels = randomPaths(next, 6, () => randomPath(next, 4, segments, segments))
      const end = `i:end-${seed}`
      await Promise.all([broker.follow(end), ...wanted.map(pattern => broker.followPattern(pattern))])
      process.received.length = 0
      await Promise.all(channels.map(channel => process.say(`c:${channel}`, 'x')))
      await process.say(end, 'x')
      await process.receives(end, 1)
      const actual = process.received.filter(({ log }) => log !== end).map(({ log }) => log).sort()
      const matching = channels.filter(channel => wanted.some(pattern => naivelyMatches(pattern, channel)))
      const expected = matching.map(channel => `c:${channel}`).sort()
      broker.unfollow(end)
      for (const pattern of wanted) broker.unfollowPattern(pattern)
      assert.deepEqual(actual, expected, `seed ${seed}: ${wanted.join(', ')}`)
    }
  }]
]

const presence: BrokerCase[] = [
  ['a peer is in a set between enter and leave, with metadata that can be replaced', async ({ process, broker }) => {
    assert.deepEqual((await broker.watch(set)).members, [])
    await broker.enter(set, 'a', '{"n":1}')
    await broker.enter(set, 'b', '{"n":"☃\\n"}')
    await broker.enter(set, 'a', '{"n":2}')
    await broker.enter(set, 'a', '{"n":2}')
    await broker.enter('$agents', 'c', '{}')
    assert.deepEqual(await process.membersOf(set), ['a {"n":2}', 'b {"n":"☃\\n"}'])
    await broker.leave(set, 'a')
    await broker.leave(set, 'a')
    await broker.leave('c:never', 'a')
    await broker.leave(set, 'b')
    assert.deepEqual(await process.receivesChanges(set, 6), ['+a', '+b', '=a', '=a', '-a', '-b'])
    assert.deepEqual(
      process.changes.map(({ process, metadata }) => [process === broker.process, metadata]),
      ['{"n":1}', '{"n":"☃\\n"}', '{"n":2}', '{"n":2}', '{"n":2}', '{"n":"☃\\n"}'].map(metadata => [true, metadata])
    )
    assert.deepEqual([await process.membersOf(set), await process.membersOf('$agents')], [[], ['c {}']])
  }],
  ['revisions grow, and a roster is older than the changes after it', async ({ process, broker }) => {
    const { revision } = await broker.watch(set)
    for (const peer of ['a', 'b']) await broker.enter(set, peer, '{}')
    const between = await broker.roster(set)
    assert.deepEqual(membersOf(between), ['a {}', 'b {}'])
    await broker.leave(set, 'a')
    await process.receivesChanges(set, 3)
    const [first = 0, second = 0, third = 0] = process.changes.map(change => change.revision)
    assert.ok(revision < first && first < second && second < third)
    assert.ok(between.revision >= second && between.revision < third)
    assert.ok(Number.isSafeInteger(third))
  }],
  ['changes are delivered between watch and unwatch only', async ({ process, broker }) => {
    await broker.enter(set, 'a', '{}')
    assert.deepEqual(membersOf(await broker.watch(set)), ['a {}'])
    await broker.watch(set)
    await broker.enter(set, 'b', '{}')
    await process.receivesChanges(set, 1)
    broker.unwatch(set)
    broker.unwatch('c:never')
    await broker.enter(set, 'c', '{}')
    assert.deepEqual(membersOf(await broker.watch(set)), ['a {}', 'b {}', 'c {}'])
    await broker.leave(set, 'a')
    assert.deepEqual(await process.receivesChanges(set, 2), ['+b', '-a'])
  }],
  ['the changes of one tick are delivered in the order of the calls', async ({ process, broker }) => {
    await broker.watch(set)
    const peers = numbers(700)
    await Promise.all([
      ...peers.map(peer => broker.enter(set, peer, '{}')),
      broker.leave(set, '0'),
      broker.enter(set, '0', '{}'),
      broker.leave(set, '1')
    ])
    assert.deepEqual(await process.receivesChanges(set, 703), [...peers.map(peer => `+${peer}`), '-0', '+0', '-1'])
    assert.equal((await process.membersOf(set)).length, 699)
  }],
  ['peers and sets with unusual names are separate', async ({ broker, process }) => {
    await Promise.all(odd.map(name => broker.watch(name)))
    await Promise.all(odd.flatMap(name => odd.map(peer => broker.enter(name, peer, JSON.stringify([name, peer])))))
    for (const name of odd) {
      const { members } = await broker.roster(name)
      assert.deepEqual(members.map(({ peerId }) => peerId).sort(), [...odd].sort(), JSON.stringify(name))
      for (const { peerId, metadata } of members) {
        if (metadata !== JSON.stringify([name, peerId])) assert.fail(`${metadata} belongs to another peer`)
      }
    }
    await process.waitUntil(() => process.changes.length >= odd.length ** 2)
    assert.deepEqual(
      process.changes.map(({ set, peerId }) => JSON.stringify([set, peerId])),
      odd.flatMap(name => odd.map(peer => JSON.stringify([name, peer])))
    )
  }]
]

const refused = { type: 'storage-unavailable', statusCode: 503 }

const processes: BrokerCase[] = [
  ['a process receives the messages that it sends to itself, in order', async ({ process, broker }) => {
    for (const word of numbers(100)) broker.sendToProcess(broker.process, word)
    broker.sendToProcess('nobody', 'x')
    broker.sendToProcess(broker.process, 'last')
    await process.waitUntil(() => process.processMessages.length === 101)
    assert.deepEqual(process.processMessages, [...numbers(100), 'last'].map(word => [broker.process, word]))
  }],
  ['a closed broker rejects every call', async ({ process, broker }) => {
    await process.say(log, '1')
    await broker.close()
    await broker.close()
    const calls: Array<() => Promise<unknown>> = [
      () => process.say(log, '1'),
      () => broker.read(log, { limit: 1 }),
      () => broker.follow(log),
      () => broker.followPattern('a'),
      () => broker.enter(set, 'a', '{}'),
      () => broker.leave(set, 'a'),
      () => broker.roster(set),
      () => broker.watch(set)
    ]
    for (const call of calls) assertMatches(await call().then(() => 'done', (error: unknown) => error), refused)
    broker.unfollow(log)
    broker.unfollowPattern('a')
    broker.unwatch(set)
    broker.sendToProcess(broker.process, 'x')
    assert.deepEqual([process.received, process.processMessages], [[], []])
  }],
  ['a listener may close the broker', async ({ process, broker }) => {
    await broker.follow(log)
    let closing: Promise<void> | undefined
    process.onEntry = () => { closing ??= broker.close() }
    await Promise.allSettled([process.sayAll(log, ['1', '2', '3'])])
    await process.waitUntil(() => closing !== undefined)
    await closing
    assert.deepEqual(process.textsOf(log), ['1'])
  }]
]

const shared: BrokerCase[] = [
  ['all processes receive the entries of a log in the same order', async ({ process, another }) => {
    const other = await another()
    await process.broker.follow(log)
    await other.broker.followPattern('workflows/*')
    await Promise.all(numbers(20).map(async round => {
      await Promise.all([
        process.sayAll(log, numbers(20).map(n => `a-${round}-${n}`)),
        other.sayAll(log, numbers(20).map(n => `b-${round}-${n}`))
      ])
    }))
    await process.receives(log, 800)
    assert.deepEqual(await other.receives(log, 800), process.textsOf(log))
    assert.deepEqual(process.received.map(({ offset }) => offset), numbers(800, 1).map(Number))
    assert.deepEqual((await other.broker.read(log, { limit: 800 })).entries.map(({ data }) => JSON.parse(data)), process.textsOf(log))
  }],
  ['a message id that two processes append is stored once', async ({ process, another }) => {
    const other = await another()
    const [first, second] = await Promise.all([process.say(log, '1', { msgId: 'm' }), other.say(log, '1', { msgId: 'm' })])
    assert.deepEqual([first.duplicate, second.duplicate].sort(), [false, true])
    assert.deepEqual([first.epoch, first.offset], [second.epoch, second.offset])
  }],
  ['a peer joins with the first process that enters it, and leaves with the last one', async ({ process, another }) => {
    const other = await another()
    await Promise.all([process.broker.watch(set), other.broker.watch(set)])
    await process.broker.enter(set, 'a', '1')
    await other.broker.enter(set, 'a', '2')
    await other.broker.enter(set, 'b', '3')
    await other.broker.enter(set, 'a', '4')
    await process.broker.leave(set, 'a')
    await process.broker.leave(set, 'b')
    assert.deepEqual(await process.membersOf(set), ['a 4', 'b 3'])
    await other.broker.leave(set, 'a')
    const moves = ['+a', '(+a)', '+b', '=a', '(-a)', '-a']
    assert.deepEqual([await process.receivesChanges(set, 6), await other.receivesChanges(set, 6)], [moves, moves])
    assert.deepEqual(process.changes, other.changes)
    assert.deepEqual(
      process.changes.map(({ process }) => process),
      [process, other, other, other, process, other].map(({ broker }) => broker.process)
    )
  }],
  ['closing a process removes the peers that it entered', async ({ process, another }) => {
    const other = await another()
    await process.broker.watch(set)
    await process.broker.enter(set, 'p0', '{}')
    await Promise.all(numbers(1200).map(n => other.broker.enter(Number(n) < 600 ? set : 'c:other', `p${n}`, '{}')))
    await other.broker.close()
    await process.receivesChanges(set, 1 + 600 + 600)
    assert.deepEqual(process.changesOf(set).slice(601).sort(), numbers(600).map(n => n === '0' ? '(-p0)' : `-p${n}`).sort())
    assert.deepEqual([await process.membersOf(set), await process.membersOf('c:other')], [['p0 {}'], []])
  }],
  ['processes receive the messages of other processes in order', async ({ process, another }) => {
    const [b, c] = [await another(), await another()]
    for (const word of numbers(300)) for (const to of [b, c]) process.broker.sendToProcess(to.broker.process, `${word}"☃`)
    await new Promise(resolve => setImmediate(resolve))
    for (const word of numbers(300, 300)) for (const to of [b, c]) process.broker.sendToProcess(to.broker.process, `${word}"☃`)
    for (const to of [b, c]) {
      await to.waitUntil(() => to.processMessages.length >= 600)
      assert.deepEqual(to.processMessages, numbers(600).map(word => [process.broker.process, `${word}"☃`]))
    }
    assert.deepEqual(process.processMessages, [])
  }]
]

/** The tests of a broker, and those of a broker that several processes share. */
export const brokerCases: readonly BrokerCase[] = [...logs, ...duplicates, ...patterns, ...presence, ...processes]
export const sharedBrokerCases: readonly BrokerCase[] = shared

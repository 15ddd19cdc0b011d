import { numbers } from './broker-side.js'
import { log, odd, type Case } from './broker-scene.js'

export const logs: Case[] = [
  ['an entry is told as it was given, and when and where it was stored', async (t, { side, broker }) => {
    const position = await broker.follow(log)
    t.equal(position.offset, 0)
    const given = { from: 'a', data: '{"text":"1\\n2 ☃"}', metadata: '{ "n": "a\\nb" }', origin: 'socket-1' }
    const before = broker.now()
    const { epoch, offset, duplicate } = await broker.append({ log, ...given })
    await side.waits(() => side.told.length === 1)
    t.same([epoch, offset, duplicate], [position.epoch, 1, false])
    const [{ at, ...told } = { at: 0 }] = side.told
    t.same(told, { log, epoch, offset, ...given })
    t.ok(Math.abs(at - before) < 10_000)
    t.same((await broker.read(log, { limit: 1 })).entries, [{ at, offset, ...given }])
  }],
  ['an entry without metadata and origin has none', async (t, { side, broker }) => {
    await broker.follow(log)
    await broker.append({ log, from: '', data: '' })
    await side.waits(() => side.told.length === 1)
    t.match(side.told[0], { from: '', data: '', metadata: undefined, origin: undefined })
    t.match((await broker.read(log, { limit: 1 })).entries[0], { from: '', data: '', metadata: undefined, origin: undefined })
  }],
  ['appends are stored and told in the order of the calls, however many there are in a tick', async (t, { side, broker }) => {
    await broker.follow(log)
    const answers = await side.sayAll(log, numbers(1234))
    t.same(answers.map(({ offset }) => offset), numbers(1234, 1).map(Number))
    t.same(await side.hears(log, 1234), numbers(1234))
    t.same(side.told.map(({ offset }) => offset), numbers(1234, 1).map(Number))
  }],
  ['what is appended by who is told comes after what was under way', async (t, { side, broker }) => {
    await broker.follow(log)
    side.onEntry = ({ data }) => { if (side.told.length <= 3) side.say(log, `${JSON.parse(data)}-answer`) }
    await side.sayAll(log, ['1', '2', '3'])
    t.same(await side.hears(log, 6), ['1', '2', '3', '1-answer', '2-answer', '3-answer'])
    t.same(side.told.map(({ offset }) => offset), [1, 2, 3, 4, 5, 6])
  }],
  ['only what is followed is told, from where it is followed and until it is not', async (t, { side, broker }) => {
    await side.sayAll(log, ['before'])
    const { offset } = await broker.follow(log)
    t.equal(offset, 1)
    await side.sayAll('c:other', ['other'])
    await side.sayAll(log, ['during'])
    await side.hears(log, 1)
    broker.unfollow(log)
    await side.sayAll(log, ['after'])
    broker.unfollow('c:never')
    t.match(await broker.follow(log), { offset: 3 })
    await side.sayAll(log, ['again'])
    t.same(await side.hears(log, 2), ['during', 'again'])
    t.same([side.told.length, side.losses.length], [2, 0])
  }],
  ['following again changes nothing, and says where it stands', async (t, { side, broker }) => {
    const [first, second] = await Promise.all([broker.follow(log), broker.follow(log)])
    t.same(first, second)
    await side.sayAll(log, ['1'])
    await side.hears(log, 1)
    t.same(await broker.follow(log), { ...first, offset: 1 })
    await side.sayAll(log, ['2'])
    t.same(await side.hears(log, 2), ['1', '2'])
    broker.unfollow(log)
    broker.follow(log)
    broker.unfollow(log)
    t.match(await broker.follow(log), { offset: 2 })
    await side.sayAll(log, ['3'])
    t.same(await side.hears(log, 3), ['1', '2', '3'])
  }],
  ['what was missed is read from a position on', async (t, { side, broker }) => {
    await side.sayAll(log, numbers(10))
    const { epoch } = await broker.read(log, { limit: 0 })
    const read = async (offset: number, limit: number) => {
      const page = await broker.read(log, { since: { epoch, offset }, limit })
      t.same([page.epoch, page.offset, page.recovered], [epoch, 10, true])
      return page.entries.map(entry => entry.offset).join(' ')
    }
    t.equal(await read(0, 100), '1 2 3 4 5 6 7 8 9 10')
    t.equal(await read(7, 100), '8 9 10')
    t.equal(await read(7, 2), '8 9')
    t.equal(await read(7, 0), '')
    t.equal(await read(10, 5), '')
  }],
  ['without a position the newest are read', async (t, { side, broker }) => {
    await side.sayAll(log, numbers(5))
    const { entries, recovered } = await broker.read(log, { limit: 2 })
    t.same([entries.map(({ offset }) => offset), recovered], [[4, 5], true])
    t.equal((await broker.read(log, { limit: 100 })).entries.length, 5)
    t.equal((await broker.read(log, { limit: 0 })).entries.length, 0)
  }],
  ['a position of another epoch, or beyond the end, is not recovered, and all is read', async (t, { side, broker }) => {
    const [{ epoch } = { epoch: '' }] = await side.sayAll(log, ['1', '2', '3'])
    for (const since of [{ epoch: 'other', offset: 2 }, { epoch, offset: 4 }]) {
      const page = await broker.read(log, { since, limit: 2 })
      t.same([page.epoch, page.offset, page.recovered, page.entries.map(({ offset }) => offset)], [epoch, 3, false, [1, 2]])
    }
  }],
  ['a log that is new keeps the epoch that it was read with', async (t, { side, broker }) => {
    const page = await broker.read(log, { limit: 10 })
    t.same([page.offset, page.entries, page.recovered], [0, [], true])
    t.match(await broker.follow(log), { epoch: page.epoch, offset: 0 })
    await side.sayAll(log, ['1'])
    t.match(await broker.read(log, { since: { epoch: page.epoch, offset: 0 }, limit: 10 }), { epoch: page.epoch, offset: 1, recovered: true, entries: [{ offset: 1 }] })
  }],
  ['the oldest go when there are too many', async (t, { side, broker }) => {
    const [{ epoch } = { epoch: '' }] = await side.sayAll(log, numbers(25))
    const { entries, offset } = await broker.read(log, { limit: 100 })
    t.same([entries.map(entry => entry.offset), offset], [numbers(10, 16).map(Number), 25])
    t.match(await broker.read(log, { since: { epoch, offset: 15 }, limit: 100 }), { recovered: true })
    const page = await broker.read(log, { since: { epoch, offset: 14 }, limit: 3 })
    t.same([page.recovered, page.entries.map(entry => entry.offset)], [false, [16, 17, 18]])
  }, { entries: 10 }],
  ['the oldest go when they are too big, and the newest stays whatever its size', async (t, { side, broker }) => {
    const big = 'x'.repeat(1000)
    await side.sayAll(log, numbers(20).map(() => big))
    const { entries, offset } = await broker.read(log, { limit: 100 })
    t.equal(offset, 20)
    t.equal(entries.at(-1)!.offset, 20)
    t.ok(entries.length >= 3 && entries.length <= 5, `${entries.length} are kept`)
    await side.say(log, 'x'.repeat(10_000))
    t.same((await broker.read(log, { limit: 100 })).entries.map(entry => entry.offset), [21])
    await side.say(log, 'small')
    t.same((await broker.read(log, { limit: 100 })).entries.map(entry => entry.offset), [22])
  }, { bytes: 5500 }],
  ['the oldest go when they are too old, and who follows is not told of a loss', async (t, { side, broker, pass }) => {
    const { epoch } = await broker.follow(log)
    await side.sayAll(log, ['1', '2'])
    await pass(1800)
    await side.sayAll(log, ['3'])
    await pass(1800)
    const page = await broker.read(log, { since: { epoch, offset: 1 }, limit: 10 })
    t.same([page.epoch, page.recovered, page.entries.map(({ offset }) => offset)], [epoch, false, [3]])
    await pass(6000)
    t.match(await broker.read(log, { since: { epoch, offset: 3 }, limit: 10 }), { epoch, offset: 3, recovered: true, entries: [] })
    t.match(await broker.read(log, { since: { epoch, offset: 2 }, limit: 10 }), { recovered: false, entries: [] })
    await side.sayAll(log, ['4'])
    t.same([await side.hears(log, 4), side.losses], [['1', '2', '3', '4'], []])
  }, { ageMs: 3000 }],
  ['a log that nobody used for long begins anew', async (t, { side, broker, pass }) => {
    const { epoch } = await side.say(log, '1')
    await pass(1500)
    await side.say('c:other', 'time has passed')
    const anew = await side.say(log, '2')
    t.not(anew.epoch, epoch)
    t.equal(anew.offset, 1)
    t.match(await broker.read(log, { since: { epoch, offset: 1 }, limit: 10 }), { epoch: anew.epoch, recovered: false, entries: [{ offset: 1, data: '"2"' }] })
  }, { ageMs: 500 }],
  ['logs with whatever names do not know each other', async (t, { side, broker }) => {
    await Promise.all(odd.map(name => broker.follow(name)))
    await Promise.all(odd.map(name => side.say(name, name, { from: name, origin: name })))
    await side.waits(() => side.told.length >= odd.length)
    const told = new Map(side.told.map(entry => [entry.log, entry]))
    t.equal(told.size, odd.length)
    for (const name of odd) t.match(told.get(name), { from: name, origin: name, offset: 1, data: JSON.stringify(name) }, JSON.stringify(name))
  }]
]

export const sendings: Case[] = [
  ['the same of the same sender in the same log is stored once', async (t, { side, broker }) => {
    await broker.follow(log)
    const [first, second] = await Promise.all([side.say(log, '1', { msgId: 'm' }), side.say(log, 'other', { msgId: 'm' })])
    await side.sayAll(log, ['2'])
    const third = await side.say(log, '1', { msgId: 'm' })
    t.equal(first!.duplicate, false)
    for (const again of [second, third]) t.same(again, { ...first, duplicate: true })
    t.same(await side.hears(log, 2), ['1', '2'])
  }],
  ['the same of another sender, or in another log, is something else', async (t, { side }) => {
    await side.say(log, '1', { msgId: 'm', from: 'a' })
    const others = [
      await side.say(log, '1', { msgId: 'm', from: 'b' }),
      await side.say('c:other', '1', { msgId: 'm', from: 'a' }),
      await side.say(log, '1', { msgId: '', from: 'am' }),
      await side.say(log, '1', { from: 'a' }),
      await side.say(`${log}a`, '1', { msgId: 'm', from: '' })
    ]
    t.same(others.map(({ duplicate }) => duplicate), others.map(() => false))
    t.equal((await side.say(log, '1', { msgId: '', from: 'am' })).duplicate, true)
  }],
  ['what was sent is forgotten in time', async (t, { side, pass }) => {
    await side.say(log, '1', { msgId: 'm' })
    await pass(600)
    t.match(await side.say(log, '1', { msgId: 'm' }), { offset: 2, duplicate: false })
  }, { msgIdMs: 500 }]
]

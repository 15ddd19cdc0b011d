import { numbers } from './broker-side.js'
import { log, place, type Case } from './broker-scene.js'

const refused = { type: 'storage-unavailable', statusCode: 503 }

export const processes: Case[] = [
  ['a process hears what it says to itself, in order, and not what is said to none', async (t, { side, broker }) => {
    for (const word of numbers(100)) broker.sendToProcess(broker.process, word)
    broker.sendToProcess('nobody', 'x')
    broker.sendToProcess(broker.process, 'last')
    await side.waits(() => side.signals.length === 101)
    t.same(side.signals, [...numbers(100), 'last'].map(word => [broker.process, word]))
  }],
  ['a broker that is not open refuses, and does so again when it was closed', async (t, { side, broker }) => {
    await side.say(log, '1')
    await broker.close()
    await broker.close()
    const calls: Array<() => Promise<unknown>> = [() => side.say(log, '1'), () => broker.read(log, { limit: 1 }), () => broker.follow(log), () => broker.followPattern('a'), () => broker.enter(place, 'a', '{}'), () => broker.leave(place, 'a'), () => broker.roster(place), () => broker.watch(place)]
    for (const call of calls) t.match(await call().then(() => 'done', (error: unknown) => error), refused)
    broker.unfollow(log)
    broker.unfollowPattern('a')
    broker.unwatch(place)
    broker.sendToProcess(broker.process, 'x')
    t.same([side.told, side.signals], [[], []])
  }],
  ['who is told of something may close', async (t, { side, broker }) => {
    await broker.follow(log)
    let closing: Promise<void> | undefined
    side.onEntry = () => { closing ??= broker.close() }
    await Promise.allSettled([side.sayAll(log, ['1', '2', '3'])])
    await side.waits(() => closing !== undefined)
    await closing
    t.same(side.heard(log), ['1'])
  }]
]

export const several: Case[] = [
  ['what one appends another is told, in the same order as everybody', async (t, { side, another }) => {
    const other = await another()
    await side.broker.follow(log)
    await other.broker.followPattern('workflows/*')
    await Promise.all(numbers(20).map(async round => {
      await Promise.all([side.sayAll(log, numbers(20).map(n => `a-${round}-${n}`)), other.sayAll(log, numbers(20).map(n => `b-${round}-${n}`))])
    }))
    await side.hears(log, 800)
    t.same(await other.hears(log, 800), side.heard(log))
    t.same(side.told.map(({ offset }) => offset), numbers(800, 1).map(Number))
    t.same((await other.broker.read(log, { limit: 800 })).entries.map(({ data }) => JSON.parse(data)), side.heard(log))
  }],
  ['the same message by two processes is stored once', async (t, { side, another }) => {
    const other = await another()
    const [first, second] = await Promise.all([side.say(log, '1', { msgId: 'm' }), other.say(log, '1', { msgId: 'm' })])
    t.same([first!.duplicate, second!.duplicate].sort(), [false, true])
    t.same([first!.epoch, first!.offset], [second!.epoch, second!.offset])
  }],
  ['a peer joins with the first process that it enters by, and leaves with the last', async (t, { side, another }) => {
    const other = await another()
    await Promise.all([side.broker.watch(place), other.broker.watch(place)])
    await side.broker.enter(place, 'a', '1')
    await other.broker.enter(place, 'a', '2')
    await other.broker.enter(place, 'b', '3')
    await other.broker.enter(place, 'a', '4')
    await side.broker.leave(place, 'a')
    await side.broker.leave(place, 'b')
    t.same(await side.there(place), ['a 4', 'b 3'])
    await other.broker.leave(place, 'a')
    const moves = ['+a', '(+a)', '+b', '=a', '(-a)', '-a']
    t.same([await side.seesMoves(place, 6), await other.seesMoves(place, 6)], [moves, moves])
    t.same(side.changes, other.changes)
    t.same(side.changes.map(({ process }) => process), [side, other, other, other, side, other].map(({ broker }) => broker.process))
  }],
  ['with a process everybody leaves who entered by it', async (t, { side, another }) => {
    const other = await another()
    await side.broker.watch(place)
    await side.broker.enter(place, 'p0', '{}')
    await Promise.all(numbers(1200).map(n => other.broker.enter(Number(n) < 600 ? place : 'c:other', `p${n}`, '{}')))
    await other.broker.close()
    await side.seesMoves(place, 1 + 600 + 600)
    t.same(side.moves(place).slice(601).sort(), numbers(600).map(n => n === '0' ? '(-p0)' : `-p${n}`).sort())
    t.same([await side.there(place), await side.there('c:other')], [['p0 {}'], []])
  }],
  ['processes speak to each other, in order', async (t, { side, another }) => {
    const [b, c] = [await another(), await another()]
    for (const word of numbers(300)) for (const to of [b, c]) side.broker.sendToProcess(to.broker.process, `${word}"☃`)
    await new Promise(resolve => setImmediate(resolve))
    for (const word of numbers(300, 300)) for (const to of [b, c]) side.broker.sendToProcess(to.broker.process, `${word}"☃`)
    for (const to of [b, c]) {
      await to.waits(() => to.signals.length >= 600)
      t.same(to.signals, numbers(600).map(word => [side.broker.process, `${word}"☃`]))
    }
    t.same(side.signals, [])
  }]
]

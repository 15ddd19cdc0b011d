import t from 'tap'
import fc from 'fast-check'
import { monotonicClock } from '../../../src/lib/clock.js'
import { LeaseQueue, SelfPreservation } from '../../../src/storage/memory/leases.js'

t.test('lease queue: expired leases are read oldest first, and stay until deleted', async t => {
  const queue = new LeaseQueue()
  queue.set('a', 10)
  queue.set('b', 10)
  queue.set('c', 11)
  queue.set('a', 12)
  t.same([...queue.due(9)], [])
  t.same([...queue.due(11)], ['b', 'c'])
  t.same([...queue.due(12)], ['b', 'c', 'a'])
  queue.delete('c')
  queue.delete('never')
  t.same([...queue.due(12)], ['b', 'a'])
  t.equal(queue.size, 2)
  queue.shift(5)
  t.same([...queue.due(12)], [])
  t.same([...queue.due(15)], ['b'])
})

t.test('lease queue: expired leases may be deleted while they are read', async t => {
  const queue = new LeaseQueue()
  for (let index = 0; index < 10; index++) queue.set(`agent-${index}`, index)
  for (const id of queue.due(6)) queue.delete(id)
  t.same([...queue.due(100)], ['agent-7', 'agent-8', 'agent-9'])
})

t.test('lease queue: leases deleted or renewed since the read started are skipped', async t => {
  const queue = new LeaseQueue()
  for (const id of ['a', 'b', 'c', 'd']) queue.set(id, 1)
  const read: string[] = []
  for (const id of queue.due(1)) {
    read.push(id)
    queue.delete('b')
    queue.set('c', 2)
  }
  t.same(read, ['a', 'd'])
  t.same([...queue.due(2)], ['a', 'd', 'c'])
})

interface Model { deadlines: Map<string, number>, now: number }
const leaseMs = 100

/** One step of a fleet: the queue and a naive model of it do the same. */
function step (queue: LeaseQueue, model: Model, [kind, id, ms]: [string, string, number]) {
  if (kind === 'stall') {
    model.now += ms
    queue.shift(ms)
    for (const [known, deadline] of model.deadlines) model.deadlines.set(known, deadline + ms)
  } else if (kind === 'set') {
    queue.set(id, model.now + leaseMs)
    model.deadlines.set(id, model.now + leaseMs)
  } else if (kind === 'delete') {
    queue.delete(id)
    model.deadlines.delete(id)
  } else {
    model.now += ms
  }
}

t.test('lease queue: it finds the same expired leases as a full scan', async t => {
  const command = fc.tuple(fc.constantFrom('set', 'set', 'delete', 'pass', 'stall'), fc.constantFrom('a', 'b', 'c', 'd', 'e'), fc.nat(60))
  t.doesNotThrow(() => fc.assert(fc.property(fc.array(command, { maxLength: 60 }), steps => {
    const queue = new LeaseQueue()
    const model: Model = { deadlines: new Map(), now: 0 }
    return steps.every(entry => {
      step(queue, model, entry)
      const due = [...model.deadlines].filter(([, deadline]) => deadline <= model.now).map(([id]) => id)
      return JSON.stringify([...queue.due(model.now)].sort()) === JSON.stringify(due.sort())
    })
  })))
})

t.test('lease queue: the cost of a read depends on the expired leases only', async t => {
  const queue = new LeaseQueue()
  for (let index = 0; index < 200_000; index++) queue.set(`agent-${index}`, index)
  let read = 0
  const deadlines = queue.due(4)
  while (!deadlines.next().done) read++
  t.equal(read, 5)
  const start = performance.now()
  for (let index = 0; index < 1000; index++) queue.due(-1).next()
  t.ok(performance.now() - start < 1000, 'a sweep without deaths reads one lease')
})

t.test('self-preservation: without expired leases none is held, also just after many expired', async t => {
  const preservation = new SelfPreservation({ leaseMs: 1000, enabled: true })
  t.equal(preservation.holds(0, 50, 100), true)
  t.equal(preservation.holds(1, 0, 100), false)
  t.equal(preservation.holds(999, 1, 100), true, 'those of the last lease count')
  t.equal(preservation.holds(1000, 1, 100), false, 'those of a lease ago do not')
})

t.test('self-preservation: when disabled it holds no lease', async t => {
  const preservation = new SelfPreservation({ leaseMs: 1000, enabled: false })
  t.equal(preservation.holds(0, 1000, 1000), false)
  t.equal(preservation.heldCount, 0)
})

t.test('self-preservation: a paused release does not catch up', async t => {
  const preservation = new SelfPreservation({ leaseMs: 100, enabled: true })
  const go = (now: number) => {
    const due = preservation.due(now, 20)
    for (const id of due) preservation.forget(id)
    return due.length
  }
  preservation.hold('a', 0)
  t.equal(go(299), 0)
  t.equal(go(300), 1)
  for (let index = 0; index < 20; index++) preservation.hold(`b${index}`, 10_000)
  t.equal(go(10_299), 0)
  t.equal(go(10_300), 1)
  t.equal(go(11_300), 3)
})

t.test('self-preservation: the release rate is that of the fleet at its start', async t => {
  const preservation = new SelfPreservation({ leaseMs: 100, enabled: true })
  for (let index = 0; index < 100; index++) preservation.hold(`a${index}`, 0)
  preservation.release()
  t.same(preservation.due(1, 100), ['a0'])
  t.equal(preservation.due(1001, 1).length, 15)
  t.equal(preservation.heldCount, 100, 'the caller reports those it took')
})

t.test('lease clock: it counts milliseconds, follows the system clock and never goes back', async t => {
  const clock = monotonicClock()
  let last = clock()
  t.ok(Math.abs(last - Date.now()) < 1000)
  for (let index = 0; index < 10_000; index++) {
    const now = clock()
    if (now < last || !Number.isInteger(now)) t.fail(`${now} after ${last}`)
    last = now
  }
  const start = clock()
  await new Promise(resolve => setTimeout(resolve, 30))
  t.ok(clock() - start >= 20)
})

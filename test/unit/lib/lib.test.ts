import fc from 'fast-check'
import t from 'tap'
import { Emitter } from '../../../src/lib/emitter.js'
import { callHook } from '../../../src/lib/hook-timeout.js'
import { TokenBucket } from '../../../src/lib/token-bucket.js'

interface Events { opened: [name: string], closed: [name: string, code: number] }

t.test('emitter: listeners are called in the order in which they subscribed', async t => {
  const emitter = new Emitter<Events>()
  const calls: unknown[] = []
  emitter.on('closed', (name, code) => calls.push(['first', name, code]))
  emitter.on('closed', (name, code) => calls.push(['second', name, code]))
  emitter.emit('closed', 'a', 1000)
  emitter.emit('opened', 'b')
  t.same(calls, [['first', 'a', 1000], ['second', 'a', 1000]])
})

t.test('emitter: an unsubscribed listener is not called again', async t => {
  const emitter = new Emitter<Events>()
  const calls: string[] = []
  const unsubscribe = emitter.on('opened', name => calls.push(name))
  t.ok(emitter.has('opened'))
  emitter.emit('opened', 'a')
  unsubscribe()
  unsubscribe()
  emitter.emit('opened', 'b')
  t.same(calls, ['a'])
  t.notOk(emitter.has('opened'))
})

t.test('emitter: a listener that subscribes or unsubscribes others does not affect the running event', async t => {
  const emitter = new Emitter<Events>()
  const calls: string[] = []
  emitter.on('opened', () => {
    removeSecond()
    emitter.on('opened', () => calls.push('added'))
  })
  const removeSecond = emitter.on('opened', () => calls.push('second'))
  emitter.emit('opened', 'a')
  t.same(calls, ['second'])
  emitter.emit('opened', 'b')
  t.same(calls, ['second', 'added'])
})

t.test('hook timeout: a hook may be synchronous or asynchronous', async t => {
  t.equal(await callHook('embed', 1000, () => 1), 1)
  t.equal(await callHook('embed', 1000, async () => 2), 2)
})

t.test('hook timeout: an error of a hook is passed on', async t => {
  await t.rejects(callHook('embed', 1000, () => { throw new Error('at once') }), { message: 'at once' })
  await t.rejects(callHook('embed', 1000, async () => { throw new Error('later') }), { message: 'later' })
})

t.test('hook timeout: a hook that hangs is abandoned, and its late failure has no effect', async t => {
  const alive = setInterval(() => {}, 1000)
  t.teardown(() => clearInterval(alive))
  let fail!: (error: Error) => void
  const hanging = new Promise<void>((_resolve, reject) => { fail = reject })
  await t.rejects(callHook('embed', 5, () => hanging), { code: 'AGENT_REGISTRY_HOOK_TIMEOUT', statusCode: 503, message: /embed.*5 ms/ })
  fail(new Error('too late'))
  await new Promise(resolve => setImmediate(resolve))
})

const start = Date.UTC(2030, 0, 1)

t.test('token bucket: it allows one burst, then the rate', async t => {
  const bucket = new TokenBucket({ perSecond: 10, burst: 3, now: start })
  t.strictSame([0, 0, 0, 0, 0].map(() => bucket.take(start)), [0, 0, 0, 100, 100])
  t.equal(bucket.take(start + 99), 1)
  t.equal(bucket.take(start + 100), 0)
  t.equal(bucket.fullAt, start + 400)
  t.strictSame([0, 0, 0, 0].map(() => bucket.take(start + 60_000)), [0, 0, 0, 100], 'a long silence gives one burst, not more')
})

t.test('token bucket: a clock set back neither adds nor removes tokens', async t => {
  const bucket = new TokenBucket({ perSecond: 10, burst: 1, now: start })
  t.equal(bucket.take(start), 0)
  t.equal(bucket.take(start - 3_600_000), 100)
  t.equal(bucket.take(start - 3_600_000 + 100), 0)
})

t.test('token bucket: the wait is exact to the millisecond at any rate and history', async () => {
  const pauses = fc.array(fc.integer({ min: 0, max: 500 }), { maxLength: 200 })
  fc.assert(fc.property(fc.integer({ min: 1, max: 2000 }), fc.integer({ min: 1, max: 50 }), pauses, (perSecond, burst, pauses) => {
    const bucket = new TokenBucket({ perSecond, burst, now: start })
    let [now, passed] = [start, 0]
    for (const pause of pauses) {
      now += pause
      const wait = bucket.take(now)
      if (wait > 1 && bucket.wait(now + wait - 1) === 0) return false
      now += wait
      if (wait > 0 && bucket.take(now) > 0) return false
      passed++
      if (passed > burst + (now - start) / 1000 * perSecond + 1e-3) return false
    }
    return true
  }), { numRuns: 300 })
})

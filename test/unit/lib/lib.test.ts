import fc from 'fast-check'
import t from 'tap'
import { Emitter } from '../../../src/lib/emitter.js'
import { callHook } from '../../../src/lib/hook-timeout.js'
import { RunOnce } from '../../../src/lib/run-once.js'
import { TokenBucket } from '../../../src/lib/token-bucket.js'
import { MemoryKeyValueStore } from '../../../src/storage/memory/kv-store.js'
import { manualClock } from '../auth/helper.js'
import { seed } from '../../support/lengths.js'

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

t.test(`token bucket: the wait is exact to the millisecond at any rate and history (TEST_SEED=${seed})`, async () => {
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

function buildRunOnce (limits?: { maxRecords: number, maxBytes: number, maxRecordsPerOwner: number }) {
  const now = manualClock()
  const store = new MemoryKeyValueStore({ clock: now })
  const runOnce = new RunOnce({ store, kind: 'spent', now, keptMs: 60_000, ...(limits && { limits }) })
  const claim = (key: string, request = 'a', owner = 'owner') => runOnce.claim({ key, request, owner, runMs: 1000 })

  async function run (key: string, result: unknown, owner?: string) {
    const held = await claim(key, 'a', owner)
    if (held.state !== 'held') throw new Error(`${key} is ${held.state}`)
    return runOnce.run(held, async () => result, value => value)
  }

  return { now, store, runOnce, claim, run }
}

t.test('run once: a key is held, running and done', async t => {
  const { claim, runOnce } = buildRunOnce()
  const held = await claim('key')
  if (held.state !== 'held') return t.fail('the first claim is held')
  t.same(await claim('key', 'b'), { state: 'running', request: 'a' })
  t.equal(await runOnce.run(held, async () => 7, value => ({ value })), 7)
  t.match(await claim('key', 'b'), { state: 'done', request: 'a', value: { value: 7 } })
})

t.test('run once: a failed request releases its key', async t => {
  const { claim, runOnce } = buildRunOnce()
  const held = await claim('key')
  if (held.state !== 'held') return t.fail('the first claim is held')
  await t.rejects(runOnce.run(held, async () => { throw new Error('no') }, value => value), { message: 'no' })
  t.equal((await claim('key')).state, 'held')
})

t.test('run once: a claim lapses after its time, and a record expires', async t => {
  const { claim, run, now } = buildRunOnce()
  t.equal((await claim('lapsed')).state, 'held')
  now.advance(999)
  t.equal((await claim('lapsed')).state, 'running')
  now.advance(1)
  t.equal((await claim('lapsed')).state, 'held')
  await run('recorded', 1)
  now.advance(59_999)
  t.equal((await claim('recorded')).state, 'done')
  now.advance(1)
  t.equal((await claim('recorded')).state, 'held')
})

t.test('run once: beyond a limit the oldest records expire early', async t => {
  async function kept (limits: Parameters<typeof buildRunOnce>[0], runs: ReadonlyArray<[key: string, result: unknown, owner: string]>) {
    const { run, claim } = buildRunOnce(limits)
    for (const [key, result, owner] of runs) await run(key, result, owner)
    const states = await Promise.all(runs.map(async ([key]) => [key, (await claim(key)).state]))
    return states.flatMap(([key, state]) => state === 'done' ? key : [])
  }
  const many = { maxRecords: 100, maxBytes: 1e6, maxRecordsPerOwner: 100 }
  const runs: Array<[string, unknown, string]> = [['a1', 1, 'a'], ['b1', 1, 'b'], ['a2', 1, 'a'], ['a3', 1, 'a']]
  t.same(await kept(many, runs), ['a1', 'b1', 'a2', 'a3'])
  t.same(await kept({ ...many, maxRecordsPerOwner: 2 }, runs), ['b1', 'a2', 'a3'])
  t.same(await kept({ ...many, maxRecords: 2 }, runs), ['a2', 'a3'])
  const large = 'x'.repeat(600)
  t.same(await kept({ ...many, maxBytes: 1000 }, [['a1', 1, 'a'], ['b1', large, 'b'], ['a2', large, 'a']]), ['a2'])
})

t.test('run once: expired records do not count against a limit', async t => {
  const { run, claim, now } = buildRunOnce({ maxRecords: 2, maxBytes: 1e6, maxRecordsPerOwner: 2 })
  await run('old', 1)
  now.advance(60_000)
  await run('one', 1)
  await run('two', 1)
  t.same((await Promise.all(['one', 'two'].map(key => claim(key)))).map(({ state }) => state), ['done', 'done'])
})

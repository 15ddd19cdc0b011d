import t from 'tap'
import { stateContract, type StateContractFlags, type StateContractSettings } from '../../../src/storage/contract/index.js'
import { MemoryKeyValueStore } from '../../../src/storage/memory/kv-store.js'
import { KeyedTokenBuckets } from '../../../src/lib/token-bucket.js'
import { forever, type KeyValueListener } from '../../../src/storage/kv-store.js'
import { manualClock } from '../auth/helper.js'

async function build ({ clock }: StateContractSettings) {
  const store = new MemoryKeyValueStore({ clock })
  return { store, another: async () => store, reopen: async () => store }
}

/** Runs the contract inside a subtest, whose tests `declare` collects. */
function contract (name: string, builder: typeof build, flags: StateContractFlags, least: number) {
  t.test(name, async t => {
    const tests: Array<Promise<unknown>> = []
    stateContract({
      test: (name, run) => tests.push(t.test(name, async t => { await t.resolves(run()) })),
      build: builder,
      flags
    })
    t.ok(tests.length >= least)
    await Promise.all(tests)
  })
}

contract('shared facts in memory keep the contract', build, { persistent: true, shared: true }, 19)
contract('shared facts in memory keep the contract by their own clock', async () => build({ clock: Date.now }), { injectedClock: false, persistent: true, shared: true }, 17)

t.test('a suite of its own may leave out the flags', async t => {
  const names: string[] = []
  stateContract({ test: name => names.push(name), build })
  t.notOk(names.includes('two processes draw from the same bucket'))
  t.equal(new Set(names).size, names.length)
})

t.test('what is closed tells nobody', async t => {
  const state = new MemoryKeyValueStore()
  let heard = 0
  const listener: KeyValueListener = { changed () { heard++ }, reloaded () {} }
  await state.open(listener)
  await state.put({ kind: 'session', key: 'one', value: 'x', until: forever })
  await state.close()
  await state.put({ kind: 'session', key: 'two', value: 'x', until: forever })
  t.equal(heard, 1)
})

t.test('of a kind with a limit the oldest make room', async t => {
  const state = new MemoryKeyValueStore({ limits: { ticket: 2 } })
  for (const key of ['a', 'b', 'c']) await state.put({ kind: 'ticket', key, value: key, until: forever })
  t.same((await state.list('ticket')).map(({ key }) => key), ['b', 'c'])
})

const settings = { burst: 5, windowMs: 50_000 }

t.test('buckets are bounded, the emptiest are kept longest, and what is full is not kept', async t => {
  const now = manualClock()
  const buckets = new KeyedTokenBuckets(now, 20)
  for (let n = 0; n < 5; n++) buckets.take(['worst'], settings)
  for (let n = 0; n < 100; n++) buckets.take([`some-${n}`], settings)
  t.ok(buckets.size <= 20)
  t.equal(buckets.take(['worst'], settings), 10_000)
  now.advance(50_000)
  for (let n = 0; n < 20; n++) buckets.take([`other-${n}`], settings)
  t.ok(buckets.size <= 20)
  t.equal(buckets.take(['worst'], settings), null)
  buckets.putBack(['worst'], settings)
  for (let n = 0; n < 20; n++) buckets.putBack([`other-${n}`], settings)
  t.equal(buckets.size, 0)
})

t.test('a bucket that is drained has a token after the time that was said', async t => {
  const now = manualClock()
  const buckets = new KeyedTokenBuckets(now)
  buckets.drain(['a'], settings, 4_000)
  t.equal(buckets.take(['a'], settings), 4_000)
  buckets.drain(['a'], settings, 1_000)
  t.equal(buckets.take(['a'], settings), 4_000, 'it never gains by that')
  now.advance(4_000)
  t.equal(buckets.take(['a'], settings), null)
  t.equal(buckets.take(['a'], settings), 10_000)
})

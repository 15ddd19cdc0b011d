import assert from 'node:assert/strict'
import type { KeyValueStore } from '../kv-store.js'
import type { StateCase } from './state-scene.js'

const settings = { burst: 4, windowMs: 40_000 }
const range = (length: number) => Array.from({ length }, (_, index) => index)

/** What that many draws at once come to. */
function drawn (store: KeyValueStore, keys: readonly string[], times: number, of = settings): Promise<Array<number | null>> {
  return Promise.all(range(times).map(() => store.takeTokens(keys, of)))
}

function assertBurst (waits: ReadonlyArray<number | null>) {
  assert.equal(waits.filter(wait => wait === null).length, 4)
}

function assertWait (wait: number | null, most: number) {
  assert.ok(wait !== null && wait > 0 && wait <= most, `a wait of ${wait}`)
}

/** Buckets of tokens. */
export const buckets: StateCase[] = [
  ['a bucket holds a burst, of which many at once get no more', async scene => {
    const waits = await drawn(scene.store, ['a'], 10)
    assertBurst(waits)
    for (const wait of waits.filter(wait => wait !== null)) assertWait(wait, 10_000)
    assert.equal(await scene.store.takeTokens(['b'], settings), null)
  }],
  ['where one bucket of several is empty none is drawn from', async scene => {
    await drawn(scene.store, ['a'], 4)
    for (const wait of await drawn(scene.store, ['a', 'b'], 3)) assertWait(wait, 10_000)
    assert.deepEqual(await drawn(scene.store, ['b'], 4), [null, null, null, null])
    assertWait(await scene.store.takeTokens(['b'], settings), 10_000)
  }],
  ['what is given back can be drawn again, and a bucket never holds more than a burst', async scene => {
    await drawn(scene.store, ['a', 'b'], 4)
    await scene.store.returnTokens(['a', 'b'], settings)
    assert.equal(await scene.store.takeTokens(['a', 'b'], settings), null)
    assertWait(await scene.store.takeTokens(['a'], settings), 10_000)
    await Promise.all(range(10).map(() => scene.store.returnTokens(['a', 'b', 'c'], settings)))
    assertBurst(await drawn(scene.store, ['a', 'b', 'c'], 10))
  }],
  ['tokens come back evenly within the window', async scene => {
    await drawn(scene.store, ['a'], 4)
    await scene.pass(9_999)
    assertWait(await scene.store.takeTokens(['a'], settings), 1)
    await scene.pass(1)
    assert.equal(await scene.store.takeTokens(['a'], settings), null)
    assertWait(await scene.store.takeTokens(['a'], settings), 10_000)
    await scene.pass(1_000_000)
    assertBurst(await drawn(scene.store, ['a'], 10))
  }, { exact: true }],
  ['whoever waits as long as was said gets a token', async scene => {
    const quick = { burst: 2, windowMs: 400 }
    await drawn(scene.store, ['a'], 2, quick)
    const wait = await scene.store.takeTokens(['a'], quick) ?? 0
    await scene.pass(Math.ceil(wait))
    assert.equal(await scene.store.takeTokens(['a'], quick), null)
  }],
  ['two processes draw from the same bucket', async scene => {
    const other = await scene.another()
    const waits = await Promise.all([scene.store, other.store].map(store => drawn(store, ['a'], 5)))
    assertBurst(waits.flat())
    await other.store.returnTokens(['a'], settings)
    assert.equal(await scene.store.takeTokens(['a'], settings), null)
  }, { shared: true }]
]

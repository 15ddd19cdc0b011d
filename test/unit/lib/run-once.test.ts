import t from 'tap'
import { RunOnce } from '../../../src/lib/run-once.js'
import { MemoryKeyValueStore } from '../../../src/storage/memory/kv-store.js'
import { manualClock } from '../auth/helper.js'

function build (limits?: { maxRecords: number, maxBytes: number, maxRecordsPerOwner: number }) {
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
  const { claim, runOnce } = build()
  const held = await claim('key')
  if (held.state !== 'held') return t.fail('the first claim is held')
  t.same(await claim('key', 'b'), { state: 'running', request: 'a' })
  t.equal(await runOnce.run(held, async () => 7, value => ({ value })), 7)
  t.match(await claim('key', 'b'), { state: 'done', request: 'a', value: { value: 7 } })
})

t.test('run once: a failed request releases its key', async t => {
  const { claim, runOnce } = build()
  const held = await claim('key')
  if (held.state !== 'held') return t.fail('the first claim is held')
  await t.rejects(runOnce.run(held, async () => { throw new Error('no') }, value => value), { message: 'no' })
  t.equal((await claim('key')).state, 'held')
})

t.test('run once: a claim lapses after its time, and a record expires', async t => {
  const { claim, run, now } = build()
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
  async function kept (limits: Parameters<typeof build>[0], runs: ReadonlyArray<[key: string, result: unknown, owner: string]>) {
    const { run, claim } = build(limits)
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
  const { run, claim, now } = build({ maxRecords: 2, maxBytes: 1e6, maxRecordsPerOwner: 2 })
  await run('old', 1)
  now.advance(60_000)
  await run('one', 1)
  await run('two', 1)
  t.same((await Promise.all(['one', 'two'].map(key => claim(key)))).map(({ state }) => state), ['done', 'done'])
})

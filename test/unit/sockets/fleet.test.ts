import t, { type Test } from 'tap'
import { KeyValueReplica } from '../../../src/storage/kv-replica.js'
import { problem } from '../../../src/errors.js'
import { FleetConnections } from '../../../src/limits/connection-slots.js'
import type { TierName } from '../../../src/protocol/frames/catalogues.js'
import { MemoryKeyValueStore } from '../../../src/storage/memory/kv-store.js'
import { build, until } from '../../support/harness.js'

interface Process { sockets: FleetConnections, counts: Record<TierName, number>, errors: unknown[], state: MemoryKeyValueStore }

/** The sockets of a process, said in a store of its own; what is said there is passed on by the test. */
async function open (t: Test, now = Date.now): Promise<Process> {
  const state = new MemoryKeyValueStore({ clock: now })
  const shared = new KeyValueReplica(state)
  await shared.open()
  const counts = { public: 0, agents: 0, dashboard: 0, v1: 0 }
  const errors: unknown[] = []
  const sockets = new FleetConnections({ state: shared, now, countOf: tier => counts[tier], onError: error => { errors.push(error) } })
  sockets.start()
  t.teardown(() => { sockets.stop() })
  return { sockets, counts, errors, state }
}

t.test('sockets of other processes count for as long as those say so', async t => {
  let now = Date.now()
  const { sockets, counts, state } = await open(t, () => now)
  counts.public = 2
  await state.put({ kind: 'sockets', key: 'other', value: '{"public":3,"agents":1,"dashboard":0}', until: now + 1000 })
  await state.put({ kind: 'sockets', key: 'third', value: '{"public":4,"agents":0,"dashboard":0}', until: now + 60_000 })
  t.same([sockets.countOf('public'), sockets.countOf('agents')], [9, 1])
  now += 1000
  t.equal(sockets.countOf('public'), 6, 'who has not been heard of for a while is gone')
  await until(() => [...sockets.keys()].length === 1)
  await state.take('sockets', 'third')
  t.equal(sockets.countOf('public'), 2)
})

t.test('a process says how many it has when that changes, and not to itself', async t => {
  const { sockets, counts, state } = await open(t)
  counts.agents = 5
  await until(async () => (await state.list('sockets')).some(({ value }) => JSON.parse(value!).agents === 5))
  counts.agents = 6
  await until(async () => (await state.list('sockets')).some(({ value }) => JSON.parse(value!).agents === 6))
  t.equal((await state.list('sockets')).length, 1)
  t.equal(sockets.countOf('agents'), 6)
})

t.test('a store that is away is told of elsewhere, another fault here, and it is said again', async t => {
  const { counts, errors, state } = await open(t)
  const faults = [problem('storage-unavailable', 'away'), new Error('broken')]
  const put = state.put.bind(state)
  state.put = async (...args) => {
    const fault = faults.shift()
    if (fault) throw fault
    return put(...args)
  }
  counts.public = 1
  await until(async () => (await state.list('sockets')).length === 1)
  t.match(errors, [{ message: 'broken' }])
  t.equal(errors.length, 1)
})

t.test('without others the limit of the fleet is one of this process', async t => {
  const registry = await build(t, { publicWs: { maxFleetConnections: 1 } })
  const first = registry.socket('/public/ws')
  await first.next('welcome')
  t.match(await registry.socket('/public/ws').refused, { status: 503 })
  first.close()
  await until(async () => {
    const client = registry.socket('/public/ws')
    return await Promise.race([client.next('welcome').then(() => true), client.refused.then(() => false)])
  })
})

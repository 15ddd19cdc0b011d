import t from 'tap'
import { storeContract, type ContractFlags, type ContractSettings } from '../../../src/storage/contract/index.js'
import type { StoreListener } from '../../../src/storage/agent-store.js'
import { MemoryAgentStore } from '../../../src/storage/memory/agent-store.js'

async function build (settings: ContractSettings) {
  const store = new MemoryAgentStore(settings)
  return { store, reopen: async () => store }
}

async function buildWithItsClock ({ leaseMs, retentionMs, preservation }: ContractSettings) {
  return { store: new MemoryAgentStore({ leaseMs, retentionMs, preservation }) }
}

/** Runs the contract inside a subtest, whose tests `declare` collects. */
function contract (name: string, builder: typeof build | typeof buildWithItsClock, flags: ContractFlags) {
  t.test(name, async t => {
    const tests: Array<Promise<unknown>> = []
    storeContract({
      test: (name, run) => tests.push(t.test(name, async t => { await t.resolves(run()) })),
      build: builder,
      flags
    })
    t.ok(tests.length > 70)
    await Promise.all(tests)
  })
}

contract('a memory store keeps the contract', build, { persistent: true })
contract('a memory store keeps the contract by its own clock', buildWithItsClock, { injectedClock: false })

t.test('a suite of its own may leave out the flags', async t => {
  const names: string[] = []
  storeContract({ test: name => names.push(name), build })
  t.notOk(names.includes('agents outlive the store, and the numbers of changes go on or the epoch is another'))
  t.equal(new Set(names).size, names.length)
})

const deaf: StoreListener = { changed () {}, touched () {}, reloaded () {}, availability () {} }

t.test('a closed memory store tells nobody of its changes', async t => {
  const store = new MemoryAgentStore({ leaseMs: 1000, retentionMs: 1000 })
  let heard = 0
  await store.open({ ...deaf, changed: changes => { heard += changes.length } })
  const command = { content: { body: '{}', type: 'testing', capabilities: [] }, claim: { kind: 'owner' } as const, maxAgents: 10 }
  await store.register({ id: 'one', ...command })
  await store.close()
  await store.register({ id: 'two', ...command })
  t.equal(heard, 1)
})

t.test('two memory stores have different epochs', async t => {
  const epochs = await Promise.all([1, 2].map(() => new MemoryAgentStore({ leaseMs: 1000, retentionMs: 1000 }).open(deaf)))
  t.not(epochs[0]!.epoch, epochs[1]!.epoch)
})

t.test('changes of a store that nobody opened harm nothing', async t => {
  const store = new MemoryAgentStore({ leaseMs: 1000, retentionMs: 1000 })
  const command = { id: 'one', content: { body: '{}', type: 'testing', capabilities: [] }, claim: { kind: 'owner' } as const, maxAgents: 10 }
  t.match(await store.register(command), { ok: true, created: true })
  t.match(await store.open(deaf), { revision: 1, agents: [{ id: 'one' }] })
})

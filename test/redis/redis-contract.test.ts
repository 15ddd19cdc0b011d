import t from 'tap'
import {
  stateContract, storeContract, type ContractFlags, type ContractSettings, type StateContractSettings
} from '../../src/storage/contract/index.js'
import { RedisStorage, type RedisStorageOptions } from '../../src/storage/redis/storage.js'
import { RedisServer } from '../support/redis-server.js'

const server = await RedisServer.start()
t.teardown(() => server.stop())

let namespaces = 0

/** Makes storages that share a namespace of their own. */
function family (options: Partial<RedisStorageOptions>) {
  const namespace = `contract-${namespaces++}`
  return () => new RedisStorage({ connection: { path: server.path }, namespace, leaseMs: 1000, retentionMs: 1000, commandTimeoutMs: 10_000, onError: error => { throw error }, ...options })
}

async function build (settings: ContractSettings) {
  const make = family(settings)
  return { store: make().agents, reopen: async () => make().agents }
}

async function buildWithItsClock ({ leaseMs, retentionMs, preservation }: ContractSettings) {
  const make = family({ leaseMs, retentionMs, preservation })
  return { store: make().agents, reopen: async () => make().agents }
}

function contract (name: string, builder: typeof build, flags: ContractFlags) {
  t.test(name, async t => {
    let count = 0
    storeContract({
      test: (name, run) => {
        count++
        t.test(name, async t => { await t.resolves(run()) })
      },
      build: builder,
      flags
    })
    t.ok(count > 70)
  })
}

contract('redis agent store: passes the agent store contract', build, { persistent: true })
contract('redis agent store: passes the agent store contract on the clock of Redis', buildWithItsClock, { injectedClock: false, persistent: true })

async function buildState ({ clock }: StateContractSettings) {
  const make = family({ clock })
  return { store: make().kv, reopen: async () => make().kv, another: async () => make().kv }
}

t.test('redis kv store: passes the key-value contract', async t => {
  let count = 0
  stateContract({
    test: (name, run) => {
      count++
      t.test(name, async t => { await t.resolves(run()) })
    },
    build: buildState,
    flags: { persistent: true, shared: true }
  })
  t.ok(count > 10)
})

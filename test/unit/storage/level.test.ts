import t, { type Test } from 'tap'
import { join } from 'node:path'
import { stateContract, storeContract, type ContractSettings, type StateContractSettings } from '../../../src/storage/contract/index.js'
import { LevelStorage, type LevelStorageOptions } from '../../../src/storage/level/storage.js'

const root = t.testdir()
let folders = 0
const newFolder = () => join(root, `store-${folders++}`)

async function buildAgents (settings: ContractSettings, more: Partial<LevelStorageOptions> = {}) {
  const path = newFolder()
  const make = () => new LevelStorage({ path, ...settings, ...more }).agents
  return { store: make(), reopen: async () => make() }
}

async function buildState ({ clock }: StateContractSettings) {
  const path = newFolder()
  const make = () => new LevelStorage({ path, leaseMs: 1000, retentionMs: 1000, clock }).kv
  return { store: make(), reopen: async () => make() }
}

/** Runs a contract inside a subtest, whose tests `declare` collects. */
function contract (name: string, least: number, declare: (test: (name: string, run: () => Promise<void>) => unknown) => void) {
  t.test(name, async (t: Test) => {
    const tests: Array<Promise<unknown>> = []
    declare((name, run) => tests.push(t.test(name, async t => { await t.resolves(run()) })))
    t.ok(tests.length >= least)
    await Promise.all(tests)
  })
}

contract('agents in a level store keep the contract', 70, test => {
  storeContract({ test, build: buildAgents, flags: { persistent: true } })
})

contract('agents in a level store that forces writes to the disk keep the contract', 70, test => {
  storeContract({ test, build: settings => buildAgents(settings, { durability: 'sync' }), flags: { persistent: true } })
})

contract('shared facts in a level store keep the contract', 15, test => {
  stateContract({ test, build: buildState, flags: { persistent: true } })
})

import type { MessageBroker } from '../message-broker.js'
import { changing, registering, reporting } from './agent-cases.js'
import { AgentScene, testTime, type AgentCase, type ContractSettings, type ContractStore } from './agent-scene.js'
import { brokerCases, sharedBrokerCases } from './broker-cases.js'
import { BrokerProcess, type BrokerCase, type BrokerContractSettings, type BrokerContractStore } from './broker-scene.js'
import { liveness, preservation } from './lease-cases.js'

export type { BrokerContractSettings, BrokerContractStore, ContractSettings, ContractStore }
export {
  stateContract, type StateContractFlags, type StateContractOptions, type StateContractSettings, type StateContractStore
} from './kv-contract.js'

/** Declares a test, like `test` of `node:test`. The test fails when `run` rejects. */
export type DeclareTest = (name: string, run: () => Promise<void>) => unknown

export interface ContractFlags {
  /** The store measures leases with `clock` (default). Otherwise the suite waits, and skips the tests that need exact times. */
  injectedClock?: boolean
  /** Agents survive a restart, and `build` returns a `reopen`. */
  persistent?: boolean
}

export interface StoreContractOptions {
  test: DeclareTest
  build: (settings: ContractSettings) => Promise<ContractStore>
  flags?: ContractFlags
}

async function runAgentCase ([, run, needs = {}]: AgentCase, { build, flags: { injectedClock = true } = {} }: StoreContractOptions) {
  // Real stores are some milliseconds late: leases are long enough for that, and each wait is a little longer.
  const lengths = injectedClock ? { leaseMs: 1000, retentionMs: 5000 } : { leaseMs: 400, retentionMs: 800 }
  const { clock, pass } = testTime(injectedClock)
  const settings = { ...lengths, preservation: needs.preservation === true, clock }
  const scene = new AgentScene(await build(settings), settings, pass)
  await scene.open()
  try {
    await run(scene)
  } finally {
    await scene.close()
  }
}

/**
 * Declares a test for each guarantee of an `AgentStore`. Each test builds a new store.
 *
 *     import test from 'node:test'
 *     storeContract({ test, build: async ({ leaseMs, retentionMs, preservation, clock }) => ({ store: new MyStore(…) }) })
 */
export function storeContract (options: StoreContractOptions): void {
  const { injectedClock = true, persistent = false } = options.flags ?? {}
  for (const agentCase of [...registering, ...changing, ...liveness, ...preservation, ...reporting]) {
    const [name, , needs = {}] = agentCase
    if ((needs.exact && !injectedClock) || (needs.persistent && !persistent)) continue
    options.test(name, () => runAgentCase(agentCase, options))
  }
}

export interface BrokerContractFlags {
  /** The broker uses `clock` (default). Otherwise the suite waits. */
  injectedClock?: boolean
  /** Several processes share the data, and `build` returns `another`. */
  shared?: boolean
}

export interface BrokerContractOptions {
  test: DeclareTest
  build: (settings: BrokerContractSettings) => Promise<BrokerContractStore>
  flags?: BrokerContractFlags
}

async function runBrokerCase ([, run, limits = {}]: BrokerCase, { build, flags: { injectedClock = true } = {} }: BrokerContractOptions) {
  const { clock, pass } = testTime(injectedClock)
  const { broker, another, close } = await build({ clock, limits })
  const processes: BrokerProcess[] = []
  const open = async (broker: MessageBroker) => {
    const process = new BrokerProcess(broker)
    processes.push(process)
    return process.open()
  }
  try {
    await run({ process: await open(broker), broker, another: async () => open(another ? await another() : broker), pass })
  } finally {
    for (const { broker } of processes.reverse()) await broker.close()
    await close?.()
  }
}

/**
 * Declares a test for each guarantee of a `MessageBroker`. Each test builds a new broker.
 *
 *     import test from 'node:test'
 *     brokerContract({ test, build: async ({ clock, limits }) => ({ broker: new MyBroker(…) }) })
 */
export function brokerContract (options: BrokerContractOptions): void {
  const { shared = false } = options.flags ?? {}
  for (const brokerCase of shared ? [...brokerCases, ...sharedBrokerCases] : brokerCases) {
    const [name] = brokerCase
    options.test(name, () => runBrokerCase(brokerCase, options))
  }
}

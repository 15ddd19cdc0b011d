import { changing } from './changing.js'
import { liveness } from './liveness.js'
import { preservation } from './preservation.js'
import { registering } from './registering.js'
import { reporting } from './reporting.js'
import { Scene, type Case, type ContractSettings, type ContractStore } from './scene.js'
import { timeOf } from './time.js'

export type { ContractSettings, ContractStore }
export { stateContract, type StateContractFlags, type StateContractOptions, type StateContractSettings, type StateContractStore } from './kv-store.js'

export interface ContractFlags {
  /** The store measures leases with `clock` (default); otherwise the suite waits, and leaves out what needs exact times. */
  injectedClock?: boolean
  /** Agents outlive the store that registered them, and `build` gives a `reopen`. */
  persistent?: boolean
}

export interface StoreContractOptions {
  /** Declares a test, as `test` of `node:test` does; it fails when `run` rejects. */
  test: (name: string, run: () => Promise<void>) => unknown
  build: (settings: ContractSettings) => Promise<ContractStore>
  flags?: ContractFlags
}

const cases: readonly Case[] = [...registering, ...changing, ...liveness, ...preservation, ...reporting]

async function runCase ([, run, needs = {}]: Case, { build, flags: { injectedClock = true } = {} }: StoreContractOptions): Promise<void> {
  // Real stores are late by some milliseconds: leases are long enough for that, and each wait is a little longer.
  const lengths = injectedClock ? { leaseMs: 1000, retentionMs: 5000 } : { leaseMs: 400, retentionMs: 800 }
  const { clock, pass } = timeOf(injectedClock)
  const settings = { ...lengths, preservation: needs.preservation === true, clock }
  const scene = new Scene(await build(settings), settings, pass)
  await scene.open()
  try {
    await run(scene)
  } finally {
    await scene.close()
  }
}

/**
 * Declares one test for each promise that an `AgentStore` makes. Each builds a store of its own.
 *
 *     import test from 'node:test'
 *     storeContract({ test, build: async ({ leaseMs, retentionMs, preservation, clock }) => ({ store: new MyStore(…) }) })
 */
export function storeContract (options: StoreContractOptions): void {
  const { injectedClock = true, persistent = false } = options.flags ?? {}
  for (const entry of cases) {
    const [name, , needs = {}] = entry
    if ((needs.exact && !injectedClock) || (needs.persistent && !persistent)) continue
    options.test(name, () => runCase(entry, options))
  }
}

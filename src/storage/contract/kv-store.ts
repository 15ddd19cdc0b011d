import { buckets } from './state-buckets.js'
import { entries } from './state-entries.js'
import { StateScene, type StateCase, type StateContractSettings, type StateContractStore } from './state-scene.js'
import { timeOf } from './time.js'

export type { StateContractSettings, StateContractStore }

export interface StateContractFlags {
  /** The store measures time with `clock` (default); otherwise the suite waits, and leaves out what needs exact times. */
  injectedClock?: boolean
  /** Entries outlive the store that put them, and `build` gives a `reopen`. */
  persistent?: boolean
  /** Several processes may use the entries at once, and `build` gives `another`. */
  shared?: boolean
}

export interface StateContractOptions {
  /** Declares a test, as `test` of `node:test` does; it fails when `run` rejects. */
  test: (name: string, run: () => Promise<void>) => unknown
  build: (settings: StateContractSettings) => Promise<StateContractStore>
  flags?: StateContractFlags
}

async function runCase ([, run]: StateCase, { build, flags: { injectedClock = true } = {} }: StateContractOptions): Promise<void> {
  const { clock, pass } = timeOf(injectedClock)
  const scene = new StateScene(await build({ clock }), clock, pass)
  await scene.open()
  try {
    await run(scene)
  } finally {
    await scene.close()
  }
}

/**
 * Declares one test for each promise that a `KeyValueStore` makes. Each builds a store of its own.
 *
 *     import test from 'node:test'
 *     stateContract({ test, build: async ({ clock }) => ({ store: new MyState(…) }) })
 */
export function stateContract (options: StateContractOptions): void {
  const { injectedClock = true, persistent = false, shared = false } = options.flags ?? {}
  for (const entry of [...entries, ...buckets]) {
    const [name, , needs = {}] = entry
    if ((needs.exact && !injectedClock) || (needs.persistent && !persistent) || (needs.shared && !shared)) continue
    options.test(name, () => runCase(entry, options))
  }
}

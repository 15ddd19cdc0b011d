import { MemoryAgentStore, type AgentStore } from '../../src/index.js'

/** A store that records the name of each call. */
export function countingStore () {
  const calls: string[] = []
  const store = new Proxy(new MemoryAgentStore({ leaseMs: 60_000, retentionMs: 60_000 }), {
    get (target, name) {
      const member: unknown = Reflect.get(target, name)
      if (typeof member !== 'function') return member
      return (...args: unknown[]): unknown => {
        calls.push(String(name))
        return Reflect.apply(member, target, args)
      }
    }
  }) as AgentStore
  /** Calls of the store during `work`, without those of background tasks. */
  async function callsOf (work: () => unknown): Promise<string[]> {
    const before = calls.length
    await work()
    return calls.slice(before).filter(name => name !== 'expire' && name !== 'now')
  }
  return { store, callsOf }
}

/** Duration of a call (ms). */
export async function timed (work: () => unknown): Promise<number> {
  const started = performance.now()
  await work()
  return performance.now() - started
}

import { MemoryAgentStore, type AgentStore } from '../../src/index.js'

/** A store that notes the name of everything that it is asked for. */
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
  /** What the store is asked for while `work` runs, but for what goes on by itself. */
  async function callsOf (work: () => unknown): Promise<string[]> {
    const before = calls.length
    await work()
    return calls.slice(before).filter(name => name !== 'expire' && name !== 'now')
  }
  return { store, callsOf }
}

/** How long something takes (ms). */
export async function timed (work: () => unknown): Promise<number> {
  const started = performance.now()
  await work()
  return performance.now() - started
}

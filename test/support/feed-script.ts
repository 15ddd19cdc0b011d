import fc from 'fast-check'
import type { Harness, Json } from './harness.js'

/** The next step: an operation on an agent, or one of the subscriber. */
export type Step = { do: 'join' | 'leave' | 'patch' | 'drain' | 'alive' | 'beat' | 'cut' | 'resume' | 'settle', agent: number }

export const steps = fc.array(fc.record({
  do: fc.constantFrom<Step['do']>('join', 'join', 'leave', 'patch', 'drain', 'alive', 'beat', 'cut', 'resume', 'settle'),
  agent: fc.integer({ min: 0, max: 5 })
}), { minLength: 5, maxLength: 60 })

/** The state of a subscriber that receives changes through one of the transports. */
export class Mirror {
  readonly agents = new Map<string, Json>()
  readonly #seen = new Set<string>()

  reset (agents: Json[] = []) {
    this.agents.clear()
    this.add(agents)
  }

  add (agents: Json[]) {
    for (const agent of agents) this.agents.set(agent.agent_id, agent)
  }

  change ({ op, agent_id: id, agent, state, revision }: Json) {
    if (this.#seen.has(revision)) throw new Error(`${revision} came twice`)
    this.#seen.add(revision)
    if (op === 'remove') this.agents.delete(id)
    else this.agents.set(id, op === 'put' ? agent : { ...this.agents.get(id), state, revision })
  }
}

async function act (registry: Harness, patcher: { token: string, headers: Record<string, string> }, { do: what, agent }: Step) {
  const id = `agent-${agent}`
  const { agentRegistry } = registry.app
  if (what === 'join') return registry.join(id, { name: `Name ${Math.random()}`.slice(0, 30) })
  if (!agentRegistry.get(id)) return
  if (what === 'leave') return agentRegistry.unregister(id)
  if (what === 'patch') return registry.patch(`/agents/${id}`, { ...patcher, body: { name: `Patched ${agent}` } })
  if (what === 'drain' || what === 'alive') return agentRegistry.setStatus(id, what === 'drain' ? 'draining' : 'alive')
  return agentRegistry.heartbeat(id)
}

/** Applies one step to the registry and the subscriber. @param admin may change every agent */
export async function play (
  registry: Harness, admin: { token: string, headers: Record<string, string> }, follower: { cut (): void, resume (): Promise<void> },
  step: Step
): Promise<unknown> {
  if (step.do === 'cut') return follower.cut()
  if (step.do === 'resume') return follower.resume()
  if (step.do === 'settle') return new Promise(setImmediate)
  return act(registry, admin, step)
}

const shape = ({ agent_id: id, name, state, revision }: Json) => ({ id, name, state, revision })
/** Members of agents that must be equal, ordered by id. */
export const shapes = (agents: Iterable<Json>) => Array.from(agents, shape).sort((a, b) => a.id < b.id ? -1 : 1)

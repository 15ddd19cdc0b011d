import { isUserName } from '../../auth/rights.js'
import { isDiscoverable } from '../../protocol/schemas/agent.js'
import type { Replica } from '../../registry/replica.js'
import type { Difference } from '../../storage/agent-store.js'
import type { OpenRequest } from './open-requests.js'

interface CandidatesOptions {
  replica: Replica
  /** This process. */
  process: string
  /** The processes to which a peer is connected. */
  processesOf: (peerId: string) => string[]
  /** The number of requests that an agent has from this process. */
  loadOf: (peerId: string) => number
}

/** The agents with a capability, and the index of the one that is examined next. */
interface Rotation { readonly ids: readonly string[], next: number }

/** The least loaded of so many candidates is chosen: examining more of them hardly improves the choice. */
const maxExamined = 64

/** Chooses the agents that requests are offered to. */
export class Candidates {
  readonly #options: CandidatesOptions
  /** By capability: agents with equal load take turns. */
  readonly #rotations = new Map<string, Rotation>()

  constructor (options: CandidatesOptions) {
    this.#options = options
  }

  /**
   * The processes through which a peer takes requests, this process first, since it needs no network. None for an agent
   * that is draining or in maintenance.
   */
  processesOf (peerId: string): string[] {
    const entry = this.#options.replica.get(peerId)
    if (entry && !isUserName(peerId) && !isDiscoverable(entry.record.state)) return []
    const { processesOf, process: own } = this.#options
    return processesOf(peerId).sort((a, b) => Number(b === own) - Number(a === own))
  }

  /** The next destination of a request: the same agent through another process, or else another agent. */
  next (request: OpenRequest): { peerId: string, process: string } | undefined {
    const { target: { to, capability }, otherProcesses, tried, from, offer } = request
    const other = otherProcesses.shift()
    const current = to ?? offer?.peerId
    if (other !== undefined && current !== undefined) return { peerId: current, process: other }
    const peerId = capability === undefined ? undefined : this.choose(capability, id => id === from || tried.has(id))
    if (peerId === undefined) return undefined
    tried.add(peerId)
    const [process, ...others] = this.processesOf(peerId)
    otherProcesses.push(...others)
    return process === undefined ? undefined : { peerId, process }
  }

  /** The least loaded agent with a capability. */
  choose (capability: string, isExcluded: (peerId: string) => boolean): string | undefined {
    const rotation = this.#rotationOf(capability)
    const { ids, next } = rotation
    let best: string | undefined
    let leastLoad = Infinity
    let examined = 0
    for (let step = 0; step < ids.length && examined < maxExamined && leastLoad > 0; step++) {
      const index = (next + step) % ids.length
      const id = ids[index]
      if (id === undefined || isExcluded(id) || this.processesOf(id).length === 0) continue
      examined++
      const load = this.#options.loadOf(id)
      if (load >= leastLoad) continue
      best = id
      leastLoad = load
      rotation.next = index + 1
    }
    return best
  }

  /** An agent was registered, removed or changed. */
  agentChanged ({ before, after }: Difference): void {
    if (before && after && before.body === after.body) return
    for (const capability of [...before?.capabilities ?? [], ...after?.capabilities ?? []]) this.#rotations.delete(capability)
  }

  #rotationOf (capability: string): Rotation {
    const current = this.#rotations.get(capability)
    if (current) return current
    const ids = Array.from(this.#options.replica.withCapability(capability), ({ record }) => record.id)
    const rotation = { ids: ids.filter(id => !isUserName(id)), next: 0 }
    // Capabilities that no agent has are not stored: clients may name any number of them.
    if (ids.length > 0) this.#rotations.set(capability, rotation)
    return rotation
  }
}

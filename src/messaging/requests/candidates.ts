import { isDiscoverable } from '../../protocol/schemas/agent.js'
import type { Replica } from '../../registry/replica.js'
import type { Difference } from '../../storage/agent-store.js'
import type { OpenRequest } from './open-request.js'
import { isUserName } from '../../auth/rights.js'

export interface CandidatesOptions {
  replica: Replica
  /** This process, and those through which a peer is connected. */
  process: string
  processesOf: (peerId: string) => string[]
  /** Requests that an agent has, as far as this process knows. */
  loadOf: (peerId: string) => number
}

interface Circle { readonly ids: readonly string[], next: number }

/** Of so many that could take a request the least loaded is taken: with more of them it hardly matters which. */
const looks = 64

/** Agents that can take a request. */
export class Candidates {
  readonly #options: CandidatesOptions
  /** Those with a capability, and who of them comes first: where all have as little to do they take turns. */
  readonly #circles = new Map<string, Circle>()

  constructor (options: CandidatesOptions) {
    this.#options = options
  }

  /**
   * Processes through which a peer takes requests: none while an agent drains or is in maintenance. This process first,
   * since from here it takes no network.
   */
  placesOf (peerId: string): string[] {
    const entry = this.#options.replica.get(peerId)
    if (entry && !isUserName(peerId) && !isDiscoverable(entry.record.state)) return []
    const { processesOf, process: own } = this.#options
    return processesOf(peerId).sort((a, b) => Number(b === own) - Number(a === own))
  }

  /** Who is asked next: the same agent through another process, or else another one. */
  nextFor ({ order: { to, capability }, places, asked, from, offer }: OpenRequest): { peerId: string, process: string } | undefined {
    const place = places.shift()
    if (place !== undefined) return { peerId: to ?? offer!.peerId, process: place }
    const peerId = capability === undefined ? undefined : this.choose(capability, id => id === from || asked.has(id))
    if (peerId === undefined) return undefined
    asked.add(peerId)
    const [process, ...others] = this.placesOf(peerId)
    places.push(...others)
    return { peerId, process: process! }
  }

  /** The least loaded of those that can do it. */
  choose (capability: string, isExcluded: (peerId: string) => boolean): string | undefined {
    const circle = this.#circleOf(capability)
    const { ids, next } = circle
    let best: string | undefined
    let least = Infinity
    for (let step = 0, seen = 0; step < ids.length && seen < looks && least > 0; step++) {
      const index = (next + step) % ids.length
      const id = ids[index]!
      if (isExcluded(id) || this.placesOf(id).length === 0) continue
      seen++
      const load = this.#options.loadOf(id)
      if (load >= least) continue
      best = id
      least = load
      circle.next = index + 1
    }
    return best
  }

  /** An agent came, went or changed. */
  changed ({ before, after }: Difference): void {
    if (before && after && before.body === after.body) return
    for (const capability of [...before?.capabilities ?? [], ...after?.capabilities ?? []]) this.#circles.delete(capability)
  }

  #circleOf (capability: string): Circle {
    const known = this.#circles.get(capability)
    if (known) return known
    const ids = Array.from(this.#options.replica.withCapability(capability), ({ record }) => record.id)
    const circle = { ids: ids.filter(id => !isUserName(id)), next: 0 }
    // What nobody can do is not worth remembering: anybody may ask for anything.
    if (ids.length > 0) this.#circles.set(capability, circle)
    return circle
  }
}

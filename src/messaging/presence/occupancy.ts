import type { Principal } from '../../protocol/principal.js'
import type { MessageBroker } from '../../storage/message-broker.js'
import type { Deadline, Deadlines } from '../../lib/deadlines.js'
import type { Peer } from '../peer.js'
import type { Metadata } from './profile.js'

interface Local {
  bearer: Principal
  /** What it says of itself, and when it said so. */
  said: Metadata
  saidAt: number
  /** JSON text of what others learn of it. */
  metadata: string
  /** By how many of its connections it is in each place. */
  readonly places: Map<string, number>
}

export interface OccupancyOptions {
  broker: MessageBroker
  deadlines: Deadlines
  /** What others learn of a peer. */
  profile: (bearer: Principal, said: Metadata) => Metadata
}

const retryMs = 1000

/** Where the peers of this process are: each is in a place once, by however many connections. */
export class Occupancy {
  readonly #options: OccupancyOptions
  readonly #locals = new Map<string, Local>()
  /** Places that the broker has not been told of: it could not be reached. */
  readonly #owed = new Map<Local, Set<string>>()
  #retry: Deadline | undefined

  constructor (options: OccupancyOptions) {
    this.#options = options
  }

  close (): void {
    this.#owed.clear()
    this.#locals.clear()
  }

  /** @throws storage-unavailable; the peer is there nevertheless as soon as that can be told, until it leaves */
  async enter (place: string, { peerId, bearer }: Pick<Peer, 'peerId' | 'bearer'>): Promise<void> {
    const local = this.#locals.get(peerId) ?? this.#arrive(peerId, bearer)
    const count = local.places.get(place) ?? 0
    local.places.set(place, count + 1)
    if (count === 0) await this.#tell(place, peerId, local)
  }

  leave (place: string, peerId: string): void {
    const local = this.#locals.get(peerId)
    const count = local?.places.get(place)
    if (!local || count === undefined) return
    if (count > 1) {
      local.places.set(place, count - 1)
      return
    }
    local.places.delete(place)
    if (local.places.size === 0) this.#locals.delete(peerId)
    this.#options.broker.leave(place, peerId).catch(() => { /* it has left, and others hear of it later */ })
  }

  metadataOf (peerId: string): string | undefined {
    return this.#locals.get(peerId)?.metadata
  }

  /** When a peer last said something of itself; undefined where it is not here. */
  saidAt (peerId: string): number | undefined {
    return this.#locals.get(peerId)?.saidAt
  }

  /** What a peer says of itself, from now on and everywhere. @throws storage-unavailable; others learn of it later then */
  async say (peerId: string, said: Metadata): Promise<void> {
    const local = this.#locals.get(peerId)
    if (!local) return
    local.said = said
    local.saidAt = this.#options.broker.now()
    local.metadata = this.#text(local)
    await this.#tellAll(peerId, local)
  }

  /** What the server knows of a peer may have changed, by another token too. */
  refresh (peerId: string, bearer?: Principal): void {
    const local = this.#locals.get(peerId)
    if (!local) return
    if (bearer) local.bearer = bearer
    const metadata = this.#text(local)
    if (metadata === local.metadata) return
    local.metadata = metadata
    this.#tellAll(peerId, local).catch(() => { /* told again by the retry */ })
  }

  #arrive (peerId: string, bearer: Principal): Local {
    const local: Local = { bearer, said: {}, saidAt: -Infinity, metadata: '', places: new Map() }
    local.metadata = this.#text(local)
    this.#locals.set(peerId, local)
    return local
  }

  #text ({ bearer, said }: Local): string {
    return JSON.stringify(this.#options.profile(bearer, said))
  }

  async #tellAll (peerId: string, local: Local) {
    await Promise.all(Array.from(local.places.keys(), place => this.#tell(place, peerId, local)))
  }

  async #tell (place: string, peerId: string, local: Local) {
    try {
      await this.#options.broker.enter(place, peerId, local.metadata)
    } catch (error) {
      this.#owe(place, local)
      throw error
    }
  }

  #owe (place: string, local: Local) {
    this.#owed.set(local, (this.#owed.get(local) ?? new Set()).add(place))
    this.#retry ??= this.#options.deadlines.after(retryMs, () => { this.#tellOwed() })
  }

  #tellOwed () {
    const owed = new Map(this.#owed)
    this.#owed.clear()
    this.#retry = undefined
    for (const [peerId, local] of this.#locals) {
      for (const place of owed.get(local) ?? []) if (local.places.has(place)) this.#tell(place, peerId, local).catch(() => { /* owed again */ })
    }
  }
}

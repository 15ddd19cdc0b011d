import type { PresenceMember, PresenceChange, Roster } from '../message-broker.js'

/** Who is where, through one process: every peer that enters a place or leaves it does so as a whole. */
export class MemoryPlaces {
  readonly #process: string
  readonly #places = new Map<string, Map<string, string>>()
  #revision: number

  /** @param revision what the first change is greater than */
  constructor (process: string, revision: number) {
    this.#process = process
    this.#revision = revision
  }

  enter (place: string, peerId: string, metadata: string): PresenceChange {
    const peers = this.#places.get(place) ?? new Map<string, string>()
    const isWhole = !peers.has(peerId)
    peers.set(peerId, metadata)
    this.#places.set(place, peers)
    return { op: isWhole ? 'enter' : 'update', isWhole, revision: ++this.#revision, ...this.#member(peerId, metadata) }
  }

  /** @returns nothing where that peer was not */
  leave (place: string, peerId: string): PresenceChange | undefined {
    const peers = this.#places.get(place)
    const metadata = peers?.get(peerId)
    if (!peers || metadata === undefined) return undefined
    peers.delete(peerId)
    if (peers.size === 0) this.#places.delete(place)
    return { op: 'leave', isWhole: true, revision: ++this.#revision, ...this.#member(peerId, metadata) }
  }

  roster (place: string): Roster {
    const members = Array.from(this.#places.get(place) ?? [], ([peerId, metadata]) => this.#member(peerId, metadata))
    return { revision: this.#revision, members }
  }

  clear (): void {
    this.#places.clear()
  }

  #member (peerId: string, metadata: string): PresenceMember {
    return { peerId, process: this.#process, metadata }
  }
}

import type { PresenceMember, PresenceChange, Roster } from '../../storage/message-broker.js'

/** Somebody who is in a place, by whatever processes. `metadata` is JSON text. */
export interface Present { readonly peerId: string, readonly metadata: string }

/** How a place changed since somebody looked. */
export interface PlaceDelta { readonly revision: number, readonly joined: readonly Present[], readonly left: readonly Present[] }

/** By which processes a peer is there, the one that said something last at the end: nearly always one. */
type Occupant = readonly PresenceMember[]

/** Who is in a place, as far as this process was told. */
export class PlaceView {
  #revision = -1
  readonly #occupants = new Map<string, Occupant>()
  /** What those who look knew of each peer that changed since; undefined where it was not there. */
  readonly #before = new Map<string, string | undefined>()
  /** Peers that said something new of themselves, also when it is the same. */
  readonly #renewed = new Set<string>()
  /** Changes that came before the roster. */
  #early: PresenceChange[] | null = []

  get revision () { return this.#revision }

  load ({ revision, members }: Roster): void {
    const early = this.#early ?? []
    this.#early = null
    for (const peerId of this.#occupants.keys()) this.#note(peerId)
    this.#occupants.clear()
    for (const member of members) this.#put(member)
    this.#revision = revision
    for (const change of early) this.apply(change)
  }

  apply (change: PresenceChange): void {
    if (this.#early) this.#early.push(change)
    else if (change.revision > this.#revision) this.#take(change)
  }

  metadataOf (peerId: string): string | undefined {
    return this.#occupants.get(peerId)?.at(-1)?.metadata
  }

  processesOf (peerId: string): string[] {
    return (this.#occupants.get(peerId) ?? []).map(({ process }) => process)
  }

  peerIds (): string[] {
    return [...this.#occupants.keys()]
  }

  /** What changed since this was last asked; nothing where all is as it was. */
  takeDelta (): PlaceDelta | undefined {
    const joined: Present[] = []
    const left: Present[] = []
    for (const [peerId, before] of this.#before) {
      const metadata = this.metadataOf(peerId)
      if (metadata === undefined && before !== undefined) left.push({ peerId, metadata: before })
      if (metadata !== undefined && (metadata !== before || this.#renewed.has(peerId))) joined.push({ peerId, metadata })
    }
    this.#before.clear()
    this.#renewed.clear()
    return joined.length + left.length > 0 ? { revision: this.#revision, joined, left } : undefined
  }

  #take (change: PresenceChange) {
    this.#note(change.peerId)
    this.#revision = change.revision
    if (change.op === 'leave') return this.#remove(change)
    if (change.op === 'update') this.#renewed.add(change.peerId)
    this.#put(change)
  }

  #note (peerId: string) {
    if (!this.#before.has(peerId)) this.#before.set(peerId, this.metadataOf(peerId))
  }

  #put ({ peerId, process, metadata }: PresenceMember) {
    this.#note(peerId)
    this.#occupants.set(peerId, [...this.#without(peerId, process), { peerId, process, metadata }])
  }

  #remove ({ peerId, process, isWhole }: PresenceChange) {
    const left = isWhole ? [] : this.#without(peerId, process)
    if (left.length === 0) this.#occupants.delete(peerId)
    else this.#occupants.set(peerId, left)
  }

  #without (peerId: string, process: string): Occupant {
    return (this.#occupants.get(peerId) ?? []).filter(member => member.process !== process)
  }
}

import type { PresenceChange, PresenceMember, Roster } from '../../storage/message-broker.js'

/** A peer in a presence set, through any number of processes. `metadata` is JSON text. */
export interface OnlinePeer { readonly peerId: string, readonly metadata: string }

/** The difference between two states of a presence set. */
export interface PresenceDelta {
  readonly revision: number
  readonly joined: readonly OnlinePeer[]
  readonly left: readonly OnlinePeer[]
}

/** This process's copy of a presence set: the peers that are subscribed to a channel, or all peers of the tier. */
export class PresenceSet {
  #revision = -1
  /** The memberships of each peer, one for each process; the latest is the last. */
  readonly #memberships = new Map<string, readonly PresenceMember[]>()
  /** The metadata that watchers have of each peer that changed since the last delta; undefined for an absent peer. */
  readonly #lastSent = new Map<string, string | undefined>()
  /** Peers that updated their metadata since the last delta, even to the same value. */
  readonly #updated = new Set<string>()
  /** Changes that arrived before the first roster. */
  #early: PresenceChange[] | null = []

  get revision () { return this.#revision }

  load ({ revision, members }: Roster): void {
    const early = this.#early ?? []
    this.#early = null
    for (const peerId of this.#memberships.keys()) this.#rememberSent(peerId)
    this.#memberships.clear()
    for (const member of members) this.#put(member)
    this.#revision = revision
    for (const change of early) this.apply(change)
  }

  apply (change: PresenceChange): void {
    if (this.#early) this.#early.push(change)
    else if (change.revision > this.#revision) this.#applyNew(change)
  }

  metadataOf (peerId: string): string | undefined {
    return this.#memberships.get(peerId)?.at(-1)?.metadata
  }

  processesOf (peerId: string): string[] {
    return (this.#memberships.get(peerId) ?? []).map(({ process }) => process)
  }

  peerIds (): string[] {
    return [...this.#memberships.keys()]
  }

  /** @param peerIds absent ones are left out */
  members (peerIds: readonly string[] = this.peerIds()): OnlinePeer[] {
    return peerIds.flatMap(peerId => {
      const metadata = this.metadataOf(peerId)
      return metadata === undefined ? [] : [{ peerId, metadata }]
    })
  }

  /** The changes since the last call; undefined when there are none. */
  takeDelta (): PresenceDelta | undefined {
    const joined: OnlinePeer[] = []
    const left: OnlinePeer[] = []
    for (const [peerId, before] of this.#lastSent) {
      const metadata = this.metadataOf(peerId)
      if (metadata === undefined && before !== undefined) left.push({ peerId, metadata: before })
      if (metadata !== undefined && (metadata !== before || this.#updated.has(peerId))) joined.push({ peerId, metadata })
    }
    this.#lastSent.clear()
    this.#updated.clear()
    return joined.length + left.length > 0 ? { revision: this.#revision, joined, left } : undefined
  }

  #applyNew (change: PresenceChange) {
    this.#rememberSent(change.peerId)
    this.#revision = change.revision
    if (change.op === 'leave') return this.#remove(change)
    if (change.op === 'update') this.#updated.add(change.peerId)
    this.#put(change)
  }

  #rememberSent (peerId: string) {
    if (!this.#lastSent.has(peerId)) this.#lastSent.set(peerId, this.metadataOf(peerId))
  }

  #put ({ peerId, process, metadata }: PresenceMember) {
    this.#rememberSent(peerId)
    this.#memberships.set(peerId, [...this.#inOtherProcesses(peerId, process), { peerId, process, metadata }])
  }

  #remove ({ peerId, process, isWhole }: PresenceChange) {
    const others = isWhole ? [] : this.#inOtherProcesses(peerId, process)
    if (others.length === 0) this.#memberships.delete(peerId)
    else this.#memberships.set(peerId, others)
  }

  #inOtherProcesses (peerId: string, process: string): readonly PresenceMember[] {
    return (this.#memberships.get(peerId) ?? []).filter(member => member.process !== process)
  }
}

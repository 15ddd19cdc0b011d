import type { BrokerListener, PresenceChange, Roster } from '../message-broker.js'
import { CommandBatch, encodeName, notOpen, readMembers, readPresenceChange, type BrokerCommands } from './broker-commands.js'
import type { Subscriptions } from './connections.js'

interface PresenceSetsOptions {
  process: string
  commands: BrokerCommands
  /** How long this process counts as running after its last heartbeat (ms). */
  leaseMs: number
  /** Other processes may have removed the peers of this one: `settle` must be called. */
  expired: () => void
}

/** A peer that this process has entered into a set. */
interface LocalMember { readonly set: string, readonly peerId: string, readonly metadata: string }
interface MemberChange extends LocalMember { readonly op: 'enter' | 'leave' | 'stay' }

const changesPerCall = 500
const removalsPerCall = 500

const idOf = (set: string, peerId: string) => `${set.length}:${set}${peerId}`

/** Presence sets in Redis. The members of this process are entered again when Redis may have lost them. */
export class RedisPresenceSets {
  readonly #options: PresenceSetsOptions
  readonly #local = new Map<string, LocalMember>()
  /** Members of which it is unknown whether Redis has applied the last change. */
  #unsettled = new Map<string, LocalMember>()
  /** Whether Redis may have removed all members of this process. */
  #isExpired = false
  readonly #changes = new CommandBatch<MemberChange, boolean>(changesPerCall, changes => this.#send(changes))

  constructor (options: PresenceSetsOptions) {
    this.#options = options
  }

  async enter (set: string, peerId: string, metadata: string): Promise<void> {
    const id = idOf(set, peerId)
    const before = this.#local.get(id)
    const member = { set, peerId, metadata }
    this.#local.set(id, member)
    try {
      await this.#change({ op: 'enter', ...member })
    } catch (error) {
      if (this.#local.get(id) === member) this.#restore(id, before)
      throw error
    }
  }

  async leave (set: string, peerId: string): Promise<void> {
    this.#local.delete(idOf(set, peerId))
    await this.#change({ op: 'leave', set, peerId, metadata: '' })
  }

  async roster (set: string): Promise<Roster> {
    const args = [...this.#context(), encodeName(set)]
    const [revision, fieldsAndValues] = await this.#options.commands.run<[string, string[]]>('presence-roster', args)
    return { revision: Number(revision), members: readMembers(fieldsAndValues) }
  }

  /** Whether Redis has the members of this process. */
  get isSettled () { return !this.#isExpired && this.#unsettled.size === 0 }

  /** Renews the lease of this process, and removes the peers of processes that have ended. */
  async heartbeat (): Promise<void> {
    const [wasExpired, ...ended] = await this.#options.commands.run<string[]>('presence-heartbeat', this.#context())
    this.#isExpired ||= wasExpired === '1'
    for (const process of ended) await this.#removeAll(process, false)
  }

  /** Repeats changes that Redis may not have applied. */
  async settle (): Promise<void> {
    const members = this.#isExpired ? new Map([...this.#unsettled, ...this.#local]) : this.#unsettled
    this.#unsettled = new Map()
    this.#isExpired = false
    // A change that fails is unsettled again.
    await Promise.all(Array.from(members, ([id, member]) => {
      const local = this.#local.get(id)
      return this.#change(local ? { ...local, op: 'stay' } : { ...member, op: 'leave' })
    }))
  }

  /** Removes all members of this process. */
  async close (): Promise<void> {
    this.#changes.fail(notOpen())
    this.#local.clear()
    this.#unsettled = new Map()
    await this.#removeAll(this.#options.process, true)
  }

  async #change (change: MemberChange): Promise<void> {
    try {
      await this.#changes.add(change)
    } catch (error) {
      this.#unsettled.set(idOf(change.set, change.peerId), change)
      throw error
    }
  }

  #restore (id: string, before: LocalMember | undefined) {
    if (before) this.#local.set(id, before)
    else this.#local.delete(id)
  }

  /** @returns for each change whether this process had counted as ended */
  async #send (changes: readonly MemberChange[]): Promise<boolean[]> {
    const args = changes.flatMap(({ op, set, peerId, metadata }) => [op, encodeName(set), encodeName(peerId), metadata])
    const wasExpired = await this.#options.commands.run<string>('presence-change', [...this.#context(), ...args]) === '1'
    if (wasExpired) this.#expire()
    return changes.map(() => wasExpired)
  }

  #expire () {
    this.#isExpired = true
    this.#options.expired()
  }

  async #removeAll (process: string, isForced: boolean): Promise<void> {
    const args = [...this.#context(), process, isForced ? 1 : 0, removalsPerCall]
    while (await this.#options.commands.run<string>('presence-sweep', args) === '1');
  }

  #context (): Array<string | number> {
    return [this.#options.process, this.#options.leaseMs]
  }
}

interface PresenceWatchersOptions {
  /** The beginning of the Redis channel of every set. */
  prefix: string
  subscriptions: Subscriptions
  roster: (set: string) => Promise<Roster>
  listener: () => Pick<BrokerListener, 'presenceChanged' | 'presenceReloaded'> | undefined
}

interface WatchedSet {
  readonly set: string
  first?: Promise<Roster>
  /** The revision of the newest known change. */
  revision: number
  /** Changes that arrive while the roster is read. */
  queue: PresenceChange[] | undefined
  /** The number of times that the roster was read: the last read counts. */
  reads: number
}

/** Delivers the changes of watched presence sets. */
export class PresenceWatchers {
  readonly #options: PresenceWatchersOptions
  readonly #watched = new Map<string, WatchedSet>()

  constructor (options: PresenceWatchersOptions) {
    this.#options = options
  }

  receive (name: string, text: string): void {
    const watched = this.#watched.get(name)
    if (watched) this.#offer(watched, readPresenceChange(text))
  }

  async watch (set: string): Promise<Roster> {
    const name = this.#nameOf(set)
    const known = this.#watched.get(name)
    const watched = known ?? { set, revision: 0, queue: [], reads: 0 }
    this.#watched.set(name, watched)
    const first = await (watched.first ??= this.#begin(name, watched))
    return known ? this.#options.roster(set) : first
  }

  unwatch (set: string): void {
    const name = this.#nameOf(set)
    if (this.#watched.delete(name)) this.#options.subscriptions.leave(name)
  }

  /** Delivers the current state of every watched set. */
  async reload (): Promise<void> {
    await Promise.all(Array.from(this.#watched.values(), watched => this.#load(watched, roster => {
      this.#options.listener()?.presenceReloaded(watched.set, roster)
    })))
  }

  clear (): void {
    this.#watched.clear()
  }

  async #begin (name: string, watched: WatchedSet): Promise<Roster> {
    try {
      await this.#options.subscriptions.join(name)
      return await this.#load(watched)
    } catch (error) {
      if (this.#watched.get(name) === watched) this.unwatch(watched.set)
      throw error
    }
  }

  async #load (watched: WatchedSet, deliver?: (roster: Roster) => void): Promise<Roster> {
    watched.queue ??= []
    const read = ++watched.reads
    const roster = await this.#options.roster(watched.set)
    if (read === watched.reads && this.#isWatched(watched)) {
      deliver?.(roster)
      watched.revision = roster.revision
      this.#resume(watched)
    }
    return roster
  }

  #isWatched (watched: WatchedSet): boolean {
    return this.#watched.get(this.#nameOf(watched.set)) === watched
  }

  #resume (watched: WatchedSet) {
    const queue = watched.queue ?? []
    watched.queue = undefined
    for (const change of queue) this.#offer(watched, change)
  }

  #offer (watched: WatchedSet, change: PresenceChange) {
    if (watched.queue) watched.queue.push(change)
    else if (change.revision > watched.revision) {
      watched.revision = change.revision
      this.#options.listener()?.presenceChanged(watched.set, change)
    }
  }

  #nameOf (set: string): string {
    return this.#options.prefix + encodeName(set)
  }
}

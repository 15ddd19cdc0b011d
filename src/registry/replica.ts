import { isDiscoverable, statusOf } from '../protocol/schemas/agent.js'
import type { AgentRecord, Change, Difference, StoreSnapshot } from '../storage/agent-store.js'
import { Digest, recordDigest } from './digest.js'
import { Rendering } from './render.js'

/** Whether discovery and the public tier show an agent. */
export const isPublic = (record: AgentRecord): boolean => isDiscoverable(record.state) && record.publicBody !== null

/** An agent in the replica: its current record, rendered on demand. */
export interface Entry {
  record: AgentRecord
  rendering: Rendering
  digest: bigint
}

const isSame = (a: AgentRecord | undefined, b: AgentRecord) =>
  a?.incarnation === b.incarnation && a.state === b.state && a.body === b.body && a.publicBody === b.publicBody

type Index = Map<string, Set<Entry>>

function addTo (index: Index, key: string, entry: Entry) {
  const set = index.get(key)
  if (set) set.add(entry)
  else index.set(key, new Set([entry]))
}

function removeFrom (index: Index, key: string, entry: Entry) {
  const set = index.get(key)
  if (set?.delete(entry) && set.size === 0) index.delete(key)
}

/** All agents as this process knows them, with the indexes that reads use. Fed by the changes of a store. */
export class Replica {
  readonly #hidden: readonly string[]
  readonly #entries = new Map<string, Entry>()
  readonly #discoverable = new Set<Entry>()
  readonly #byType: Index = new Map()
  readonly #byCapability: Index = new Map()
  /** Newest last; also holds what has gone since, until it is cleared out. */
  #recent: Entry[] = []
  #digest = new Digest()
  #epoch = ''
  #revision = 0
  #version = 0
  #dead = 0
  #hasPublicFacets = false
  /** Kept until an agent comes, goes or changes its type. */
  #types: Readonly<Record<string, number>> | undefined

  constructor ({ hiddenFields = [] }: { hiddenFields?: readonly string[] } = {}) {
    this.#hidden = hiddenFields
  }

  get epoch () { return this.#epoch }
  /** Number of the newest change that was applied. */
  get revision () { return this.#revision }
  /** Grows with whatever may be read of the replica, signs of life included. */
  get version () { return this.#version }
  get size () { return this.#entries.size }
  /** Whether some record is shown to the public as something else than it is found by. */
  get hasPublicFacets () { return this.#hasPublicFacets }
  get deadCount () { return this.#dead }
  get digest () { return this.#digest.toString() }
  /** In the order in which they were first registered. */
  get entries (): Iterable<Entry> { return this.#entries.values() }
  get discoverable (): ReadonlySet<Entry> { return this.#discoverable }

  /** Takes the place of everything that was known. @returns what differs from it, except signs of life and reports */
  load ({ epoch, revision, agents }: Pick<StoreSnapshot, 'epoch' | 'revision' | 'agents'>): Difference[] {
    const before = new Map(Array.from(this.#entries, ([id, { record }]) => [id, record]))
    this.#clear()
    this.#epoch = epoch
    this.#revision = revision
    this.#version++
    for (const record of [...agents].sort((a, b) => a.created - b.created)) this.#put(record)
    const gone = [...before.values()].filter(({ id }) => !this.#entries.has(id)).map(record => ({ id: record.id, before: record, after: null }))
    const changed = agents.filter(after => !isSame(before.get(after.id), after)).map(after => ({ id: after.id, before: before.get(after.id) ?? null, after }))
    return [...gone, ...changed]
  }

  #clear () {
    for (const index of [this.#entries, this.#discoverable, this.#byType, this.#byCapability]) index.clear()
    this.#recent = []
    this.#digest = new Digest()
    this.#dead = 0
    this.#types = undefined
  }

  get (id: string): Entry | undefined {
    return this.#entries.get(id)
  }

  /** The newest registered first. */
  * newest (): Generator<Entry> {
    for (let index = this.#recent.length - 1; index >= 0; index--) {
      const entry = this.#recent[index]!
      if (this.#entries.get(entry.record.id) === entry) yield entry
    }
  }

  /** Agents of each type, dead ones too, under the spelling that the first of them used. */
  countTypes (): Readonly<Record<string, number>> {
    this.#types ??= this.#countTypes()
    return this.#types
  }

  #countTypes (): Readonly<Record<string, number>> {
    const counts = new Map<string, number>()
    for (const entries of this.#byType.values()) {
      const [first] = entries
      counts.set(first!.record.type, entries.size)
    }
    return Object.freeze(Object.fromEntries(counts))
  }

  /** Agents that discovery shows, by type. */
  aliveTypes (): Map<string, number> {
    const counts = new Map<string, number>()
    for (const { record } of this.#discoverable) counts.set(record.type, (counts.get(record.type) ?? 0) + 1)
    return counts
  }

  ofType (type: string): ReadonlySet<Entry> {
    return this.#byType.get(type.toLowerCase()) ?? new Set()
  }

  withCapability (capability: string): ReadonlySet<Entry> {
    return this.#byCapability.get(capability) ?? new Set()
  }

  apply (change: Change): void {
    this.#version++
    if (change.after) this.#put(change.after)
    else this.#remove(change.id)
    this.#revision = change.n
  }

  /** Takes over a newer `lastSeen`: not a change, nobody is told. */
  touch (record: AgentRecord): void {
    const entry = this.#entries.get(record.id)
    if (entry?.record.revision !== record.revision || entry.record === record) return
    entry.record = record
    entry.rendering = this.render(record)
    this.#version++
  }

  render (record: AgentRecord): Rendering {
    return new Rendering(record, this.#epoch, this.#hidden)
  }

  #put (record: AgentRecord) {
    if (record.publicFacets) this.#hasPublicFacets = true
    const known = this.#entries.get(record.id)
    const fresh = { record, rendering: this.render(record), digest: recordDigest(this.#epoch, record) }
    if (!known) {
      this.#entries.set(record.id, fresh)
      this.#remember(fresh)
      this.#index(fresh)
    } else if (known.record.body !== record.body) {
      this.#unindex(known)
      this.#index(Object.assign(known, fresh))
    } else {
      this.#uncount(known)
      this.#count(Object.assign(known, fresh))
    }
  }

  #remember (entry: Entry) {
    if (this.#recent.length > 2 * this.#entries.size + 64) this.#recent = [...this.#entries.values()]
    else this.#recent.push(entry)
  }

  #index (entry: Entry) {
    this.#types = undefined
    addTo(this.#byType, entry.record.type.toLowerCase(), entry)
    for (const capability of entry.record.capabilities) addTo(this.#byCapability, capability, entry)
    this.#count(entry)
  }

  #remove (id: string) {
    const entry = this.#entries.get(id)
    if (!entry) return
    this.#unindex(entry)
    this.#discoverable.delete(entry)
    this.#entries.delete(id)
  }

  #unindex (entry: Entry) {
    this.#types = undefined
    this.#uncount(entry)
    removeFrom(this.#byType, entry.record.type.toLowerCase(), entry)
    for (const capability of entry.record.capabilities) removeFrom(this.#byCapability, capability, entry)
  }

  #count (entry: Entry) {
    this.#digest.add(entry.digest)
    if (statusOf(entry.record.state) === 'dead') this.#dead++
    if (isPublic(entry.record)) this.#discoverable.add(entry)
    else this.#discoverable.delete(entry)
  }

  #uncount (entry: Entry) {
    this.#digest.remove(entry.digest)
    if (statusOf(entry.record.state) === 'dead') this.#dead--
  }
}

import { createHash } from 'node:crypto'
import { isDiscoverable, statusOf } from '../protocol/schemas/agent.js'
import type { AgentRecord, Change, Difference, StoreSnapshot } from '../storage/agent-store.js'
import { Rendering, revisionText } from './render.js'

const modulus = 1n << 64n

/** The first 8 bytes of SHA-256(`agent_id NUL revision NUL state`) as an unsigned integer. */
export function recordDigest (epoch: string, { id, revision, state }: Pick<AgentRecord, 'id' | 'revision' | 'state'>): bigint {
  const hash = createHash('sha256').update(`${id}\0${revisionText(epoch, revision)}\0${state}`).digest()
  return hash.readBigUInt64BE()
}

/** The sum modulo 2^64 of the digests of all records. It does not depend on their order. */
export class Digest {
  #sum = 0n

  add (part: bigint): void {
    this.#sum = (this.#sum + part) % modulus
  }

  remove (part: bigint): void {
    this.#sum = (this.#sum - part + modulus) % modulus
  }

  /** 16 hexadecimal digits. */
  toString (): string {
    return this.#sum.toString(16).padStart(16, '0')
  }
}

/** Whether discovery and the public tier show this agent. */
export const isPublic = (record: AgentRecord): boolean => isDiscoverable(record.state) && record.publicBody !== null

/** An agent in the replica: its current record, which is rendered on demand. */
export interface ReplicaEntry {
  record: AgentRecord
  rendering: Rendering
  digest: bigint
}

const isSame = (a: AgentRecord | undefined, b: AgentRecord) =>
  a?.incarnation === b.incarnation && a.state === b.state && a.body === b.body && a.publicBody === b.publicBody

type Index = Map<string, Set<ReplicaEntry>>

function addTo (index: Index, key: string, entry: ReplicaEntry) {
  const set = index.get(key)
  if (set) set.add(entry)
  else index.set(key, new Set([entry]))
}

function removeFrom (index: Index, key: string, entry: ReplicaEntry) {
  const set = index.get(key)
  if (set?.delete(entry) && set.size === 0) index.delete(key)
}

/** The local copy of all agents, with the indexes that reads use. It follows the changes of a store. */
export class Replica {
  readonly #hidden: readonly string[]
  readonly #entries = new Map<string, ReplicaEntry>()
  readonly #discoverable = new Set<ReplicaEntry>()
  readonly #byType: Index = new Map()
  readonly #byCapability: Index = new Map()
  /** In the order of registration; removed entries stay until the array is compacted. */
  #recent: ReplicaEntry[] = []
  #digest = new Digest()
  #epoch = ''
  #revision = 0
  #version = 0
  #dead = 0
  #hasPublicFacets = false
  /** Cached until an agent is added, is removed or changes its body. */
  #types: Readonly<Record<string, number>> | undefined

  constructor ({ hiddenFields = [] }: { hiddenFields?: readonly string[] } = {}) {
    this.#hidden = hiddenFields
  }

  get epoch () { return this.#epoch }
  /** Number of the last change that was applied. */
  get revision () { return this.#revision }
  /** Increases with everything that readers can see, heartbeats included. */
  get version () { return this.#version }
  get size () { return this.#entries.size }
  /** Whether the public view of some record has its own type and capabilities. */
  get hasPublicFacets () { return this.#hasPublicFacets }
  get deadCount () { return this.#dead }
  get digest () { return this.#digest.toString() }
  /** In the order of first registration. */
  get entries (): Iterable<ReplicaEntry> { return this.#entries.values() }
  get discoverable (): ReadonlySet<ReplicaEntry> { return this.#discoverable }

  /** Replaces all agents. @returns the differences from before, except heartbeats and reports */
  load ({ epoch, revision, agents }: Pick<StoreSnapshot, 'epoch' | 'revision' | 'agents'>): Difference[] {
    const before = new Map(Array.from(this.#entries, ([id, { record }]) => [id, record]))
    this.#clear()
    this.#epoch = epoch
    this.#revision = revision
    this.#version++
    for (const record of [...agents].sort((a, b) => a.created - b.created)) this.#put(record)
    const removed = [...before.values()].filter(({ id }) => !this.#entries.has(id))
    const changed = agents.filter(after => !isSame(before.get(after.id), after))
    return [
      ...removed.map(record => ({ id: record.id, before: record, after: null })),
      ...changed.map(after => ({ id: after.id, before: before.get(after.id) ?? null, after }))
    ]
  }

  #clear () {
    for (const index of [this.#entries, this.#discoverable, this.#byType, this.#byCapability]) index.clear()
    this.#recent = []
    this.#digest = new Digest()
    this.#dead = 0
    this.#types = undefined
  }

  get (id: string): ReplicaEntry | undefined {
    return this.#entries.get(id)
  }

  /** Last registered first. */
  * newest (): Generator<ReplicaEntry> {
    for (let index = this.#recent.length - 1; index >= 0; index--) {
      const entry = this.#recent[index]
      if (entry && this.#entries.get(entry.record.id) === entry) yield entry
    }
  }

  /** Agents by type, dead ones included. Types that differ only in case count under the spelling of the first agent. */
  countTypes (): Readonly<Record<string, number>> {
    this.#types ??= this.#countTypes()
    return this.#types
  }

  #countTypes (): Readonly<Record<string, number>> {
    const counts = new Map<string, number>()
    for (const entries of this.#byType.values()) {
      const [first] = entries
      if (first) counts.set(first.record.type, entries.size)
    }
    return Object.freeze(Object.fromEntries(counts))
  }

  /** Discoverable agents by type. */
  aliveTypes (): Map<string, number> {
    const counts = new Map<string, number>()
    for (const { record } of this.#discoverable) counts.set(record.type, (counts.get(record.type) ?? 0) + 1)
    return counts
  }

  ofType (type: string): ReadonlySet<ReplicaEntry> {
    return this.#byType.get(type.toLowerCase()) ?? new Set()
  }

  withCapability (capability: string): ReadonlySet<ReplicaEntry> {
    return this.#byCapability.get(capability) ?? new Set()
  }

  apply (change: Change): void {
    this.#version++
    if (change.after) this.#put(change.after)
    else this.#remove(change.id)
    this.#revision = change.n
  }

  /** Applies a record of the same revision with newer `lastSeen` or metrics. This is not a change and emits nothing. */
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

  #remember (entry: ReplicaEntry) {
    if (this.#recent.length > 2 * this.#entries.size + 64) this.#recent = [...this.#entries.values()]
    else this.#recent.push(entry)
  }

  #index (entry: ReplicaEntry) {
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

  #unindex (entry: ReplicaEntry) {
    this.#types = undefined
    this.#uncount(entry)
    removeFrom(this.#byType, entry.record.type.toLowerCase(), entry)
    for (const capability of entry.record.capabilities) removeFrom(this.#byCapability, capability, entry)
  }

  #count (entry: ReplicaEntry) {
    this.#digest.add(entry.digest)
    if (statusOf(entry.record.state) === 'dead') this.#dead++
    if (isPublic(entry.record)) this.#discoverable.add(entry)
    else this.#discoverable.delete(entry)
  }

  #uncount (entry: ReplicaEntry) {
    this.#digest.remove(entry.digest)
    if (statusOf(entry.record.state) === 'dead') this.#dead--
  }
}

import { setTimeout as sleep } from 'node:timers/promises'
import type { AgentRecord, Change } from '../agent-store.js'
import {
  changeOf, composeRecord, metricsText, numberOf, readEntry, readMetrics, unpackContent, type ChangeEntry, type RecordHead, type StreamEntry
} from './agent-codec.js'
import type { AgentCommands, AgentPage, Reply } from './agent-commands.js'
import type { Connections, Touch } from './connections.js'

export interface SequencerListener {
  changed (changes: readonly Change[]): void
  touched (records: readonly AgentRecord[]): void
  /** The received changes do not continue the known ones: a reload is necessary. */
  broken (): void
}

/** All agents at one revision. */
interface AgentSnapshot {
  readonly epoch: string
  readonly revision: number
  readonly mark: string
  readonly records: Map<string, AgentRecord>
}

interface Waiter { resolve: () => void, reject: (error: Error) => void }

/** The number of touches that are kept until their change arrives. */
const maxEarly = 10_000

/**
 * Whether a touch at revision `n` belongs to this registration of an agent. An agent that was removed and registered
 * again does not inherit earlier touches.
 */
export const isOfRegistration = ({ created }: Pick<AgentRecord, 'created'>, n: number): boolean => n >= created

/**
 * The agents as this process knows them, and the single order of their changes. Changes from replies of scripts and from
 * the stream arrive here in any order; each is delivered once, in the order of the numbers.
 */
export class ChangeSequencer {
  readonly #process: string
  readonly #listener: SequencerListener
  #epoch = ''
  #n = 0
  #mark = ''
  #records = new Map<string, AgentRecord>()
  #isFollowing = false
  readonly #pending = new Map<number, ChangeEntry>()
  readonly #waiters = new Map<string, Waiter[]>()
  /** Touches of changes that have not arrived yet. */
  #early: Touch[] = []
  readonly #ownLeases = new Set<string>()

  constructor (process: string, listener: SequencerListener) {
    this.#process = process
    this.#listener = listener
  }

  get epoch () { return this.#epoch }
  get n () { return this.#n }
  get mark () { return this.#mark }
  /** False before the first load and during a reload. */
  get isFollowing () { return this.#isFollowing }
  /** The agents whose lease was last renewed through this process. */
  get ownLeases (): ReadonlySet<string> { return this.#ownLeases }

  get (id: string): AgentRecord | undefined {
    return this.#records.get(id)
  }

  /** Replaces everything that is known. */
  load ({ epoch, revision, mark, records }: AgentSnapshot): void {
    this.#epoch = epoch
    this.#n = revision
    this.#mark = mark
    this.#records = records
    this.#isFollowing = true
    this.#pending.clear()
    for (const id of this.#ownLeases) if (!records.has(id)) this.#ownLeases.delete(id)
  }

  /** Settles the waiters of a reload, after the listener has received the loaded snapshot. */
  resume (): void {
    for (const [key, waiters] of this.#waiters) {
      const [epoch, n] = key.split(':')
      if (epoch !== this.#epoch) this.#reject(key, waiters, new Error('Redis has lost writes'))
      else if (Number(n) <= this.#n) this.#resolve(key, waiters)
    }
    this.#applyEarly()
  }

  /** Delivers no more changes until `load`. */
  pause (): void {
    this.#isFollowing = false
  }

  /** Takes changes in any order. */
  offer (entries: readonly ChangeEntry[]): void {
    for (const entry of entries) {
      if (entry.epoch !== this.#epoch) return this.#break()
      if (entry.n > this.#n) this.#pending.set(entry.n, entry)
    }
    if (this.#isFollowing) this.#advance()
  }

  /** Resolves when the change with this number has been delivered. */
  async reached (epoch: string, n: number): Promise<void> {
    if (epoch === this.#epoch && n <= this.#n && this.#isFollowing) return
    if (epoch !== this.#epoch) this.#break()
    await new Promise<void>((resolve, reject) => {
      const key = `${epoch}:${n}`
      const waiters = this.#waiters.get(key)
      if (waiters) waiters.push({ resolve, reject })
      else this.#waiters.set(key, [{ resolve, reject }])
    })
  }

  /** Rejects all waiters: it is unknown when their changes will arrive. */
  fail (error: Error): void {
    for (const [key, waiters] of this.#waiters) this.#reject(key, waiters, error)
  }

  /** Applies a heartbeat that this process received. @returns the newest record */
  note ({ id, seen, n, metrics }: Touch): AgentRecord | undefined {
    this.#ownLeases.add(id)
    const record = this.#records.get(id)
    return record && isOfRegistration(record, n) ? this.#touch(record, seen, metrics) : record
  }

  /** Applies heartbeats that other processes received. A newer one moves the lease to the other process. */
  touch (touches: readonly Touch[]): void {
    const records: AgentRecord[] = []
    for (const touch of touches) {
      const before = this.#records.get(touch.id)
      if (!this.#isFollowing || touch.n > this.#n) this.#postpone(touch)
      else if (before && isOfRegistration(before, touch.n)) {
        const after = this.#touch(before, touch.seen, touch.metrics)
        if (after !== before) records.push(after)
        if (after.lastSeen > before.lastSeen) this.#ownLeases.delete(touch.id)
      }
    }
    if (records.length > 0) this.#listener.touched(records)
  }

  #postpone (touch: Touch) {
    if (this.#early.length < maxEarly) this.#early.push(touch)
  }

  #touch (record: AgentRecord, seen: number, text: string | undefined): AgentRecord {
    const lastSeen = Math.max(record.lastSeen, seen)
    const reported = text === undefined || text === metricsText(record.metrics) ? record.metrics : readMetrics(text)
    const metrics = (reported?.lastActive ?? 0) >= (record.metrics?.lastActive ?? 0) ? reported : record.metrics
    if (lastSeen === record.lastSeen && metrics === record.metrics) return record
    const newer = { ...record, lastSeen, metrics }
    this.#records.set(record.id, newer)
    return newer
  }

  #break () {
    if (this.#isFollowing) this.#listener.broken()
  }

  #advance () {
    const changes: Change[] = []
    for (let entry = this.#next(); entry; entry = this.#next()) {
      const continues = this.#mark === '' || entry.after === this.#mark
      const change = continues ? changeOf(entry, this.#records.get(entry.id)) : undefined
      if (!change) {
        this.#break()
        break
      }
      this.#apply(entry, change)
      changes.push(change)
    }
    if (changes.length === 0) return
    this.#listener.changed(changes)
    if (this.#waiters.size > 0) for (const { n } of changes) this.#resolveAt(`${this.#epoch}:${n}`)
    this.#applyEarly()
  }

  #next (): ChangeEntry | undefined {
    return this.#pending.get(this.#n + 1)
  }

  #apply (entry: ChangeEntry, { id, after }: Change) {
    this.#n = entry.n
    this.#mark = entry.mark
    this.#pending.delete(entry.n)
    if (after) this.#records.set(id, after)
    else this.#records.delete(id)
    if (after && entry.seen === entry.wasSeen) return
    if (after && entry.by === this.#process) this.#ownLeases.add(id)
    else this.#ownLeases.delete(id)
  }

  #applyEarly () {
    if (this.#early.length === 0) return
    const early = this.#early
    this.#early = []
    this.touch(early)
  }

  #reject (key: string, waiters: readonly Waiter[], error: Error) {
    this.#waiters.delete(key)
    for (const { reject } of waiters) reject(error)
  }

  #resolveAt (key: string) {
    const waiters = this.#waiters.get(key)
    if (waiters) this.#resolve(key, waiters)
  }

  #resolve (key: string, waiters: readonly Waiter[]) {
    this.#waiters.delete(key)
    for (const { resolve } of waiters) resolve()
  }
}

interface TailListener {
  /** A nonce of `pulse` arrived. */
  probe (nonce: string): void
  /** Changes between the known ones and the stream are missing. */
  broken (): void
}

const entriesPerRead = 500
const retryMs = 50

/**
 * Reads the stream of changes from the position of the sequencer. Nonces of `pulse` arrive in a second stream of the same
 * blocking read.
 */
export class ChangeTail {
  readonly #connections: Connections
  readonly #sequencer: ChangeSequencer
  readonly #listener: TailListener
  #lastProbe = '0-0'
  #isStopped = false
  #running: Promise<void> | undefined

  constructor (connections: Connections, sequencer: ChangeSequencer, listener: TailListener) {
    this.#connections = connections
    this.#sequencer = sequencer
    this.#listener = listener
  }

  start (): void {
    this.#isStopped = false
    this.#running = this.#run()
  }

  /** The caller closes the connection, which ends the blocking read. */
  async stop (): Promise<void> {
    this.#isStopped = true
    await this.#running
  }

  async #run (): Promise<void> {
    while (!this.#isStopped) {
      try {
        await this.#read()
      } catch {
        // The connection reports its own faults. Another Redis may have other ids of probes.
        this.#lastProbe = '0-0'
        if (!this.#isStopped) await sleep(retryMs)
      }
    }
  }

  async #read (): Promise<void> {
    const { links: { changes: { client } }, base, blockMs } = this.#connections
    const { epoch, n, isFollowing } = this.#sequencer
    const probes = `${base}probes`
    const keys = isFollowing ? [probes, `${base}changes`] : [probes]
    const positions = isFollowing ? [this.#lastProbe, `${n}-0`] : [this.#lastProbe]
    const streams = await client.xread('COUNT', entriesPerRead, 'BLOCK', blockMs, 'STREAMS', ...keys, ...positions)
    for (const [key, entries] of streams ?? []) {
      if (key === probes) this.#receiveProbes(entries)
      else if (epoch === this.#sequencer.epoch) this.#receiveChanges(n, entries)
    }
  }

  #receiveProbes (entries: readonly StreamEntry[]) {
    for (const [id, [, nonce = '']] of entries) {
      this.#lastProbe = id
      this.#listener.probe(nonce)
    }
  }

  #receiveChanges (n: number, entries: readonly StreamEntry[]) {
    const [first] = entries
    if (first && numberOf(first) !== n + 1) return this.#listener.broken()
    this.#sequencer.offer(entries.filter(entry => numberOf(entry) > this.#sequencer.n).map(readEntry))
  }
}

export interface LoadedSnapshot extends AgentSnapshot {
  /** The newest changes, oldest first. */
  readonly changes: readonly Change[]
}

const maxTries = 5
const entriesPerRange = 2000

/** @returns undefined for an agent that was removed while the page was read */
function recordAt ([ids, heads, contents, seen, reports]: AgentPage, index: number): AgentRecord | undefined {
  const [id, headText, content, report] = [ids[index], heads[index], contents[index], reports[index]]
  if (!id || !headText || !content) return undefined
  const head: RecordHead = JSON.parse(headText)
  const metrics = report ? readMetrics(report) : null
  return composeRecord(id, { content: unpackContent(content), head, seen: Number(seen[index]), metrics })
}

/** Reads all agents, page by page: each agent as it was when its page was read. */
export async function * readPages (commands: AgentCommands): AsyncGenerator<{ epoch: string, revision: number, records: AgentRecord[] }> {
  let next: Promise<Reply<AgentPage>> | undefined = commands.run('page', ['0'])
  while (next) {
    const { epoch, revision, status, result }: Reply<AgentPage> = await next
    // Redis reads the next page while this one is unpacked.
    next = status === '0' ? undefined : commands.run('page', [status])
    // A caller that stops early does not receive an error of the next page.
    if (next) Promise.allSettled([next])
    const records = result[0].map((_, index) => recordAt(result, index)).filter(record => record !== undefined)
    yield { epoch, revision, records }
  }
}

/** The entries of the stream after number `from`, without a gap. */
async function readEntries ({ links, base }: Connections, from: number): Promise<ChangeEntry[]> {
  const entries: ChangeEntry[] = []
  let count: number
  do {
    const after = entries.at(-1)?.n ?? from
    const read = await links.commands.client.xrange(`${base}changes`, `(${after}-0`, '+', 'COUNT', entriesPerRange)
    for (const entry of read) entries.push(readEntry(entry))
    count = read.length
  } while (count === entriesPerRange)
  return entries
}

/** The newest entries that have this epoch and consecutive numbers. */
function withoutGap (entries: readonly ChangeEntry[], epoch: string): ChangeEntry[] {
  let next: ChangeEntry | undefined
  let first = entries.length
  for (const entry of [...entries].reverse()) {
    if (entry.epoch !== epoch || (next && entry.n + 1 !== next.n)) break
    next = entry
    first--
  }
  return entries.slice(first)
}

/** Brings records of different revisions to the revision of the last entry. */
function catchUp (records: Map<string, AgentRecord>, entries: readonly ChangeEntry[]) {
  for (const entry of entries) {
    const known = records.get(entry.id)
    if (known && known.revision >= entry.n) continue
    // An agent without content was registered and removed before its page was read.
    const after = changeOf({ ...entry, was: undefined }, known)?.after
    if (after) records.set(entry.id, after)
    else records.delete(entry.id)
  }
}

/** The changes of the entries, derived backwards from the resulting records. */
function changesBefore (records: ReadonlyMap<string, AgentRecord>, entries: readonly ChangeEntry[]): Change[] {
  const known = new Map<string, AgentRecord | null>()
  const changes: Change[] = []
  for (const entry of [...entries].reverse()) {
    const later = known.has(entry.id) ? known.get(entry.id) : records.get(entry.id)
    const change = changeOf(entry, later ?? undefined)
    if (!change) break
    known.set(entry.id, change.before)
    changes.push(change)
  }
  return changes.reverse()
}

/** @returns undefined when Redis began another epoch or dropped needed changes while the agents were read */
async function tryToLoad (commands: AgentCommands, connections: Connections, keep: number): Promise<LoadedSnapshot | undefined> {
  const records = new Map<string, AgentRecord>()
  let start: { epoch: string, revision: number } | undefined
  let revision = 0
  for await (const page of readPages(commands)) {
    start ??= page
    if (page.epoch !== start.epoch) return undefined
    revision = page.revision
    for (const record of page.records) records.set(record.id, record)
  }
  if (!start) return undefined
  const { epoch, revision: from } = start
  const entries = withoutGap(await readEntries(connections, Math.max(0, from - keep)), epoch)
  const missed = entries.filter(({ n }) => n > from)
  const reached = missed.at(-1)?.n ?? from
  if (reached < revision || missed.length !== reached - from) return undefined
  catchUp(records, missed)
  const changes = changesBefore(records, entries).slice(-keep)
  return { epoch, revision: reached, mark: entries.at(-1)?.mark ?? '', records, changes }
}

/**
 * Loads all agents at one revision. The pages are read while other processes write; the stream has the changes that the
 * pages missed.
 * @param keep the number of newest changes to return
 */
export async function loadSnapshot (commands: AgentCommands, connections: Connections, keep: number): Promise<LoadedSnapshot> {
  for (let tries = 0; tries < maxTries; tries++) {
    const loaded = await tryToLoad(commands, connections, keep)
    if (loaded) return loaded
  }
  throw new Error('Agents change faster than Redis returns them: increase feed.ringSize')
}

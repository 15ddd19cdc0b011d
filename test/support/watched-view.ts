import { Digest, recordDigest } from '../../src/registry/replica.js'
import type { Json } from './harness.js'

interface Known { readonly revision: number, readonly state: string }

function parse (revision: string): [epoch: string, n: number] {
  const [epoch, n] = revision.split(':')
  return [epoch!, Number(n)]
}

/** The state of a client that watches the whole registry, and the errors found on the way. */
export class View {
  readonly agents = new Map<string, Known>()
  readonly faults: string[] = []
  /** Every received change: `<agent_id> <op> <state>`. */
  readonly received: string[] = []
  readonly tally = { changes: 0, snapshots: 0, resyncs: 0, bookmarks: 0 }
  #epoch = ''
  #n = -1
  #isWhole = false
  readonly #keepsReceived: boolean

  constructor ({ keepsReceived = false } = {}) {
    this.#keepsReceived = keepsReceived
  }

  /** The revision to resume from; undefined if a snapshot is needed. */
  get revision (): string | undefined {
    return this.#isWhole ? `${this.#epoch}:${this.#n}` : undefined
  }

  /** The digest of the state, computed as the registry does. */
  get digest (): string {
    const digest = new Digest()
    for (const [id, { revision, state }] of this.agents) digest.add(recordDigest(this.#epoch, { id, revision, state: state as 'alive' }))
    return digest.toString()
  }

  /** Drops the pages of an incomplete snapshot. */
  begin (): void {
    if (!this.#isWhole) this.agents.clear()
  }

  /** Applies one frame, or the data of one event, of `type`. */
  take (type: string, frame: Json): void {
    if (type === 'agents_delta') for (const change of frame.changes) this.#change(change)
    else if (type === 'put' || type === 'state' || type === 'remove') this.#change(frame)
    else if (type === 'agents_snapshot' || type === 'snapshot') this.#page(frame)
    else if (type === 'bookmark') this.#check(frame)
    else if (type === 'resync') this.#forget()
  }

  #forget () {
    this.tally.resyncs++
    this.agents.clear()
    this.#isWhole = false
  }

  #page ({ revision, agents, last }: Json) {
    this.tally.snapshots++
    for (const { agent_id: id, state, revision } of agents) this.agents.set(id, { state, revision: parse(revision)[1] })
    if (!last) return
    [this.#epoch, this.#n] = parse(revision)
    this.#isWhole = true
  }

  #change ({ revision, op, agent_id: id, state }: Json) {
    const [epoch, n] = parse(revision)
    this.tally.changes++
    if (epoch !== this.#epoch || n !== this.#n + 1) this.faults.push(`${revision} came after ${this.#epoch}:${this.#n}`)
    if (op === 'state' && !this.agents.has(id)) this.faults.push(`${revision}: the state of '${id}', which is not known`)
    if (op === 'remove' && !this.agents.has(id)) this.faults.push(`${revision}: '${id}' is removed, which is not known`)
    if (op === 'remove') this.agents.delete(id)
    else this.agents.set(id, { state, revision: n })
    if (this.#keepsReceived) this.received.push(`${id} ${op} ${state ?? 'gone'}`)
    ;[this.#epoch, this.#n] = [epoch, n]
  }

  #check ({ revision, count, digest }: Json) {
    this.tally.bookmarks++
    if (revision !== this.revision) this.faults.push(`the bookmark says ${revision}, known is ${this.revision}`)
    else if (count !== this.agents.size) this.faults.push(`${revision}: ${count} agents there, ${this.agents.size} here`)
    else if (digest !== this.digest) this.faults.push(`${revision}: digest ${digest} there, ${this.digest} here`)
  }
}

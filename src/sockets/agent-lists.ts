import { isPublic } from '../registry/replica.js'
import type { Rendering } from '../registry/render.js'
import type { View } from '../registry/render.js'
import { statusOf } from '../protocol/schemas/agent.js'
import type { ChangeEvent, Difference } from '../storage/agent-store.js'
import type { Connection } from './connection.js'
import { EncodedMessage } from '../protocol/encoded-message.js'
import type { SocketServices } from './services.js'
import type { TierName } from '../protocol/frames/catalogues.js'
import type { Tier } from './tiers.js'

interface TierUpdates {
  readonly tier: Tier
  readonly intervalMs: number
  /** Agents that changed since the last list went out, the latest last. */
  readonly changed: Set<string>
  sentAt: number
  /** Grows with what a list costs. */
  spacingMs: number
  timer: NodeJS.Timeout | undefined
  /** What the last newcomer got. */
  first?: { readonly messages: readonly EncodedMessage[], readonly version: number, readonly madeAt: number }
}

interface List { agents: string[], total: number, truncated: boolean }

/** Lists may take a fifth of one core. */
const costFactor = 5
/** How old the times of last signs of life may be in the list of a newcomer. */
const sharedMs = 1000

/** Without an event it is a difference that was found later. */
type Told = Difference & { event?: ChangeEvent }

function isVisible (view: View, { event = 'updated', before, after }: Told): boolean {
  if (view === 'public') {
    const was = before !== null && isPublic(before)
    const is = after !== null && isPublic(after)
    return was !== is || (is && (event === 'registered' || event === 'updated'))
  }
  if (!before || !after || event === 'registered' || event === 'updated') return true
  return statusOf(before.state) !== statusOf(after.state) || isPublic(before) !== isPublic(after)
}

/**
 * The lists of agents that sockets get unasked: the first change at once, then at most one list per interval, always of
 * the newest state. Watchers get deltas instead.
 */
export class ListUpdates {
  readonly #tiers = new Map<TierName, TierUpdates>()
  #services!: SocketServices

  start (services: SocketServices, tiers: Array<{ tier: Tier, intervalMs: number }>): void {
    this.#services = services
    for (const { tier, intervalMs } of tiers) {
      this.#tiers.set(tier.name, { tier, intervalMs, changed: new Set(), sentAt: -Infinity, spacingMs: intervalMs, timer: undefined })
    }
  }

  stop (): void {
    for (const updates of this.#tiers.values()) clearTimeout(updates.timer)
  }

  change (change: Told): void {
    for (const updates of this.#tiers.values()) {
      if (this.#services.hub.connections(updates.tier.name).size === 0 || !isVisible(updates.tier.view, change)) continue
      updates.changed.delete(change.id)
      updates.changed.add(change.id)
      const wait = Math.max(0, updates.sentAt + updates.spacingMs - this.#services.now())
      updates.timer ??= setTimeout(() => this.#flush(updates), wait).unref()
    }
  }

  /** The list of now, for a connection that has just come. */
  sendTo (connection: Connection): void {
    const updates = this.#tiers.get(connection.tier.name)!
    connection.sendLatest('list', () => this.#newcomersList(updates))
  }

  /** Many who come at once get one list, as long as it is the newest. */
  #newcomersList (updates: TierUpdates): readonly EncodedMessage[] {
    const { registry: { replica }, now } = this.#services
    const { first } = updates
    if (first && first.version === replica.version && now() - first.madeAt < sharedMs) return first.messages
    const messages = this.#frames(updates, [])
    updates.first = { messages, version: replica.version, madeAt: now() }
    return messages
  }

  #flush (updates: TierUpdates) {
    const changed = [...updates.changed].reverse()
    updates.changed.clear()
    updates.timer = undefined
    updates.sentAt = this.#services.now()
    const started = performance.now()
    this.#broadcast(updates, changed)
    updates.spacingMs = Math.max(updates.intervalMs, costFactor * (performance.now() - started))
  }

  #broadcast (updates: TierUpdates, changed: string[]) {
    let revision = -1
    let messages: EncodedMessage[] = []
    const make = () => {
      if (revision !== this.#services.registry.replica.revision) messages = this.#frames(updates, changed)
      revision = this.#services.registry.replica.revision
      return messages
    }
    for (const connection of this.#services.hub.connections(updates.tier.name)) {
      // A watcher gets deltas; one may become so while a list is on its way.
      if (connection.isAuthenticated) connection.sendLatest('list', () => connection.watcher ? [] : make())
    }
  }

  #frames ({ tier }: TierUpdates, changed: readonly string[]): EncodedMessage[] {
    return this.#texts(tier, changed).map(text => new EncodedMessage(text))
  }

  #texts (tier: Tier, changed: readonly string[]): string[] {
    const { registry, now } = this.#services
    const { agents, total, truncated } = this.#list(tier.view, changed)
    if (tier.name === 'public') {
      const cut = truncated ? ',"truncated":true' : ''
      return [`{"type":"agents_update","timestamp":${now() / 1000},"data":{"agents":[${agents.join()}],"total_count":${total},"revision":"${registry.revision}"${cut}}}`]
    }
    const list = `[${agents.join()}]`
    return truncated ? [list, JSON.stringify({ type: 'agents_truncated', total_count: total, sent: agents.length, revision: registry.revision })] : [list]
  }

  /** All agents in order of registration or, when they are too many, what changed first and then the newest. */
  #list (view: View, changed: readonly string[]): List {
    const { replica } = this.#services.registry
    const { maxAgentsPerUpdate } = this.#services.options.sockets
    const all = view === 'public' ? replica.discoverable : replica.entries
    const total = view === 'public' ? replica.discoverable.size : replica.size
    if (total <= maxAgentsPerUpdate) {
      const whole = this.#take(Array.from(all, entry => entry.rendering), view)
      if (whole.length === total) return { agents: whole, total, truncated: false }
    }
    return { agents: this.#take(this.#byInterest(view, changed), view), total, truncated: true }
  }

  * #byInterest (view: View, changed: readonly string[]): Generator<Rendering> {
    const { replica } = this.#services.registry
    const isShown = (rendering: Rendering) => view === 'full' || isPublic(rendering.record)
    const first = new Set(changed)
    for (const id of changed) {
      const rendering = replica.get(id)?.rendering
      if (rendering && isShown(rendering)) yield rendering
    }
    for (const { rendering } of replica.newest()) {
      if (isShown(rendering) && !first.has(rendering.record.id)) yield rendering
    }
  }

  /** As many as fit; one that would not fit by itself does not keep the others out. */
  #take (renderings: Iterable<Rendering>, view: View): string[] {
    const { maxAgentsPerUpdate, maxUpdateBytes } = this.#services.options.sockets
    const agents: string[] = []
    let bytes = 0
    for (const rendering of renderings) {
      const text = view === 'public' ? rendering.public()! : rendering.full()
      const size = Buffer.byteLength(text) + 1
      if (size > maxUpdateBytes) continue
      bytes += size
      if (agents.length === maxAgentsPerUpdate || bytes > maxUpdateBytes) break
      agents.push(text)
    }
    return agents
  }
}

import type { Dashboard } from '../dashboard/dashboard.js'
import type { DataFrameType } from '../dashboard/frames.js'
import type { Clock } from '../lib/clock.js'
import type { ResolvedOptions } from '../options.js'
import { EncodedMessage } from '../protocol/encoded-message.js'
import { statusOf } from '../protocol/schemas/agent.js'
import type { Registry } from '../registry/registry.js'
import type { Rendering, View } from '../registry/render.js'
import { isPublic } from '../registry/replica.js'
import type { ChangeEvent, Difference } from '../storage/agent-store.js'
import type { Connection } from './connection.js'
import type { Hub } from './hub.js'

/** The lists of agents that one tier receives after changes. */
interface AgentLists {
  readonly tier: 'public' | 'agents'
  readonly view: View
  readonly intervalMs: number
  /** Ids of the agents that have changed since the last list, the latest last. */
  readonly changed: Set<string>
  sentAt: number
  /** The time between two lists: `intervalMs`, or more if the lists are expensive. */
  spacingMs: number
  timer: NodeJS.Timeout | undefined
  /** The list that was last sent to a new connection. */
  first?: { readonly messages: readonly EncodedMessage[], readonly version: number, readonly madeAt: number }
}

interface AgentList { agents: string[], total: number, truncated: boolean }

/** A change; without an event it was found by comparing a reloaded replica. */
type AgentChange = Difference & { event?: ChangeEvent }

interface BroadcastsOptions { hub: Hub, registry: Registry, options: ResolvedOptions, now: Clock }

/** Wait at least this many times as long as the last list took to build, so that lists use at most a fifth of a core. */
const costFactor = 5
/** New connections within this time share a list if no agent has changed; `last_seen` may be older by this much. */
const sharedMs = 1000

function isVisible (view: View, { event = 'updated', before, after }: AgentChange): boolean {
  const isContent = event === 'registered' || event === 'updated'
  if (view === 'public') {
    const was = before !== null && isPublic(before)
    const is = after !== null && isPublic(after)
    return was !== is || (is && isContent)
  }
  if (!before || !after || isContent) return true
  return statusOf(before.state) !== statusOf(after.state) || isPublic(before) !== isPublic(after)
}

/**
 * The frames that the server sends without a request:
 * - `stats_update` to every connection of `/public/ws`, on the interval of the tier since the connection was opened;
 * - `agents_update` on `/public/ws` and the list of agents on `/agents/ws` after changes: the first change at once, then
 *   at most one list per interval, always of the newest state. Connections that watch receive deltas instead;
 * - data frames to dashboards, when the dashboard produces them.
 */
export class Broadcasts {
  readonly #hub: Hub
  readonly #registry: Registry
  readonly #limits: ResolvedOptions['sockets']
  readonly #statsIntervalMs: number
  readonly #lists: readonly AgentLists[]
  readonly #now: Clock
  #statsTimer: NodeJS.Timeout | undefined

  constructor ({ hub, registry, options, now }: BroadcastsOptions) {
    const { sockets, publicWs, agentsWs } = options
    this.#hub = hub
    this.#registry = registry
    this.#limits = sockets
    this.#statsIntervalMs = publicWs.intervalMs
    this.#lists = [listsOf('public', 'public', sockets.agentsUpdateIntervalMs), listsOf('agents', 'full', agentsWs.intervalMs)]
    this.#now = now
  }

  start (): void {
    const everyMs = Math.max(20, Math.min(1000, this.#statsIntervalMs / 4))
    this.#statsTimer = setInterval(() => { this.#sendStatistics() }, everyMs).unref()
  }

  stop (): void {
    clearInterval(this.#statsTimer)
    for (const { timer } of this.#lists) clearTimeout(timer)
  }

  /** Sends `stats_update` to the connections for which it is due. All share one message. */
  #sendStatistics () {
    const now = this.#now()
    let message: EncodedMessage | undefined
    const make = () => [(message ??= this.#statistics(now))]
    for (const connection of this.#hub.connections('public')) {
      if (now < connection.nextStatsAt) continue
      connection.nextStatsAt = now + this.#statsIntervalMs
      connection.sendLatest('stats', make)
    }
  }

  #statistics (now: number): EncodedMessage {
    const { agent_types: types, ...counts } = this.#registry.stats()
    const available = Object.keys(types)
    const data = { ...counts, agent_types_count: available.length, available_types: available, system_status: 'operational' }
    return new EncodedMessage(JSON.stringify({ type: 'stats_update', timestamp: now / 1000, data }))
  }

  /** Schedules lists for the tiers that can see a change. */
  agentChanged (change: AgentChange): void {
    for (const lists of this.#lists) {
      if (this.#hub.connections(lists.tier).size === 0 || !isVisible(lists.view, change)) continue
      lists.changed.delete(change.id)
      lists.changed.add(change.id)
      const wait = Math.max(0, lists.sentAt + lists.spacingMs - this.#now())
      lists.timer ??= setTimeout(() => { this.#sendLists(lists) }, wait).unref()
    }
  }

  /** Sends the current list to a new connection. */
  sendList (connection: Connection): void {
    const lists = this.#lists.find(({ tier }) => tier === connection.tier.name)
    if (lists) connection.sendLatest('list', () => this.#firstList(lists))
  }

  #firstList (lists: AgentLists): readonly EncodedMessage[] {
    const { version } = this.#registry.replica
    const { first } = lists
    if (first?.version === version && this.#now() - first.madeAt < sharedMs) return first.messages
    const messages = this.#listFrames(lists, [])
    lists.first = { messages, version, madeAt: this.#now() }
    return messages
  }

  #sendLists (lists: AgentLists) {
    const changed = [...lists.changed].reverse()
    lists.changed.clear()
    lists.timer = undefined
    lists.sentAt = this.#now()
    const started = performance.now()
    const make = this.#sharedList(lists, changed)
    for (const connection of this.#hub.connections(lists.tier)) {
      // A connection may start to watch while a list waits to be sent.
      if (connection.isAuthenticated) connection.sendLatest('list', () => connection.isWatching ? [] : make())
    }
    lists.spacingMs = Math.max(lists.intervalMs, costFactor * (performance.now() - started))
  }

  /** Makes a list once per revision: a connection that is behind receives a newer one later. */
  #sharedList (lists: AgentLists, changed: readonly string[]): () => readonly EncodedMessage[] {
    const { replica } = this.#registry
    let revision = -1
    let messages: readonly EncodedMessage[] = []
    return () => {
      if (revision !== replica.revision) messages = this.#listFrames(lists, changed)
      revision = replica.revision
      return messages
    }
  }

  #listFrames ({ tier, view }: AgentLists, changed: readonly string[]): EncodedMessage[] {
    const { agents, total, truncated } = this.#list(view, changed)
    const { revision } = this.#registry
    const list = `[${agents.join()}]`
    if (tier === 'public') {
      const data = `{"agents":${list},"total_count":${total},"revision":"${revision}"${truncated ? ',"truncated":true' : ''}}`
      return [new EncodedMessage(`{"type":"agents_update","timestamp":${this.#now() / 1000},"data":${data}}`)]
    }
    const frames = [new EncodedMessage(list)]
    const notice = { type: 'agents_truncated', total_count: total, sent: agents.length, revision }
    if (truncated) frames.push(new EncodedMessage(JSON.stringify(notice)))
    return frames
  }

  /** All agents in the order of registration. If they are too many: the changed agents first, then the newest. */
  #list (view: View, changed: readonly string[]): AgentList {
    const { replica } = this.#registry
    const all = view === 'public' ? replica.discoverable : replica.entries
    const total = view === 'public' ? replica.discoverable.size : replica.size
    if (total <= this.#limits.maxAgentsPerUpdate) {
      const agents = this.#take(Array.from(all, entry => entry.rendering), view)
      if (agents.length === total) return { agents, total, truncated: false }
    }
    return { agents: this.#take(this.#byInterest(view, changed), view), total, truncated: true }
  }

  * #byInterest (view: View, changed: readonly string[]): Generator<Rendering> {
    const { replica } = this.#registry
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

  /** Takes as many agents as fit. One that is larger than a whole frame is left out. */
  #take (renderings: Iterable<Rendering>, view: View): string[] {
    const { maxAgentsPerUpdate, maxUpdateBytes } = this.#limits
    const agents: string[] = []
    let bytes = 0
    for (const rendering of renderings) {
      const text = view === 'public' ? rendering.public() : rendering.full()
      const size = text === null ? Infinity : Buffer.byteLength(text) + 1
      if (text === null || size > maxUpdateBytes) continue
      bytes += size
      if (agents.length === maxAgentsPerUpdate || bytes > maxUpdateBytes) break
      agents.push(text)
    }
    return agents
  }

  /** Sends a data frame to all dashboards. Of each type only the newest waits for a slow dashboard, except alerts. */
  sendToDashboards (type: DataFrameType, text: string): void {
    const message = new EncodedMessage(text)
    for (const connection of this.#hub.connections('dashboard')) {
      const isHeldBack = () => connection.isPaused && pausable.has(type)
      if (!connection.isAuthenticated || isHeldBack()) continue
      if (type === 'alert') connection.push(message)
      // The dashboard may pause while the frame waits.
      else connection.sendLatest(type, () => isHeldBack() ? [] : [message])
    }
  }
}

function listsOf (tier: AgentLists['tier'], view: View, intervalMs: number): AgentLists {
  return { tier, view, intervalMs, changed: new Set(), sentAt: -Infinity, spacingMs: intervalMs, timer: undefined }
}

/** The data frames of a dashboard, in the order in which a new dashboard receives them. */
export const dataFrameTypes: readonly DataFrameType[] = ['monitoring', 'health', 'agents', 'logs', 'alert']

/** The data frames that a dashboard can pause. */
const pausable: ReadonlySet<DataFrameType> = new Set(['monitoring', 'health', 'alert'])

/**
 * Sends current data frames to one dashboard, without an effect on the others.
 * @returns the types of the frames that could not be made
 */
export function sendDataFrames (connection: Connection, dashboard: Dashboard, types: readonly DataFrameType[]): DataFrameType[] {
  const failed: DataFrameType[] = []
  for (const type of types) {
    const text = dashboard.frames.frame(type)
    if (text === undefined) failed.push(type)
    else if (text !== null) connection.send(text)
  }
  return failed
}

import { applyMetrics, type StoredMetrics } from '../agent-metrics.js'
import type { AgentRecord, Heartbeat, ReportCommand } from '../agent-store.js'
import { metricsText, readMetrics, writeMetrics } from './agent-codec.js'
import { isOfRegistration } from './change-stream.js'
import type { Connections, StoreMessage, Touch } from './connections.js'

/** The revision of the agent and the time of the heartbeat; a negative `n` is a rejection (see `renew.lua`). */
export type Renewal = Pick<Touch, 'id' | 'n' | 'seen'>

interface PendingHeartbeat { heartbeat: Heartbeat, resolve: (renewal: Renewal) => void, reject: (error: unknown) => void }

type SendHeartbeats = (heartbeats: readonly Heartbeat[]) => Promise<readonly Renewal[]>

const heartbeatsPerCall = 1000

/**
 * Renews leases in batches. Heartbeats of one tick, and those that arrive while the previous call runs, share a call: the
 * busier a process is, the less a heartbeat costs it and Redis.
 */
export class HeartbeatBatcher {
  readonly #send: SendHeartbeats
  #pending: PendingHeartbeat[] = []
  #isBusy = false

  constructor (send: SendHeartbeats) {
    this.#send = send
  }

  add (heartbeat: Heartbeat): Promise<Renewal> {
    return new Promise((resolve, reject) => {
      this.#pending.push({ heartbeat, resolve, reject })
      if (!this.#isBusy) this.#begin()
    })
  }

  #begin () {
    this.#isBusy = true
    setImmediate(() => { this.#sendAll() })
  }

  async #sendAll (): Promise<void> {
    while (this.#pending.length > 0) {
      const pending = this.#pending
      this.#pending = []
      const calls = []
      for (let first = 0; first < pending.length; first += heartbeatsPerCall) {
        calls.push(this.#renew(pending.slice(first, first + heartbeatsPerCall)))
      }
      await Promise.all(calls)
    }
    this.#isBusy = false
  }

  async #renew (pending: readonly PendingHeartbeat[]): Promise<void> {
    try {
      const renewals = await this.#send(pending.map(({ heartbeat }) => heartbeat))
      for (const [index, renewal] of renewals.entries()) pending[index]?.resolve(renewal)
    } catch (error) {
      for (const { reject } of pending) reject(error)
    }
  }
}

/** The outcome of a report: the revision of the agent and its metrics, or a rejection (see `renew.lua`). */
type ReportResult =
  | { readonly ok: true, readonly n: number, readonly seen: number, readonly text: string, readonly metrics: StoredMetrics }
  | { readonly ok: false, readonly n: number }

interface PendingReport { command: ReportCommand, resolve: (result: ReportResult) => void, reject: (error: unknown) => void }

/** A report and the metrics after it. */
interface ComputedReport extends PendingReport { metrics: StoredMetrics }

/** Reports of one incarnation of an agent that are applied together. `expected` is the stored text they are based on. */
interface ReportGroup {
  id: string
  incarnation: number | undefined
  expected: string
  reports: readonly ComputedReport[]
}

/** Returns for each group the revision, a rejection, or the stored text if it is not the expected one. */
type SendReports = (args: string[]) => Promise<{ now: number, results: ReadonlyArray<number | string> }>

const groupsPerCall = 250

/**
 * Applies reports to the stored metrics, which may be newer than the known ones: then the metrics are computed again from
 * those. Reports of one agent wait for each other; those of one tick share a call.
 */
export class ReportQueue {
  readonly #known: (id: string) => StoredMetrics | null
  readonly #send: SendReports
  readonly #queues = new Map<string, PendingReport[]>()
  readonly #busy = new Set<string>()
  #isScheduled = false

  /** @param known the metrics of an agent as far as this process knows them */
  constructor (known: (id: string) => StoredMetrics | null, send: SendReports) {
    this.#known = known
    this.#send = send
  }

  add (command: ReportCommand): Promise<ReportResult> {
    return new Promise((resolve, reject) => {
      const queue = this.#queues.get(command.id)
      if (queue) queue.push({ command, resolve, reject })
      else this.#queues.set(command.id, [{ command, resolve, reject }])
      this.#schedule()
    })
  }

  #schedule () {
    if (this.#isScheduled) return
    this.#isScheduled = true
    setImmediate(() => {
      this.#isScheduled = false
      const groups: ReportGroup[] = []
      for (const [id, queue] of this.#queues) if (!this.#busy.has(id)) groups.push(this.#takeGroup(id, queue))
      for (let first = 0; first < groups.length; first += groupsPerCall) this.#apply(groups.slice(first, first + groupsPerCall))
    })
  }

  /** Takes the next reports of an agent that have the same incarnation. */
  #takeGroup (id: string, queue: PendingReport[]): ReportGroup {
    const incarnation = queue[0]?.command.incarnation
    const end = queue.findIndex(({ command }) => command.incarnation !== incarnation)
    const pending = queue.splice(0, end === -1 ? queue.length : end)
    if (queue.length === 0) this.#queues.delete(id)
    this.#busy.add(id)
    return { id, incarnation, ...compute(pending, this.#known(id)) }
  }

  async #apply (groups: readonly ReportGroup[]): Promise<void> {
    try {
      const { now, results } = await this.#send(groups.flatMap(argumentsOf))
      for (const [index, group] of groups.entries()) this.#settle(group, results[index] ?? '', now)
    } catch (error) {
      for (const group of groups) this.#finish(group, ({ reject }) => { reject(error) })
    }
  }

  #settle (group: ReportGroup, result: number | string, now: number) {
    if (typeof result === 'string') {
      this.#apply([{ ...group, ...compute(group.reports, result === '' ? null : readMetrics(result)) }])
    } else if (result < 0) {
      this.#finish(group, ({ resolve }) => { resolve({ ok: false, n: result }) })
    } else {
      this.#finish(group, ({ resolve, metrics }) => { resolve(accepted(result, now, metrics)) })
    }
  }

  #finish ({ id, reports }: ReportGroup, settle: (report: ComputedReport) => void) {
    this.#busy.delete(id)
    for (const report of reports) settle(report)
    if (this.#queues.size > 0) this.#schedule()
  }
}

function compute (pending: readonly PendingReport[], before: StoredMetrics | null): Pick<ReportGroup, 'expected' | 'reports'> {
  let latest = before
  const reports = pending.map(({ command, resolve, reject }) => {
    const metrics = latest = applyMetrics(latest, command.update, 0)
    return { command, resolve, reject, metrics }
  })
  return { expected: metricsText(before), reports }
}

function argumentsOf ({ id, incarnation, expected, reports }: ReportGroup): string[] {
  const metrics = reports.at(-1)?.metrics
  return [id, String(incarnation ?? ''), expected, metrics ? writeMetrics(metrics) : '{}']
}

function accepted (n: number, now: number, values: StoredMetrics): ReportResult {
  const text = `${now}\n${writeMetrics(values)}`
  return { ok: true, n, seen: now, text, metrics: readMetrics(text) }
}

const touchesPerMessage = 1000

/** Sends the last heartbeat of each agent to the other processes, several times per second. */
export class TouchPublisher {
  readonly #connections: Connections
  readonly #process: string
  #pending = new Map<string, Touch>()

  constructor (connections: Connections, process: string) {
    this.#connections = connections
    this.#process = process
  }

  /** @param record the current record of the agent */
  add (touch: Touch, record: Pick<AgentRecord, 'created'>): void {
    const pending = this.#pending.get(touch.id)
    const metrics = touch.metrics ?? (pending && isOfRegistration(record, pending.n) ? pending.metrics : undefined)
    this.#pending.set(touch.id, { ...touch, ...(metrics !== undefined && { metrics }) })
  }

  /** Touches that cannot be sent are dropped: after an outage the other processes read all of them. */
  async flush (): Promise<void> {
    if (this.#pending.size === 0) return
    const touches = [...this.#pending.values()]
    this.#pending = new Map()
    for (let first = 0; first < touches.length; first += touchesPerMessage) {
      const message: StoreMessage = { type: 'touched', from: this.#process, touches: touches.slice(first, first + touchesPerMessage) }
      await this.#connections.publish(message)
    }
  }
}

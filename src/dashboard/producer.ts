import type { Clock } from '../lib/clock.js'
import { alertSnapshot } from './alert-snapshot.js'
import type { Alert, Alerts } from './alerts.js'
import { frameText, type DataFrameType } from './frame.js'
import type { HealthData } from './health.js'
import type { LogRing } from './logs.js'
import type { MonitoringData } from './monitoring.js'

export interface ProducerOptions {
  now: Clock
  /** Time between two sets of frames (ms). */
  intervalMs: number
  /** Entries of a `logs` frame. */
  maxLogsPerFrame?: number
  monitoring: () => MonitoringData
  health: () => HealthData
  /** JSON text. */
  agents: () => string
  logs: LogRing
  alerts: Alerts
  /** How many dashboards there are. */
  watchers: () => number
  /** Sends one text to all of them. */
  broadcast: (type: DataFrameType, text: string) => void
}

/** New log entries are pushed within a second. */
const tickMs = 500
/** Frames may take a fifth of one core. */
const costFactor = 5

/** Under which source a critical alert is logged. */
const logSources = new Map([['storage', 'storage'], ['agent_connectivity', 'agents']])

/** Makes each data frame once for all dashboards, and only while there are any. */
export class Producer {
  readonly #options: ProducerOptions
  readonly #stopListening: () => void
  #timer: NodeJS.Timeout | undefined
  #nextAt: number
  #hasNewLogs = false

  constructor (options: ProducerOptions) {
    this.#options = options
    this.#nextAt = options.now() + options.intervalMs
    this.#stopListening = options.logs.onEntry(() => { this.#hasNewLogs = true })
  }

  start (): void {
    if (!this.#timer) this.#schedule()
  }

  stop (): void {
    clearTimeout(this.#timer)
    this.#timer = undefined
    this.#stopListening()
  }

  /** Sends what is due. */
  tick (): void {
    const { now, watchers, intervalMs } = this.#options
    const at = now()
    if (watchers() === 0) {
      this.#nextAt = at + intervalMs
      this.#hasNewLogs = false
    } else if (at >= this.#nextAt) {
      this.#produce(at)
      this.#nextAt = at + Math.max(intervalMs, costFactor * (now() - at))
    } else if (this.#hasNewLogs) {
      this.#sendLogs(at)
    }
  }

  /** The next look: when frames are due, or sooner for new log entries. */
  #schedule () {
    const wait = Math.max(1, Math.min(tickMs, Math.ceil(this.#nextAt - this.#options.now())))
    this.#timer = setTimeout(() => {
      this.tick()
      if (this.#timer) this.#schedule()
    }, wait).unref()
  }

  /** A frame of now, for one dashboard; changes nothing. Null when there is nothing to tell, undefined when it cannot be made. */
  frame (type: DataFrameType): string | null | undefined {
    if (type === 'alert' && this.#options.alerts.size === 0) return null
    return this.#attempt(type, () => frameText(type, this.#options.now(), this.#data(type)))
  }

  #data (type: DataFrameType): string {
    const { monitoring, health, agents, logs, alerts, maxLogsPerFrame } = this.#options
    switch (type) {
      case 'agents': return agents()
      case 'monitoring': return JSON.stringify(monitoring())
      case 'health': return JSON.stringify(health())
      case 'logs': return JSON.stringify(logs.frame(maxLogsPerFrame))
      case 'alert': return JSON.stringify(alerts.frame())
    }
  }

  #produce (at: number) {
    const health = this.#attempt('health', () => this.#options.health())
    const monitoring = this.#attempt('monitoring', () => this.#options.monitoring())
    const agents = this.#attempt('agents', () => this.#options.agents())
    const raised = monitoring && health ? this.#options.alerts.evaluate(alertSnapshot(monitoring, health)) : []
    this.#logCritical(raised)
    if (monitoring) this.#send('monitoring', at, JSON.stringify(monitoring))
    if (health) this.#send('health', at, JSON.stringify(health))
    if (agents) this.#send('agents', at, agents)
    this.#sendLogs(at)
    if (raised.length > 0) this.#send('alert', at, JSON.stringify(this.#options.alerts.frame(raised)))
  }

  /** A frame that cannot be made is left out, which is not the same as a frame of zeros; the dashboards are told why. */
  #attempt<T> (type: DataFrameType, make: () => T): T | undefined {
    try {
      return make()
    } catch (error) {
      const message = `No ${type} frame: ${error instanceof Error ? error.message : 'unknown error'}`
      this.#options.logs.add({ level: 'ERR', message, source: 'monitoring' })
      return undefined
    }
  }

  #logCritical (raised: readonly Alert[]) {
    for (const { severity, type, message } of raised) {
      if (severity === 'critical') this.#options.logs.add({ level: 'CRIT', message, source: logSources.get(type) ?? 'monitoring' })
    }
  }

  #sendLogs (at: number) {
    this.#hasNewLogs = false
    this.#send('logs', at, this.#data('logs'))
  }

  #send (type: DataFrameType, at: number, data: string) {
    this.#options.broadcast(type, frameText(type, at, data))
  }
}

import type { Clock } from '../lib/clock.js'
import { alertSnapshot } from './alert-rules.js'
import type { Alert, Alerts } from './alerts.js'
import { frameText, type DataFrameType } from './frames.js'
import type { HealthData } from './health.js'
import type { LogBuffer } from './logs.js'
import type { MonitoringData } from './monitoring.js'

export interface FrameSources {
  now: Clock
  /** Maximum number of entries in a `logs` frame. */
  maxLogsPerFrame?: number
  monitoring: () => MonitoringData
  health: () => HealthData
  /** Returns JSON text. */
  agents: () => string
  logs: LogBuffer
  alerts: Alerts
}

type DataFrame = readonly [type: DataFrameType, text: string]

/** The log source of critical alerts, by their type. */
const logSources = new Map([['storage', 'storage'], ['agent_connectivity', 'agents']])

/** Builds the data frames of dashboards. */
export class FrameBuilder {
  readonly #sources: FrameSources

  constructor (sources: FrameSources) {
    this.#sources = sources
  }

  /**
   * Builds a current frame, without changing any state.
   * @returns null if there is no data, undefined if building the frame fails
   */
  frame (type: DataFrameType): string | null | undefined {
    if (type === 'alert' && this.#sources.alerts.size === 0) return null
    return this.#attempt(type, () => frameText(type, this.#sources.now(), this.#data(type)))
  }

  /** Evaluates the alert rules and builds one frame of each type; an `alert` frame only for new alerts. */
  frames (at: number): DataFrame[] {
    const { alerts, ...sources } = this.#sources
    const health = this.#attempt('health', sources.health)
    const monitoring = this.#attempt('monitoring', sources.monitoring)
    const agents = this.#attempt('agents', sources.agents)
    const raised = monitoring && health ? alerts.evaluate(alertSnapshot(monitoring, health)) : []
    this.#logCritical(raised)
    const frames: DataFrame[] = []
    if (monitoring) frames.push(['monitoring', frameText('monitoring', at, JSON.stringify(monitoring))])
    if (health) frames.push(['health', frameText('health', at, JSON.stringify(health))])
    if (agents) frames.push(['agents', frameText('agents', at, agents)])
    frames.push(this.logsFrame(at))
    if (raised.length > 0) frames.push(['alert', frameText('alert', at, JSON.stringify(alerts.frame(raised)))])
    return frames
  }

  logsFrame (at: number): DataFrame {
    return ['logs', frameText('logs', at, this.#data('logs'))]
  }

  #data (type: DataFrameType): string {
    const { monitoring, health, agents, logs, alerts, maxLogsPerFrame } = this.#sources
    switch (type) {
      case 'agents': return agents()
      case 'monitoring': return JSON.stringify(monitoring())
      case 'health': return JSON.stringify(health())
      case 'logs': return JSON.stringify(logs.frame(maxLogsPerFrame))
      case 'alert': return JSON.stringify(alerts.frame())
    }
  }

  /** A frame that cannot be built is skipped, because a frame of zeros would mean something else. The reason is logged. */
  #attempt<T> (type: DataFrameType, build: () => T): T | undefined {
    try {
      return build()
    } catch (error) {
      const message = `Failed to build the ${type} frame: ${error instanceof Error ? error.message : 'unknown error'}`
      this.#sources.logs.add({ level: 'ERR', message, source: 'monitoring' })
      return undefined
    }
  }

  #logCritical (raised: readonly Alert[]) {
    for (const { severity, type, message } of raised) {
      if (severity === 'critical') this.#sources.logs.add({ level: 'CRIT', message, source: logSources.get(type) ?? 'monitoring' })
    }
  }
}

interface ProducerOptions {
  now: Clock
  /** Time between two sets of frames (ms). */
  intervalMs: number
  frames: FrameBuilder
  logs: LogBuffer
  /** Returns the number of connected dashboards. */
  watchers: () => number
  /** Sends a frame to all dashboards. */
  broadcast: (type: DataFrameType, text: string) => void
}

/** Interval at which new log entries are sent. */
const tickMs = 500
/** The pause after a set of frames is at least this multiple of the time to build it: at most a fifth of one core. */
const costFactor = 5

/** Sends data frames at an interval. Each is built once for all dashboards, and only while a dashboard is connected. */
export class FrameProducer {
  readonly #options: ProducerOptions
  readonly #unsubscribe: () => void
  #timer: NodeJS.Timeout | undefined
  #nextAt: number
  #hasNewLogs = false

  constructor (options: ProducerOptions) {
    this.#options = options
    this.#nextAt = options.now() + options.intervalMs
    this.#unsubscribe = options.logs.events.on('entry', () => { this.#hasNewLogs = true })
  }

  start (): void {
    if (!this.#timer) this.#schedule()
  }

  stop (): void {
    clearTimeout(this.#timer)
    this.#timer = undefined
    this.#unsubscribe()
  }

  /** Sends the frames that are due. */
  tick (): void {
    const { now, watchers, intervalMs, frames } = this.#options
    const at = now()
    if (watchers() === 0) {
      this.#nextAt = at + intervalMs
      this.#hasNewLogs = false
    } else if (at >= this.#nextAt) {
      this.#send(...frames.frames(at))
      this.#nextAt = at + Math.max(intervalMs, costFactor * (now() - at))
    } else if (this.#hasNewLogs) {
      this.#send(frames.logsFrame(at))
    }
  }

  /** Schedules the next tick: when frames are due, or earlier for new log entries. */
  #schedule () {
    const wait = Math.max(1, Math.min(tickMs, Math.ceil(this.#nextAt - this.#options.now())))
    this.#timer = setTimeout(() => {
      this.tick()
      if (this.#timer) this.#schedule()
    }, wait).unref()
  }

  #send (...frames: readonly DataFrame[]) {
    this.#hasNewLogs = false
    for (const [type, text] of frames) this.#options.broadcast(type, text)
  }
}

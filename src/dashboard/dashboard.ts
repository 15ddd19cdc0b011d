import type { AttemptTarget } from '../auth/attempts.js'
import type { Clock } from '../lib/clock.js'
import { isObject, isPoisonousKey, isShallow } from '../lib/json.js'
import type { ResolvedOptions } from '../options.js'
import type { ConfigAnswer, DashboardConfig } from '../protocol/schemas/dashboard.js'
import { showMetrics } from '../registry/render.js'
import { outageText, type Registry } from '../registry/registry.js'
import type { Change } from '../storage/agent-store.js'
import type { StorageKind } from '../storage/storage.js'
import { resolveAlertRules } from './alert-rules.js'
import { Alerts } from './alerts.js'
import { AuditLog, type Log } from './audit.js'
import { AgentsFrame } from './frames.js'
import { availableAi, healthData, noAiServices, storageHealth, type HealthData } from './health.js'
import { LogBuffer } from './logs.js'
import { monitoringData, type MonitoringData } from './monitoring.js'
import { FrameBuilder } from './producer.js'
import { RequestMonitor } from './request-stats.js'
import { ProcessSampler, ResourceSampler } from './resources.js'

const minLogEntries = 10
const maxSettingsBytes = 16_384
const maxDepth = 8
const zoneName = /^[A-Za-z][A-Za-z0-9_+/-]{0,63}$/

interface SettingsOptions {
  /** Silence after which the server pings a dashboard (ms). */
  pingIntervalMs: number
  /** Number of log entries that are kept. */
  logCapacity: number
  /** Maximum length of their messages. */
  logMessageLength: number
}

const invalid: ConfigAnswer = { status: 'error', message: 'Invalid payload' }

/** The settings that the dashboards of all admins share. */
export class UiSettings {
  readonly #options: SettingsOptions
  #ui: Record<string, unknown> = {}

  constructor (options: SettingsOptions) {
    this.#options = options
  }

  /** The response of `GET /dashboard/config`. @param tz a time zone, returned if it has the form of one */
  config (tz?: string): DashboardConfig {
    const { pingIntervalMs, logCapacity, logMessageLength } = this.#options
    return {
      timezone: tz !== undefined && zoneName.test(tz) ? tz : 'UTC',
      ws_ping_interval_ms: pingIntervalMs,
      log_buffer_maxlen: logCapacity,
      log_message_maxlen: logMessageLength,
      ui: this.#ui
    }
  }

  /**
   * The response of `POST /dashboard/config`. Members of `ui` that the body does not contain keep their value; unknown
   * members are stored as they are. A body without an object `ui`, or more than 16 KiB in total, is refused.
   */
  update (body: unknown): ConfigAnswer {
    if (!isObject(body) || !isObject(body.ui) || !isShallow(body.ui, maxDepth)) return invalid
    const given = Object.entries(body.ui).filter(([name]) => !isPoisonousKey(name))
    const ui = this.#clamped({ ...this.#ui, ...Object.fromEntries(given) })
    if (Buffer.byteLength(JSON.stringify(ui)) > maxSettingsBytes) return invalid
    this.#ui = ui
    return { status: 'ok', ui }
  }

  #clamped (ui: Record<string, unknown>): Record<string, unknown> {
    if (!('maxLogEntries' in ui)) return ui
    const { maxLogEntries, ...others } = ui
    const count = typeof maxLogEntries === 'string' ? Number.parseInt(maxLogEntries, 10) : maxLogEntries
    if (typeof count !== 'number' || !Number.isFinite(count)) return others
    return { ...others, maxLogEntries: Math.min(this.#options.logCapacity, Math.max(minLogEntries, Math.trunc(count))) }
  }
}

interface DashboardOptions { options: ResolvedOptions, registry: Registry, storageKind: StorageKind, now: Clock, log: Log }

const changeTexts: Partial<Record<Change['event'], { level: string, text: string }>> = {
  registered: { level: 'INFO', text: 'registered' },
  dead: { level: 'WARN', text: 'is dead' },
  unregistered: { level: 'INFO', text: 'is unregistered' }
}

/** The data for operators of a registry: logs, alerts, health, request and resource statistics, shared settings. */
export class Dashboard {
  readonly logs: LogBuffer
  readonly alerts: Alerts
  readonly settings: UiSettings
  readonly audit: AuditLog
  readonly requests: RequestMonitor
  readonly resources: ResourceSampler
  readonly frames: FrameBuilder
  readonly #process: ProcessSampler
  readonly #registry: Registry
  readonly #agents: AgentsFrame
  readonly #options: DashboardOptions
  #epoch: string

  constructor (settings: DashboardOptions) {
    const { options: { dashboard, dashboardWs: { pingIntervalMs } }, registry, now, log } = settings
    const { logCapacity, logMessageLength } = dashboard
    this.#options = settings
    this.#registry = registry
    this.#epoch = registry.replica.epoch
    this.logs = new LogBuffer({ now, capacity: logCapacity, maxMessageLength: logMessageLength })
    this.audit = new AuditLog({ logs: this.logs, log, now })
    this.alerts = new Alerts({ now, rules: resolveAlertRules(dashboard.alertRules), capacity: logCapacity })
    this.settings = new UiSettings({ pingIntervalMs, logCapacity, logMessageLength })
    this.requests = new RequestMonitor({ now, logs: this.logs, slowMs: dashboard.slowRequestMs })
    this.resources = new ResourceSampler({ now, capacityMbps: dashboard.networkCapacityMbps })
    this.#process = new ProcessSampler({ now })
    this.#agents = new AgentsFrame({ replica: registry.replica })
    this.frames = new FrameBuilder({
      now,
      maxLogsPerFrame: dashboard.maxLogsPerFrame,
      monitoring: () => this.#monitoring(),
      health: () => this.health(),
      agents: () => this.#agents.data(),
      logs: this.logs,
      alerts: this.alerts
    })
  }

  health (): HealthData {
    const { outage, replica } = this.#registry
    const data = healthData({
      storage: () => storageHealth(this.#options.storageKind, outage !== null),
      aiServices: this.#options.options.embed ? availableAi : noAiServices,
      agents: () => ({ total: replica.size, active: replica.size - replica.deadCount })
    })
    return outage ? { ...data, reason: `${outageText(outage)}: ${outage.fault}` } : data
  }

  /** Logs the start of a lockout after too many failed attempts. */
  lockedOut ({ kind, address, account }: AttemptTarget, retryAfterMs: number): void {
    const subject = kind === 'login' ? account : undefined
    const details = { attempt_type: kind, retry_after: Math.ceil(retryAfterMs / 1000) }
    this.audit.record({ type: 'lockout', subject, target: kind, address, details })
  }

  /** Logs that a newer instance of an agent has replaced another one. */
  agentReplaced (instance: { agentId: string, address: string | undefined, previousAddress: string | undefined }): void {
    this.audit.write({ level: 'INFO', message: 'A newer instance of an agent has registered', source: 'agents', ...instance })
  }

  agentChanged ({ id, event, reason }: Change): void {
    this.#agents.changed(id)
    const change = changeTexts[event]
    if (change) this.logs.add({ level: change.level, message: `Agent '${id}' ${change.text}`, source: 'agents', reason })
  }

  /** @param fault why the store is unreachable; null when it is reachable again */
  storeAvailability (fault: string | null): void {
    if (fault === null) this.audit.write({ level: 'INFO', message: 'The store is reachable again', source: 'storage' })
    else this.audit.write({ level: 'ERR', message: 'The store is unreachable', source: 'storage', fault })
  }

  /** Logs that the replica was read again from the store; a new epoch means that the store has lost writes. */
  storeReloaded (differences: number): void {
    const { epoch, size: agents } = this.#registry.replica
    const details = { previousEpoch: this.#epoch, epoch, agents, differences, source: 'storage' }
    if (epoch === this.#epoch) {
      this.audit.write({ level: 'WARN', message: 'The store was reloaded because changes were missed', ...details })
    } else {
      const message = 'The store has lost writes: a new epoch begins, and missing agents must register again'
      this.audit.write({ level: 'ERR', message, ...details })
    }
    this.#epoch = epoch
  }

  #monitoring (): MonitoringData {
    return monitoringData({
      replica: this.#registry.replica,
      metricsOf: record => record.metrics && showMetrics(record),
      resources: () => this.resources.sample(),
      process: () => this.#process.sample(),
      requests: () => this.requests.stats.summary()
    })
  }
}

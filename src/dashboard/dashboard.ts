import type { AttemptTarget } from '../auth/attempts.js'
import type { Clock } from '../lib/clock.js'
import type { Log } from '../foundation.js'
import type { ResolvedOptions } from '../options.js'
import { showMetrics } from '../registry/agent-metrics.js'
import { outageText, type Registry } from '../registry/registry.js'
import type { StorageKind } from '../storage/storage.js'
import type { Change } from '../storage/agent-store.js'
import { AgentsFrame } from './agents-frame.js'
import { resolveAlertRules } from './alert-rules.js'
import { Alerts } from './alerts.js'
import { Answers } from './answers.js'
import { Audit } from './audit.js'
import type { DataFrameType } from './frame.js'
import { availableAi, healthData, noAiServices, storageHealth, type HealthData } from './health.js'
import { LogRing } from './logs.js'
import { monitoringData } from './monitoring.js'
import { ProcessSampler } from './process-use.js'
import { Producer } from './producer.js'
import { RequestStats } from './request-stats.js'
import { Resources } from './resources.js'
import { UiSettings } from './settings.js'

export interface DashboardOptions { options: ResolvedOptions, registry: Registry, storageKind: StorageKind, now: Clock, log: Log }

const logged: Partial<Record<Change['event'], { level: string, text: string }>> = {
  registered: { level: 'INFO', text: 'registered' },
  dead: { level: 'WARN', text: 'is dead' },
  unregistered: { level: 'INFO', text: 'is unregistered' }
}

/** The operator's side of a registry: what is measured, logged and worth an alarm. */
export class Dashboard {
  readonly logs: LogRing
  readonly alerts: Alerts
  readonly settings: UiSettings
  readonly audit: Audit
  readonly answers: Answers
  readonly requests: RequestStats
  readonly resources: Resources
  readonly process: ProcessSampler
  readonly #registry: Registry
  readonly #agents: AgentsFrame
  readonly #options: DashboardOptions
  #epoch: string
  #producer: Producer | undefined

  constructor (settings: DashboardOptions) {
    const { options: { dashboard, dashboardWs }, registry, now, log } = settings
    this.#options = settings
    this.#registry = registry
    this.logs = new LogRing({ now, capacity: dashboard.logCapacity, maxMessageLength: dashboard.logMessageLength })
    this.audit = new Audit({ logs: this.logs, log, now })
    this.alerts = new Alerts({ now, rules: resolveAlertRules(dashboard.alertRules), capacity: dashboard.logCapacity })
    this.settings = new UiSettings({ pingIntervalMs: dashboardWs.pingIntervalMs, logCapacity: dashboard.logCapacity, logMessageLength: dashboard.logMessageLength })
    this.requests = new RequestStats({ now })
    this.answers = new Answers({ now, logs: this.logs, stats: this.requests, slowMs: dashboard.slowRequestMs })
    this.process = new ProcessSampler({ now })
    this.resources = new Resources({ now, capacityMbps: dashboard.networkCapacityMbps })
    this.#agents = new AgentsFrame({ replica: registry.replica })
    registry.on('change', change => this.#changed(change))
    registry.on('availability', fault => this.#storeIs(fault))
    this.#epoch = registry.replica.epoch
    registry.on('reload', differences => this.#reloaded(differences.length))
  }

  /** Begins to produce frames. @param watchers how many dashboards there are @param broadcast sends to all of them */
  start (watchers: () => number, broadcast: (type: DataFrameType, text: string) => void): void {
    const { options: { dashboard, dashboardWs }, now } = this.#options
    this.#producer = new Producer({
      now,
      intervalMs: dashboardWs.intervalMs,
      maxLogsPerFrame: dashboard.maxLogsPerFrame,
      monitoring: () => this.#monitoring(),
      health: () => this.health(),
      agents: () => this.#agents.data(),
      logs: this.logs,
      alerts: this.alerts,
      watchers,
      broadcast
    })
    this.#producer.start()
    this.logs.add({ level: 'INFO', message: 'Monitoring started', source: 'system' })
  }

  stop (): void {
    this.#producer?.stop()
  }

  /**
   * A frame of now for one dashboard; null when there is nothing to tell, or nothing is produced yet; undefined when it
   * cannot be made, of which the log tells.
   */
  frame (type: DataFrameType): string | null | undefined {
    return this.#producer ? this.#producer.frame(type) : null
  }

  health (): HealthData {
    const { outage } = this.#registry
    const data = healthData({
      storage: () => storageHealth(this.#options.storageKind, this.#registry.outage !== null),
      aiServices: this.#options.options.embed ? availableAi : noAiServices,
      agents: () => ({ total: this.#registry.replica.size, active: this.#registry.replica.size - this.#registry.replica.deadCount })
    })
    return outage ? { ...data, reason: `${outageText(outage)}: ${outage.fault}` } : data
  }

  /** Somebody has no tries left. */
  lockedOut ({ kind, address, account }: AttemptTarget, retryAfterMs: number): void {
    const subject = kind === 'login' ? account : undefined
    this.audit.record({ type: 'lockout', subject, target: kind, address, details: { attempt_type: kind, retry_after: Math.ceil(retryAfterMs / 1000) } })
  }

  /** Logs that a new instance of a registered agent has registered. */
  replaced (instance: { agentId: string, address: string | undefined, previousAddress: string | undefined }): void {
    this.audit.write({ level: 'INFO', message: 'a newer instance of an agent registered', source: 'agents', ...instance })
  }

  #storeIs (fault: string | null) {
    if (fault === null) this.audit.write({ level: 'INFO', message: 'The store can be reached again', source: 'storage' })
    else this.audit.write({ level: 'ERR', message: 'The store cannot be reached', source: 'storage', fault })
  }

  /** What was known does not continue: loud where writes are lost. */
  #reloaded (differences: number) {
    const { epoch, size: agents } = this.#registry.replica
    const details = { previousEpoch: this.#epoch, epoch, agents, differences }
    if (epoch === this.#epoch) this.audit.write({ level: 'WARN', message: 'The store was read anew: changes were missed', source: 'storage', ...details })
    else this.audit.write({ level: 'ERR', message: 'The store has lost writes: a new epoch begins, agents that are missing have to register again', source: 'storage', ...details })
    this.#epoch = epoch
  }

  #monitoring () {
    return monitoringData({
      replica: this.#registry.replica,
      metricsOf: record => record.metrics && showMetrics(record),
      resources: () => this.resources.sample(),
      process: () => this.process.sample(),
      requests: () => this.requests.summary()
    })
  }

  #changed ({ id, event, reason }: Change) {
    this.#agents.changed(id)
    const entry = logged[event]
    if (entry) this.logs.add({ level: entry.level, message: `Agent '${id}' ${entry.text}`, source: 'agents', reason })
  }
}

import { randomUUID } from 'node:crypto'
import type { Clock } from '../lib/clock.js'
import { isObject } from '../lib/json.js'
import type { AlertComparison } from '../protocol/schemas/dashboard.js'
import { resolveAlertRules, severities, type AlertRule, type AlertSeverity, type AlertSnapshot } from './alert-rules.js'
import { envelopeBytes, isoTime, maxFrameBytes, round } from './frames.js'
import { cleanMembers, isIsoDate, redact, RingBuffer, type Scalar } from './logs.js'

export interface Alert {
  readonly id: string
  readonly title: string
  readonly message: string
  readonly severity: AlertSeverity
  readonly type: string
  /** RFC 3339, UTC, with milliseconds. */
  readonly timestamp: string
  readonly details: Readonly<Record<string, Scalar>>
}

/** Times in epoch milliseconds: since when the condition has held, and when the rule last raised an alert. */
interface RuleState { readonly rule: AlertRule, since: number | null, raisedAt: number }

const maxTitleLength = 200
const maxMessageLength = 1_000
const maxTypeLength = 64
/** Maximum number of alerts in one `dashboard_alert` frame. */
const maxPerFrame = 50

const comparisons: Record<AlertComparison, (value: number | string, threshold: number | string) => boolean> = {
  '>': (value, threshold) => value > threshold,
  '>=': (value, threshold) => value >= threshold,
  '<': (value, threshold) => value < threshold,
  '<=': (value, threshold) => value <= threshold,
  '=': (value, threshold) => value === threshold
}
/** Other names that dashboards use for severities. */
const severityAliases = new Map<string, AlertSeverity>([['error', 'critical'], ['danger', 'critical'], ['warn', 'warning']])

function severityOf (value: unknown): AlertSeverity {
  const name = typeof value === 'string' ? value.trim().toLowerCase() : ''
  return severityAliases.get(name) ?? severities.find(severity => severity === name) ?? 'info'
}

/** `agent_connectivity` → "Agent connectivity". */
function titleOf (type: string): string {
  const words = type.replaceAll('_', ' ').trim()
  return words === '' ? 'Alert' : words.charAt(0).toUpperCase() + words.slice(1)
}

function textOf (value: unknown, length: number): string {
  return typeof value === 'string' ? redact(value.trim(), length) : ''
}

/** The alerts in the data of a `dashboard_alert` frame. */
function alertsIn (data: unknown): unknown[] {
  return isObject(data) && Array.isArray(data.alerts) ? data.alerts.slice(0, maxPerFrame) : [data]
}

const isText = (value: unknown) => typeof value === 'string' && value.trim() !== ''

/** Whether the data of a `dashboard_alert` frame contains an alert with a message or a title. */
export function hasAlert (data: unknown): boolean {
  return alertsIn(data).some(given => isObject(given) && (isText(given.message) || isText(given.title)))
}

function applies ({ metric, comparison, threshold }: AlertRule, { values }: AlertSnapshot): boolean {
  const value = values[metric]
  return value !== undefined && typeof value === typeof threshold && comparisons[comparison](value, threshold)
}

/** Replaces `{name}` by the member of that name. */
function fill (template: string, members: Readonly<Record<string, Scalar>>): string {
  return template.replace(/\{(\w+)\}/g, (whole, name: string) => Object.hasOwn(members, name) ? String(members[name]) : whole)
}

function detailsOf ({ type, metric, threshold }: AlertRule, { values, details }: AlertSnapshot): Record<string, Scalar> {
  const known = (Object.hasOwn(details, type) && details[type]) || { metric, value: values[metric] ?? null }
  return typeof threshold === 'number' ? { ...known, threshold } : { ...known }
}

function messageOf (rule: AlertRule, value: number | string | undefined, details: Record<string, Scalar>): string {
  const members = { ...details, threshold: rule.threshold }
  if (typeof value !== 'number') return fill(rule.message, { ...members, value: value ?? null })
  return fill(rule.message, { ...members, value: round(value, 3), percent: round(100 * value, 1) })
}

/** Equal for duplicate alerts. */
const duplicateKey = ({ type, message }: Alert) => `${type}\n${message}`

/** The states of rules grouped by type, the most severe first. */
function groupByType (rules: readonly AlertRule[]): RuleState[][] {
  const groups = new Map<string, RuleState[]>()
  const sorted = [...rules].sort((a, b) => severities.indexOf(a.severity) - severities.indexOf(b.severity))
  for (const rule of sorted) groups.set(rule.type, [...groups.get(rule.type) ?? [], { rule, since: null, raisedAt: -Infinity }])
  return [...groups.values()]
}

/** Raises alerts by rules and stores them, newest first, together with the alerts that dashboards send. */
export class Alerts {
  readonly #now: Clock
  readonly #groups: RuleState[][]
  readonly #stored: RingBuffer<Alert>
  /** Number of stored alerts by `duplicateKey`. */
  readonly #counts = new Map<string, number>()

  /** @param capacity number of alerts that are kept */
  constructor ({ now, rules = resolveAlertRules(), capacity = 10_000 }: { now: Clock, rules?: readonly AlertRule[], capacity?: number }) {
    this.#now = now
    this.#groups = groupByType(rules)
    this.#stored = new RingBuffer(capacity)
  }

  get size () { return this.#stored.size }

  /**
   * Evaluates all rules and stores the alerts raised: of each type, the most severe rule that applies, unless it is in
   * its cooldown. The cooldown continues when the condition ends, so that a value oscillating around a threshold raises
   * one alert.
   */
  evaluate (snapshot: AlertSnapshot): Alert[] {
    const now = this.#now()
    const raised: Alert[] = []
    for (const group of this.#groups) {
      const [state] = group.filter(state => this.#holds(state, snapshot, now))
      if (state && now - state.raisedAt >= state.rule.cooldownMs) raised.push(this.#raise(state, snapshot, now))
    }
    return raised
  }

  /**
   * Stores the alerts of a `dashboard_alert` frame, except those whose type and message equal a stored one.
   * @param data an alert with a message or a title, or `{alerts: […]}`
   * @returns the alerts stored
   */
  add (data: unknown): Alert[] {
    return alertsIn(data).flatMap(each => {
      const alert = this.#normalize(each)
      if (!alert || this.#counts.has(duplicateKey(alert))) return []
      this.#store(alert)
      return [alert]
    })
  }

  /** The newest `max` alerts, or fewer if they would exceed the size of a frame. */
  newest (max = 200): Alert[] {
    return this.#stored.newest(max, maxFrameBytes - envelopeBytes)
  }

  /** Data of an `alert` frame. */
  frame (alerts: readonly Alert[] = this.newest()): { alerts: readonly Alert[] } {
    return { alerts }
  }

  clear (): void {
    this.#stored.clear()
    this.#counts.clear()
  }

  /** Whether the condition of a rule holds, and has held for `forMs`. */
  #holds (state: RuleState, snapshot: AlertSnapshot, now: number): boolean {
    state.since = applies(state.rule, snapshot) ? state.since ?? now : null
    return state.since !== null && now - state.since >= state.rule.forMs
  }

  #raise (state: RuleState, snapshot: AlertSnapshot, now: number): Alert {
    state.raisedAt = now
    const { type, severity, title = titleOf(type), metric } = state.rule
    const details = detailsOf(state.rule, snapshot)
    const message = textOf(messageOf(state.rule, snapshot.values[metric], details), maxMessageLength)
    const alert = { id: randomUUID(), title, message, severity, type, timestamp: isoTime(now), details }
    this.#store(alert)
    return alert
  }

  #normalize (given: unknown): Alert | undefined {
    if (!isObject(given)) return undefined
    const type = textOf(given.type, maxTypeLength).toLowerCase()
    const message = textOf(given.message, maxMessageLength)
    const title = textOf(given.title, maxTitleLength)
    if (message === '' && title === '') return undefined
    return {
      id: randomUUID(),
      title: title || titleOf(type),
      message: message || title,
      severity: severityOf(given.severity ?? given.type),
      type: type || 'general',
      timestamp: isoTime(isIsoDate(given.timestamp) ? Date.parse(given.timestamp) : this.#now()),
      details: isObject(given.details) ? cleanMembers(given.details) : {}
    }
  }

  #store (alert: Alert) {
    const removed = this.#stored.add(alert)
    this.#count(alert, 1)
    if (removed) this.#count(removed, -1)
  }

  #count (alert: Alert, by: 1 | -1) {
    const key = duplicateKey(alert)
    const count = (this.#counts.get(key) ?? 0) + by
    if (count > 0) this.#counts.set(key, count)
    else this.#counts.delete(key)
  }
}

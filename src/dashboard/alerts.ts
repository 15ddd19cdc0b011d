import { randomUUID } from 'node:crypto'
import type { Clock } from '../lib/clock.js'
import { isObject } from '../lib/json.js'
import { resolveAlertRules, severities, type AlertRule, type AlertSeverity } from './alert-rules.js'
import type { Comparison } from '../protocol/schemas/dashboard.js'
import type { AlertSnapshot } from './alert-snapshot.js'
import { envelopeBytes, isoTime, maxFrameBytes, round } from './frame.js'
import { isIsoDate } from './logs.js'
import { Recent } from './recent.js'
import { cleanMembers, redact, type Scalar } from './redact.js'

/** An alert, live or stored. */
export interface Alert {
  readonly id: string
  readonly title: string
  readonly message: string
  readonly severity: AlertSeverity
  readonly type: string
  /** RFC 3339, UTC, milliseconds. */
  readonly timestamp: string
  readonly details: Readonly<Record<string, Scalar>>
}

interface RuleState { since: number | null, raisedAt: number }

const maxTitleLength = 200
const maxMessageLength = 1_000
const maxTypeLength = 64
/** Alerts of one `dashboard_alert` frame. */
const maxPerFrame = 50

const comparisons: Record<Comparison, (value: number | string, threshold: number | string) => boolean> = {
  '>': (value, threshold) => value > threshold,
  '>=': (value, threshold) => value >= threshold,
  '<': (value, threshold) => value < threshold,
  '<=': (value, threshold) => value <= threshold,
  '=': (value, threshold) => value === threshold
}
const otherSeverities = new Map<string, AlertSeverity>([['error', 'critical'], ['danger', 'critical'], ['warn', 'warning']])

function severityOf (value: unknown): AlertSeverity {
  const name = typeof value === 'string' ? value.trim().toLowerCase() : ''
  return otherSeverities.get(name) ?? severities.find(severity => severity === name) ?? 'info'
}

/** `agent_connectivity` → "Agent connectivity". */
function titleOf (type: string): string {
  const words = type.replaceAll('_', ' ').trim()
  return words === '' ? 'Alert' : `${words[0]!.toUpperCase()}${words.slice(1)}`
}

function textOf (value: unknown, length: number): string {
  return typeof value === 'string' ? redact(value.trim(), length) : ''
}

/** What a `dashboard_alert` frame carries. */
function givenIn (data: unknown): unknown[] {
  return isObject(data) && Array.isArray(data.alerts) ? data.alerts.slice(0, maxPerFrame) : [data]
}

const isText = (value: unknown) => typeof value === 'string' && value.trim() !== ''

/** Whether the data of a `dashboard_alert` frame holds anything that can be stored: something with a message or a title. */
export function hasAlert (data: unknown): boolean {
  return givenIn(data).some(given => isObject(given) && (isText(given.message) || isText(given.title)))
}

function applies ({ metric, comparison, threshold }: AlertRule, { values }: AlertSnapshot): boolean {
  const value = values[metric]
  return typeof value === typeof threshold && comparisons[comparison](value!, threshold)
}

/** `{name}` is what `members` holds under that name. */
function fill (template: string, members: Readonly<Record<string, Scalar>>): string {
  return template.replace(/\{(\w+)\}/g, (whole, name: string) => Object.hasOwn(members, name) ? String(members[name]) : whole)
}

function detailsOf ({ type, metric, threshold }: AlertRule, { values, details }: AlertSnapshot): Record<string, Scalar> {
  const known = Object.hasOwn(details, type) ? details[type]! : { metric, value: values[metric]! }
  return typeof threshold === 'number' ? { ...known, threshold } : { ...known }
}

function messageOf (rule: AlertRule, value: number | string, details: Record<string, Scalar>): string {
  const members = { ...details, threshold: rule.threshold }
  if (typeof value === 'string') return fill(rule.message, { ...members, value })
  return fill(rule.message, { ...members, value: round(value, 3), percent: round(100 * value, 1) })
}

/** Two alerts that say the same. */
const sameness = ({ type, message }: Alert) => `${type}\n${message}`

/** Rules by their type, the most severe first. */
function groupsOf (rules: readonly AlertRule[]): AlertRule[][] {
  const groups = new Map<string, AlertRule[]>()
  const sorted = [...rules].sort((a, b) => severities.indexOf(a.severity) - severities.indexOf(b.severity))
  for (const rule of sorted) groups.set(rule.type, [...groups.get(rule.type) ?? [], rule])
  return [...groups.values()]
}

/** Raises alerts by rules, and keeps them, newest first, with those that dashboards have raised. */
export class Alerts {
  readonly #now: Clock
  readonly #groups: AlertRule[][]
  readonly #states = new Map<AlertRule, RuleState>()
  readonly #stored: Recent<Alert>
  /** How many stored alerts say the same. */
  readonly #known = new Map<string, number>()

  /** @param capacity alerts that are kept */
  constructor ({ now, rules = resolveAlertRules(), capacity = 10_000 }: { now: Clock, rules?: readonly AlertRule[], capacity?: number }) {
    this.#now = now
    this.#groups = groupsOf(rules)
    this.#stored = new Recent(capacity)
    for (const rule of rules) this.#states.set(rule, { since: null, raisedAt: -Infinity })
  }

  get size () { return this.#stored.size }

  /**
   * Looks at every rule and stores what is newly raised: of each type the most severe that applies, unless its cooldown
   * lasts; the cooldown outlives the cause, so that a value that swings around a threshold is one alert.
   */
  evaluate (snapshot: AlertSnapshot): Alert[] {
    const now = this.#now()
    const raised: Alert[] = []
    for (const group of this.#groups) {
      const held = group.filter(rule => this.#holds(rule, snapshot, now))
      if (held[0] && this.#isDue(held[0], now)) raised.push(this.#raise(held[0], snapshot, now))
    }
    return raised
  }

  /**
   * Stores what a `dashboard_alert` frame carries, unless one that says the same (type and message) is stored.
   * @param data an alert with a message or a title, or `{alerts: […]}`
   * @returns what was stored
   */
  add (data: unknown): Alert[] {
    return givenIn(data).flatMap(each => {
      const alert = this.#normalize(each)
      if (!alert || this.#known.has(sameness(alert))) return []
      this.#store(alert)
      return [alert]
    })
  }

  /** Newest first, fewer than `max` when they would not fit into a frame. */
  newest (max = 200): Alert[] {
    return this.#stored.newest(max, maxFrameBytes - envelopeBytes)
  }

  /** Data of an `alert` frame. */
  frame (alerts: readonly Alert[] = this.newest()): { alerts: readonly Alert[] } {
    return { alerts }
  }

  clear (): void {
    this.#stored.clear()
    this.#known.clear()
  }

  /** Whether a rule applies, and has for as long as it asks for. */
  #holds (rule: AlertRule, snapshot: AlertSnapshot, now: number): boolean {
    const state = this.#states.get(rule)!
    state.since = applies(rule, snapshot) ? state.since ?? now : null
    return state.since !== null && now - state.since >= rule.forMs
  }

  #isDue (rule: AlertRule, now: number): boolean {
    return now - this.#states.get(rule)!.raisedAt >= rule.cooldownMs
  }

  #raise (rule: AlertRule, snapshot: AlertSnapshot, now: number): Alert {
    this.#states.get(rule)!.raisedAt = now
    const { type, severity, title = titleOf(type), metric } = rule
    const details = detailsOf(rule, snapshot)
    const message = textOf(messageOf(rule, snapshot.values[metric]!, details), maxMessageLength)
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
    const gone = this.#stored.add(alert)
    this.#count(alert, 1)
    if (gone) this.#count(gone, -1)
  }

  #count (alert: Alert, by: 1 | -1) {
    const key = sameness(alert)
    const count = (this.#known.get(key) ?? 0) + by
    if (count > 0) this.#known.set(key, count)
    else this.#known.delete(key)
  }
}

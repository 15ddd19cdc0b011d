import { monitorEventLoopDelay } from 'node:perf_hooks'
import prom from '@platformatic/prom-client'
import type { FastifyInstance } from 'fastify'
import fp from 'fastify-plugin'
import type { Dashboard } from '../src/dashboard/dashboard.js'
import type { RequestMonitor } from '../src/dashboard/request-stats.js'
import type { ResolvedOptions } from '../src/options.js'
import { tierNames } from '../src/protocol/frames/catalogues.js'
import { implementation, protocol } from '../src/protocol/identity.js'
import type { Enrollment } from '../src/registry/enrollment.js'
import type { Registry } from '../src/registry/registry.js'
import type { Search } from '../src/search/search.js'
import type { Sockets } from '../src/sockets/sockets.js'
import type { Traffic } from '../src/sockets/outbound.js'

declare module 'fastify' {
  interface FastifyInstance {
    agentRegistryMetrics: Metrics
  }
}

/** The Prometheus exposition of a registry. */
export interface Metrics {
  readonly contentType: string
  text (): Promise<string>
}

interface MetricsOptions {
  options: ResolvedOptions
  registry: Registry
  enrollment: Enrollment
  search: Search
  dashboard: Dashboard
  sockets: Sockets
}

const durationBuckets = [0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10]
const nsPerSecond = 1e9
/** Time between two samples of the event loop. */
const resolutionMs = 20

/** Number of distinct labels. Further names share one label. */
const maxLabels = 50

/** Limits label values that clients can choose, such as types of agents: the first 50 names, then `other`. */
export class BoundedLabels {
  readonly #labels: Set<string>

  /** @param reserved names that always have their own label */
  constructor (reserved: readonly string[] = []) {
    this.#labels = new Set(reserved.slice(0, maxLabels))
  }

  /** The label of a name. A new name gets its own label while there are fewer than 50. */
  of (name: string): string {
    if (this.#labels.size < maxLabels) this.#labels.add(name)
    return this.known(name)
  }

  /** The label of a name, without adding one: refused requests must not use up labels. */
  known (name: string | undefined): string {
    if (name === undefined) return 'unknown'
    return this.#labels.has(name) ? name : 'other'
  }
}

type Labels = Record<string, string>
type SetValue = (value: number, labels?: Labels) => void
type Collect = (set: SetValue) => void

interface Series { name: string, help: string, labelNames?: string[] }

/** A gauge whose values are read when it is scraped. */
function gauge (register: prom.Registry, { name, help, labelNames = [] }: Series, collect: Collect): void {
  const series = new prom.Gauge({
    name,
    help,
    labelNames,
    registers: [register],
    collect () {
      series.reset()
      collect((value, labels = {}) => { series.inc(labels, value) })
    }
  })
}

/** A counter that another component counts; its values are read when it is scraped. */
function counter (register: prom.Registry, { name, help, labelNames = [] }: Series, collect: Collect): void {
  const series = new prom.Counter({
    name,
    help,
    labelNames,
    registers: [register],
    collect () {
      series.reset()
      collect((value, labels = {}) => { series.inc(labels, value) })
    }
  })
}

/** Counts requests. The labelled children are cached, because the library looks up labels on every use. */
function addRequests (requests: RequestMonitor, register: prom.Registry): void {
  const config = { labelNames: ['method', 'endpoint', 'status_code'], registers: [register] }
  const total = new prom.Counter({ ...config, name: 'arcp_requests_total', help: 'Number of HTTP requests answered.' })
  const duration = new prom.Histogram({
    ...config,
    name: 'arcp_request_duration_seconds',
    help: 'Time to answer an HTTP request.',
    buckets: durationBuckets
  })
  const children = new Map<string, { total: prom.Counter.Internal, duration: prom.Histogram.Internal<string> }>()

  function childOf (method: string, endpoint: string, statusCode: number) {
    const key = `${method} ${endpoint} ${statusCode}`
    const known = children.get(key)
    if (known) return known
    const labels = { method, endpoint, status_code: String(statusCode) }
    const child = { total: total.labels(labels), duration: duration.labels(labels) }
    children.set(key, child)
    return child
  }

  requests.events.on('request', ({ method, endpoint, statusCode, elapsedMs }) => {
    const child = childOf(method, endpoint, statusCode)
    child.total.inc()
    child.duration.observe(elapsedMs / 1000)
  })
}

/** Alive agents by type, with a bounded number of types. */
function aliveByType (registry: Registry): Map<string, number> {
  const labels = new BoundedLabels()
  const counts = new Map<string, number>()
  for (const [type, count] of registry.replica.aliveTypes()) {
    const label = labels.of(type)
    counts.set(label, (counts.get(label) ?? 0) + count)
  }
  return counts
}

function addRegistrations ({ registry, enrollment, options }: MetricsOptions, register: prom.Registry): void {
  const labels = new BoundedLabels(options.allowedAgentTypes.filter(type => type !== '*'))
  const registrations = new prom.Counter({
    name: 'arcp_agent_registrations_total',
    help: 'Number of registrations.',
    labelNames: ['status', 'agent_type'],
    registers: [register]
  })
  const unregistrations = new prom.Counter({
    name: 'arcp_agent_unregistrations_total',
    help: 'Number of agents that were unregistered or removed.',
    labelNames: ['status', 'reason'],
    registers: [register]
  })
  const changes = new prom.Counter({
    name: 'agent_registry_changes_total',
    help: 'Number of changes of the registry, by event.',
    labelNames: ['event'],
    registers: [register]
  })
  registry.on('change', ({ event, reason, after }) => {
    changes.inc({ event })
    if (event === 'registered' && after) registrations.inc({ status: 'success', agent_type: labels.of(after.type) })
    if (event === 'unregistered') unregistrations.inc({ status: 'success', reason })
  })
  enrollment.on('failed', type => { registrations.inc({ status: 'failed', agent_type: labels.known(type) }) })
}

function addRegistry ({ registry, search, dashboard }: MetricsOptions, register: prom.Registry): void {
  gauge(register, { name: 'arcp_active_agents', help: 'Number of alive agents, by type.', labelNames: ['agent_type'] }, set => {
    for (const [type, count] of aliveByType(registry)) set(count, { agent_type: type })
  })
  counter(register, { name: 'arcp_agent_heartbeats_total', help: 'Number of heartbeats.', labelNames: ['status'] }, set => {
    const { renewed, refused } = registry.counters
    set(renewed, { status: 'success' })
    set(refused, { status: 'refused' })
  })
  counter(register, {
    name: 'arcp_auth_attempts_total',
    help: 'Number of logins and uses of agent keys.',
    labelNames: ['status', 'auth_type']
  }, set => {
    for (const [type, { success, failure }] of Object.entries(dashboard.audit.attempts)) {
      set(success, { status: 'success', auth_type: type })
      set(failure, { status: 'failed', auth_type: type })
    }
  })
  counter(register, { name: 'arcp_vector_search_operations_total', help: 'Number of searches.', labelNames: ['status'] }, set => {
    set(search.counters.succeeded, { status: 'success' })
    set(search.counters.failed, { status: 'error' })
  })
  gauge(register, { name: 'agent_registry_agents', help: 'Number of agents, by status.', labelNames: ['status'] }, set => {
    const { alive_agents: alive, dead_agents: dead } = registry.stats()
    set(alive, { status: 'alive' })
    set(dead, { status: 'dead' })
  })
  gauge(register, { name: 'agent_registry_store_up', help: 'Whether the store is reachable.' }, set => { set(registry.outage ? 0 : 1) })
  gauge(register, { name: 'agent_registry_sweep_lag_seconds', help: 'Delay of the last sweep of expired leases.' }, set => {
    set(registry.sweepLagMs / 1000)
  })
}

/** Counters of the traffic of a tier. */
const trafficCounters: ReadonlyArray<readonly [name: string, help: string, valueOf: (traffic: Traffic) => number]> = [
  ['writes_total', 'Number of socket writes, each with one or more frames, by tier.', ({ writes }) => writes],
  ['superseded_frames_total', 'Number of queued frames replaced by newer ones, by tier.', ({ superseded }) => superseded],
  ['rate_limited_frames_total', 'Number of frames refused by the rate limit, by tier.', ({ limited }) => limited],
  ['slow_closes_total', 'Number of connections closed because they read too slowly, by tier.', ({ slowCloses }) => slowCloses]
]

function addTraffic ({ sockets: { traffic } }: MetricsOptions, register: prom.Registry): void {
  const labelNames = ['tier', 'direction']
  counter(register, {
    name: 'agent_registry_websocket_frames_total',
    help: 'Number of frames, by tier and direction.',
    labelNames
  }, set => {
    for (const tier of tierNames) set(traffic[tier].framesIn, { tier, direction: 'in' })
    for (const tier of tierNames) set(traffic[tier].framesOut, { tier, direction: 'out' })
  })
  const help = 'Bytes of frames before compression, by tier and direction.'
  counter(register, { name: 'agent_registry_websocket_bytes_total', help, labelNames }, set => {
    for (const tier of tierNames) set(traffic[tier].bytesIn, { tier, direction: 'in' })
    for (const tier of tierNames) set(traffic[tier].bytesOut, { tier, direction: 'out' })
  })
  for (const [name, help, valueOf] of trafficCounters) {
    counter(register, { name: `agent_registry_websocket_${name}`, help, labelNames: ['tier'] }, set => {
      for (const tier of tierNames) set(valueOf(traffic[tier]), { tier })
    })
  }
}

/** The queues are measured when they are scraped, so that sending keeps no counts. */
function addConnections ({ sockets: { hub, slots } }: MetricsOptions, register: prom.Registry): void {
  const labelNames = ['tier']
  gauge(register, { name: 'arcp_websocket_connections', help: 'Number of open WebSocket connections, by tier.', labelNames }, set => {
    for (const tier of tierNames) set(slots.countOf(tier), { tier })
  })
  gauge(register, {
    name: 'agent_registry_websocket_backpressured_connections',
    help: 'Number of connections with unsent frames, by tier.',
    labelNames
  }, set => {
    for (const tier of tierNames) set([...hub.connections(tier)].filter(({ isBehind }) => isBehind).length, { tier })
  })
  gauge(register, { name: 'agent_registry_websocket_buffered_bytes', help: 'Bytes queued for sending, by tier.', labelNames }, set => {
    for (const tier of tierNames) set([...hub.connections(tier)].reduce((sum, { depth }) => sum + depth, 0), { tier })
  })
}

function addService ({ dashboard }: MetricsOptions, register: prom.Registry): void {
  const labels = { version: protocol.version, name: protocol.name, implementation: `${implementation.name}/${implementation.version}` }
  gauge(register, {
    name: 'arcp_service_info',
    help: 'Information about the service.',
    labelNames: Object.keys(labels)
  }, set => { set(1, labels) })
  const healthName = 'arcp_service_health_status'
  gauge(register, { name: healthName, help: 'Health of the registry.', labelNames: [healthName] }, set => {
    const { status } = dashboard.health()
    for (const name of ['healthy', 'degraded', 'unhealthy']) set(name === status ? 1 : 0, { [healthName]: name })
  })
  const resources = { cpu: 'cpu', memory: 'memory', disk: 'storage', network: 'network' } as const
  for (const [name, key] of Object.entries(resources)) {
    gauge(register, { name: `arcp_system_${name}_utilization_percent`, help: `Utilization of the host's ${name}.` }, set => {
      set(dashboard.resources.sample()[key])
    })
  }
}

/** Measures the lag of the event loop since the last scrape. */
function addEventLoop (scope: FastifyInstance, register: prom.Registry): void {
  const delay = monitorEventLoopDelay({ resolution: resolutionMs })
  // The histogram holds the time between two samples, which includes the resolution.
  const lag = (ns: number) => Math.max(0, ns / nsPerSecond - resolutionMs / 1000)
  delay.enable()
  scope.addHook('onClose', async function stopMonitoring () { delay.disable() })
  const help = 'Lag of the event loop since the last scrape.'
  gauge(register, { name: 'agent_registry_event_loop_lag_seconds', help, labelNames: ['quantile'] }, set => {
    set(lag(delay.percentile(50)), { quantile: '0.5' })
    set(lag(delay.percentile(99)), { quantile: '0.99' })
    set(lag(delay.max), { quantile: '1' })
    delay.reset()
  })
}

/**
 * Records every response of the scope, labelled by its route and never by its path, which the client chooses, and
 * decorates the scope with `agentRegistryMetrics`: series of this registry in a register of its own, with bounded labels.
 */
async function metrics (scope: FastifyInstance, sources: MetricsOptions) {
  const { requests } = sources.dashboard
  const register = new prom.Registry()
  addRequests(requests, register)
  addRegistrations(sources, register)
  addRegistry(sources, register)
  addConnections(sources, register)
  addTraffic(sources, register)
  addService(sources, register)
  addEventLoop(scope, register)
  prom.collectDefaultMetrics({ register })
  scope.decorate('agentRegistryMetrics', { contentType: register.contentType, text: () => register.metrics() })
  scope.addHook('onResponse', function recordRequest ({ method, routeOptions: { url }, ip, id }, reply, done) {
    requests.record({ method, endpoint: url, statusCode: reply.statusCode, elapsedMs: reply.elapsedTime, address: ip, requestId: id })
    done()
  })
}

export default fp(metrics, { name: 'agent-registry-metrics', fastify: '5.x' })

import { monitorEventLoopDelay } from 'node:perf_hooks'
import prom from '@platformatic/prom-client'
import type { FastifyInstance, FastifyReply, FastifyRequest } from 'fastify'
import { BoundedLabels } from '../src/lib/bounded-labels.js'
import { implementation, protocol } from '../src/protocol/identity.js'
import type { Core } from '../src/core.js'
import type { RequestMonitor } from '../src/dashboard/request-stats.js'
import { ResponseTimes } from '../src/dashboard/response-times.js'
import { counter, gauge } from '../src/http/series.js'
import { countSockets } from '../src/http/socket-metrics.js'
import type { Sockets } from '../src/sockets/sockets.js'

const durationBuckets = [0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10]
const nsPerSecond = 1e9
/** Time between two looks at the event loop. */
const resolutionMs = 20

export interface Metrics {
  readonly contentType: string
  text (): Promise<string>
}

export interface MetricsSources { core: Core, sockets: Sockets }

/** Tells of every answered request of `scope` by its route, never by its path: paths are anybody's choice. */
export function reportAnswers (scope: FastifyInstance, requests: RequestMonitor): void {
  scope.addHook('onResponse', function reportAnswer ({ method, routeOptions: { url }, ip, id }: FastifyRequest, reply: FastifyReply, done) {
    requests.record({ method, endpoint: url, statusCode: reply.statusCode, elapsedMs: reply.elapsedTime, address: ip, requestId: id })
    done()
  })
}

function countRequests (requests: RequestMonitor, register: prom.Registry): void {
  const times = new ResponseTimes(durationBuckets)
  requests.events.on('request', request => { times.record(request) })
  counter(register, 'arcp_requests_total', 'Requests answered', ['method', 'endpoint', 'status_code'], set => {
    for (const { labels, count } of times.series()) set(count, labels)
  })
  register.registerMetric(histogramOf('arcp_request_duration_seconds', 'Time to answer', times))
}

/** A histogram that somebody else keeps: those of the library look up their labels anew with every request. */
function histogramOf (name: string, help: string, times: ResponseTimes): prom.Metric {
  const values = () => [...times.series()].flatMap(({ labels, count, sum, upTo }) => [
    ...[...upTo, ['+Inf', count] as const].map(([le, value]) => ({ metricName: `${name}_bucket`, labels: { le, ...labels }, value })),
    { metricName: `${name}_sum`, labels, value: sum },
    { metricName: `${name}_count`, labels, value: count }
  ])
  const histogram = { name, help, type: 'histogram', aggregator: 'sum', get: async () => ({ name, help, type: 'histogram', values: values(), aggregator: 'sum' }) }
  return histogram as unknown as prom.Metric
}

/** Alive agents by type, as far as types are told apart. */
function aliveByType ({ registry }: Core): Map<string, number> {
  const labels = new BoundedLabels()
  const counts = new Map<string, number>()
  for (const [type, count] of registry.replica.aliveTypes()) {
    const label = labels.of(type)
    counts.set(label, (counts.get(label) ?? 0) + count)
  }
  return counts
}

function countRegistrations ({ registry, enrollment, options }: Core, register: prom.Registry): void {
  const registrations = new prom.Counter({ name: 'arcp_agent_registrations_total', help: 'Registrations', labelNames: ['status', 'agent_type'], registers: [register] })
  const labels = new BoundedLabels(options.allowedAgentTypes.filter(type => type !== '*'))
  registry.on('change', ({ event, after }) => {
    if (event === 'registered') registrations.inc({ status: 'success', agent_type: labels.of(after!.type) })
  })
  enrollment.on('failed', type => { registrations.inc({ status: 'failed', agent_type: labels.known(type) }) })
}

function countRegistry (core: Core, register: prom.Registry): void {
  const registers = [register]
  const { counters } = core.registry
  countRegistrations(core, register)
  const unregistrations = new prom.Counter({ name: 'arcp_agent_unregistrations_total', help: 'Agents that went', labelNames: ['status', 'reason'], registers })
  const transitions = new prom.Counter({ name: 'agent_registry_transitions_total', help: 'Changes of the registry', labelNames: ['event'], registers })
  core.registry.on('change', ({ event, reason }) => {
    transitions.inc({ event })
    if (event === 'unregistered') unregistrations.inc({ status: 'success', reason })
  })
  gauge(register, 'arcp_active_agents', 'Agents that are alive, by type', ['agent_type'], set => {
    for (const [type, count] of aliveByType(core)) set(count, { agent_type: type })
  })
  counter(register, 'arcp_agent_heartbeats_total', 'Signs of life', ['status'], set => {
    set(counters.renewed, { status: 'success' })
    set(counters.refused, { status: 'refused' })
  })
  counter(register, 'arcp_auth_attempts_total', 'Logins and uses of agent keys', ['status', 'auth_type'], set => {
    for (const [type, { success, failure }] of Object.entries(core.dashboard.audit.attempts)) {
      set(success, { status: 'success', auth_type: type })
      set(failure, { status: 'failed', auth_type: type })
    }
  })
  counter(register, 'arcp_vector_search_operations_total', 'Searches', ['status'], set => {
    set(core.search.counters.succeeded, { status: 'success' })
    set(core.search.counters.failed, { status: 'error' })
  })
  gauge(register, 'agent_registry_agents', 'Agents by status', ['status'], set => {
    const { alive_agents: alive, dead_agents: dead } = core.registry.stats()
    set(alive, { status: 'alive' })
    set(dead, { status: 'dead' })
  })
  gauge(register, 'agent_registry_store_up', 'Whether the store can be reached', [], set => { set(core.registry.outage ? 0 : 1) })
  gauge(register, 'agent_registry_sweep_lag_seconds', 'How late the last sweep was', [], set => { set(core.registry.sweepLagMs / 1000) })
}

function describeService (core: Core, register: prom.Registry): void {
  const info = new prom.Gauge({ name: 'arcp_service_info', help: 'What serves here', labelNames: ['version', 'name', 'implementation'], registers: [register] })
  info.set({ version: protocol.version, name: protocol.name, implementation: `${implementation.name}/${implementation.version}` }, 1)
  gauge(register, 'arcp_service_health_status', 'Whether the registry is healthy', ['arcp_service_health_status'], set => {
    const { status } = core.dashboard.health()
    for (const name of ['healthy', 'degraded', 'unhealthy']) set(name === status ? 1 : 0, { arcp_service_health_status: name })
  })
  const names = { cpu: 'cpu', memory: 'memory', disk: 'storage', network: 'network' } as const
  for (const [name, key] of Object.entries(names)) {
    gauge(register, `arcp_system_${name}_utilization_percent`, `Use of the host's ${name}`, [], set => { set(core.dashboard.resources.sample()[key]) })
  }
}

/** How late the event loop was since the last scrape. */
function watchEventLoop (scope: FastifyInstance, register: prom.Registry): void {
  const delay = monitorEventLoopDelay({ resolution: resolutionMs })
  // What is measured is the time between two samples, on time or not.
  const late = (ns: number) => Math.max(0, ns / nsPerSecond - resolutionMs / 1000)
  delay.enable()
  scope.addHook('onClose', async function stopMonitoring () { delay.disable() })
  gauge(register, 'agent_registry_event_loop_lag_seconds', 'Lateness of the event loop since the last scrape', ['quantile'], set => {
    set(late(delay.percentile(50)), { quantile: '0.5' })
    set(late(delay.percentile(99)), { quantile: '0.99' })
    set(late(delay.max), { quantile: '1' })
    delay.reset()
  })
}

/** Prometheus series of one registry, in a register of its own, with label sets that are bounded. */
export function createMetrics (scope: FastifyInstance, sources: MetricsSources): Metrics {
  const register = new prom.Registry()
  countRequests(sources.core.dashboard.requests, register)
  countRegistry(sources.core, register)
  countSockets(sources.sockets, register)
  describeService(sources.core, register)
  watchEventLoop(scope, register)
  prom.collectDefaultMetrics({ register })
  return { contentType: register.contentType, text: () => register.metrics() }
}

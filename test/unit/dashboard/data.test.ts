import { mkdir, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import t from 'tap'
import { AgentsFrame, frameText, maxFrameBytes, round } from '../../../src/dashboard/frames.js'
import { agentsHealth, embeddedStorage, healthData, type HealthSources, noAiServices } from '../../../src/dashboard/health.js'
import {
  hostCounters, osCpuTimes, parseCpuTimes, parseDiskCounters, parseNetworkBytes, ProcessSampler, ResourceSampler
} from '../../../src/dashboard/resources.js'
import { monitoringData } from '../../../src/dashboard/monitoring.js'
import { RequestStats } from '../../../src/dashboard/request-stats.js'
import { fieldErrors } from '../../../src/protocol/validation.js'
import {
  AgentsFrame as AgentsFrameSchema, HealthFrame, MonitoringFrame
} from '../../../src/protocol/frames/dashboard.js'
import { fakeHost, fleet, type Host, manualClock, metrics, processUse, record, replicaOf, start } from './helper.js'

const idle = { cpu: 0, memory: 0, network: 0, storage: 0 }
const noRequests = { total_requests: 0, avg_response_time: 0, error_rate: 0 }

t.test('dashboard data: non-finite numbers become zero', async t => {
  t.same([round(NaN, 2), round(Infinity, 2), round(1.005, 1), round(2 / 3, 3)], [0, 0, 1, 0.667])
})

t.test('resources', async t => {
  const host = (): Host =>
    ({ cpu: { busy: 1000, total: 2000 }, memory: 0.5, network: 0, diskUsage: 0.5, disk: { bytes: 0, operations: 0 } })
  function build (values: Host, capacityMbps = 8) {
    const now = manualClock()
    return { now, resources: new ResourceSampler({ now, counters: fakeHost(values), capacityMbps }) }
  }

  t.test('resources: the first sample has no rates', async t => {
    const { resources } = build(host())
    t.same(resources.sample(), { cpu: 0, memory: 50, network: 0, storage: 35 })
  })

  t.test('resources: rates are smoothed over the time between two samples', async t => {
    const values = host()
    const { now, resources } = build(values)
    resources.sample()
    now.advance(5_000)
    Object.assign(values, { cpu: { busy: 1100, total: 2100 }, memory: 1, network: 2_500_000, disk: { bytes: 250_000_000, operations: 10 } })
    t.same(resources.sample(), { cpu: 50, memory: 85, network: 50, storage: 50 })
    now.advance(61_000)
    values.cpu = { busy: 1110, total: 2200 }
    t.equal(resources.sample().cpu, 10, 'an old sample has no weight')
    now.advance(120_001)
    values.memory = 0.25
    t.same(resources.sample(), { cpu: 10, memory: 25, network: 0, storage: 35 }, 'unchanged counters keep the figure')
  })

  t.test('resources: many small operations make a disk busy too, and no figure exceeds 100', async t => {
    const values = host()
    const { now, resources } = build(values)
    resources.sample()
    now.advance(1_000)
    Object.assign(values, { network: 1e12, diskUsage: 1, disk: { bytes: 1, operations: 5_000 } })
    t.match(resources.sample(), { network: 100, storage: 100 })
  })

  t.test('resources: unknown figures are zero, and reset counters yield no rate', async t => {
    const values = { ...host(), network: null, diskUsage: null, disk: null }
    const { now, resources } = build(values)
    resources.sample()
    now.advance(1_000)
    t.match(resources.sample(), { network: 0, storage: 0 })
    Object.assign(values, { network: 5e6, disk: { bytes: 1e9, operations: 1e6 } })
    now.advance(1_000)
    t.match(resources.sample(), { network: 0, storage: 0 })
    Object.assign(values, { network: 0, disk: { bytes: 0, operations: 0 } })
    now.advance(1_000)
    t.match(resources.sample(), { network: 0, storage: 0 })
  })

  t.test('resources: two concurrent samples are one', async t => {
    const values = host()
    const { now, resources } = build(values)
    const first = resources.sample()
    values.memory = 1
    now.advance(249)
    t.equal(resources.sample(), first)
  })

  t.test('resources of this host', async t => {
    const now = manualClock()
    const resources = new ResourceSampler({ now })
    for (let n = 0; n < 3; n++) {
      now.advance(1_000)
      for (const value of Object.values(resources.sample())) t.ok(value >= 0 && value <= 100, String(value))
    }
    t.ok(resources.sample().memory > 0)
  })
})

t.test('resources of this process', async t => {
  const now = manualClock()
  const values = { micros: 30_000_000, rss: 5_000 }
  const figures = { cpuUsage: () => ({ user: values.micros, system: 0 }), uptime: () => 60.9, memoryUsage: { rss: () => values.rss } }
  const use = new ProcessSampler({ now, figures })
  t.same(use.sample(), { cpu: round(100 * 30 / 60.9, 2), memory_bytes: 5_000, uptime_seconds: 60 }, 'first over its lifetime')
  Object.assign(values, { micros: 30_500_000, rss: 6_000 })
  now.advance(249)
  t.equal(use.sample().memory_bytes, 5_000, 'two concurrent samples are one')
  now.advance(1_751)
  t.match(use.sample(), { cpu: 25, memory_bytes: 6_000 }, 'then since the previous sample')
  const own = new ProcessSampler({ now }).sample()
  t.ok(own.cpu > 0 && own.memory_bytes > 1e7)
})

t.test('kernel figures', async t => {
  t.same(parseCpuTimes('cpu  10 1 4 80 5 2 3 0 7 7\ncpu0 1 1 1 1 1\n'), { busy: 20, total: 105 })
  const net = 'Inter-| Receive\n face |bytes\n    lo: 900 1 0 0 0 0 0 0 900 1 0 0 0 0 0 0\n  eth0:100 1 0 0 0 0 0 0 23 1 0 0 0 0 0 0\n'
  t.equal(parseNetworkBytes(net), 123)
  const disks = ' 7 0 loop0 9 0 9 0 9 0 9 0 0 0 0\n' +
    ' 8 0 sda 3 0 4 0 5 0 6 0 0 0 0\n 8 1 sda1 3 0 4 0 5 0 6 0 0 0 0\n 259 0 nvme0n1 1 0 1 0 1 0 1 0 0 0 0\n'
  t.same(parseDiskCounters(disks), { bytes: 12 * 512, operations: 10 })
  const { busy, total } = osCpuTimes()
  t.ok(busy > 0 && busy <= total)
})

t.test('resources: a host without kernel figures', async t => {
  const nowhere = join(t.testdir(), 'nowhere')
  const counters = hostCounters(nowhere, nowhere)
  t.ok(counters.cpu().total > 0)
  t.equal(counters.network(), null)
  t.equal(counters.diskUsage(), null)
  t.equal(counters.diskActivity(), null)
  const proc = t.testdir()
  await mkdir(join(proc, 'net'))
  await writeFile(join(proc, 'net', 'dev'), 'a\nb\n eth0: 1 0 0 0 0 0 0 0 2 0\n')
  t.equal(hostCounters(proc).network(), 3)
})

t.test('request statistics', async t => {
  const now = manualClock(0)
  const stats = new RequestStats({ now, windowMs: 20, bucketMs: 5 })
  t.same(stats.summary(), noRequests)
  stats.record(1_000, 200)
  stats.record(3_000, 404)
  now.advance(5)
  stats.record(500, 503)
  t.same(stats.summary(), { total_requests: 3, avg_response_time: 1.5, error_rate: 0.3333 })
  now.advance(14)
  t.equal(stats.summary().total_requests, 3)
  now.advance(1)
  t.same(stats.summary(), { total_requests: 1, avg_response_time: 0.5, error_rate: 1 }, 'the window slides')
  stats.record(250, 200)
  t.same(stats.summary(), { total_requests: 2, avg_response_time: 0.375, error_rate: 0.5 }, 'a bucket is reused')
  now.advance(1_000)
  t.same(stats.summary(), noRequests)
})

t.test('monitoring', async t => {
  const requests = () => ({ total_requests: 7, avg_response_time: 0.0123, error_rate: 0 })
  const build = (replica: ReturnType<typeof fleet>, reported: Record<string, Partial<ReturnType<typeof metrics>>>) =>
    monitoringData({
      replica,
      metricsOf: ({ id }) => reported[id]
        ? metrics(id, reported[id])
        : null,
      resources: () => idle,
      process: () => processUse,
      requests
    })

  t.test('monitoring: without agents all figures are zero', async t => {
    t.same(build(fleet(0), {}), {
      total_requests: 0,
      avg_response_time: 0,
      error_rate: 0,
      agent_metrics: [],
      agent_count: 0,
      resource_utilization: idle,
      process: processUse,
      registry: requests()
    })
  })

  t.test('monitoring: means are weighted by requests, and dead agents count', async t => {
    const data = build(fleet(4, { dead: 1 }), {
      'agent-0': { total_requests: 1, avg_response_time: 10, error_rate: 1 },
      'agent-1': { total_requests: 99, avg_response_time: 0.1 },
      'agent-3': { requests_processed: 100, average_response_time: 2.001, error_rate: 0.1234 }
    })
    t.match(data, { total_requests: 200, avg_response_time: 1.1, error_rate: 0.067, agent_count: 4 })
    t.same(data.agent_metrics.map(each => each.agent_id), ['agent-3', 'agent-1', 'agent-0'])
    t.same(fieldErrors(MonitoringFrame, JSON.parse(frameText('monitoring', start, JSON.stringify(data)))), [])
  })

  t.test('monitoring: without request counts all agents have equal weight', async t => {
    t.match(build(
      fleet(3), { 'agent-0': { avg_response_time: 1, error_rate: 0.5 }, 'agent-1': { avg_response_time: 2 } }
    ), { avg_response_time: 1.5, error_rate: 0.25 })
  })

  t.test('monitoring: a large fleet is truncated, its sums are not', async t => {
    const id = (n: number) => `${'x'.repeat(94)}${String(n).padStart(6, '0')}`
    const entry = replicaOf([record('agent-0', 1)]).get('agent-0')!
    const entries = Array.from({ length: 2_500 }, (_, n) => ({ ...entry, record: { ...entry.record, id: id(n) } }))
    const long = {
      success_rate: 1 / 3,
      avg_response_time: 1 / 3,
      reputation_score: 1 / 3,
      average_response_time: 1 / 3,
      error_rate: 1 / 3,
      total_requests: 2 ** 40,
      requests_processed: 2 ** 40
    }
    const replica = { size: 2_500, * newest () { yield * entries } }
    const data = monitoringData({
      replica,
      metricsOf: each =>
        metrics(each.id, long),
      resources: () => idle,
      process: () => processUse,
      requests
    })
    t.match(data, { total_requests: 2_500 * 2 ** 40, agent_count: 2_500, truncated: true })
    t.ok(Buffer.byteLength(frameText('monitoring', start, JSON.stringify(data))) < maxFrameBytes)
  })
})

t.test('health', async t => {
  const sources = (changes: Partial<HealthSources> = {}): HealthSources =>
    ({ storage: embeddedStorage, aiServices: noAiServices, agents: () => ({ total: 2, active: 2 }), ...changes })
  const agents = (total: number, active: number) => ({ agents: () => ({ total, active }) })
  const storage = (status: 'healthy' | 'degraded' | 'error') => ({ storage: () => ({ redis: 'connected' as const, status }) })
  const ai = (status: 'healthy' | 'degraded') => ({ aiServices: () => ({ azure_openai: 'unavailable', status }) })
  const fail = () => { throw new Error('no figures') }

  t.test('health: agents by size of the fleet', async t => {
    const table: Array<[total: number, active: number, status: string, ratio: number]> = [
      [0, 0, 'no_agents', 0], [1, 1, 'healthy', 1], [1, 0, 'degraded', 0],
      [2, 2, 'healthy', 1], [2, 1, 'degraded', 0.5], [2, 0, 'critical', 0], [3, 2, 'degraded', 0.667], [3, 1, 'degraded', 0.333],
      [3, 0, 'critical', 0],
      [4, 3, 'healthy', 0.75], [4, 2, 'degraded', 0.5], [9, 1, 'degraded', 0.111], [10, 1, 'critical', 0.1], [10, 4, 'degraded', 0.4],
      [10, 0, 'critical', 0]
    ]
    for (const [total, active, status, ratio] of table) {
      t.same(agentsHealth({ total, active }), { total, active, status, connectivity_ratio: ratio }, `${active} of ${total}`)
    }
  })

  t.test('health: the first matching finding is the overall state', async t => {
    const table: Array<[Partial<HealthSources>, status: string, reason: string]> = [
      [{}, 'healthy', 'All systems operational'],
      [agents(0, 0), 'healthy', 'All systems operational'],
      [storage('error'), 'unhealthy', 'Storage system failure'],
      [agents(2, 0), 'unhealthy', 'No active agents available'],
      [{ ...agents(10, 1), aiServices: fail }, 'unhealthy', 'Multiple critical component failures'],
      [{ ...agents(10, 1), ...storage('degraded') }, 'degraded', 'Significant agent connectivity issues'],
      [storage('degraded'), 'degraded', 'Storage system degraded'],
      [agents(1, 0), 'degraded', 'No active agents available'],
      [{ ...agents(4, 2), ...ai('degraded') }, 'degraded', 'Multiple components experiencing issues'],
      [agents(4, 2), 'healthy', 'System operational with minor issues'],
      [ai('degraded'), 'healthy', 'Core system healthy, AI services have minor issues'],
      [{ ...storage('healthy'), ...ai('healthy') }, 'healthy', 'All systems operational']
    ]
    for (const [changes, status, reason] of table) t.match(healthData(sources(changes)), { status, reason }, reason)
  })

  t.test('health: a failing component is in error, and the others are reported', async t => {
    const data = healthData(sources({ storage: fail, agents: fail }))
    t.match(data, {
      status: 'unhealthy',
      components: {
        storage: { redis: 'error', status: 'error' }, agents: { status: 'error' }, ai_services: { status: 'not_configured' }
      }
    })
    t.same(fieldErrors(HealthFrame, JSON.parse(frameText('health', start, JSON.stringify(data)))), [])
    t.match(healthData(sources({ agents: fail })), { status: 'degraded', reason: 'Significant agent connectivity issues' })
    t.match(healthData(sources()).components.storage, { redis: 'not_configured', status: 'healthy' })
  })
})

t.test('agents', async t => {
  t.test('agents frame: all agents, with counts', async t => {
    const frame: unknown = JSON.parse(frameText('agents', start, new AgentsFrame({ replica: fleet(3, { dead: 1 }) }).data()))
    t.same(fieldErrors(AgentsFrameSchema, frame), [])
    t.match(frame, {
      type: 'agents',
      timestamp: '2030-01-01T00:00:00.250Z',
      data: {
        total_count: 3,
        active_count: 2,
        agent_types: { testing: 3 },
        status_summary: { alive: 2, dead: 1 },
        agents: [{ agent_id: 'agent-0', status: 'alive' }, {}, { agent_id: 'agent-2', status: 'dead' }]
      }
    })
  })

  t.test('agents frame: no agents', async t => {
    t.same(JSON.parse(new AgentsFrame({ replica: fleet(0) }).data()), {
      agents: [], total_count: 0, active_count: 0, agent_types: {}, status_summary: {}
    })
  })

  t.test('agents frame: a fragment is used unchanged', async t => {
    const replica = fleet(1)
    t.ok(new AgentsFrame({ replica }).data().startsWith(`{"agents":[${replica.get('agent-0')!.rendering.full()}],`))
  })

  t.test('agents frame: a truncated list has the last changes first, then the newest agents', async t => {
    const replica = fleet(40)
    const agents = new AgentsFrame({ replica, maxBytes: 4_096 + 3_500 })
    for (const id of ['agent-3', 'agent-7', 'agent-3', 'agent-gone']) agents.changed(id)
    const first = agents.data()
    const data = JSON.parse(first) as { agents: Array<{ agent_id: string }>, total_count: number, truncated: boolean }
    t.match(data, { total_count: 40, truncated: true })
    t.same(data.agents.slice(0, 4).map(agent => agent.agent_id), ['agent-3', 'agent-7', 'agent-39', 'agent-38'])
    t.equal(agents.data(), first, 'a request consumes nothing')
    for (let n = 0; n < 1_000; n++) agents.changed(`other-${n}`)
    t.match(JSON.parse(agents.data()), { agents: [{ agent_id: 'agent-39' }] }, 'old changes are forgotten')
  })

  t.test('agents frame: at most 1 MiB', async t => {
    const replica = fleet(700, { fields: { ai_context: '€'.repeat(5_000) } })
    const text = frameText('agents', start, new AgentsFrame({ replica }).data())
    t.ok(Buffer.byteLength(text) <= maxFrameBytes)
    t.ok(Buffer.byteLength(text) > maxFrameBytes - 40_000)
  })
})

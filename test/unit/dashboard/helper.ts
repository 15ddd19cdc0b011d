import type { AlertSnapshot } from '../../../src/dashboard/alert-rules.js'
import type { CpuTimes, DiskCounters, HostCounters } from '../../../src/dashboard/resources.js'
import { parseRegistration } from '../../../src/registry/registration.js'
import { Replica } from '../../../src/registry/replica.js'
import type { AgentMetrics } from '../../../src/protocol/schemas/agent.js'
import type { AgentState } from '../../../src/protocol/schemas/common.js'
import type { AgentRecord } from '../../../src/storage/agent-store.js'
import { start } from '../auth/helper.js'
import { registration } from '../../support/harness.js'
import { record as registryRecord } from '../registry/helper.js'

export { manualClock, start } from '../auth/helper.js'

export function record (
  id: string, n: number, values: Partial<AgentRecord> & { state?: AgentState } = {}, fields: object = {}
): AgentRecord {
  const { body, registration: { agent_type: type, capabilities } } = parseRegistration(
    registration(id, fields), { allowedAgentTypes: ['*'], maxRecordBytes: 131_072 }
  )
  return registryRecord(id, { body, type, capabilities, registeredAt: start, lastSeen: start, created: n, revision: n, ...values })
}

export function replicaOf (records: readonly AgentRecord[]): Replica {
  const replica = new Replica()
  replica.load({ epoch: 'e', revision: records.length, agents: records })
  return replica
}

/** `count` agents, of which the last `dead` are dead. */
export function fleet (count: number, { dead = 0, fields = {} }: { dead?: number, fields?: object } = {}): Replica {
  return replicaOf(Array.from({ length: count }, (_, n) =>
    record(`agent-${n}`, n + 1, { state: n >= count - dead ? 'dead' : 'alive' }, fields)))
}

export function metrics (agentId: string, values: Partial<AgentMetrics> = {}): AgentMetrics {
  return {
    agent_id: agentId,
    success_rate: 1,
    avg_response_time: 0,
    total_requests: 0,
    last_active: new Date(start).toISOString(),
    reputation_score: 0,
    requests_processed: 0,
    average_response_time: 0,
    error_rate: 0,
    ...values
  }
}

export const processUse = { cpu: 1, memory_bytes: 1_000_000, uptime_seconds: 10 }

export interface Host { cpu: CpuTimes, memory: number, network: number | null, diskUsage: number | null, disk: DiskCounters | null }

/** A host whose counters return the current `values`. */
export function fakeHost (values: Host): HostCounters {
  return {
    cpu: () => values.cpu,
    memory: () => values.memory,
    network: () => values.network,
    diskUsage: () => values.diskUsage,
    diskActivity: () => values.disk
  }
}

const quiet: AlertSnapshot['values'] = {
  avg_response_time: 0,
  error_rate: 0,
  total_requests: 0,
  registry_avg_response_time: 0,
  registry_error_rate: 0,
  registry_total_requests: 0,
  agents_total: 1,
  agents_active: 1,
  agents_ratio: 1,
  agents_condition: 'fine',
  storage_status: 'healthy',
  ai_status: 'not_configured',
  system_status: 'healthy',
  cpu: 0,
  memory: 0,
  storage: 0,
  network: 0
}

/** A system without findings apart from `values`. */
export function snapshot (values: Partial<AlertSnapshot['values']> = {}, details: AlertSnapshot['details'] = {}): AlertSnapshot {
  return { values: { ...quiet, ...values }, details }
}

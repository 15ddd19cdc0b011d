import type { StorageKind } from '../storage/storage.js'
import { round } from './frames.js'

type ComponentStatus = 'healthy' | 'degraded' | 'critical' | 'error' | 'no_agents' | 'not_configured'
type OverallStatus = 'healthy' | 'degraded' | 'unhealthy'

interface StorageHealth { redis: 'connected' | 'disconnected' | 'not_configured' | 'error', status: ComponentStatus }
interface AiHealth { azure_openai: string, status: ComponentStatus }
export interface AgentsHealth { total: number, active: number, status: ComponentStatus, connectivity_ratio: number }

/** Data of a `health` frame. */
export interface HealthData {
  status: OverallStatus
  components: { storage: StorageHealth, ai_services: AiHealth, agents: AgentsHealth }
  /** Human-readable. */
  reason: string
}

/** Each returns the known state without probing. A source that throws counts as an error of its component. */
export interface HealthSources {
  storage: () => StorageHealth
  aiServices: () => AiHealth
  agents: () => { total: number, active: number }
}

/** @param isAway whether the store is unreachable; reads then return the last known state */
export function storageHealth (kind: StorageKind, isAway: boolean): StorageHealth {
  const status = isAway ? 'degraded' : 'healthy'
  if (kind !== 'redis') return { redis: 'not_configured', status }
  return { redis: isAway ? 'disconnected' : 'connected', status }
}

/** The health of a store within this process. */
export const embeddedStorage = (): StorageHealth => storageHealth('memory', false)
/** The host embeds texts. */
export const availableAi = (): AiHealth => ({ azure_openai: 'available', status: 'healthy' })
export const noAiServices = (): AiHealth => ({ azure_openai: 'not_configured', status: 'not_configured' })

const smallFleet = 10

function connectivity (total: number, active: number): ComponentStatus {
  if (total === 0) return 'no_agents'
  if (active === total) return 'healthy'
  if (total === 1) return 'degraded'
  if (total <= 3) return active >= total - 1 ? 'degraded' : 'critical'
  const ratio = active / total
  if (ratio >= 0.75) return 'healthy'
  return ratio >= 0.4 ? 'degraded' : 'critical'
}

export function agentsHealth ({ total, active }: { total: number, active: number }): AgentsHealth {
  const found = connectivity(total, active)
  const status = found === 'critical' && active > 0 && total < smallFleet ? 'degraded' : found
  return { total, active, status, connectivity_ratio: total === 0 ? 0 : round(active / total, 3) }
}

type Components = HealthData['components']
type Finding = readonly [applies: (components: Components) => boolean, status: OverallStatus, reason: string]

const isBroken = (status: ComponentStatus) => status === 'error' || status === 'critical'
const isImpaired = (status: ComponentStatus) => status === 'degraded' || isBroken(status)
function countWhere (components: Components, test: (status: ComponentStatus) => boolean): number {
  return Object.values(components).filter(({ status }) => test(status)).length
}

/** The first finding that applies determines the overall status. */
const findings: readonly Finding[] = [
  [({ storage }) => isBroken(storage.status), 'unhealthy', 'Storage system failure'],
  [({ agents }) => agents.status === 'critical' && agents.active === 0, 'unhealthy', 'No active agents available'],
  [components => countWhere(components, isBroken) >= 2, 'unhealthy', 'Multiple critical component failures'],
  [({ agents }) => isBroken(agents.status), 'degraded', 'Significant agent connectivity issues'],
  [({ storage }) => storage.status === 'degraded', 'degraded', 'Storage system degraded'],
  [({ agents }) => agents.status === 'degraded' && agents.active === 0, 'degraded', 'No active agents available'],
  [components => countWhere(components, isImpaired) >= 2, 'degraded', 'Multiple components experiencing issues'],
  [({ agents }) => agents.status === 'degraded', 'healthy', 'System operational with minor issues'],
  [({ ai_services: ai }) => isImpaired(ai.status), 'healthy', 'Core system healthy, AI services have minor issues']
]

function readOr<T> (source: () => T, failed: T): T {
  try {
    return source()
  } catch {
    return failed
  }
}

const failures = {
  storage: { redis: 'error', status: 'error' },
  ai: { azure_openai: 'error', status: 'error' },
  agents: { total: 0, active: 0, status: 'error', connectivity_ratio: 0 }
} as const satisfies { storage: StorageHealth, ai: AiHealth, agents: AgentsHealth }

export function healthData (sources: HealthSources): HealthData {
  const components = {
    storage: readOr(sources.storage, failures.storage),
    ai_services: readOr(sources.aiServices, failures.ai),
    agents: readOr(() => agentsHealth(sources.agents()), failures.agents)
  }
  const [, status, reason] = findings.find(([applies]) => applies(components)) ?? [null, 'healthy' as const, 'All systems operational']
  return { status, components, reason }
}

import { Type, type Static, type TProperties } from '@sinclair/typebox'
import { AgentInfo, AgentMetrics } from '../agent.js'
import { Timestamp } from '../common.js'
import { Alert, LogEntry, ProcessUse, RequestSummary, ResourceUtilization } from '../dashboard.js'
import { ClientFrame, commonClientFrames, commonServerFrames, EpochSeconds, RequestId, ServerFrame } from './common.js'

/** The first frame; a later one replaces the token of the connection. */
export const DashboardAuthFrame = ClientFrame('auth', {
  token: Type.String({ minLength: 1 }),
  fingerprint: Type.Optional(Type.String({ maxLength: 256, description: 'Must be that of the session, when given' }))
})
export type DashboardAuthFrame = Static<typeof DashboardAuthFrame>

export const PauseFrame = ClientFrame('pause_monitoring', {})
export const ResumeFrame = ClientFrame('resume_monitoring', {})
export const RefreshFrame = ClientFrame('refresh_request', {})
export const AgentsRequestFrame = ClientFrame('agents_request', {})
export const ClearLogsFrame = ClientFrame('clear_logs', {})
export const ClearAlertsFrame = ClientFrame('clear_alerts', {})

export const DashboardLogFrame = ClientFrame('dashboard_log', {
  data: Type.Object({
    level: Type.String({ description: 'INFO, SUCS, WARN, CRIT or ERR, or the whole word, in any case' }),
    message: Type.String({ minLength: 1 }),
    timestamp: Type.String({ description: 'ISO 8601' })
  })
})
export type DashboardLogFrame = Static<typeof DashboardLogFrame>
export const DashboardAlertFrame = ClientFrame('dashboard_alert', {
  data: Type.Object({}, { additionalProperties: true, description: 'An alert with a message or a title, or `{alerts: […]}`' })
})
export type DashboardAlertFrame = Static<typeof DashboardAlertFrame>

const DataFrame = <T extends string, P extends TProperties>(type: T, properties: P) =>
  ServerFrame(type, { timestamp: Timestamp, data: Type.Object(properties) })

const Count = Type.Integer({ minimum: 0 })
const Truncated = Type.Optional(Type.Literal(true, { description: 'Not all of them fit into the frame' }))
const ComponentStatus = Type.Union(['healthy', 'degraded', 'critical', 'error', 'no_agents', 'not_configured'].map(name => Type.Literal(name)))

export const MonitoringFrame = DataFrame('monitoring', {
  total_requests: Count,
  avg_response_time: Type.Number({ minimum: 0, description: 'Seconds; mean over the agents, weighted by their requests' }),
  error_rate: Type.Number({ minimum: 0, maximum: 1 }),
  agent_metrics: Type.Array(AgentMetrics),
  truncated: Truncated,
  agent_count: Count,
  resource_utilization: ResourceUtilization,
  process: ProcessUse,
  registry: RequestSummary
})
export const HealthFrame = DataFrame('health', {
  status: Type.Union([Type.Literal('healthy'), Type.Literal('degraded'), Type.Literal('unhealthy')]),
  components: Type.Object({
    storage: Type.Object({ redis: Type.String(), status: ComponentStatus }),
    ai_services: Type.Object({ azure_openai: Type.String(), status: ComponentStatus }),
    agents: Type.Object({ total: Count, active: Count, status: ComponentStatus, connectivity_ratio: Type.Number({ minimum: 0, maximum: 1 }) })
  }),
  reason: Type.String()
})
export const AgentsFrame = DataFrame('agents', {
  agents: Type.Array(AgentInfo),
  total_count: Count,
  active_count: Count,
  agent_types: Type.Record(Type.String(), Count),
  status_summary: Type.Object({ alive: Type.Optional(Count), dead: Type.Optional(Count) }),
  truncated: Truncated
})
export const LogsFrame = DataFrame('logs', {
  logs: Type.Array(LogEntry, { description: 'Newest first' }),
  count: Type.Integer({ minimum: 0, description: 'How many there are in all' }),
  last_updated: Timestamp
})
export const AlertFrame = DataFrame('alert', { alerts: Type.Array(Alert) })

const AckFrame = <T extends string, S extends string>(type: T, status: S) => ServerFrame(type, {
  timestamp: Timestamp,
  requestId: Type.Optional(RequestId),
  data: Type.Object({ status: Type.Union([Type.Literal(status), Type.Literal('error')]), message: Type.Optional(Type.String()) })
})

export const PauseAck = AckFrame('pause_ack', 'paused')
export const ResumeAck = AckFrame('resume_ack', 'resumed')
export const RefreshAck = AckFrame('refresh_ack', 'completed')
export const AgentsAck = AckFrame('agents_ack', 'completed')
export const ClearLogsAck = AckFrame('clear_logs_ack', 'completed')
export const ClearAlertsAck = AckFrame('clear_alerts_ack', 'completed')
export const DashboardTokenExpiring = ServerFrame('token_expiring', { expiresAt: EpochSeconds })

export const dashboardClientFrames = {
  ...commonClientFrames,
  auth: DashboardAuthFrame,
  pause_monitoring: PauseFrame,
  resume_monitoring: ResumeFrame,
  refresh_request: RefreshFrame,
  agents_request: AgentsRequestFrame,
  dashboard_log: DashboardLogFrame,
  dashboard_alert: DashboardAlertFrame,
  clear_logs: ClearLogsFrame,
  clear_alerts: ClearAlertsFrame
}
export const dashboardServerFrames = [
  ...commonServerFrames, MonitoringFrame, HealthFrame, AgentsFrame, LogsFrame, AlertFrame,
  PauseAck, ResumeAck, RefreshAck, AgentsAck, ClearLogsAck, ClearAlertsAck, DashboardTokenExpiring
]

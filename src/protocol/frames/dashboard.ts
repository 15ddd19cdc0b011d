import { Type, type Static, type TProperties } from '@sinclair/typebox'
import { AgentInfo, AgentMetrics } from '../schemas/agent.js'
import { Timestamp } from '../schemas/common.js'
import { Alert, LogEntry, ProcessUse, RequestSummary, ResourceUtilization } from '../schemas/dashboard.js'
import { BearerToken, ClientFrame, commonClientFrames, commonServerFrames, EpochSeconds, RequestId, ServerFrame } from './common.js'

export const DashboardAuthFrame = ClientFrame('auth', {
  token: BearerToken,
  fingerprint: Type.Optional(Type.String({ maxLength: 256, description: 'If present, it must match the fingerprint of the session' }))
}, {
  description: 'As the first frame, authenticates the connection: the server replies with data frames or closes it. ' +
    'Sent later, replaces the token'
})
export type DashboardAuthFrame = Static<typeof DashboardAuthFrame>

export const PauseFrame = ClientFrame('pause_monitoring', {}, {
  description: 'Pauses `monitoring`, `health` and `alert`',
  answers: ['pause_ack']
})
export const ResumeFrame = ClientFrame('resume_monitoring', {}, {
  description: 'Ends a pause. The server sends `monitoring`, `health` and the stored alerts immediately',
  answers: ['resume_ack']
})
export const RefreshFrame = ClientFrame('refresh_request', {}, {
  description: 'Requests all data frames immediately, also while paused',
  answers: ['refresh_ack']
})
export const AgentsRequestFrame = ClientFrame('agents_request', {}, {
  description: 'Requests the `agents` frame immediately',
  answers: ['agents_ack']
})
export const ClearLogsFrame = ClientFrame('clear_logs', {}, { description: 'Clears the log', answers: ['clear_logs_ack'] })
export const ClearAlertsFrame = ClientFrame('clear_alerts', {}, { description: 'Clears the stored alerts', answers: ['clear_alerts_ack'] })

export const DashboardLogFrame = ClientFrame('dashboard_log', {
  data: Type.Object({
    level: Type.String({ description: 'INFO, SUCS, WARN, CRIT or ERR, or the full word; case-insensitive', examples: ['INFO'] }),
    message: Type.String({ minLength: 1, examples: ['The page was opened'] }),
    timestamp: Type.String({ description: 'ISO 8601', examples: ['2030-01-31T12:00:00.000Z'] })
  })
}, { description: 'Adds an entry to the log of all dashboards' })
export type DashboardLogFrame = Static<typeof DashboardLogFrame>
export const DashboardAlertFrame = ClientFrame('dashboard_alert', {
  data: Type.Object({}, {
    additionalProperties: true,
    description: 'An alert with a message or a title, or `{alerts: […]}`',
    examples: [{ title: 'No response', severity: 'warning' }]
  })
}, { description: 'Stores alerts that are not stored yet' })
export type DashboardAlertFrame = Static<typeof DashboardAlertFrame>

const DataFrame = <T extends string, P extends TProperties>(type: T, properties: P, description: string) =>
  ServerFrame(type, { timestamp: Timestamp, data: Type.Object(properties) }, { description })

const Count = Type.Integer({ minimum: 0 })
const Truncated = Type.Optional(Type.Literal(true, { description: 'The list is incomplete because of the frame size limit' }))
const ComponentStatus = Type.Union([
  'healthy', 'degraded', 'critical', 'error', 'no_agents', 'not_configured'
].map(name => Type.Literal(name)))

export const MonitoringFrame = DataFrame('monitoring', {
  total_requests: Count,
  avg_response_time: Type.Number({ minimum: 0, description: 'Mean over all agents in seconds, weighted by their requests' }),
  error_rate: Type.Number({ minimum: 0, maximum: 1 }),
  agent_metrics: Type.Array(AgentMetrics),
  truncated: Truncated,
  agent_count: Count,
  resource_utilization: ResourceUtilization,
  process: ProcessUse,
  registry: RequestSummary
}, 'Metrics reported by agents, and the resource usage of this host and process')
export const HealthFrame = DataFrame('health', {
  status: Type.Union([Type.Literal('healthy'), Type.Literal('degraded'), Type.Literal('unhealthy')]),
  components: Type.Object({
    storage: Type.Object({ redis: Type.String(), status: ComponentStatus }),
    ai_services: Type.Object({ azure_openai: Type.String(), status: ComponentStatus }),
    agents: Type.Object({
      total: Count, active: Count, status: ComponentStatus, connectivity_ratio: Type.Number({ minimum: 0, maximum: 1 })
    })
  }),
  reason: Type.String()
}, 'Health of the components of the registry')
export const AgentsFrame = DataFrame('agents', {
  agents: Type.Array(AgentInfo),
  total_count: Count,
  active_count: Count,
  agent_types: Type.Record(Type.String(), Count),
  status_summary: Type.Object({ alive: Type.Optional(Count), dead: Type.Optional(Count) }),
  truncated: Truncated
}, 'All agents')
export const LogsFrame = DataFrame('logs', {
  logs: Type.Array(LogEntry, { description: 'Newest first' }),
  count: Type.Integer({ minimum: 0, description: 'Total number of entries' }),
  last_updated: Timestamp
}, 'The newest log entries')
export const AlertFrame = DataFrame('alert', { alerts: Type.Array(Alert) }, 'Alerts that were just raised, or all stored alerts')

const AckFrame = <T extends string, S extends string>(type: T, status: S) => ServerFrame(type, {
  timestamp: Timestamp,
  requestId: Type.Optional(RequestId),
  data: Type.Object({ status: Type.Union([Type.Literal(status), Type.Literal('error')]), message: Type.Optional(Type.String()) })
}, { description: 'Sent after the requested data frames, or with status `error` if the request failed' })

const PauseAck = AckFrame('pause_ack', 'paused')
const ResumeAck = AckFrame('resume_ack', 'resumed')
const RefreshAck = AckFrame('refresh_ack', 'completed')
const AgentsAck = AckFrame('agents_ack', 'completed')
const ClearLogsAck = AckFrame('clear_logs_ack', 'completed')
const ClearAlertsAck = AckFrame('clear_alerts_ack', 'completed')
const DashboardTokenExpiring = ServerFrame('token_expiring', { expiresAt: EpochSeconds }, {
  description: 'The token expires in 30 s. Replace it with `auth`'
})

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

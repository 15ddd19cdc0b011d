import { type Static, Type } from '@sinclair/typebox'
import { Timestamp } from './common.js'

export const AlertSeverity = Type.Union([Type.Literal('critical'), Type.Literal('warning'), Type.Literal('info')])
export const LogLevel = Type.Union(['INFO', 'SUCS', 'WARN', 'CRIT', 'ERR'].map(name => Type.Literal(name)))

/** The metrics that alert rules can compare. */
export const alertMetrics = [
  'avg_response_time', 'error_rate', 'total_requests',
  'registry_avg_response_time', 'registry_error_rate', 'registry_total_requests',
  'agents_total', 'agents_active', 'agents_ratio', 'agents_condition',
  'storage_status', 'ai_status', 'system_status',
  'cpu', 'memory', 'storage', 'network'
] as const
export type AlertMetric = typeof alertMetrics[number]

const AlertComparison = Type.Union(
  [Type.Literal('>'), Type.Literal('>='), Type.Literal('<'), Type.Literal('<='), Type.Literal('=')],
  { default: '>' }
)
export type AlertComparison = Static<typeof AlertComparison>

/** An alert rule in the options of the plugin. */
export const AlertRuleInput = Type.Object({
  id: Type.String({ minLength: 1, maxLength: 64, description: 'The id of a built-in rule replaces that rule' }),
  type: Type.String({ minLength: 1, maxLength: 64, description: 'Of all rules of a type, only the most severe that applies is raised' }),
  metric: Type.Unsafe<AlertMetric>(Type.Union(alertMetrics.map(name => Type.Literal(name)))),
  comparison: Type.Optional(AlertComparison),
  threshold: Type.Union([Type.Number(), Type.String({ maxLength: 64 })], {
    description: 'Response times in seconds, rates from 0 to 1, resources in percent; text with `=` only'
  }),
  forMs: Type.Optional(Type.Integer({
    minimum: 0, default: 0, description: 'Time for which the condition must hold without interruption (ms)'
  })),
  severity: Type.Optional(AlertSeverity),
  cooldownMs: Type.Optional(Type.Integer({
    minimum: 0,
    description: 'Minimum time between two alerts of this rule; default by severity: 5, 15 and 60 minutes (ms)'
  })),
  title: Type.Optional(Type.String({ maxLength: 200 })),
  message: Type.String({
    minLength: 1, maxLength: 500, description: 'Placeholders: `{value}`, `{percent}`, `{threshold}` and the names of details'
  })
}, { additionalProperties: false })
export type AlertRuleInput = Static<typeof AlertRuleInput>

/** Settings of the dashboard page. The server stores unknown members unchanged. */
export const UiSettings = Type.Object({
  maxLogEntries: Type.Optional(Type.Integer({ minimum: 10, description: 'At most `log_buffer_maxlen`' }))
}, { additionalProperties: true })

export const ConfigQuery = Type.Object({ tz: Type.Optional(Type.String({ maxLength: 64, description: 'Returned as `timezone`' })) })
/** Any value: a body without an object `ui` is answered with `ConfigRefused`. */
export const ConfigBody = Type.Unknown({ description: '`{"ui": {…}}`, at most 16 KiB' })

export const DashboardConfig = Type.Object({
  timezone: Type.String(),
  ws_ping_interval_ms: Type.Integer(),
  log_buffer_maxlen: Type.Integer({ description: 'Maximum number of retained log entries' }),
  log_message_maxlen: Type.Integer({ description: 'Maximum length of a log message; longer messages are truncated' }),
  ui: UiSettings
})
export type DashboardConfig = Static<typeof DashboardConfig>

export const ConfigStored = Type.Object({ status: Type.Literal('ok'), ui: UiSettings })
export const ConfigRefused = Type.Object({ status: Type.Literal('error'), message: Type.Literal('Invalid payload') })
export const ConfigAnswer = Type.Union([ConfigStored, ConfigRefused])
export type ConfigAnswer = Static<typeof ConfigAnswer>

const Percent = Type.Number({ minimum: 0, maximum: 100 })
export const ResourceUtilization = Type.Object({ cpu: Percent, memory: Percent, network: Percent, storage: Percent }, {
  description: 'Resource usage of this host, in percent'
})

export const ProcessUse = Type.Object({
  cpu: Type.Number({ minimum: 0, description: 'Percent of one core since the previous frame' }),
  memory_bytes: Type.Integer({ minimum: 0, description: 'Resident memory' }),
  uptime_seconds: Type.Integer({ minimum: 0 })
}, { description: 'Resource usage of this process' })

export const RequestSummary = Type.Object({
  total_requests: Type.Integer({ minimum: 0 }),
  avg_response_time: Type.Number({ minimum: 0, description: 'Seconds' }),
  error_rate: Type.Number({ minimum: 0, maximum: 1 })
}, { description: 'HTTP requests to the registry in the last minutes' })

export const LogEntry = Type.Object({
  timestamp: Timestamp,
  level: LogLevel,
  message: Type.String(),
  source: Type.String()
}, { additionalProperties: Type.Union([Type.String(), Type.Number(), Type.Boolean(), Type.Null()]) })

export const Alert = Type.Object({
  id: Type.String(),
  title: Type.String(),
  message: Type.String(),
  severity: AlertSeverity,
  type: Type.String(),
  timestamp: Timestamp,
  details: Type.Record(Type.String(), Type.Union([Type.String(), Type.Number(), Type.Boolean(), Type.Null()]))
})

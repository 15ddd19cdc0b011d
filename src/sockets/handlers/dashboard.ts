import { hasAlert } from '../../dashboard/alerts.js'
import type { Dashboard } from '../../dashboard/dashboard.js'
import { dashboardLog as readLog, type LogLevel } from '../../dashboard/logs.js'
import {
  AgentsRequestFrame, ClearAlertsFrame, ClearLogsFrame, DashboardAlertFrame, DashboardAuthFrame, DashboardLogFrame, PauseFrame,
  RefreshFrame, ResumeFrame
} from '../../protocol/frames/dashboard.js'
import { dataFrameTypes, sendDataFrames } from '../broadcasts.js'
import type { Connection } from '../connection.js'
import { defineHandler } from '../dispatcher.js'

interface AckData { status: 'completed' | 'error' | 'paused' | 'resumed', message?: string }

/** Sends an acknowledgement in the form that dashboard pages expect. */
function acknowledge (connection: Connection, { requestId }: { requestId?: string }, type: string, data: AckData) {
  connection.sendFrame({ type, timestamp: new Date().toISOString(), ...(requestId !== undefined && { requestId }), data })
}

/** Adds an entry to the dashboard log in the name of the admin. */
function log ({ authenticatedPrincipal }: Connection, { logs }: Dashboard, level: LogLevel, message: string) {
  logs.add({ level, message, source: 'dashboard', user_id: authenticatedPrincipal.subject })
}

/** Replaces the token of a dashboard. */
const auth = defineHandler(DashboardAuthFrame, function auth (connection, frame, { handshake }) {
  return handshake?.renew(connection, frame)
})

/** Pauses `monitoring`, `health` and `alert` on this connection. */
const pauseMonitoring = defineHandler(PauseFrame, function pauseMonitoring (connection, frame, { dashboard }) {
  connection.isPaused = true
  log(connection, dashboard, 'WARN', 'Monitoring paused')
  acknowledge(connection, frame, 'pause_ack', { status: 'paused' })
})

/** Ends a pause. The alerts of the pause are among the stored alerts, which are sent at once. */
const resumeMonitoring = defineHandler(ResumeFrame, function resumeMonitoring (connection, frame, { dashboard }) {
  connection.isPaused = false
  log(connection, dashboard, 'INFO', 'Monitoring resumed')
  sendDataFrames(connection, dashboard, ['monitoring', 'health', 'alert'])
  acknowledge(connection, frame, 'resume_ack', { status: 'resumed' })
})

/** Sends all data frames at once, also during a pause. */
const refreshRequest = defineHandler(RefreshFrame, function refreshRequest (connection, frame, { dashboard }) {
  log(connection, dashboard, 'INFO', 'Manual refresh')
  const failed = sendDataFrames(connection, dashboard, dataFrameTypes)
  acknowledge(connection, frame, 'refresh_ack', failed.length === 0
    ? { status: 'completed', message: 'Fresh data sent' }
    : { status: 'error', message: `Refresh failed: no ${failed.join(', ')}` })
})

const agentsRequest = defineHandler(AgentsRequestFrame, function agentsRequest (connection, frame, { dashboard }) {
  const failed = sendDataFrames(connection, dashboard, ['agents'])
  acknowledge(connection, frame, 'agents_ack', failed.length === 0
    ? { status: 'completed', message: 'Agents data sent' }
    : { status: 'error', message: 'Failed to send agents data: they cannot be rendered' })
})

/** Adds an entry from the page to the log. Every dashboard receives it within a second. */
const dashboardLog = defineHandler(DashboardLogFrame, function dashboardLog (connection, frame, { dashboard }) {
  const entry = readLog(frame.data)
  const expected = '/data: Expected a known level, a message and an ISO 8601 timestamp'
  if (!entry) return connection.fail('invalid_frame', expected, frame)
  dashboard.logs.add(entry)
  connection.ack(frame)
})

/** Stores alerts that the page raises. Pages also send back every alert that they receive; stored alerts are ignored. */
const dashboardAlert = defineHandler(DashboardAlertFrame, function dashboardAlert (connection, frame, { dashboard }) {
  if (!hasAlert(frame.data)) return connection.fail('missing_data', 'Expected an alert with a message or a title', frame)
  dashboard.alerts.add(frame.data)
  connection.ack(frame)
})

const clearLogs = defineHandler(ClearLogsFrame, function clearLogs (connection, frame, { dashboard }) {
  dashboard.logs.clear()
  log(connection, dashboard, 'WARN', 'Logs cleared')
  acknowledge(connection, frame, 'clear_logs_ack', { status: 'completed', message: 'Backend logs cleared successfully' })
})

const clearAlerts = defineHandler(ClearAlertsFrame, function clearAlerts (connection, frame, { dashboard }) {
  dashboard.alerts.clear()
  log(connection, dashboard, 'WARN', 'Alerts cleared')
  acknowledge(connection, frame, 'clear_alerts_ack', { status: 'completed', message: 'Backend alerts cleared successfully' })
})

export const dashboardHandlers = {
  auth,
  pause_monitoring: pauseMonitoring,
  resume_monitoring: resumeMonitoring,
  refresh_request: refreshRequest,
  agents_request: agentsRequest,
  dashboard_log: dashboardLog,
  dashboard_alert: dashboardAlert,
  clear_logs: clearLogs,
  clear_alerts: clearAlerts
}

import type { FrameHandler } from '../tiers.js'
import { agentsRequest } from './dashboard/agents-request.js'
import { auth as dashboardAuth } from './dashboard/auth.js'
import { clearAlerts } from './dashboard/clear-alerts.js'
import { clearLogs } from './dashboard/clear-logs.js'
import { dashboardAlert } from './dashboard/dashboard-alert.js'
import { dashboardLog } from './dashboard/dashboard-log.js'
import { pauseMonitoring } from './dashboard/pause-monitoring.js'
import { refreshRequest } from './dashboard/refresh-request.js'
import { resumeMonitoring } from './dashboard/resume-monitoring.js'
import { accept } from './accept.js'
import { auth } from './auth.js'
import { cancelRequest } from './cancel-request.js'
import { getDiscovery } from './get-discovery.js'
import { goodbye } from './goodbye.js'
import { history } from './history.js'
import { inbox } from './inbox.js'
import { message } from './message.js'
import { ping } from './ping.js'
import { pong } from './pong.js'
import { presence } from './presence.js'
import { presenceUpdate } from './presence-update.js'
import { publish } from './publish.js'
import { reject } from './reject.js'
import { reply } from './reply.js'
import { request } from './request.js'
import { send } from './send.js'
import { status } from './status.js'
import { subscribe } from './subscribe.js'
import { unsubscribe } from './unsubscribe.js'
import { unwatch } from './unwatch.js'
import { watch } from './watch.js'

const common = { ping, pong, watch, unwatch }
const channels = { subscribe, unsubscribe, publish, history, presence, presence_update: presenceUpdate }
const direct = { send, inbox, message, request, accept, reply, reject, cancel_request: cancelRequest }

/** The frames that each tier takes, by `type`. */
export const publicHandlers: ReadonlyMap<string, FrameHandler> = new Map(Object.entries({ ...common, get_discovery: getDiscovery }))
export const agentsHandlers: ReadonlyMap<string, FrameHandler> = new Map(Object.entries({ ...common, ...channels, ...direct, auth, status, goodbye }))
export const dashboardHandlers: ReadonlyMap<string, FrameHandler> = new Map(Object.entries({
  ...common,
  auth: dashboardAuth,
  pause_monitoring: pauseMonitoring,
  resume_monitoring: resumeMonitoring,
  refresh_request: refreshRequest,
  agents_request: agentsRequest,
  dashboard_log: dashboardLog,
  dashboard_alert: dashboardAlert,
  clear_logs: clearLogs,
  clear_alerts: clearAlerts
}))

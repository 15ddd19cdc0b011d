import type { Connection } from '../../connection.js'
import type { Frame } from '../../../protocol/parse.js'
import type { SocketServices } from '../../services.js'

/** An acknowledgement as dashboards know them. */
export function acknowledge (connection: Connection, { requestId }: Frame, type: string, data: { status: string, message?: string }): void {
  const timestamp = new Date().toISOString()
  connection.sendFrame({ type, timestamp, ...(requestId !== undefined && { requestId }), data })
}

/** Says in the log and to the dashboard that something was cleared. */
export function tellCleared (what: 'Alerts' | 'Logs', connection: Connection, frame: Frame, { dashboard }: SocketServices): void {
  dashboard.logs.add({ level: 'WARN', message: `${what} cleared`, source: 'dashboard', user_id: connection.principal!.subject })
  acknowledge(connection, frame, `clear_${what.toLowerCase()}_ack`, { status: 'completed', message: `Backend ${what.toLowerCase()} cleared successfully` })
}

import type { Connection, Frame } from '../../connection.js'

/** An acknowledgement as dashboards know them. */
export function acknowledge (connection: Connection, { requestId }: Frame, type: string, data: { status: string, message?: string }): void {
  const timestamp = new Date().toISOString()
  connection.sendFrame({ type, timestamp, ...(requestId !== undefined && { requestId }), data })
}

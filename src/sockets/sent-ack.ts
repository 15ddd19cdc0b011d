import type { Sent } from '../messaging/direct.js'

/** The `ack` of a direct message. */
export function sentAck (requestId: string, { offset, delivered, duplicate }: Sent): string {
  return JSON.stringify({ type: 'ack', requestId, offset, delivered, ...(duplicate && { duplicate }) })
}

import { GetDiscoveryFrame } from '../../protocol/frames/public.js'
import { count, slice } from '../../registry/query.js'
import type { FrameHandler } from '../tiers.js'

const defaultPageSize = 30
const maxPageSize = 100
/** Leaves room for the rest of a frame, which common clients limit to 1 MiB. */
const maxAgentsBytes = 900_000

const whole = (value: number | string | undefined, fallback: number) => value === undefined ? fallback : Math.trunc(Number(value))

/** A page of the agents that discovery shows. Pages beyond the end are empty. */
export const getDiscovery: FrameHandler = {
  schema: GetDiscoveryFrame,
  invalid: 'Failed to get discovery data',
  handle (connection, frame, { registry, now }) {
    const { page, page_size: size, agent_type: type = null, requestId } = frame as unknown as GetDiscoveryFrame
    const pageSize = Math.min(maxPageSize, Math.max(1, whole(size, defaultPageSize)))
    const current = Math.max(1, whole(page, 1))
    const filter = type ? { agent_type: type } : {}
    const total = count(registry.replica, 'public', filter)
    const entries = slice(registry.replica, 'public', filter, { offset: (current - 1) * pageSize, limit: pageSize })
    const agents: string[] = []
    const omitted: string[] = []
    let bytes = 0
    for (const { record, rendering } of entries) {
      const text = rendering.public()!
      bytes += Buffer.byteLength(text)
      if (bytes > maxAgentsBytes) omitted.push(record.id)
      else agents.push(text)
    }
    const rest = { pagination: pagination(current, pageSize, total), filters: { agent_type: type }, ...(omitted.length > 0 && { omitted }) }
    const id = requestId === undefined ? '' : `,"requestId":${JSON.stringify(requestId)}`
    connection.send(`{"type":"discovery_data","timestamp":${now() / 1000}${id},"data":{"agents":[${agents.join()}],${JSON.stringify(rest).slice(1)}}`)
  }
}

function pagination (page: number, pageSize: number, total: number) {
  const pages = Math.ceil(total / pageSize)
  return {
    current_page: page,
    page_size: pageSize,
    total_agents: total,
    total_pages: pages,
    has_next: page < pages,
    has_previous: page > 1,
    next_page: page < pages ? page + 1 : null,
    previous_page: page > 1 ? page - 1 : null
  }
}

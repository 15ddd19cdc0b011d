import { closeCodes } from '../../protocol/codes.js'
import { AuthFrame, GoodbyeFrame, StatusFrame } from '../../protocol/frames/agents.js'
import { PingFrame, PongFrame, UnwatchFrame, WatchFrame } from '../../protocol/frames/common.js'
import { GetDiscoveryFrame } from '../../protocol/frames/public.js'
import { count, slice } from '../../registry/query.js'
import { defineHandler } from '../dispatcher.js'

const ping = defineHandler(PingFrame, function ping (connection, frame) {
  connection.pong(frame)
})

/** A pong gets no reply: every received frame already counts as a heartbeat. */
const pong = defineHandler(PongFrame, function pong () {})

/** Starts the feed of changes. A second `watch` replaces the first. */
const watch = defineHandler(WatchFrame, function watch (connection, frame, { watches, view }) {
  const { requestId } = frame
  watches.start(connection, view, frame, revision => { connection.sendFrame({ type: 'ack', requestId, revision }) })
})

/** Ends the feed; the connection receives lists of agents again. */
const unwatch = defineHandler(UnwatchFrame, function unwatch (connection, frame, { watches }) {
  watches.stop(connection)
  connection.ack(frame)
})

/** Frames that every tier except `/v1` accepts. */
export const commonHandlers = { ping, pong, watch, unwatch }

const defaultPageSize = 30
const maxPageSize = 100
/** Leaves room for the rest of a frame, which common clients limit to 1 MiB. */
const maxAgentsBytes = 900_000

const whole = (value: number | string | undefined, fallback: number) => value === undefined ? fallback : Math.trunc(Number(value))

/** Sends a page of the discoverable agents. A page beyond the end is empty. */
const getDiscovery = defineHandler(GetDiscoveryFrame, function getDiscovery (connection, frame, { registry, now }) {
  const { page, page_size: size, agent_type: type = null, requestId } = frame
  const pageSize = Math.min(maxPageSize, Math.max(1, whole(size, defaultPageSize)))
  const current = Math.max(1, whole(page, 1))
  const filter = type ? { agent_type: type } : {}
  const total = count(registry.replica, 'public', filter)
  const agents: string[] = []
  const omitted: string[] = []
  let bytes = 0
  for (const { record, rendering } of slice(registry.replica, 'public', filter, { offset: (current - 1) * pageSize, limit: pageSize })) {
    const text = rendering.public()
    if (text === null) continue
    bytes += Buffer.byteLength(text)
    if (bytes > maxAgentsBytes) omitted.push(record.id)
    else agents.push(text)
  }
  const rest = { pagination: pagination(current, pageSize, total), filters: { agent_type: type }, ...(omitted.length > 0 && { omitted }) }
  const id = requestId === undefined ? '' : `,"requestId":${JSON.stringify(requestId)}`
  const data = `{"agents":[${agents.join()}],${JSON.stringify(rest).slice(1)}`
  connection.send(`{"type":"discovery_data","timestamp":${now() / 1000}${id},"data":${data}}`)
}, { invalid: 'Failed to get discovery data' })

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

/** Frames of `/public/ws` alone. */
export const discoveryHandlers = { get_discovery: getDiscovery }

/** Replaces the token of a connection, so that the connection can outlive its first token. */
const auth = defineHandler(AuthFrame, function auth (connection, frame, { handshake }) {
  return handshake?.renew(connection, frame)
})

/** Requests a state of the agent: in `draining` and `maintenance` it keeps its lease and is not discovered. */
const status = defineHandler(StatusFrame, async function status (connection, frame, { registry }) {
  const { type, agentId, incarnation } = connection.authenticatedPrincipal
  if (type !== 'agent' || agentId === null) return connection.fail('action_not_permitted', 'Only agents have a status', frame)
  await registry.setState({ id: agentId, incarnation: incarnation ?? undefined, state: frame.status, reason: 'requested' })
  connection.ack(frame)
})

/** Unregisters the agent of the connection and closes the connection. */
const goodbye = defineHandler(GoodbyeFrame, async function goodbye (connection, frame, { enrollment }) {
  const { type, agentId, incarnation } = connection.authenticatedPrincipal
  if (type !== 'agent' || agentId === null) return connection.fail('action_not_permitted', 'Only agents can unregister with goodbye', frame)
  await enrollment.unregister({ id: agentId, incarnation: incarnation ?? undefined }, () => {
    connection.ack(frame)
    connection.close(closeCodes.normal, 'Goodbye')
  })
})

/** Frames of agents and users about themselves. */
export const accountHandlers = { auth, status, goodbye }

// How a client of each server connects, and which of its messages count as events.
import type { LightClient } from './light-client.js'

/** The connection is ready, or the number of events in a message. */
type Classification = 'ready' | number

export interface ClientProtocol {
  path: string
  /** Sends the first frame; without it the client waits for the server. */
  onOpen?: (client: LightClient, token: string) => void
  /** The connection is ready when it is open. */
  readyOnOpen?: true
  classify: (client: LightClient, text: Buffer, token: string) => Classification
}

const startsWith = (text: Buffer, prefix: string) => text.toString('latin1', 0, prefix.length) === prefix

/** Counts the changes in an agents_delta: those of one tick come in one frame. */
function changesIn (text: Buffer): number {
  if (!startsWith(text, '{"type":"agents_delta"')) return 0
  let changes = 0
  for (let at = text.indexOf('"op":'); at >= 0; at = text.indexOf('"op":', at + 1)) changes++
  return changes
}

const authenticate = (client: LightClient, token: string) => { client.send(JSON.stringify({ token })) }
const watch = '{"type":"watch","requestId":"watch"}'
/** A channel that every agent may use. */
export const channel = 'public/bench'
const subscribe = JSON.stringify({ type: 'subscribe', requestId: 'subscribe', channel })

export const clientProtocols = {
  /** A watcher with a token in the first frame. */
  agents: {
    path: '/agents/ws',
    classify (client, text, token) {
      if (startsWith(text, '{"type":"auth_required"')) authenticate(client, token)
      if (startsWith(text, '{"type":"auth_success"')) client.send(watch)
      return startsWith(text, '{"type":"ack"') ? 'ready' : changesIn(text)
    }
  },
  /** An authenticated agent that sends nothing more. */
  idle: {
    path: '/agents/ws',
    classify (client, text, token) {
      if (startsWith(text, '{"type":"auth_required"')) authenticate(client, token)
      return startsWith(text, '{"type":"auth_success"') ? 'ready' : 0
    }
  },
  /** An authenticated agent that is subscribed to a channel. */
  subscriber: {
    path: '/agents/ws',
    classify (client, text, token) {
      if (startsWith(text, '{"type":"auth_required"')) authenticate(client, token)
      if (startsWith(text, '{"type":"auth_success"')) client.send(subscribe)
      if (startsWith(text, '{"type":"ack"')) return 'ready'
      return startsWith(text, '{"type":"message"') ? 1 : 0
    }
  },
  /** A watcher of the public tier. */
  watcher: {
    path: '/public/ws',
    onOpen: client => client.send(watch),
    classify: (_client, text) => startsWith(text, '{"type":"ack"') ? 'ready' : changesIn(text)
  },
  /** A client of the public tier that sends requests. */
  requester: { path: '/public/ws', classify: (_client, text) => startsWith(text, '{"type":"welcome"') ? 'ready' : 0 },
  plain: { path: '/', readyOnOpen: true, classify: () => 1 },
  token: {
    path: '/',
    onOpen: authenticate,
    classify: (_client, text) => startsWith(text, '{"type":"auth_success"') ? 'ready' : 0
  },
  /** Engine.IO 4 and Socket.IO 5 over a WebSocket: open, connect to the main namespace, events. */
  'socket.io': {
    path: '/socket.io/?EIO=4&transport=websocket',
    classify (client, text) {
      if (startsWith(text, '0')) client.send('40')
      if (startsWith(text, '2')) client.send('3')
      if (startsWith(text, '40')) return 'ready'
      return startsWith(text, '42') ? 1 : 0
    }
  }
} satisfies Record<string, ClientProtocol>

export type ClientProtocolName = keyof typeof clientProtocols

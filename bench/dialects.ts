// How a client of each server gets to where it listens, and what counts as an event there.
import type { LightClient } from './light-client.js'

/** What a message is: the end of the opening, or so many events. */
type Meaning = 'ready' | number

export interface Dialect {
  path: string
  /** What is said first; undefined waits for the server. */
  begin?: (client: LightClient, token: string) => void
  /** Ready as soon as it is open. */
  isReady?: true
  hear: (client: LightClient, text: Buffer, token: string) => Meaning
}

const starts = (text: Buffer, prefix: string) => text.toString('latin1', 0, prefix.length) === prefix

/** Changes that a delta tells of: those of one tick come in one frame. */
function changesIn (text: Buffer): number {
  if (!starts(text, '{"type":"agents_delta"')) return 0
  let changes = 0
  for (let at = text.indexOf('"op":'); at >= 0; at = text.indexOf('"op":', at + 1)) changes++
  return changes
}

const authenticate = (client: LightClient, token: string) => { client.send(JSON.stringify({ token })) }
const watch = '{"type":"watch","requestId":"watch"}'
/** Every agent may use it. */
export const channel = 'public/bench'
const subscribe = JSON.stringify({ type: 'subscribe', requestId: 'subscribe', channel })

export const dialects = {
  /** A watcher with a token in the first frame. */
  agents: {
    path: '/agents/ws',
    hear (client, text, token) {
      if (starts(text, '{"type":"auth_required"')) authenticate(client, token)
      if (starts(text, '{"type":"auth_success"')) client.send(watch)
      return starts(text, '{"type":"ack"') ? 'ready' : changesIn(text)
    }
  },
  /** Somebody with a token who sends nothing more. */
  idle: {
    path: '/agents/ws',
    hear (client, text, token) {
      if (starts(text, '{"type":"auth_required"')) authenticate(client, token)
      return starts(text, '{"type":"auth_success"') ? 'ready' : 0
    }
  },
  /** Somebody with a token who is subscribed to a channel. */
  subscriber: {
    path: '/agents/ws',
    hear (client, text, token) {
      if (starts(text, '{"type":"auth_required"')) authenticate(client, token)
      if (starts(text, '{"type":"auth_success"')) client.send(subscribe)
      return starts(text, '{"type":"ack"') ? 'ready' : starts(text, '{"type":"message"') ? 1 : 0
    }
  },
  /** A watcher of the public tier. */
  watcher: {
    path: '/public/ws',
    begin: client => client.send(watch),
    hear: (_client, text) => starts(text, '{"type":"ack"') ? 'ready' : changesIn(text)
  },
  /** Somebody on the public tier who asks. */
  asking: { path: '/public/ws', hear: (_client, text) => starts(text, '{"type":"welcome"') ? 'ready' : 0 },
  plain: { path: '/', isReady: true, hear: () => 1 },
  token: {
    path: '/',
    begin: authenticate,
    hear: (_client, text) => starts(text, '{"type":"auth_success"') ? 'ready' : 0
  },
  /** Engine.IO 4 and Socket.IO 5 over a WebSocket: open, connect to the main namespace, events. */
  'socket.io': {
    path: '/socket.io/?EIO=4&transport=websocket',
    hear (client, text) {
      if (starts(text, '0')) client.send('40')
      if (starts(text, '2')) client.send('3')
      return starts(text, '40') ? 'ready' : starts(text, '42') ? 1 : 0
    }
  }
} satisfies Record<string, Dialect>

export type DialectName = keyof typeof dialects

// A server that the socket parts measure, in a process of its own: ours or one of the peers.
import { settledRss } from './memory.js'
import { ours } from './socket-ours.js'
import { peers, type PeerKind } from './socket-peers.js'

/** A server that listens, and the actions that a part can request of it. */
export interface SocketServer {
  port: number
  details?: Record<string, unknown>
  /** Emits events for all clients in this tick. */
  emit?: (events: number) => void
  /** New tokens, one for each client. */
  tokens?: () => string[] | Promise<string[]>
  /** Bytes that are buffered for the slowest client. */
  unsent?: () => number
}

export type ServerKind = 'ours' | PeerKind

const [kind, argument = ''] = process.argv.slice(2) as [ServerKind, string | undefined]
const server: SocketServer = kind === 'ours' ? await ours(JSON.parse(argument)) : await peers[kind](argument)

/** After this number the young generation, which grows under load by up to 32 MB, is small again. */
const collections = 16

const responses: Record<string, () => unknown> = {
  cpu: () => process.cpuUsage(),
  rss: () => settledRss(collections),
  tokens: () => server.tokens!(),
  unsent: () => server.unsent!()
}

/** Reports the time of the events on request (ms of the clock that all processes share). */
function emit ({ emit: events, reportTime }: { emit: number, reportTime?: boolean }) {
  const at = Number(process.hrtime.bigint()) / 1e6
  server.emit!(events)
  if (reportTime) process.send!(at)
}

process.on('message', async (command: string | { emit: number }) => {
  if (typeof command === 'object') emit(command)
  else process.send!(await responses[command]!())
})
process.on('disconnect', () => process.exit(0))
process.send!({ port: server.port, ...server.details })

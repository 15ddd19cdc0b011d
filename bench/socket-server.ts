// A server that the socket rows measure, in a process of its own: ours or one of the peers.
import { settledRss } from './memory.js'
import { ours } from './socket-ours.js'
import { peers, type PeerKind } from './socket-peers.js'

/** A server that listens, and what it can be made to do. */
export interface SocketServer {
  port: number
  details?: Record<string, unknown>
  /** Makes so many events happen in this tick, each for all clients. */
  emit?: (events: number) => void
  /** Tokens that nobody has used yet, one for each client. */
  tokens?: () => string[] | Promise<string[]>
  /** Bytes that wait for the slowest client. */
  unsent?: () => number
}

export type ServerKind = 'ours' | PeerKind

const [kind, argument = ''] = process.argv.slice(2) as [ServerKind, string | undefined]
const server: SocketServer = kind === 'ours' ? await ours(JSON.parse(argument)) : await peers[kind](argument)

/** After so many the young generation, which has grown with what came, is small again: 32 MB that belong to nobody. */
const collections = 16

const answers: Record<string, () => unknown> = {
  cpu: () => process.cpuUsage(),
  rss: () => settledRss(collections),
  tokens: () => server.tokens!(),
  unsent: () => server.unsent!()
}

/** When it happened is told when that is asked for (ms of the clock that all processes share). */
function emit ({ emit: events, isTold }: { emit: number, isTold?: boolean }) {
  const at = Number(process.hrtime.bigint()) / 1e6
  server.emit!(events)
  if (isTold) process.send!(at)
}

process.on('message', async (question: string | { emit: number }) => {
  if (typeof question === 'object') emit(question)
  else process.send!(await answers[question]!())
})
process.on('disconnect', () => process.exit(0))
process.send!({ port: server.port, ...server.details })

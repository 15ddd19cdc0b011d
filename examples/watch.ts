/**
 * Prints what happens in a registry, as it happens: all agents that discovery shows, then every change. After a cut it
 * goes on from the last revision it has seen. Ends on SIGINT or SIGTERM.
 *
 *   REGISTRY_URL=http://127.0.0.1:8001 node examples/watch.ts
 */
import { setTimeout as sleep } from 'node:timers/promises'
import type { AgentInfo, AgentState } from 'fastify-agent-registry'
import { WebSocket } from 'ws'

interface Change { revision: string, op: 'put' | 'state' | 'remove', agent_id: string, agent?: AgentInfo, state?: AgentState, previous?: AgentState, reason: string }
interface Snapshot { revision: string, agents: AgentInfo[], last: boolean }

const url = `${(process.env.REGISTRY_URL ?? 'http://127.0.0.1:8001').replace('http', 'ws')}/public/ws`
const stopping = new AbortController()
for (const signal of ['SIGINT', 'SIGTERM']) process.once(signal, () => stopping.abort())

/** What is known: the state of every agent, as of a revision; no revision before the first snapshot is whole. */
const states = new Map<string, AgentState>()
let revision: string | undefined

function takeSnapshot (snapshot: Snapshot): void {
  for (const agent of snapshot.agents) states.set(agent.agent_id, agent.state)
  if (!snapshot.last) return
  revision = snapshot.revision
  console.log(`snapshot ${revision}: ${[...states].map(([id, state]) => `${id} ${state}`).join(', ') || 'nobody'}`)
}

function takeChange (change: Change): void {
  const { op, agent_id: id, state, previous = 'new', reason } = change
  revision = change.revision
  if (op === 'remove') states.delete(id)
  else states.set(id, state!)
  console.log(`${op} ${id}: ${previous} -> ${op === 'remove' ? 'gone' : state} (${reason}), revision ${revision}`)
}

/** Says whether what was put together here is what the registry has. */
function takeBookmark (bookmark: { revision: string, count: number }): void {
  revision = bookmark.revision
  console.log(`bookmark ${revision}: ${states.size} of ${bookmark.count} agents known`)
}

/** What we know cannot be continued, after a restart of the registry for one; a snapshot follows. */
function startAnew (): void {
  states.clear()
  revision = undefined
  console.log('resync')
}

/** The first frame: the whole from nothing, or what was missed. */
function askForFeed (socket: WebSocket): void {
  const from = revision === undefined ? { snapshot: true } : { since: revision }
  if (revision === undefined) states.clear()
  else console.log(`resuming after ${revision}`)
  socket.send(JSON.stringify({ type: 'watch', requestId: 'feed', ...from }))
}

function receive (socket: WebSocket, text: string): void {
  if (text === 'ping') return socket.send('pong')
  const frame = JSON.parse(text)
  if (frame.type === 'welcome') askForFeed(socket)
  if (frame.type === 'agents_snapshot') takeSnapshot(frame)
  if (frame.type === 'agents_delta') frame.changes.forEach(takeChange)
  if (frame.type === 'bookmark') takeBookmark(frame)
  if (frame.type === 'resync') startAnew()
  if (frame.type === 'going_away') console.log(`the registry goes away: come back in ${frame.retryAfterMs} ms`)
  if (frame.type === 'error') console.log(`error ${frame.code}: ${frame.message}`)
}

/** One connection, until it closes. Resolves with whether it was open at all. */
async function watch (): Promise<boolean> {
  const socket = new WebSocket(url)
  let wasOpen = false
  const leave = () => socket.close(1000)
  stopping.signal.addEventListener('abort', leave)
  socket.on('open', () => { wasOpen = true })
  socket.on('error', error => console.log(`socket: ${error.message}`))
  socket.on('message', data => receive(socket, String(data)))
  const code = await new Promise<number>(resolve => socket.on('close', resolve))
  stopping.signal.removeEventListener('abort', leave)
  console.log(`disconnected: ${code}`)
  return wasOpen
}

for (let failures = 0; !stopping.signal.aborted; failures++) {
  if (await watch()) failures = 0
  const delay = Math.min(30_000, 500 * 2 ** failures) * (0.5 + Math.random() / 2)
  await sleep(delay, undefined, { signal: stopping.signal }).catch(() => { /* the signal ended the wait */ })
}

/**
 * Prints the public feed of a registry: all agents that discovery shows, then each change. After a disconnect it resumes
 * after the last revision that it received. Ends on SIGINT or SIGTERM.
 *
 *   REGISTRY_URL=http://127.0.0.1:8001 node examples/watch.ts
 */
import { setTimeout as sleep } from 'node:timers/promises'
import type { AgentInfo, AgentState } from 'fastify-agent-registry'
import { WebSocket } from 'ws'

interface Change {
  revision: string
  op: 'put' | 'state' | 'remove'
  agent_id: string
  agent?: AgentInfo
  state?: AgentState
  previous?: AgentState
  reason: string
}

interface Snapshot { revision: string, agents: AgentInfo[], last: boolean }

const url = `${(process.env.REGISTRY_URL ?? 'http://127.0.0.1:8001').replace('http', 'ws')}/public/ws`
const stopping = new AbortController()
for (const signal of ['SIGINT', 'SIGTERM']) process.once(signal, () => stopping.abort())

/** The state of each agent at `revision`, which is undefined until the first snapshot is complete. */
const states = new Map<string, AgentState>()
let revision: string | undefined

function applySnapshot (snapshot: Snapshot): void {
  for (const agent of snapshot.agents) states.set(agent.agent_id, agent.state)
  if (!snapshot.last) return
  revision = snapshot.revision
  console.log(`snapshot ${revision}: ${[...states].map(([id, state]) => `${id} ${state}`).join(', ') || 'no agents'}`)
}

function applyChange (change: Change): void {
  const { op, agent_id: id, state, previous = 'new', reason } = change
  revision = change.revision
  if (op === 'remove') states.delete(id)
  else states.set(id, state!)
  console.log(`${op} ${id}: ${previous} -> ${op === 'remove' ? 'gone' : state} (${reason}), revision ${revision}`)
}

/** Compares the number of agents here with the number in the registry. */
function checkBookmark (bookmark: { revision: string, count: number }): void {
  revision = bookmark.revision
  console.log(`bookmark ${revision}: ${states.size} of ${bookmark.count} agents known`)
}

/** The feed cannot resume, for example after a restart of the registry. A snapshot follows. */
function reset (): void {
  states.clear()
  revision = undefined
  console.log('resync')
}

/** Requests a snapshot, or the missed changes if a revision is known. */
function requestFeed (socket: WebSocket): void {
  const from = revision === undefined ? { snapshot: true } : { since: revision }
  if (revision === undefined) states.clear()
  else console.log(`resuming after ${revision}`)
  socket.send(JSON.stringify({ type: 'watch', requestId: 'feed', ...from }))
}

function receive (socket: WebSocket, text: string): void {
  if (text === 'ping') return socket.send('pong')
  const frame = JSON.parse(text)
  if (frame.type === 'welcome') requestFeed(socket)
  if (frame.type === 'agents_snapshot') applySnapshot(frame)
  if (frame.type === 'agents_delta') frame.changes.forEach(applyChange)
  if (frame.type === 'bookmark') checkBookmark(frame)
  if (frame.type === 'resync') reset()
  if (frame.type === 'going_away') console.log(`the registry shuts down: reconnect after ${frame.retryAfterMs} ms`)
  if (frame.type === 'error') console.log(`error ${frame.code}: ${frame.message}`)
}

/** Opens a connection. Resolves when it closes, with whether it was open. */
async function watch (): Promise<boolean> {
  const socket = new WebSocket(url)
  let wasOpen = false
  const close = () => socket.close(1000)
  stopping.signal.addEventListener('abort', close)
  socket.on('open', () => { wasOpen = true })
  socket.on('error', error => console.log(`socket: ${error.message}`))
  socket.on('message', data => receive(socket, String(data)))
  const code = await new Promise<number>(resolve => socket.on('close', resolve))
  stopping.signal.removeEventListener('abort', close)
  console.log(`disconnected: ${code}`)
  return wasOpen
}

for (let failures = 0; !stopping.signal.aborted; failures++) {
  if (await watch()) failures = 0
  const delay = Math.min(30_000, 500 * 2 ** failures) * (0.5 + Math.random() / 2)
  await sleep(delay, undefined, { signal: stopping.signal }).catch(() => { /* the signal ended the wait */ })
}

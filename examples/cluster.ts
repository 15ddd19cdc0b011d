/**
 * Three processes that share one Redis are one registry: agents register with any of them, all of them know every agent,
 * and whoever watches goes on with another process, from the revision it has seen, when its own is killed.
 * Needs `redis-server` on the PATH, which it starts for itself.
 *
 *   node examples/cluster.ts
 */
import { fork, spawn, type ChildProcess } from 'node:child_process'
import { once } from 'node:events'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { fileURLToPath } from 'node:url'
import fastify from 'fastify'
import agentRegistry from 'fastify-agent-registry'
import { WebSocket } from 'ws'

const agentKey = 'the-key-of-this-cluster'

/** One of the processes: an application with the registry in it, as it would run anywhere. */
async function serve (redis: string): Promise<void> {
  const app = fastify()
  await app.register(agentRegistry, {
    storage: 'redis',
    redis: { url: redis },
    jwt: { secret: 'all processes sign with the same secret' },
    agentKeys: [agentKey],
    allowedAgentTypes: ['worker']
  })
  process.send!(await app.listen({ port: 0, host: '127.0.0.1' }))
}

interface Member { readonly name: string, readonly url: string, readonly child: ChildProcess }

async function startMember (name: string, redis: string): Promise<Member> {
  const child = fork(fileURLToPath(import.meta.url), [redis])
  const [url] = await once(child, 'message') as [string]
  console.log(`${name} serves ${url}`)
  return { name, url, child }
}

async function ready ({ stdout }: ReturnType<typeof spawn>): Promise<void> {
  for await (const text of stdout!) if (/ready to accept/i.test(String(text))) return
}

/** A Redis of our own, reached by a socket in a folder that goes with it. */
async function startRedis (): Promise<{ url: string, stop: () => Promise<void> }> {
  const folder = mkdtempSync(join(tmpdir(), 'cluster-'))
  const path = join(folder, 'redis.sock')
  const server = spawn('redis-server', ['--port', '0', '--unixsocket', path, '--save', '', '--dir', folder])
  const failed = once(server, 'error').then(([error]) => { throw new Error(`redis-server cannot be started: ${error.message}`) })
  await Promise.race([failed, ready(server)])
  async function stop () {
    server.kill()
    await once(server, 'close')
    rmSync(folder, { recursive: true })
  }
  return { url: path, stop }
}

async function call<T> (member: Member, method: string, path: string, token?: string, body?: object): Promise<T> {
  const headers = { ...(token && { authorization: `Bearer ${token}` }), ...(body && { 'content-type': 'application/json' }) }
  const response = await fetch(member.url + path, { method, headers, body: body && JSON.stringify(body) })
  const answer = await response.json() as T & { detail?: string }
  if (!response.ok) throw new Error(`${method} ${path}: ${response.status} ${answer.detail}`)
  return answer
}

/** Registers with one process; the token that comes back is good for all of them. */
async function register (member: Member, id: string): Promise<string> {
  const credentials = { agent_id: id, agent_type: 'worker', agent_key: agentKey }
  const { temp_token: temporary } = await call<{ temp_token: string }>(member, 'POST', '/auth/agent/request_temp_token', undefined, credentials)
  const { access_token: token } = await call<{ access_token: string }>(member, 'POST', '/agents/register', temporary, {
    agent_id: id,
    name: `Worker ${id}`,
    agent_type: 'worker',
    endpoint: 'http://127.0.0.1:9',
    capabilities: ['work'],
    context_brief: 'A worker of the cluster example',
    version: '1.0.0',
    owner: 'examples',
    public_key: 'this example has no key pair to show',
    metadata: { started: 'by the cluster example' },
    communication_mode: 'remote'
  })
  return token
}

/** Watches through one process after the other, each from where the one before ended, and notes what it is told. */
class FleetWatcher {
  readonly seen: string[] = []
  #since: string | undefined

  watch (member: Member): void {
    const socket = new WebSocket(`${member.url.replace('http', 'ws')}/public/ws`)
    socket.on('open', () => {
      console.log(`the watcher is with ${member.name}${this.#since ? ', from where it was' : ''}`)
      socket.send(JSON.stringify({ type: 'watch', requestId: 'watch', ...(this.#since && { since: this.#since }) }))
    })
    socket.on('error', error => console.log(`the watcher: ${error.message}`))
    socket.on('message', data => { if (String(data) !== 'ping') this.#take(JSON.parse(String(data))) })
  }

  async until (count: number): Promise<void> {
    while (this.seen.length < count) await sleep(10)
  }

  #take (frame: { type: string, revision?: string, changes?: Array<{ revision: string, op: string, agent_id: string, state?: string, reason: string }> }) {
    if (frame.type === 'ack' || frame.type === 'bookmark' || frame.type === 'resync') this.#since = frame.revision
    for (const { revision, op, agent_id: id, reason } of frame.changes ?? []) {
      this.#since = revision
      this.seen.push(`${op} ${id} (${reason})`)
      console.log(`  the watcher saw: ${this.seen.at(-1)}`)
    }
  }
}

async function main (): Promise<void> {
  const redis = await startRedis()
  const members = await Promise.all([1, 2, 3].map(number => startMember(`process ${number}`, redis.url)))
  const [first, second, third] = members as [Member, Member, Member]
  const watcher = new FleetWatcher()
  watcher.watch(second)
  await sleep(300)

  const tokens = new Map<string, string>()
  for (const number of [1, 2, 3, 4, 5, 6]) {
    const member = members[number % 3]!
    const id = `worker-${number}`
    tokens.set(id, await register(member, id))
    await call(member, 'POST', `/agents/${id}/heartbeat`, tokens.get(id))
    // Registered, and alive with its first sign of life.
    await watcher.until(2 * number)
  }

  console.log('process 2 is killed')
  second.child.kill('SIGKILL')
  // Nobody watches now: what happens meanwhile is told by the next process.
  await call(first, 'DELETE', '/agents/worker-1', tokens.get('worker-1'))
  await call(third, 'POST', '/agents/worker-2/status', tokens.get('worker-2'), { status: 'draining' })
  watcher.watch(third)
  await watcher.until(14)

  for (const member of [first, third]) {
    const agents = await call<Array<{ agent_id: string }>>(member, 'GET', '/public/discover')
    console.log(`${member.name} discovers ${agents.map(agent => agent.agent_id).sort().join(' ')}`)
  }
  console.log(`${watcher.seen.length} changes, ${new Set(watcher.seen).size} different ones`)
  for (const { child } of members) child.kill('SIGKILL')
  await redis.stop()
  process.exit(0)
}

await (process.argv[2] ? serve(process.argv[2]) : main())

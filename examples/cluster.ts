/**
 * Three processes that share one Redis are one registry: agents register with any of them, and each of them knows every
 * agent. When a process is killed, its watcher reconnects to another process and resumes after the last revision.
 * The example starts `redis-server`, which must be on the PATH.
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

/** One of the processes: an application that embeds the registry. */
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

interface Instance { readonly name: string, readonly url: string, readonly child: ChildProcess }

async function startInstance (name: string, redis: string): Promise<Instance> {
  const child = fork(fileURLToPath(import.meta.url), [redis])
  const [url] = await once(child, 'message') as [string]
  console.log(`${name} serves ${url}`)
  return { name, url, child }
}

async function ready ({ stdout }: ReturnType<typeof spawn>): Promise<void> {
  for await (const text of stdout!) if (/ready to accept/i.test(String(text))) return
}

/** Starts Redis on a Unix socket in a temporary folder. */
async function startRedis (): Promise<{ url: string, stop: () => Promise<void> }> {
  const folder = mkdtempSync(join(tmpdir(), 'cluster-'))
  const path = join(folder, 'redis.sock')
  const server = spawn('redis-server', ['--port', '0', '--unixsocket', path, '--save', '', '--dir', folder])
  const failed = once(server, 'error').then(([error]) => { throw new Error(`redis-server did not start: ${error.message}`) })
  await Promise.race([failed, ready(server)])
  async function stop () {
    server.kill()
    await once(server, 'close')
    rmSync(folder, { recursive: true })
  }
  return { url: path, stop }
}

async function call<T> (instance: Instance, method: string, path: string, token?: string, body?: object): Promise<T> {
  const headers = { ...(token && { authorization: `Bearer ${token}` }), ...(body && { 'content-type': 'application/json' }) }
  const response = await fetch(instance.url + path, { method, headers, body: body && JSON.stringify(body) })
  const answer = await response.json() as T & { detail?: string }
  if (!response.ok) throw new Error(`${method} ${path}: ${response.status} ${answer.detail}`)
  return answer
}

/** Registers with one process. All processes accept the token that it issues. */
async function register (instance: Instance, id: string): Promise<string> {
  const credentials = { agent_id: id, agent_type: 'worker', agent_key: agentKey }
  const tokenPath = '/auth/agent/request_temp_token'
  const { temp_token: temporary } = await call<{ temp_token: string }>(instance, 'POST', tokenPath, undefined, credentials)
  const { access_token: token } = await call<{ access_token: string }>(instance, 'POST', '/agents/register', temporary, {
    agent_id: id,
    name: `Worker ${id}`,
    agent_type: 'worker',
    endpoint: 'http://127.0.0.1:9',
    capabilities: ['work'],
    context_brief: 'A worker of the cluster example',
    version: '1.0.0',
    owner: 'examples',
    public_key: 'this example does not use a key pair',
    metadata: { example: 'cluster' },
    communication_mode: 'remote'
  })
  return token
}

interface Change { revision: string, op: string, agent_id: string, reason: string }

/** Watches the feed of one process after another, resumes after the last revision each time, and records the changes. */
class FleetWatcher {
  readonly received: string[] = []
  #since: string | undefined

  watch (instance: Instance): void {
    const socket = new WebSocket(`${instance.url.replace('http', 'ws')}/public/ws`)
    socket.on('open', () => {
      console.log(`the watcher is connected to ${instance.name}${this.#since ? ' and resumes' : ''}`)
      socket.send(JSON.stringify({ type: 'watch', requestId: 'watch', ...(this.#since && { since: this.#since }) }))
    })
    socket.on('error', error => console.log(`watcher socket: ${error.message}`))
    socket.on('message', data => { if (String(data) !== 'ping') this.#receive(JSON.parse(String(data))) })
  }

  async until (count: number): Promise<void> {
    while (this.received.length < count) await sleep(10)
  }

  #receive (frame: { type: string, revision?: string, changes?: Change[] }) {
    if (frame.type === 'ack' || frame.type === 'bookmark' || frame.type === 'resync') this.#since = frame.revision
    for (const { revision, op, agent_id: id, reason } of frame.changes ?? []) {
      this.#since = revision
      this.received.push(`${op} ${id} (${reason})`)
      console.log(`  the watcher received: ${this.received.at(-1)}`)
    }
  }
}

async function main (): Promise<void> {
  const redis = await startRedis()
  const instances = await Promise.all([1, 2, 3].map(number => startInstance(`process ${number}`, redis.url)))
  const [first, second, third] = instances as [Instance, Instance, Instance]
  const watcher = new FleetWatcher()
  watcher.watch(second)
  await sleep(300)

  const tokens = new Map<string, string>()
  for (const number of [1, 2, 3, 4, 5, 6]) {
    const instance = instances[number % 3]!
    const id = `worker-${number}`
    tokens.set(id, await register(instance, id))
    await call(instance, 'POST', `/agents/${id}/heartbeat`, tokens.get(id))
    // Two changes: registered, and alive after the first heartbeat.
    await watcher.until(2 * number)
  }

  console.log('process 2 is killed')
  second.child.kill('SIGKILL')
  // The watcher is disconnected now. It receives these changes from the next process.
  await call(first, 'DELETE', '/agents/worker-1', tokens.get('worker-1'))
  await call(third, 'POST', '/agents/worker-2/status', tokens.get('worker-2'), { status: 'draining' })
  watcher.watch(third)
  await watcher.until(14)

  for (const instance of [first, third]) {
    const agents = await call<Array<{ agent_id: string }>>(instance, 'GET', '/public/discover')
    console.log(`${instance.name} discovers ${agents.map(agent => agent.agent_id).sort().join(' ')}`)
  }
  console.log(`${watcher.received.length} changes, ${new Set(watcher.received).size} of them different`)
  for (const { child } of instances) child.kill('SIGKILL')
  await redis.stop()
  process.exit(0)
}

await (process.argv[2] ? serve(process.argv[2]) : main())

// Runs each example against a registry. Each must print the expected lines in their order and exit with code 0.
import { once } from 'node:events'
import { readdirSync } from 'node:fs'
import { connect, createServer } from 'node:net'
import { join } from 'node:path'
import { agentKey, begin, makeFolder, root, script, startRegistry, stop, transpileFile, waitForOutput } from './support.js'

/** The expected lines of each example that ends by itself, or the function that runs the example. */
const expectations = {
  'embed.ts': [
    /^event: registered packer-1, new -> starting \(created\)$/m,
    /^packer-1 is registered: a lease of 60000 ms, a heartbeat every \d+ ms$/m,
    /^event: alive packer-1, starting -> alive \(first-sign\)$/m,
    /^rejected: owner unknown may not register agents$/m,
    /^event: state packer-1, alive -> draining \(requested\)$/m,
    /^event: alive packer-1, draining -> alive \(requested\)$/m,
    /^GET \/orders \[\{"order":1,"workers":1\}\]$/m,
    /^GET \/registry\/public\/discover \[ 'packer-1' \]$/m,
    /^\/chat chat: hello$/m,
    /^\/registry\/public\/ws welcome$/m,
    /^event: unregistered packer-1, alive -> gone \(removed\)$/m,
    /^stats \{ total_agents: 0, /m
  ],
  'cluster.ts': [
    /^the watcher is connected to process 2$/m,
    /^ {2}the watcher received: put worker-1 \(created\)$/m,
    /^ {2}the watcher received: state worker-6 \(first-sign\)$/m,
    /^process 2 is killed$/m,
    /^the watcher is connected to process 3 and resumes$/m,
    /^ {2}the watcher received: remove worker-1 \(left\)$/m,
    /^ {2}the watcher received: remove worker-2 \(requested\)$/m,
    /^process 1 discovers worker-3 worker-4 worker-5 worker-6$/m,
    /^process 3 discovers worker-3 worker-4 worker-5 worker-6$/m,
    /^14 changes, 14 of them different$/m
  ],
  'planner.ts': [
    /^published run-1-count, offset 1$/m,
    /^published run-1-turn, offset 3$/m,
    /^run-1-count: 6 \(from counter\)$/m,
    /^run-1-shout: AGENTS THAT TALK GET MORE DONE \(from shouter\)$/m,
    /^run-1-turn: done more get talk that agents \(from turner\)$/m
  ],
  'stream.ts': [
    /^ {2}1: page 1$/m,
    /^ {2}8: page 8$/m,
    /^the browser is disconnected after offset 8$/m,
    /^ {2}9: page 9$/m,
    /^ {2}25: page 25\n {2}26: end of the stream$/m,
    /^all missed chunks were recovered$/m
  ],
  'orchestrator.ts': [
    /^summariser is subscribed, with the capabilities summarise$/m,
    /^published at offset 1 to 1 subscriber, repeated at offset 1$/m,
    /^summariser replied: agents that talk$/m,
    /^\/peers\/unknown\/request: 503 agent_offline: /m,
    /^message delivered$/m,
    /^1 \$orchestrator: started\n2 summariser: summarised$/m
  ],
  'agent.ts': runAgentAndWatch,
  'watch.ts': runAgentAndWatch
}

const secrets = ['the secret before the restart, long enough', 'the secret after the restart, long enough']
const folder = join(root, 'examples')
const examples = readdirSync(folder).filter(name => name.endsWith('.ts')).sort()
const built = makeFolder('examples', true)

function compiled (name) {
  return join(built, name.replace(/\.ts$/, '.js'))
}

function beginExample (name, url) {
  return begin(process.execPath, [compiled(name)], { env: { REGISTRY_URL: url, AGENT_KEY: agentKey, PORT: '0' }, timeoutMs: 120_000 })
}

/** Waits for lines in their order: each pattern is searched for after the previous match. */
function reader (started) {
  let seen = 0
  const unread = { child: started.child, get output () { return started.output.slice(seen) } }
  return async function read (...patterns) {
    let match
    for (const pattern of patterns) {
      match = await waitForOutput(unread, pattern)
      seen += match.index + match[0].length
    }
    return match
  }
}

function print (name, { output }) {
  console.log(`  ${name}\n${output.trim().replace(/^/gm, '    ')}`)
}

/** A proxy for `url`. `disconnect` closes all connections and rejects new ones until `restore`. */
async function startProxy (url) {
  const { hostname, port } = new URL(url)
  const sockets = new Set()
  let isDown = false
  const server = createServer(function forward (socket) {
    if (isDown) return socket.destroy()
    const upstream = connect(Number(port), hostname)
    for (const end of [socket, upstream]) sockets.add(end.on('error', () => { socket.destroy(); upstream.destroy() }))
    socket.pipe(upstream).pipe(socket)
  })
  await once(server.listen(0, '127.0.0.1'), 'listening')
  return {
    url: `http://127.0.0.1:${server.address().port}`,
    disconnect () {
      isDown = true
      for (const socket of sockets) socket.destroy()
    },
    restore () { isDown = false }
  }
}

async function echo (agent, { url }) {
  const headers = { 'content-type': 'application/json' }
  const response = await fetch(`${url}/echo`, { method: 'POST', headers, body: '{"hello":"agent"}' })
  if (await response.text() !== '{"echo":{"hello":"agent"}}') throw new Error(`agent.ts did not echo\n${agent.output}`)
}

/** Stops the server process and starts another on the same port, without the data of the first. */
async function restart (registry, env) {
  await registry.stop()
  return startRegistry({ ...env, PORT: new URL(registry.url).port })
}

/**
 * Runs the agent and the watcher against one registry, through a disconnect, the early expiry of the agent's token and two
 * restarts of the registry. The first restart keeps the secret of tokens; the second changes it.
 */
async function runAgentAndWatch () {
  const env = { JWT_EXPIRE_MINUTES: '0.55', JWT_SECRET: secrets[0] }
  let registry = await startRegistry(env)
  const proxy = await startProxy(registry.url)

  const watch = beginExample('watch.ts', proxy.url)
  const watchPrints = reader(watch)
  await watchPrints(/^snapshot \S+: no agents$/m)
  proxy.disconnect()
  await watchPrints(/^disconnected: 1006$/m)

  const agent = beginExample('agent.ts', registry.url)
  const agentPrints = reader(agent)
  const [, url] = await agentPrints(/^echo-agent listens at (http\S+)$/m)
  await agentPrints(/^registered, revision /m, /^connected$/m)
  await echo(agent, { url })
  proxy.restore()
  await watchPrints(
    /^resuming after \S+:0$/m,
    /^put echo-agent: new -> starting \(created\)/m,
    /^state echo-agent: starting -> alive \(first-sign\)/m
  )
  await agentPrints(/^token renewed$/m)

  for (const [index, failure] of [/^POST \/agents\/echo-agent\/heartbeat: 404 /m, /^disconnected: 4001 /m].entries()) {
    registry = await restart(registry, { ...env, JWT_SECRET: secrets[index] })
    await agentPrints(/^disconnected: 1001 Going away$/m, failure, /^registered, revision /m, /^connected$/m)
    await watchPrints(/^the registry shuts down: /m, /^resync$/m, /^snapshot \S+: echo-agent alive$|^state echo-agent: starting -> alive /m)
  }

  await stop(agent, 'SIGINT')
  await agentPrints(/^unregistered$/m)
  await watchPrints(/^remove echo-agent: alive -> gone \(left\)/m)
  await stop(watch, 'SIGINT')
  await registry.stop()
  print('agent.ts', agent)
  print('watch.ts', watch)
}

async function runAlone (name, lines) {
  const registry = await startRegistry()
  const started = beginExample(name, registry.url)
  await reader(started)(...lines)
  const { code, signal, output } = await started.ended
  if (code !== 0) throw new Error(`${name}: ended with ${code ?? signal}\n${output}`)
  await registry.stop()
  print(name, started)
}

await script('run-examples', async function runExamples () {
  const together = new Set()
  for (const name of examples) transpileFile(join(folder, name), compiled(name))
  for (const name of examples) {
    const expected = expectations[name]
    if (!expected) throw new Error(`${name}: scripts/run-examples.js has no expected lines for it`)
    if (typeof expected === 'function') together.add(expected)
    else await runAlone(name, expected)
  }
  for (const run of together) await run()
})

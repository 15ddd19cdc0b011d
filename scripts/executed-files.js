// Finds the files of the built package that run during one operation, with the coverage of V8.
import { once } from 'node:events'
import { existsSync } from 'node:fs'
import { Session } from 'node:inspector/promises'
import { join, relative, sep } from 'node:path'
import { fileURLToPath, pathToFileURL } from 'node:url'
import fastify from 'fastify'
import { WebSocket } from 'ws'
import { root } from './support.js'

const agentKey = 'measure-agent-key-1'
const dist = join(root, 'dist')
const entry = join(dist, 'src/index.js')
const rounds = 5
const timeoutMs = 10_000

/** Starts the registry of dist with the memory store, on a free port of the loopback interface. */
async function openRegistry () {
  if (!existsSync(entry)) throw new Error('dist is missing: run npm run build')
  const { default: agentRegistry } = await import(pathToFileURL(entry).href)
  const app = fastify()
  await app.register(agentRegistry, { agentKeys: [agentKey] })
  const base = await app.listen({ host: '127.0.0.1', port: 0 })
  return { app, base }
}

async function post (base, path, body, token) {
  const headers = { 'content-type': 'application/json', ...(token && { authorization: `Bearer ${token}` }) }
  const response = await fetch(base + path, { method: 'POST', headers, body: JSON.stringify(body) })
  if (!response.ok) throw new Error(`POST ${path}: ${response.status} ${await response.text()}`)
  return response.json()
}

function requestToken (base, id) {
  return post(base, '/auth/agent/request_temp_token', { agent_id: id, agent_type: 'testing', agent_key: agentKey })
}

function register (base, id, token) {
  return post(base, '/agents/register', {
    agent_id: id,
    name: id,
    agent_type: 'testing',
    endpoint: 'http://127.0.0.1:9',
    capabilities: ['measuring'],
    context_brief: 'An agent of the measurement',
    version: '1.0.0',
    owner: 'scripts',
    public_key: 'k'.repeat(40),
    metadata: { runs: 'in measurements' },
    communication_mode: 'remote'
  }, token)
}

/** Resolves with the next frame that passes the test. */
function nextFrame (socket, test) {
  return new Promise(function wait (resolve, reject) {
    const timer = setTimeout(() => reject(new Error(`No frame within ${timeoutMs} ms for ${test}`)), timeoutMs)
    socket.on('message', function receive (data) {
      const text = String(data)
      const frame = text.startsWith('{') ? JSON.parse(text) : {}
      if (frame.type === 'error') reject(new Error(text))
      if (frame.type !== 'error' && !test(frame)) return
      clearTimeout(timer)
      socket.off('message', receive)
      resolve(frame)
    })
  })
}

const isType = (...types) => frame => types.includes(frame.type)

async function connect (base, path, greeting) {
  const socket = new WebSocket(base.replace('http', 'ws') + path)
  await Promise.all([once(socket, 'open'), nextFrame(socket, isType(greeting))])
  return socket
}

function ask (socket, frame, ...answers) {
  const answer = nextFrame(socket, isType(...answers))
  socket.send(JSON.stringify(frame))
  return answer
}

/** Registers an agent and opens its socket. */
async function connectAgent (base, id) {
  const { temp_token: temporary } = await requestToken(base, id)
  const { access_token: token } = await register(base, id, temporary)
  const socket = await connect(base, '/agents/ws', 'auth_required')
  await ask(socket, { token }, 'auth_success')
  return socket
}

/** The files of src, plugins and routes with a function called since the last reading. Module code does not count. */
async function calledFiles (session) {
  const { result } = await session.post('Profiler.takePreciseCoverage')
  return result
    .filter(({ url, functions }) => url.startsWith(pathToFileURL(dist).href) && functions.some(isCalled))
    .map(({ url }) => relative(dist, fileURLToPath(url)).split(sep).join('/'))
    .sort()
}

const isModuleCode = ({ functionName, ranges: [{ startOffset }] }) => functionName === '' && startOffset === 0
const isCalled = entry => entry.ranges[0].count > 0 && !isModuleCode(entry)

/** The files that run in one round. Timers also run, so the round with the fewest files applies. */
async function measure (session, round) {
  await round('warm-up')
  let fewest
  for (let at = 0; at < rounds; at++) {
    const files = await round(`round-${at}`, () => session.post('Profiler.takePreciseCoverage'), () => calledFiles(session))
    if (!fewest || files.length < fewest.length) fewest = files
  }
  return fewest
}

const ignore = async () => []

async function publishRound ({ base }) {
  const channel = 'workflows/measured/notes'
  const [publisher, subscriber] = [await connectAgent(base, 'publisher'), await connectAgent(base, 'subscriber')]
  await ask(subscriber, { type: 'subscribe', channel, requestId: 'subscribe' }, 'ack')
  return async function publish (text, begin = ignore, end = ignore) {
    const message = nextFrame(subscriber, ({ type, data }) => type === 'message' && data?.text === text)
    await begin()
    publisher.send(JSON.stringify({ type: 'publish', channel, data: { text } }))
    await message
    return end()
  }
}

async function registrationRound ({ base }) {
  const watcher = await connect(base, '/public/ws', 'welcome')
  await ask(watcher, { type: 'watch', snapshot: true, requestId: 'watch' }, 'agents_snapshot')
  return async function registerAgent (id, begin = ignore, end = ignore) {
    const { temp_token: token } = await requestToken(base, id)
    const delta = nextFrame(watcher, ({ type, changes }) => type === 'agents_delta' && changes.some(change => change.agent_id === id))
    await begin()
    await Promise.all([register(base, id, token), delta])
    return end()
  }
}

/** The files that one publish to one subscriber executes, and those of one registration with one watcher. */
export async function fewestFiles () {
  const session = new Session()
  session.connect()
  await session.post('Profiler.enable')
  await session.post('Profiler.startPreciseCoverage', { callCount: true, detailed: true })
  const registry = await openRegistry()
  try {
    return {
      publish: await measure(session, await publishRound(registry)),
      registration: await measure(session, await registrationRound(registry))
    }
  } finally {
    await registry.app.close()
    session.disconnect()
  }
}

// The servers that the HTTP parts compare: ours, and bare Fastify with the same hooks, each in a process of its own.
import { monitorEventLoopDelay } from 'node:perf_hooks'
import jwt from '@fastify/jwt'
import helmet from '@fastify/helmet'
import prom from '@platformatic/prom-client'
import fastify, { type FastifyInstance, type FastifyRequest } from 'fastify'
import agentRegistry from 'fastify-agent-registry'
import { agents } from './sample-data.js'

const secret = 'a secret of more than thirty-two characters'
const adminPassword = 'bench-password'
const [kind, argument = '', tokenCountText, storage = 'memory', location = ''] = process.argv.slice(2)
/** Number of registrations in all rounds. */
const tokenCount = Number(tokenCountText)

/** The common base: security headers, and a logger that writes nothing for a request. */
async function base (): Promise<FastifyInstance> {
  const app = fastify({ logger: { level: 'warn' } })
  await app.register(helmet)
  return app
}

const storageOptions = {
  memory: {},
  level: { storage: 'level', level: { path: location } },
  redis: { storage: 'redis', redis: { url: location } }
} as const

/** Our registry with `population` agents, and tokens for agents that are not registered. */
async function ours (population: number) {
  const app = await base()
  const started = performance.now()
  await app.register(agentRegistry, {
    ...storageOptions[storage as keyof typeof storageOptions],
    jwt: { secret },
    admin: { password: adminPassword },
    allowedAgentTypes: ['*'],
    lease: { durationMs: 3_600_000 },
    // The parts that use tokens measure the throughput without admission limits.
    ...(Number(tokenCountText) > 0 && { admission: { registrationsPerSecond: 1e6, upgradesPerSecond: 1e6, burst: 1e6 } }),
    routes: { root: true }
  })
  const startMs = performance.now() - started
  const registry = app.agentRegistry
  const ids: string[] = []
  const ownTokens: string[] = []
  // Several at a time, because a store may write in batches.
  for (const batch of batches(agents(population, 1), 64)) {
    const answers = await Promise.all(batch.map(registration => registry.register(registration)))
    ownTokens.push(...answers.map(answer => answer.access_token))
    ids.push(...batch.map(({ agent_id: id }) => id))
  }
  // Index all agents before the first round.
  for (let drained = 0; drained <= population; drained += 1000) await registry.search({ query: 'ready' })
  const tokens = await mintTokens(app)
  return { app, details: { token: ownTokens.at(-1), ownTokens: ownTokens.slice(0, 20_000), agentId: ids.at(-1), startMs, tokens } }
}

function * batches<T> (items: Iterable<T>, size: number): Generator<T[]> {
  const batch: T[] = []
  for (const item of items) {
    batch.push(item)
    if (batch.length === size) yield batch.splice(0)
  }
  if (batch.length > 0) yield batch
}

/** Creates tokens for agents that are not registered yet. */
async function mintTokens (app: FastifyInstance): Promise<string[]> {
  const headers = { 'x-client-fingerprint': 'bench' }
  const login = await app.inject({ method: 'POST', url: '/auth/login', headers, payload: { username: 'admin', password: adminPassword } })
  const authorization = `Bearer ${login.json().access_token}`
  const tokens: string[] = []
  for (let index = 0; index < tokenCount; index++) {
    const payload = { user_id: `new-agent-${index}`, agent_id: `new-agent-${index}`, role: 'agent' }
    const answer = await app.inject({ method: 'POST', url: '/tokens/mint', headers: { ...headers, authorization }, payload })
    tokens.push(answer.json().access_token)
  }
  return tokens
}

/** The usual way to do what ours does for each request: an id in the response, a counter and a histogram by route. */
function addHooks (scope: FastifyInstance) {
  const labelNames = ['method', 'endpoint', 'status_code']
  const registers = [new prom.Registry()]
  const total = new prom.Counter({ name: 'requests_total', help: 'Requests', labelNames, registers })
  const duration = new prom.Histogram({ name: 'request_duration_seconds', help: 'Time to answer', labelNames, registers })
  scope.addHook('onRequest', function nameRequest (request, reply, done) {
    reply.header('x-request-id', request.id)
    done()
  })
  scope.addHook('onResponse', function measureRequest (request, reply, done) {
    const labels = { method: request.method, endpoint: request.routeOptions.url ?? '', status_code: reply.statusCode }
    total.inc(labels)
    duration.observe(labels, reply.elapsedTime / 1000)
    done()
  })
}

/** The same work on the wire without a registry. Constant responses are copied from `url`. */
async function bare (url: string) {
  const host = await base()
  await host.register(jwt, { secret, sign: { expiresIn: '1h' } })
  host.get('/no-hooks', async () => ({ status: 'live' }))
  await host.register(async function peers (app) { await addPeers(app, url) })
  await host.ready()
  const claims = {
    sub: 'agent',
    agent_id: 'agent',
    jti: '00000000-0000-0000-0000-000000000000',
    typ: 'agent',
    role: 'agent',
    iss: 'agent-registry:default',
    aud: 'arcp:operations'
  }
  const tokens = Array.from({ length: tokenCount }, (_, index) => host.jwt.sign({ ...claims, agent_id: `new-agent-${index}` }))
  return { app: host, details: { token: tokens[0], tokens } }
}

async function addPeers (app: FastifyInstance, url: string) {
  addHooks(app)
  const verify = async (request: FastifyRequest) => { await request.jwtVerify() }
  const text = { type: 'string', minLength: 1, maxLength: 2048 }
  const names = ['agent_id', 'name', 'agent_type', 'endpoint', 'context_brief', 'version', 'owner', 'public_key', 'communication_mode']
  const body = {
    type: 'object',
    required: [...names, 'capabilities', 'metadata'],
    properties: {
      ...Object.fromEntries(names.map(name => [name, text])),
      capabilities: { type: 'array', items: text, minItems: 1, maxItems: 50 },
      metadata: { type: 'object', minProperties: 1, maxProperties: 50 }
    }
  }
  app.post('/agents/register', { schema: { body }, preValidation: verify }, async request => {
    const { agent_id: sub } = request.body as { agent_id: string }
    return { status: 'success', agent_id: sub, access_token: app.jwt.sign({ sub }) }
  })
  app.post('/agents/:id/heartbeat', { preValidation: verify }, async request => {
    const { id } = request.params as { id: string }
    return { agent_id: id, status: 'success', last_seen: new Date().toISOString(), metrics: null }
  })
  for (const [name, path] of Object.entries({ discover: '/public/discover?limit=50', stats: '/public/stats', health: '/health' })) {
    const answer = await (await fetch(url + path)).text()
    app.get(`/constant/${name}`, async (_request, reply) => reply.type('application/json; charset=utf-8').send(answer))
  }
}

const loop = monitorEventLoopDelay({ resolution: 5 })
loop.enable()

const { app, details } = kind === 'ours' ? await ours(Number(argument)) : await bare(argument)
await app.listen({ port: 0, host: '127.0.0.1' })

process.on('message', (command: string) => {
  if (command === 'cpu') process.send!(process.cpuUsage())
  if (command === 'loop') {
    process.send!({ p99: loop.percentile(99) / 1e6, max: loop.max / 1e6 })
    loop.reset()
  }
})
process.on('message', async (command: string) => {
  if (command !== 'close') return
  await app.close()
  process.exit(0)
})
process.on('disconnect', () => process.exit(0))
process.send!({ port: (app.server.address() as { port: number }).port, ...details })

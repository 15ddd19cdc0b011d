import fastifyWebsocket from '@fastify/websocket'
import type { FastifyInstance } from 'fastify'
import t, { type Test } from 'tap'
import { type AgentRegistryOptions, MemoryAgentStore, type Principal } from '../../../src/index.js'
import { problem } from '../../../src/errors.js'
import { closeCodes, type ErrorCode, errorCodes } from '../../../src/protocol/codes.js'
import { build, type Client, type Harness, sleep } from '../../support/harness.js'
import { dashboard } from './dashboard-helper.js'
import { expired, openers, rawOf, refusalOf, sendTogether } from './helper.js'

/** A principal of the host that is not an agent of this registry. */
const stranger: Principal = {
  type: 'agent',
  role: 'agent',
  subject: 'nobody',
  agentId: 'nobody',
  incarnation: null,
  tokenId: 'h',
  sessionId: null,
  expiresAt: null,
  scopes: [],
  keyDigest: null
}

/** A store that fails to change states. */
class BrokenStore extends MemoryAgentStore {
  readonly #error: () => Error
  readonly #isLate: boolean

  constructor (error: () => Error, isLate: boolean) {
    super({ leaseMs: 60_000, retentionMs: 60_000 })
    this.#error = error
    this.#isLate = isLate
  }

  override setState (): never | Promise<never> {
    if (this.#isLate) return Promise.reject(this.#error())
    throw this.#error()
  }
}

const broken = (error: () => Error, isLate = true): AgentRegistryOptions => ({ storage: { agents: new BrokenStore(error, isLate) } })

/** An agents socket of the admin. */
const adminSocket = async (registry: Harness) => registry.agentSocket((await registry.admin()).token)
const hostSocket = async (registry: Harness) => registry.agentSocket('of-the-host')
const adminDashboard = async (registry: Harness) => dashboard(registry, (await registry.admin()).token)

/** A `/v1` socket of an agent. */
async function v1Socket (registry: Harness): Promise<Client> {
  const client = registry.socket(`/v1?token=${await registry.join()}`)
  await client.next('welcome')
  return client
}

interface ErrorCase {
  options?: AgentRegistryOptions
  open?: (registry: Harness) => Promise<Client>
  frame: unknown
}

const status = { type: 'status', status: 'draining' }

/** The tests of messaging cover their codes. */
type OfMessaging = typeof ofMessaging[number]
const ofMessaging = [
  'channel_not_authorized', 'channel_reserved', 'invalid_channel', 'channel_limit_exceeded', 'peer_not_found', 'no_responders',
  'deadline_exceeded', 'rejected', 'unknown_request', 'backend_error'
] as const

const errorCases: Record<Exclude<ErrorCode, OfMessaging>, ErrorCase> = {
  malformed_message: { frame: '{' },
  unknown_type: { frame: { type: 'nope' } },
  invalid_frame: { frame: { type: 'watch', since: 5 } },
  missing_data: { open: adminDashboard, frame: { type: 'dashboard_alert', data: {} } },
  unsupported_encoding: { frame: Buffer.from('{}') },
  message_too_large: { frame: 'x'.repeat(5000) },
  rate_limited: { options: { publicWs: { messagesPerSecond: 1, burst: 1 } }, frame: { type: 'ping' } },
  invalid_peer_id: { options: { routes: { v1: true } }, open: v1Socket, frame: { type: 'send', data: 1 } },
  action_not_permitted: { open: adminSocket, frame: status },
  agent_offline: { options: { authenticate: () => stranger }, open: hostSocket, frame: status },
  storage_unavailable: { options: broken(() => problem('storage-unavailable', 'Away')), open: openers.agents, frame: status },
  internal_error: { options: broken(() => new Error('broken')), open: openers.agents, frame: status }
}

t.test('errors: every error code is reached, and the socket stays open', async t => {
  const reached: string[] = []
  for (const [code, { options, open = openers.public, frame }] of Object.entries(errorCases)) {
    const registry = await build(t, options)
    const client = await open(registry)
    reached.push(code === 'rate_limited' ? await overRate(client, frame) : (await refusalOf(client, frame)).code)
    await registry.app.close()
  }
  t.strictSame([...reached, ...ofMessaging].sort(), [...errorCodes].sort())
})

async function overRate (client: Client, frame: unknown): Promise<string> {
  client.send(frame)
  client.send(frame)
  const { code, retryAfterMs } = await client.next('error')
  await sleep(retryAfterMs + 20)
  client.send(frame)
  await client.next('pong')
  return code
}

t.test('errors: a handler that throws or rejects answers internal_error, and the next frame is handled', async t => {
  for (const isLate of [false, true]) {
    const registry = await build(t, broken(() => new Error('a secret of ours'), isLate))
    const client = await openers.agents(registry)
    sendTogether(client, [
      { ...status, requestId: '1' }, { type: 'ping', requestId: '2' }, { ...status, requestId: '3' }, { type: 'ping', requestId: '4' }
    ])
    while (client.all.at(-1).requestId !== '4') await client.next()
    const answers = client.all.filter(({ requestId }) => requestId)
    t.strictSame(answers.map(({ requestId, type, code }) => [requestId, code ??
      type]), [['1', 'internal_error'], ['2', 'pong'], ['3', 'internal_error'], ['4', 'pong']])
    t.notMatch(JSON.stringify(answers), /secret/)
  }
})

interface CloseCase {
  options?: AgentRegistryOptions
  /** Prepares the host. */
  before?: (app: FastifyInstance) => unknown
  /** The socket that gets closed. */
  end: (registry: Harness) => Promise<Client> | Client
}

/** Sends one frame on a socket of the agents tier. */
async function withFrame (registry: Harness, frame: unknown): Promise<Client> {
  const client = await openers.agents(registry)
  client.send(frame)
  return client
}

const withToken = (registry: Harness, token: string) => registry.socket('/agents/ws', [], { headers: { authorization: `Bearer ${token}` } })

async function unauthenticated (registry: Harness): Promise<Client> {
  const client = registry.socket('/agents/ws')
  await client.next('auth_required')
  return client
}

const closeCases: Record<keyof typeof closeCodes, CloseCase> = {
  normal: { end: registry => withFrame(registry, { type: 'goodbye' }) },
  goingAway: {
    async end (registry) {
      const client = await registry.watcher()
      await registry.app.close()
      return client
    }
  },
  abnormal: { options: { publicWs: { pingIntervalMs: 100 } }, end: registry => registry.socket('/public/ws', [], { autoPong: false }) },
  policyViolation: {
    async end (registry) {
      const client = await unauthenticated(registry)
      client.send({ token: 'wrong' })
      return client
    }
  },
  tooBig: { end: registry => withFrame(registry, 'x'.repeat(300_000)) },
  internal: {
    // A host that replaces sockets, so that the frame writer cannot be used.
    async before (app) {
      await app.register(fastifyWebsocket)
      app.websocketServer.on(
        'connection', socket => { Object.defineProperty(socket, 'protocol', { get () { throw new Error('broken') } }) }
      )
    },
    end: registry => registry.socket('/public/ws')
  },
  tryAgainLater: {
    options: { agentsWs: { maxConnections: 1 } },
    async end (registry) {
      const [first, second] = [await unauthenticated(registry), await unauthenticated(registry)]
      const token = await registry.join()
      first.send({ token })
      await first.next('auth_success')
      second.send({ token })
      return second
    }
  },
  tokenInvalid: { end: registry => withToken(registry, 'wrong') },
  tokenExpired: { end: async registry => withToken(registry, expired(await registry.join())) },
  notAllowed: { end: async registry => withToken(registry, await registry.tempToken()) },
  slowConsumer: { options: { sockets: { maxBufferedBytes: 100_000 } }, end: frozen },
  replaced: {
    async end (registry) {
      const client = await registry.agentSocket(await registry.join())
      await registry.join()
      return client
    }
  },
  overQuota: {
    options: { routes: { v1: true }, messaging: { maxConnectionsPerPeer: 1 } },
    async end (registry) {
      const token = await registry.join()
      await registry.socket(`/v1?token=${token}`).next('welcome')
      return registry.socket(`/v1?token=${token}`)
    }
  },
  disconnected: {
    options: { routes: { v1: true } },
    async end (registry) {
      const client = await v1Socket(registry)
      await registry.delete('/v1/peers/agent-one', await registry.admin())
      return client
    }
  },
  idle: { options: { publicWs: { idleTimeoutMs: 100 } }, end: registry => registry.socket('/public/ws') },
  tooManyMessages: {
    options: { agentsWs: { burst: 5000 }, authenticate: () => new Promise(() => {}) },
    async end (registry) {
      const client = await unauthenticated(registry)
      sendTogether(client, [{ token: 'x' }, ...Array.from({ length: 1100 }, () => ({}))])
      return client
    }
  }
}

/** Sends requests without reading the answers, and reads then. */
async function frozen (registry: Harness): Promise<Client> {
  for (let i = 0; i < 8; i++) await registry.join(`agent-${i}`, { metadata: { text: ['x'.repeat(100_000)] } })
  const client = await registry.watcher()
  rawOf(client).pause()
  for (let i = 0; i < 30; i++) client.send({ type: 'get_discovery' })
  await sleep(500)
  rawOf(client).resume()
  return client
}

async function codeOf (t: Test, { options, before, end }: CloseCase): Promise<number> {
  const registry = await build(t, options, { before })
  const client = await end(registry)
  const { code } = await client.closed
  await registry.app.close()
  return code
}

t.test('close codes: every code is reached', async t => {
  const reached: Record<string, number> = {}
  for (const [name, closeCase] of Object.entries(closeCases)) reached[name] = await codeOf(t, closeCase)
  t.strictSame(reached, closeCodes)
})

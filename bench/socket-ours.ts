// Our registry as the socket parts measure it.
import type { AddressInfo, Socket } from 'node:net'
import fastify, { type FastifyInstance } from 'fastify'
import agentRegistry, { type AgentRegistryOptions } from 'fastify-agent-registry'
import { agents } from './sample-data.js'
import type { SocketServer } from './socket-server.js'

/**
 * `agents` are registered. The first `responders` of them have the capability of the requests. With `frameBytes`, ten more
 * agents have ids of such a length that each change of their state is sent in a frame of this size.
 */
export interface OurSetup { agents?: number, responders?: number, frameBytes?: number, options?: AgentRegistryOptions }

/** The capability that requests name. */
export const capability = 'bench-work'

/** Number of agents that change: the largest number of events in one tick. */
const subjectCount = 10
/** From here on the number in a revision has five digits, for longer than any round takes. */
const firstRevision = 10_000

/** Agents whose state alternates, so that each change is sent in a frame of the same size. */
class ChangingAgents {
  readonly #app: FastifyInstance
  #ids: string[] = []
  #changes = 0

  constructor (app: FastifyInstance) { this.#app = app }

  async register (frameBytes: number): Promise<void> {
    const [template] = agents(1, 9)
    const bare = deltaOf({ revision: `${this.#epoch}:${firstRevision}`, id: '' }).length
    this.#ids = Array.from({ length: subjectCount }, (_, index) => `subject-${index}`.padEnd(frameBytes - bare, '-'))
    for (const id of this.#ids) await this.#app.agentRegistry.register({ ...template!, agent_id: id })
    while (this.#revision < firstRevision) await this.#change()
    while (this.#changes % (2 * subjectCount) !== 0) await this.#change()
  }

  /** Changes this number of different agents in one tick. */
  change (count: number): void {
    for (let index = 0; index < count; index++) this.#change()
  }

  get #epoch () { return this.#app.agentRegistry.revision.split(':')[0]! }
  get #revision () { return Number(this.#app.agentRegistry.revision.split(':')[1]) }

  /** Sets one agent after the other to draining, then one after the other to alive. */
  #change (): Promise<unknown> {
    const turn = this.#changes++
    const id = this.#ids[turn % subjectCount]!
    return this.#app.agentRegistry.setStatus(id, turn % (2 * subjectCount) < subjectCount ? 'draining' : 'alive')
  }
}

/** The frame of a change. */
function deltaOf ({ revision, id }: { revision: string, id: string }): string {
  const change = { revision, op: 'state', agent_id: id, state: 'draining', previous: 'alive', reason: 'requested' }
  return JSON.stringify({ type: 'agents_delta', changes: [change] })
}

/** Returns a function that gives the largest number of unsent bytes of any socket. */
function unsentOf (app: FastifyInstance): () => number {
  const sockets = new Set<Socket>()
  app.server.on('connection', (socket: Socket) => {
    sockets.add(socket)
    socket.once('close', () => sockets.delete(socket))
  })
  return () => Math.max(0, ...Array.from(sockets, socket => socket.writableLength))
}

async function registerAll (app: FastifyInstance, count: number, responders: number): Promise<string[]> {
  const tokens: string[] = []
  for (const agent of agents(count, 1)) {
    const registration = tokens.length < responders ? { ...agent, capabilities: [capability] } : agent
    tokens.push((await app.agentRegistry.register(registration)).access_token)
  }
  return tokens
}

export async function ours ({ agents: count = 0, responders = 0, frameBytes, options = {} }: OurSetup): Promise<SocketServer> {
  const app = fastify()
  const unsent = unsentOf(app)
  await app.register(agentRegistry, { allowedAgentTypes: ['*'], lease: { durationMs: 3_600_000 }, search: { enabled: false }, ...options })
  await app.ready()
  const tokens = await registerAll(app, count, responders)
  const changingAgents = new ChangingAgents(app)
  if (frameBytes) await changingAgents.register(frameBytes)
  await app.listen({ port: 0, host: '127.0.0.1' })
  return {
    port: (app.server.address() as AddressInfo).port,
    details: { tokens },
    emit: events => changingAgents.change(events),
    tokens: () => registerAll(app, count, responders),
    unsent
  }
}

// Our registry as the socket rows measure it.
import type { AddressInfo, Socket } from 'node:net'
import fastify, { type FastifyInstance } from 'fastify'
import agentRegistry, { type AgentRegistryOptions } from 'fastify-agent-registry'
import { agents } from './corpus.js'
import type { SocketServer } from './socket-server.js'

/**
 * How many agents are registered, how many of them (the first) have the capability that requests are for, how long the
 * ids of those are that events are about, and what an operator would set.
 */
export interface OurSetup { agents?: number, serving?: number, frameBytes?: number, options?: AgentRegistryOptions }

/** What requests are for. */
export const capability = 'bench-work'

/** Agents that events are about: as many as happen in one tick. */
const subjectCount = 10
/** The number in a revision has five digits from here on, for longer than any round takes. */
const firstRevision = 10_000

/** Agents whose state goes to and fro, so that each change is told in a frame of the same size. */
class Subjects {
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

  /** All in one tick, each of another agent. */
  change (count: number): void {
    for (let index = 0; index < count; index++) this.#change()
  }

  get #epoch () { return this.#app.agentRegistry.revision.split(':')[0]! }
  get #revision () { return Number(this.#app.agentRegistry.revision.split(':')[1]) }

  /** One agent after the other is drained, then one after the other is taken back. */
  #change (): Promise<unknown> {
    const turn = this.#changes++
    const id = this.#ids[turn % subjectCount]!
    return this.#app.agentRegistry.setStatus(id, turn % (2 * subjectCount) < subjectCount ? 'draining' : 'alive')
  }
}

/** What the change of a state is told with. */
function deltaOf ({ revision, id }: { revision: string, id: string }): string {
  const change = { revision, op: 'state', agent_id: id, state: 'draining', previous: 'alive', reason: 'requested' }
  return JSON.stringify({ type: 'agents_delta', changes: [change] })
}

/** The most that any socket has not taken yet. */
function unsentOf (app: FastifyInstance): () => number {
  const sockets = new Set<Socket>()
  app.server.on('connection', (socket: Socket) => {
    sockets.add(socket)
    socket.once('close', () => sockets.delete(socket))
  })
  return () => Math.max(0, ...Array.from(sockets, socket => socket.writableLength))
}

async function registerAll (app: FastifyInstance, count: number, serving: number): Promise<string[]> {
  const tokens: string[] = []
  for (const agent of agents(count, 1)) {
    const registration = tokens.length < serving ? { ...agent, capabilities: [capability] } : agent
    tokens.push((await app.agentRegistry.register(registration)).access_token)
  }
  return tokens
}

export async function ours ({ agents: count = 0, serving = 0, frameBytes, options = {} }: OurSetup): Promise<SocketServer> {
  const app = fastify()
  const unsent = unsentOf(app)
  await app.register(agentRegistry, { allowedAgentTypes: ['*'], lease: { durationMs: 3_600_000 }, search: { enabled: false }, ...options })
  await app.ready()
  const tokens = await registerAll(app, count, serving)
  const subjects = new Subjects(app)
  if (frameBytes) await subjects.register(frameBytes)
  await app.listen({ port: 0, host: '127.0.0.1' })
  return {
    port: (app.server.address() as AddressInfo).port,
    details: { tokens },
    emit: events => subjects.change(events),
    tokens: () => registerAll(app, count, serving),
    unsent
  }
}

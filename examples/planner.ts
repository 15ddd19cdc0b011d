/**
 * A planner distributes a task: it publishes subtasks on `workflows/<run>/subtasks`. All specialists receive them, and the
 * specialist with the required skill sends the result to the planner. This program contains the registry, the planner and the
 * specialists, and ends by itself. In production each runs in its own process and sends the same frames.
 *
 *   node examples/planner.ts
 */
import { EventEmitter, once } from 'node:events'
import fastify from 'fastify'
import agentRegistry from 'fastify-agent-registry'
import { WebSocket } from 'ws'

interface Frame { type: string, requestId?: string, code?: string, message?: string, offset?: number }
interface Subtask { id: string, skill: string, text: string }
interface Result { id: string, result: string | number }

const app = fastify()
await app.register(agentRegistry, { allowedAgentTypes: ['worker'] })
const url = await app.listen({ host: '127.0.0.1', port: Number(process.env.PORT ?? 0) })

/** An agent with its connection. It emits each frame by its type and resolves requests with their replies. */
class Agent extends EventEmitter {
  readonly #socket: WebSocket
  readonly #pending = new Map<string, (answer: Frame) => void>()

  constructor (token: string) {
    super()
    this.#socket = new WebSocket(`${url.replace('http', 'ws')}/agents/ws`, { headers: { authorization: `Bearer ${token}` } })
    this.#socket.on('message', data => this.#receive(String(data)))
  }

  async request (frame: object): Promise<Frame> {
    const requestId = crypto.randomUUID()
    this.#socket.send(JSON.stringify({ ...frame, requestId }))
    const answer = await new Promise<Frame>(resolve => this.#pending.set(requestId, resolve))
    this.#pending.delete(requestId)
    if (answer.type === 'error') throw new Error(`${answer.code}: ${answer.message}`)
    return answer
  }

  close (): void {
    this.#socket.close(1000)
  }

  #receive (text: string) {
    if (text === 'ping') return this.#socket.send('pong')
    const frame = JSON.parse(text) as Frame
    const settle = this.#pending.get(frame.requestId ?? '')
    if (settle) settle(frame)
    else if (!Array.isArray(frame)) this.emit(frame.type, frame)
  }
}

/** Registers an agent and connects it. */
async function start (id: string, skill: string): Promise<Agent> {
  const { access_token: token } = await app.agentRegistry.register({
    agent_id: id,
    name: id,
    agent_type: 'worker',
    endpoint: 'http://127.0.0.1:9',
    capabilities: [skill],
    context_brief: `Accepts subtasks with the skill ${skill} from all workflows`,
    version: '1.0.0',
    owner: 'examples',
    public_key: 'this example does not use a key pair',
    metadata: { language: 'TypeScript' },
    communication_mode: 'remote'
  })
  const agent = new Agent(token)
  await once(agent, 'auth_success')
  return agent
}

/** Starts an agent that subscribes to the subtasks of all runs. */
async function startSpecialist (id: string, skill: string, work: (text: string) => string | number): Promise<Agent> {
  const agent = await start(id, skill)
  agent.on('message', ({ from, data: { id, skill: required, text } }: { from: string, data: Subtask }) => {
    if (required !== skill) return
    // With the same msgId each time, the planner receives the result once even if the agent sends it again.
    agent.request({ type: 'send', to: from, msgId: id, data: { id, result: work(text) } })
      .catch(error => console.log(`${skill}: ${error.message}`))
  })
  await agent.request({ type: 'subscribe', channel: 'workflows/*/subtasks' })
  return agent
}

/** Publishes the subtasks and resolves with the first result of each. */
async function fanOut (planner: Agent, run: string, subtasks: Subtask[]): Promise<Map<string, string>> {
  const answers = new Map<string, string>()
  const all = new Promise<void>(resolve => planner.on('direct', ({ from, data: { id, result } }: { from: string, data: Result }) => {
    if (!answers.has(id)) answers.set(id, `${result} (from ${from})`)
    if (answers.size === subtasks.length) resolve()
  }))
  for (const subtask of subtasks) {
    const { offset } = await planner.request({ type: 'publish', channel: `workflows/${run}/subtasks`, msgId: subtask.id, data: subtask })
    console.log(`published ${subtask.id}, offset ${offset}`)
  }
  await Promise.race([all, once(AbortSignal.timeout(30_000), 'abort')])
  return answers
}

const specialists = await Promise.all([
  startSpecialist('counter', 'count', text => text.split(' ').length),
  startSpecialist('shouter', 'shout', text => text.toUpperCase()),
  startSpecialist('turner', 'turn', text => text.split(' ').reverse().join(' '))
])
const planner = await start('planner', 'plan')

const text = 'agents that talk get more done'
const subtasks = ['count', 'shout', 'turn'].map(skill => ({ id: `run-1-${skill}`, skill, text }))
const answers = await fanOut(planner, 'run-1', subtasks)
for (const { id } of subtasks) console.log(`${id}: ${answers.get(id) ?? 'no result'}`)

for (const agent of [planner, ...specialists]) agent.close()
await app.close()

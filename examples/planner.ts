/**
 * A planner fans a task out: it publishes subtasks on `workflows/<run>/subtasks`, all specialists hear of them, and whoever
 * can do one answers the planner directly. Registry, planner and specialists are in this program, which ends when all is
 * done; elsewhere each of them runs by itself and says the same.
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

/** An agent with its connection: it emits what comes by its type, and what it asks is answered. */
class Agent extends EventEmitter {
  readonly #socket: WebSocket
  readonly #waiting = new Map<string, (answer: Frame) => void>()

  constructor (token: string) {
    super()
    this.#socket = new WebSocket(`${url.replace('http', 'ws')}/agents/ws`, { headers: { authorization: `Bearer ${token}` } })
    this.#socket.on('message', data => this.#take(String(data)))
  }

  async ask (frame: object): Promise<Frame> {
    const requestId = crypto.randomUUID()
    this.#socket.send(JSON.stringify({ ...frame, requestId }))
    const answer = await new Promise<Frame>(resolve => this.#waiting.set(requestId, resolve))
    this.#waiting.delete(requestId)
    if (answer.type === 'error') throw new Error(`${answer.code}: ${answer.message}`)
    return answer
  }

  leave (): void {
    this.#socket.close(1000)
  }

  #take (text: string) {
    if (text === 'ping') return this.#socket.send('pong')
    const frame = JSON.parse(text) as Frame
    const waiting = this.#waiting.get(frame.requestId ?? '')
    if (waiting) waiting(frame)
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
    context_brief: `Can ${skill}, and takes subtasks of any workflow`,
    version: '1.0.0',
    owner: 'examples',
    public_key: 'this example has no key pair to show',
    metadata: { language: 'TypeScript' },
    communication_mode: 'remote'
  })
  const agent = new Agent(token)
  await once(agent, 'auth_success')
  return agent
}

/** Hears of the subtasks of all runs. */
async function startSpecialist (id: string, skill: string, work: (text: string) => string | number): Promise<Agent> {
  const agent = await start(id, skill)
  agent.on('message', ({ from, data: { id, skill: wanted, text } }: { from: string, data: Subtask }) => {
    if (wanted !== skill) return
    // The same msgId however often this is sent: the planner gets the answer once.
    agent.ask({ type: 'send', to: from, msgId: id, data: { id, result: work(text) } }).catch(error => console.log(`${skill}: ${error.message}`))
  })
  await agent.ask({ type: 'subscribe', channel: 'workflows/*/subtasks' })
  return agent
}

/** Publishes subtasks, and resolves with the first answer to each of them. */
async function fanOut (planner: Agent, run: string, subtasks: Subtask[]): Promise<Map<string, string>> {
  const answers = new Map<string, string>()
  const all = new Promise<void>(resolve => planner.on('direct', ({ from, data: { id, result } }: { from: string, data: Result }) => {
    if (!answers.has(id)) answers.set(id, `${result}, says ${from}`)
    if (answers.size === subtasks.length) resolve()
  }))
  for (const subtask of subtasks) {
    const { offset } = await planner.ask({ type: 'publish', channel: `workflows/${run}/subtasks`, msgId: subtask.id, data: subtask })
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
for (const { id } of subtasks) console.log(`${id}: ${answers.get(id) ?? 'nobody did it'}`)

for (const agent of [planner, ...specialists]) agent.leave()
await app.close()

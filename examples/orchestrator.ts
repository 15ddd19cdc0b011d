/**
 * An orchestrator that has no socket: it publishes, looks who is there, asks whoever can do something, sends and reads what
 * was said, all over HTTP. Registry and one agent are in this program too, which ends when all is done.
 *
 *   node examples/orchestrator.ts
 */
import { once } from 'node:events'
import fastify from 'fastify'
import agentRegistry from 'fastify-agent-registry'
import { WebSocket } from 'ws'

const secretKey = 'orchestrator:a-secret-of-this-example'
const app = fastify()
await app.register(agentRegistry, { routes: { v1: true }, secretKeys: [secretKey], allowedAgentTypes: ['worker'] })
const url = await app.listen({ host: '127.0.0.1', port: Number(process.env.PORT ?? 0) })

/** An agent with a socket, which summarises what it is asked to and notes in the channel of the run that it did. */
async function startSummariser (): Promise<WebSocket> {
  const { access_token: token } = await app.agentRegistry.register({
    agent_id: 'summariser',
    name: 'Summariser',
    agent_type: 'worker',
    endpoint: 'http://127.0.0.1:9',
    capabilities: ['summarise'],
    context_brief: 'Says in three words what was said in many',
    version: '1.0.0',
    owner: 'examples',
    public_key: 'this example has no key pair to show',
    metadata: { language: 'TypeScript' },
    communication_mode: 'remote'
  })
  const socket = new WebSocket(`${url.replace('http', 'ws')}/agents/ws`, { headers: { authorization: `Bearer ${token}` } })
  const send = (frame: object) => socket.send(JSON.stringify(frame))
  const isSubscribed = new Promise<void>(resolve => socket.on('message', text => {
    const { type, requestId, rid, from, data } = JSON.parse(String(text))
    if (type === 'ack' && requestId === 'steps') resolve()
    if (type === 'message') console.log(`  the agent heard in the channel: ${data.step}`)
    if (type === 'direct') console.log(`  the agent was told by ${from}: ${data.text}`)
    if (type !== 'request') return
    send({ type: 'publish', channel: 'workflows/run-1/steps', data: { step: 'summarised' } })
    send({ type: 'reply', rid, data: { summary: data.text.split(' ').slice(0, 3).join(' ') } })
  }))
  await once(socket, 'open')
  send({ type: 'subscribe', channel: 'workflows/run-1/steps', requestId: 'steps' })
  await isSubscribed
  return socket
}

interface Answers {
  publish: { offset: number, subscribers: number }
  peers: { peers: Array<{ peerId: string, metadata: { capabilities: string[] } }> }
  request: { from: string, data: { summary: string } }
  send: { delivered: boolean }
  history: { offset: number, messages: Array<{ offset: number, from: string, data: { step: string } }> }
}

/** Each POST has a key under which it may be repeated, as after an answer that did not arrive: it is done once. */
async function call<A extends keyof Answers> (path: string, body?: object, key: string = crypto.randomUUID()): Promise<Answers[A]> {
  const headers = { authorization: `Bearer ${secretKey}`, ...(body && { 'content-type': 'application/json', 'idempotency-key': key }) }
  const response = await fetch(`${url}/v1${path}`, { method: body ? 'POST' : 'GET', headers, body: body && JSON.stringify(body) })
  const answer = await response.json() as Answers[A] & { error?: string, message?: string }
  if (!response.ok) throw new Error(`${path}: ${response.status} ${answer.error}: ${answer.message}`)
  return answer
}

const socket = await startSummariser()
const channel = `/channels/${encodeURIComponent('workflows/run-1/steps')}`

const { peers } = await call<'peers'>(`${channel}/peers`)
for (const { peerId, metadata } of peers) console.log(`${peerId} is there, and can ${metadata.capabilities}`)

const begun = await call<'publish'>(`${channel}/publish`, { data: { step: 'begun' } }, 'run-1-begun')
const repeated = await call<'publish'>(`${channel}/publish`, { data: { step: 'begun' } }, 'run-1-begun')
console.log(`published at offset ${begun.offset} for ${begun.subscribers}, and repeated at offset ${repeated.offset}`)

const { from, data } = await call<'request'>('/request', { capability: 'summarise', data: { text: 'agents that talk get more done' }, timeoutMs: 10_000 })
console.log(`${from} replied: ${data.summary}`)
await call<'request'>('/peers/nobody/request', { data: {}, timeoutMs: 10_000 }).catch(error => console.log(error.message))

const { delivered } = await call<'send'>('/peers/summariser/send', { data: { text: 'thank you' }, level: 'delivered' })
console.log(delivered ? 'thanked' : 'not thanked')

const { messages } = await call<'history'>(`${channel}/history?limit=10`)
for (const { offset, from, data: { step } } of messages) console.log(`${offset} ${from}: ${step}`)

socket.close(1000)
await app.close()

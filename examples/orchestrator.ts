/**
 * An orchestrator without a socket: over HTTP it lists peers, publishes, sends a request to an agent with a capability, sends
 * a direct message and reads the history. The program also contains the registry and one agent, and ends by itself.
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

/** An agent with a socket: it replies to requests with a summary and publishes each step in the channel of the run. */
async function startSummariser (): Promise<WebSocket> {
  const { access_token: token } = await app.agentRegistry.register({
    agent_id: 'summariser',
    name: 'Summariser',
    agent_type: 'worker',
    endpoint: 'http://127.0.0.1:9',
    capabilities: ['summarise'],
    context_brief: 'Summarises a text in three words',
    version: '1.0.0',
    owner: 'examples',
    public_key: 'this example does not use a key pair',
    metadata: { language: 'TypeScript' },
    communication_mode: 'remote'
  })
  const socket = new WebSocket(`${url.replace('http', 'ws')}/agents/ws`, { headers: { authorization: `Bearer ${token}` } })
  const send = (frame: object) => socket.send(JSON.stringify(frame))
  const isSubscribed = new Promise<void>(resolve => socket.on('message', text => {
    const { type, requestId, rid, from, data } = JSON.parse(String(text))
    if (type === 'ack' && requestId === 'steps') resolve()
    if (type === 'message') console.log(`  the agent received from the channel: ${data.step}`)
    if (type === 'direct') console.log(`  the agent received from ${from}: ${data.text}`)
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

/** Each POST has an idempotency key: the client may repeat it, for example after a timeout, and it takes effect once. */
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
for (const { peerId, metadata } of peers) console.log(`${peerId} is subscribed, with the capabilities ${metadata.capabilities}`)

const started = await call<'publish'>(`${channel}/publish`, { data: { step: 'started' } }, 'run-1-started')
const repeated = await call<'publish'>(`${channel}/publish`, { data: { step: 'started' } }, 'run-1-started')
console.log(`published at offset ${started.offset} to ${started.subscribers} subscriber, repeated at offset ${repeated.offset}`)

const task = { capability: 'summarise', data: { text: 'agents that talk get more done' }, timeoutMs: 10_000 }
const { from, data } = await call<'request'>('/request', task)
console.log(`${from} replied: ${data.summary}`)
await call<'request'>('/peers/unknown/request', { data: {}, timeoutMs: 10_000 }).catch(error => console.log(error.message))

const { delivered } = await call<'send'>('/peers/summariser/send', { data: { text: 'thank you' }, level: 'delivered' })
console.log(delivered ? 'message delivered' : 'message not delivered')

const { messages } = await call<'history'>(`${channel}/history?limit=10`)
for (const { offset, from, data: { step } } of messages) console.log(`${offset} ${from}: ${step}`)

socket.close(1000)
await app.close()

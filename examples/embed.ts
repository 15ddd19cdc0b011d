/**
 * The registry inside an application that has its own routes and its own WebSocket. The application uses the registry
 * directly, without HTTP requests to itself. The program then ends.
 *
 *   node examples/embed.ts
 */
import { once } from 'node:events'
import websocket from '@fastify/websocket'
import fastify from 'fastify'
import agentRegistry from 'fastify-agent-registry'
import { WebSocket } from 'ws'

const app = fastify()

// The application's own routes.
await app.register(websocket)
app.get('/orders', async function listOrders () { return [{ order: 1, workers: app.agentRegistry.list({ status: 'alive' }).length }] })
app.get('/chat', { websocket: true }, function chat (socket) {
  socket.on('message', data => socket.send(`chat: ${data}`))
})

await app.register(agentRegistry, {
  prefix: '/registry',
  allowedAgentTypes: ['worker'],
  agentKeys: ['a-key-for-workers'],
  // An error rejects the registration: 403 over HTTP, with this text.
  onRegister: async function checkOwner ({ registration }) {
    if (registration.owner !== 'warehouse') throw new Error(`owner ${registration.owner} may not register agents`)
  }
})

const { events } = app.agentRegistry
events.on('change', ({ type, agent_id: id, previous, agent, reason }) => {
  console.log(`event: ${type} ${id}, ${previous ?? 'new'} -> ${type === 'unregistered' ? 'gone' : agent.state} (${reason})`)
})

const url = await app.listen({ host: '127.0.0.1', port: Number(process.env.PORT ?? 0) })

function worker (id: string, owner: string) {
  return {
    agent_id: id,
    name: 'A worker',
    agent_type: 'worker',
    endpoint: 'http://127.0.0.1:9',
    capabilities: ['pack', 'ship'],
    context_brief: 'Packs parcels and ships them',
    version: '1.0.0',
    owner,
    public_key: 'this example does not use a key pair',
    metadata: { hall: 3 },
    communication_mode: 'remote' as const
  }
}

// The application can register agents. The result equals the response to POST /registry/agents/register.
const { lease_ms: leaseMs, heartbeat_every_ms: everyMs } = await app.agentRegistry.register(worker('packer-1', 'warehouse'))
console.log(`packer-1 is registered: a lease of ${leaseMs} ms, a heartbeat every ${everyMs} ms`)
await app.agentRegistry.heartbeat('packer-1')
await app.agentRegistry.register(worker('packer-2', 'unknown')).catch(error => console.log(`rejected: ${error.message}`))
await app.agentRegistry.setStatus('packer-1', 'draining')
await app.agentRegistry.setStatus('packer-1', 'alive')

console.log('GET /orders', await (await fetch(`${url}/orders`)).text())
const discovered = await (await fetch(`${url}/registry/public/discover?capabilities=pack`)).json() as Array<{ agent_id: string }>
console.log('GET /registry/public/discover', discovered.map(agent => agent.agent_id))

/** Sends `text` on a new socket and resolves with the first message that arrives. */
async function firstMessage (path: string, text: string): Promise<string> {
  const socket = new WebSocket(url.replace('http', 'ws') + path)
  socket.on('open', () => socket.send(text))
  const [data] = await once(socket, 'message')
  socket.close()
  return String(data)
}

// The application and the registry serve sockets on the same port.
console.log('/chat', await firstMessage('/chat', 'hello'))
console.log('/registry/public/ws', JSON.parse(await firstMessage('/registry/public/ws', 'ping')).type)

await app.agentRegistry.unregister('packer-1')
console.log('stats', app.agentRegistry.stats())
await app.close()

import type { Test } from 'tap'
import type { AgentRegistryOptions } from '../../src/index.js'
import { build, type Client, type Harness, type Json } from './harness.js'
import { RedisServer } from './redis-server.js'
import { forge, nextWhere } from '../unit/sockets/helper.js'

export type Pair = (t: Test, options?: AgentRegistryOptions) => Promise<[Harness, Harness]>

/** One registry twice; and, by a Redis that ends with the test file, two that are one, as two processes would be. */
export async function openPairs (file: Test): Promise<ReadonlyArray<readonly [name: string, open: Pair]>> {
  const server = await RedisServer.start()
  file.teardown(() => server.stop())
  let namespaces = 0
  const same: Pair = async (t, options) => {
    const registry = await build(t, options)
    return [registry, registry]
  }
  const two: Pair = async (t, options = {}) => {
    const shared: AgentRegistryOptions = { storage: 'redis', namespace: `pair-${namespaces++}`, redis: { url: server.path, commandTimeoutMs: 10_000 }, ...options }
    return [await build(t, shared), await build(t, shared)]
  }
  return [['one process', same], ['two processes', two]]
}

export const connect = async (registry: Harness, id: string, more: object = {}) => registry.agentSocket(await registry.join(id, more))

/** An agent with other rights than agents usually have. */
export async function granted (registry: Harness, id: string, ...allow: string[]): Promise<Client> {
  return registry.agentSocket(forge(await registry.join(id), { grants: [{ channels: [], allow }] }))
}

/** Sends a frame; its `ack`. */
export async function ackOf (client: Client, frame: Json): Promise<Json> {
  client.send(frame)
  return nextWhere(client, 'ack', ({ requestId }) => requestId === frame.requestId)
}

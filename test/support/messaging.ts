import type { Test } from 'tap'
import type { AgentRegistryOptions } from '../../src/index.js'
import { build, type Client, type Harness, type Json } from './harness.js'
import { forge, nextWhere } from '../unit/sockets/helper.js'

/** Opens the two registries to which the clients of a test connect. */
export type Pair = (t: Test, options?: AgentRegistryOptions) => Promise<[Harness, Harness]>

/** One registry twice. */
export const inOneProcess: Pair = async (t, options) => {
  const registry = await build(t, options)
  return [registry, registry]
}

export const connect = async (registry: Harness, id: string, more: object = {}) => registry.agentSocket(await registry.join(id, more))

/** An agent token with other rights than usual. */
export async function granted (registry: Harness, id: string, ...allow: string[]): Promise<Client> {
  return registry.agentSocket(forge(await registry.join(id), { grants: [{ channels: [], allow }] }))
}

/** Sends a frame. @returns its `ack` */
export async function ackOf (client: Client, frame: Json): Promise<Json> {
  client.send(frame)
  return nextWhere(client, 'ack', ({ requestId }) => requestId === frame.requestId)
}

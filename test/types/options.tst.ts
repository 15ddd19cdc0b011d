import type { Cluster, Redis } from 'ioredis'
import { expect, test } from 'tstyche'
import { optionsFromEnv, type ServerSettings } from '../../src/server/env.js'
import type { AgentRegistryOptions } from '../../src/agent-registry-options.js'
import type { KeyValueStore } from '../../src/storage/kv-store.js'
import type { AgentStore } from '../../src/storage/agent-store.js'

test('options: every option may be omitted', () => {
  expect<AgentRegistryOptions>().type.toBeAssignableFrom({})
  expect<AgentRegistryOptions>().type.toBeAssignableFrom({ lease: {}, jwt: { expiresInMs: 60_000 } })
})

test('options: agent keys are strings or objects', () => {
  expect<AgentRegistryOptions>().type.toBeAssignableFrom({ agentKeys: ['a-key-of-an-agent'] })
  expect<AgentRegistryOptions>().type.toBeAssignableFrom({ agentKeys: [{ key: 'a-key-of-an-agent', exclusive: true, maxAgents: 3 }] })
  expect<AgentRegistryOptions>().type.not.toBeAssignableFrom({ agentKeys: [{ exclusive: true }] })
})

test('options: storage is one of three kinds, a client or a store of the host', () => {
  expect<AgentRegistryOptions>().type.toBeAssignableFrom(
    { storage: 'level' as const, level: { path: './data', durability: 'sync' as const } }
  )
  expect<AgentRegistryOptions>().type.toBeAssignableFrom({ storage: 'redis' as const, redis: { client: {} as Redis | Cluster } })
  expect<AgentRegistryOptions>().type.toBeAssignableFrom({ storage: { agents: {} as AgentStore, kv: {} as KeyValueStore } })
  expect<AgentRegistryOptions>().type.not.toBeAssignableFrom({ storage: 'disk' as const })
  expect<AgentRegistryOptions>().type.not.toBeAssignableFrom({ redis: { client: {} } })
})

test('options: wrong types are refused', () => {
  expect<AgentRegistryOptions>().type.not.toBeAssignableFrom({ lease: { durationMs: '60' } })
  expect<AgentRegistryOptions>().type.not.toBeAssignableFrom({ jwt: { algorithm: 'none' as const } })
})

test('options: the environment yields options and server settings', () => {
  expect(optionsFromEnv).type.toBeCallableWith({ PORT: '8001', HOST: undefined })
  expect(optionsFromEnv).type.not.toBeCallableWith({ PORT: 8001 })
  expect(optionsFromEnv({})).type.toBe<{ options: AgentRegistryOptions, server: ServerSettings }>()
  expect<ServerSettings['logLevel']>().type.toBe<'fatal' | 'error' | 'warn' | 'info' | 'debug' | 'trace' | 'silent'>()
})

import { expect, test } from 'tstyche'
import { optionsFromEnv } from '../../src/env.js'
import type { AgentRegistryOptions } from '../../src/options.js'
import type { ServerSettings } from '../../src/server-settings.js'

test('every option may be left out', () => {
  expect<AgentRegistryOptions>().type.toBeAssignableFrom({})
  expect<AgentRegistryOptions>().type.toBeAssignableFrom({ lease: {}, jwt: { expiresInMs: 60_000 } })
})

test('agent keys are strings or objects', () => {
  expect<AgentRegistryOptions>().type.toBeAssignableFrom({ agentKeys: ['a-key-of-an-agent'] })
  expect<AgentRegistryOptions>().type.toBeAssignableFrom({ agentKeys: [{ key: 'a-key-of-an-agent', exclusive: true, maxAgents: 3 }] })
  expect<AgentRegistryOptions>().type.not.toBeAssignableFrom({ agentKeys: [{ exclusive: true }] })
})

test('wrong types are refused', () => {
  expect<AgentRegistryOptions>().type.not.toBeAssignableFrom({ lease: { durationMs: '60' } })
  expect<AgentRegistryOptions>().type.not.toBeAssignableFrom({ jwt: { algorithm: 'none' as const } })
})

test('the environment gives options and server settings', () => {
  expect(optionsFromEnv).type.toBeCallableWith({ PORT: '8001', HOST: undefined })
  expect(optionsFromEnv).type.not.toBeCallableWith({ PORT: 8001 })
  expect(optionsFromEnv({})).type.toBe<{ options: AgentRegistryOptions, server: ServerSettings }>()
  expect<ServerSettings['logLevel']>().type.toBe<'fatal' | 'error' | 'warn' | 'info' | 'debug' | 'trace' | 'silent'>()
})

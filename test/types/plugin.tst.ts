import fastify, { type FastifyInstance } from 'fastify'
import { describe, expect, test } from 'tstyche'
import agentRegistry, {
  agentRegistry as named, MemoryAgentStore, problemTypes, type AgentFilter, type AgentInfo, type AgentRegistration, type AgentRegistry,
  type AgentRegistryOptions, type AgentState, type AgentStore,
  type AuthenticateHook, type AuthorizePublishHook, type AuthorizeSubscribeHook,
  type ChannelMessage, type CustomStorage, type HostReply, type MessageListener, type PresentPeer,
  type Published, type Sent, type OnRegisterHook, type Principal, type ProblemType,
  type PublicViewHook, type RegisterHookContext, type RegistrationBody,
  type RegistrationResponse, type RegistryEvent, type RegistryEvents, type RegistryStatistics
} from '../../src/index.js'

const app = fastify()

describe('registering', () => {
  test('registering: options are optional and may come from a function', () => {
    expect(app.register).type.toBeCallableWith(agentRegistry)
    expect(app.register).type.toBeCallableWith(agentRegistry, { prefix: '/registry', agentKeys: ['a-key-of-an-agent'] })
    expect(app.register).type.toBeCallableWith(agentRegistry, () => ({ prefix: '/registry' }))
    expect(agentRegistry).type.toBe<typeof named>()
  })

  test('registering: wrong options are type errors', () => {
    expect<AgentRegistryOptions>().type.not.toBeAssignableFrom({ unknown: true })
    expect<AgentRegistryOptions>().type.not.toBeAssignableFrom({ prefix: 1 })
    expect<AgentRegistryOptions>().type.not.toBeAssignableFrom({ agentKeys: 'a-key-of-an-agent' })
    expect<AgentRegistryOptions>().type.not.toBeAssignableFrom({ agentKeys: [{ key: 'a-key-of-an-agent', owner: 'me' }] })
    expect<AgentRegistryOptions>().type.not.toBeAssignableFrom({ routes: { admin: true } })
    expect<AgentRegistryOptions>().type.not.toBeAssignableFrom({ jwt: { secret: 1 } })
    expect<AgentRegistryOptions>().type.not.toBeAssignableFrom({ lease: 60_000 })
    expect<AgentRegistryOptions>().type.not.toBeAssignableFrom({ publicWs: { path: ['/ws'] } })
    expect<AgentRegistryOptions>().type.not.toBeAssignableFrom({ storage: { kv: {} } })
    expect<AgentRegistryOptions>().type.not.toBeAssignableFrom({ onRegister: true })
    expect<AgentRegistryOptions>().type.not.toBeAssignableFrom({ authenticate: () => true })
    expect<AgentRegistryOptions>().type.not.toBeAssignableFrom({ publicView: () => 'public' })
  })

  test('registering: a secret may be one string or several', () => {
    expect<AgentRegistryOptions>().type.toBeAssignableFrom({ jwt: { secret: 'text' } })
    expect<AgentRegistryOptions>().type.toBeAssignableFrom({ jwt: { secret: ['new', 'old'] } })
  })
})

describe('hooks', () => {
  test('hooks: parameters are typed, also in inline functions', () => {
    expect<Parameters<OnRegisterHook>>().type.toBe<[context: RegisterHookContext]>()
    expect<RegisterHookContext>().type.toBe<{ registration: AgentRegistration, principal: Principal | null }>()
    expect<Parameters<AuthenticateHook>>().type.toBe<[token: string]>()
    expect<Parameters<PublicViewHook>>().type.toBe<[registration: AgentRegistration]>()
    app.register(agentRegistry, {
      onRegister ({ registration, principal }) {
        expect(registration).type.toBe<AgentRegistration>()
        expect(principal).type.toBe<Principal | null>()
      },
      authenticate (token) {
        expect(token).type.toBe<string>()
        return null
      },
      publicView: registration => ({ ...registration, metadata: { shown: 'this' } })
    })
  })

  test('hooks: a hook may be synchronous or asynchronous', () => {
    expect<OnRegisterHook>().type.toBeAssignableFrom(() => {})
    expect<OnRegisterHook>().type.toBeAssignableFrom(async () => {})
    expect<AuthenticateHook>().type.toBeAssignableFrom(async (): Promise<Principal | null> => null)
    expect<PublicViewHook>().type.toBeAssignableFrom(async () => null)
  })
})

describe('channel hooks', () => {
  test('channel hooks: a hook allows or refuses, synchronously or asynchronously', () => {
    expect<AuthorizePublishHook>().type.toBeAssignableFrom(({ channel, peerId, principal, data }: {
      channel: string
      peerId: string
      principal: Principal
      data: string
    }) => channel.length + peerId.length + data.length > principal.scopes.length)
    expect<AuthorizeSubscribeHook>().type.toBeAssignableFrom(async () => false)
    expect<AuthorizeSubscribeHook>().type.not.toBeAssignableFrom(() => {})
    expect<AgentRegistryOptions['authorizePublish']>().type.toBe<AuthorizePublishHook | undefined>()
  })
})

describe('decorator', () => {
  test('decorator: every instance has it', () => {
    expect<FastifyInstance['agentRegistry']>().type.toBe<AgentRegistry>()
    expect(app.agentRegistry).type.toBe<AgentRegistry>()
  })

  test('decorator: its methods are typed', () => {
    const { agentRegistry: registry } = app
    expect(registry.register).type.toBe<(registration: RegistrationBody) => Promise<RegistrationResponse>>()
    expect(registry.register).type.not.toBeCallableWith({ agent_id: 'agent-one' })
    expect(registry.unregister('agent-one')).type.toBe<Promise<void>>()
    expect(registry.heartbeat('agent-one')).type.toBe<Promise<AgentInfo>>()
    expect(registry.setStatus).type.toBeCallableWith('agent-one', 'draining')
    expect(registry.setStatus).type.not.toBeCallableWith('agent-one', 'dead')
    expect(registry.get('agent-one')).type.toBe<AgentInfo | undefined>()
    expect(registry.list).type.toBe<(filter?: AgentFilter) => AgentInfo[]>()
    expect(registry.list).type.toBeCallableWith({ agent_type: 'testing', capabilities: ['cap one'], status: 'alive' })
    expect(registry.list).type.not.toBeCallableWith({ status: 'draining' })
    expect(registry.stats()).type.toBe<RegistryStatistics>()
    expect(registry.releaseHeld()).type.toBe<Promise<void>>()
    expect(registry.revision).type.toBe<string>()
  })

  test('decorator: channels are typed', () => {
    const { agentRegistry: registry } = app
    expect(registry.publish('agents/one', { any: ['thing'] })).type.toBe<Promise<Published>>()
    expect(registry.publish).type.toBeCallableWith('agents/one', null, { from: 'me', msgId: 'm' })
    expect(registry.publish).type.not.toBeCallableWith('agents/one', null, { to: 'me' })
    expect<Published>().type.toBe<{ readonly epoch: string, readonly offset: number, readonly duplicate: boolean }>()
    expect(registry.presence('$agents')).type.toBe<Promise<PresentPeer[]>>()
    expect(registry.onMessage).type.toBe<(channelOrPattern: string, listener: MessageListener) => Promise<() => void>>()
    expect(registry.onMessage).type.toBeCallableWith(
      'agents/**', async ({ channel, data }: ChannelMessage) => { expect([channel, data]).type.toBe<unknown[]>() }
    )
  })

  test('decorator: messages and requests are typed', () => {
    const { agentRegistry: registry } = app
    expect(registry.send('agent-one', { any: ['thing'] })).type.toBe<Promise<Sent>>()
    expect(registry.send).type.toBeCallableWith('agent-one', null, { from: 'me', msgId: 'm', level: 'delivered' })
    expect(registry.send).type.not.toBeCallableWith('agent-one', null, { level: 'read' })
    expect(registry.request({ capability: 'summarise', data: null, timeoutMs: 1000 })).type.toBe<Promise<HostReply>>()
    expect(registry.request).type.toBeCallableWith(
      { to: 'agent-one', data: 1, timeoutMs: 1000, idempotent: false, from: 'me', signal: new AbortController().signal }
    )
    expect(registry.request).type.not.toBeCallableWith({ to: 'agent-one', data: 1 })
  })

  test('decorator: events are typed', () => {
    expect<keyof RegistryEvents>().type.toBe<'registered' | 'updated' | 'alive' | 'dead' | 'unregistered' | 'state' | 'change'>()
    app.agentRegistry.events.on('dead', event => {
      expect(event).type.toBe<RegistryEvent>()
      expect(event.agent).type.toBe<AgentInfo>()
      expect(event.previous).type.toBe<AgentState | null>()
    })
    expect(app.agentRegistry.events.on<'gone'>).type.not.toBeCallableWith('gone', () => {})
  })
})

describe('records, stores and problems', () => {
  test('records: status and state have the values of the protocol', () => {
    expect<AgentInfo['status']>().type.toBe<'alive' | 'dead'>()
    expect<AgentState>().type.toBe<'starting' | 'alive' | 'suspect' | 'dead' | 'draining' | 'maintenance'>()
  })

  test('stores: the memory store is a store, and a host may pass its own', () => {
    expect<AgentStore>().type.toBeAssignableFrom(new MemoryAgentStore({ leaseMs: 60_000, retentionMs: 60_000, preservation: true }))
    expect<AgentRegistryOptions['storage']>().type.toBe<'memory' | 'level' | 'redis' | CustomStorage | undefined>()
  })

  test('problems: a problem type narrows its problem', () => {
    expect<ProblemType>().type.toBeAssignableFrom('agent-not-found' as const)
    expect<ProblemType>().type.not.toBeAssignableFrom('teapot' as const)
    expect(problemTypes['agent-not-found'][1]).type.toBe<404>()
  })
})

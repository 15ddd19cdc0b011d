export { default, default as agentRegistry, default as 'module.exports' } from './plugin.js'
export { isProblem, problemTypes, type FieldError, type ProblemError, type ProblemType } from './errors.js'
export { hideableFields } from './protocol/schemas/agent.js'
export { MemoryAgentStore, type MemoryAgentStoreOptions } from './storage/memory/agent-store.js'
export { MemoryKeyValueStore, type MemoryKeyValueStoreOptions } from './storage/memory/kv-store.js'
export { MemoryMessageBroker, type MemoryMessageBrokerOptions } from './storage/memory/message-broker.js'
export type { AgentRegistry, RegistryStatistics } from './api.js'
export type {
  ChannelMessage,
  HostChannels,
  HostDirect,
  HostReply,
  HostRequest,
  MessageListener,
  PresentPeer,
  Published,
  PublishOptions,
  SendOptions
} from './messaging/host-api.js'
export type { Sent } from './messaging/direct/direct.js'
export type { AgentRegistryOptions } from './agent-registry-options.js'
export type {
  AuthenticateHook, AuthorizePublishHook, AuthorizeSubscribeHook, ChannelHookContext, OnRegisterHook, PublicViewHook, RegisterHookContext
} from './hooks.js'
export type { Principal, Role, TokenType } from './protocol/principal.js'
export type { AgentFilter } from './registry/query.js'
export type { RegistryEvent, RegistryEvents } from './registry/registry.js'
export type { AgentInfo, AgentMetrics, AgentRegistration, RegistrationBody, RegistrationResponse } from './protocol/schemas/agent.js'
export type { AgentState } from './protocol/schemas/common.js'
export type { BucketSettings, KeyValueEntry, KeyValueKind, KeyValueListener, KeyValueStore } from './storage/kv-store.js'
export type * from './storage/agent-store.js'
export type * from './storage/message-broker.js'
export type { CustomStorage, Storage, StorageKind } from './storage/storage.js'

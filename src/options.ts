import { Type, type Static, type TSchema } from '@sinclair/typebox'
import { Value } from '@sinclair/typebox/value'
import type { Cluster, Redis } from 'ioredis'
import { OptionsError } from './errors.js'
import type { AgentRegistration } from './protocol/schemas/agent.js'
import { AlertRuleInput } from './protocol/schemas/dashboard.js'
import type { KeyValueStore } from './storage/kv-store.js'
import type { AgentStore } from './storage/agent-store.js'
import type { Principal } from './protocol/principal.js'
import { PeerChannels, PeerPermissions } from './protocol/schemas/peers.js'

/**
 * How an environment variable of the stand-alone server becomes an option: the names that are looked at, first set
 * one wins, and what one unit of it is in the option's own unit (`AGENT_HEARTBEAT_TIMEOUT` is in seconds, the option
 * in milliseconds).
 */
export interface EnvMapping { env?: string[], envFactor?: number }

const ms = (value: number, description: string, mapping: EnvMapping = {}) =>
  Type.Integer({ minimum: 1, maximum: 2_147_483_647, default: value, description: `${description} (ms)`, ...mapping })
const count = (value: number, description: string, mapping: EnvMapping = {}) =>
  Type.Integer({ minimum: 1, default: value, description, ...mapping })
const bytes = (value: number, description: string, mapping: EnvMapping = {}) =>
  Type.Integer({ minimum: 256, maximum: 67_108_864, default: value, description: `${description} (bytes)`, ...mapping })
const flag = (value: boolean, description: string, mapping: EnvMapping = {}) =>
  Type.Boolean({ default: value, description, ...mapping })
const list = (value: string[], description: string, mapping: EnvMapping = {}) =>
  Type.Array(Type.String({ minLength: 1 }), { default: value, description, ...mapping })
const group = <T extends Record<string, TSchema>>(properties: T, description: string) =>
  Type.Object(properties, { default: {}, additionalProperties: false, description })
const addressList = (description: string, env: string) =>
  Type.Optional(Type.Array(Type.String({ pattern: '^(\\[[^\\]\\s]+\\]|[^:\\s]+):\\d{1,5}$' }), { minItems: 1, description, env: [env] }))
const rate = (description: string, env: string) =>
  Type.Optional(Type.Integer({ minimum: 1, description, env: [env] }))
const hook = <F>(description: string) =>
  Type.Optional(Type.Unsafe<F>({ ...Type.Function([], Type.Any()), description }))

const seconds = (env: string, fallback?: string): EnvMapping => ({ env: fallback ? [env, fallback] : [env], envFactor: 1000 })

const tierTexts = {
  PUBLIC: ['Time between two `stats_update` frames', 'Time a peer has to answer a close frame'],
  AGENT: ['Least time between two lists of agents', 'Time a socket has to authenticate, and to answer a close frame'],
  DASHBOARD: ['Time between two sets of data frames', 'Time a socket has to authenticate, and to answer a close frame'],
  V1: ['', 'Time a peer has to answer a close frame']
} as const

function tier (name: keyof typeof tierTexts, path: string, defaults: { intervalMs: number, timeoutMs: number, maxMessageSize: number, maxConnections?: number }) {
  return group({
    path: Type.String({ default: path, pattern: '^/[A-Za-z0-9/_.-]+$', description: 'Path of this tier, below the prefix', env: [`${name}_WS_PATH`] }),
    intervalMs: ms(defaults.intervalMs, tierTexts[name][0], seconds(`${name}_WS_INTERVAL`, 'WEBSOCKET_INTERVAL')),
    timeoutMs: ms(defaults.timeoutMs, tierTexts[name][1], seconds(`${name}_WS_TIMEOUT`, 'WEBSOCKET_TIMEOUT')),
    pingIntervalMs: ms(30_000, 'Silence after which the server pings; no life for two of them ends the connection', seconds(`${name}_WS_PING_INTERVAL`, 'WEBSOCKET_PING_INTERVAL')),
    idleTimeoutMs: Type.Optional(Type.Integer({ minimum: 1, maximum: 2_147_483_647, description: 'Time without a frame other than a ping or a pong after which a socket is closed (4028), also one that only watches; default: never (ms)', ...seconds(`${name}_WS_IDLE_TIMEOUT`, 'WEBSOCKET_IDLE_TIMEOUT') })),
    maxConnections: count(defaults.maxConnections ?? 100, 'Sockets of this tier; the next upgrade is answered 503', { env: [`${name}_WS_MAX_CONNECTIONS`, 'WEBSOCKET_MAX_CONNECTIONS'] }),
    maxFleetConnections: Type.Optional(Type.Integer({ minimum: 1, description: 'Sockets of this tier in all processes that share a store, as they knew half a second ago; the next upgrade is answered 503', env: [`${name}_WS_MAX_FLEET_CONNECTIONS`] })),
    maxMessageSize: bytes(defaults.maxMessageSize, 'Largest frame that is acted on', { env: [`${name}_WS_MAX_MESSAGE_SIZE`] }),
    messagesPerSecond: count(100, 'Frames a second that a connection may send for long', { env: [`${name}_WS_MESSAGES_PER_SECOND`] }),
    burst: count(200, 'Frames that a connection may send at once', { env: [`${name}_WS_BURST`] })
  }, `The tier \`${path}\``)
}

/** Nothing is sent at intervals on `/v1`. */
const { intervalMs: _, ...v1Members } = tier('V1', '/v1', { intervalMs: 1, timeoutMs: 10_000, maxMessageSize: 65_536 }).properties

const originPattern = '^(null|\\*|[A-Za-z][A-Za-z0-9+.-]*://[^\\s/?#@]+/?)$'

const PeerKey = Type.Object({
  key: Type.String({ minLength: 10, maxLength: 200, pattern: '^\\S+$' }),
  channels: PeerChannels,
  permissions: PeerPermissions,
  origins: Type.Optional(Type.Array(Type.String({ pattern: originPattern }), { minItems: 1 })),
  maxConnections: Type.Optional(Type.Integer({ minimum: 1 }))
}, { additionalProperties: false })

const AgentKey = Type.Object({
  key: Type.String({ minLength: 10, maxLength: 200 }),
  exclusive: Type.Boolean({ default: false, description: 'May register its ids again while they are alive' }),
  ids: Type.Optional(Type.Array(Type.String({ minLength: 1, description: 'An agent_id, or a prefix that ends in *' }), { minItems: 1 })),
  types: Type.Optional(Type.Array(Type.String({ minLength: 1 }))),
  capabilities: Type.Optional(Type.Array(Type.String({ minLength: 1 }))),
  maxAgents: Type.Optional(Type.Integer({ minimum: 1 }))
}, { additionalProperties: false })

/** Returns one vector for each text, in the same order, all of the same length. */
export type EmbedHook = (texts: string[]) => Array<ArrayLike<number>> | Promise<Array<ArrayLike<number>>>
/** What `onRegister` is told of a registration that is about to be stored. */
export interface RegisterHookContext { registration: AgentRegistration, principal: Principal | null }
/** Runs before a registration is stored; a throw refuses it (403), a timeout refuses it (503). */
export type OnRegisterHook = (context: RegisterHookContext) => void | Promise<void>
/** Who wants to do something with a channel, or with all that match a pattern. */
export interface ChannelHookContext { channel: string, peerId: string, principal: Principal }
/** Runs before a message is published, by whatever way; anything but `true` refuses it (403), a timeout too (503). */
export type AuthorizePublishHook = (context: ChannelHookContext & { /** JSON text. */ data: string }) => boolean | Promise<boolean>
/** Runs before a connection is subscribed; anything but `true` refuses it (403), a timeout too (503). */
export type AuthorizeSubscribeHook = (context: ChannelHookContext) => boolean | Promise<boolean>
/** Tries a bearer token that this registry did not issue; `null` or a throw means not authenticated. */
export type AuthenticateHook = (token: string) => Principal | null | Promise<Principal | null>
/**
 * What the public tier shows of a registration: another valid one, or `null` to hide the agent there. Asked when an
 * agent registers or changes; a throw, a timeout or something that is not a registration refuses that (503).
 */
export type PublicViewHook = (registration: AgentRegistration) => AgentRegistration | null | Promise<AgentRegistration | null>

export const OptionsSchema = Type.Object({
  prefix: Type.String({ default: '', pattern: '^(/[A-Za-z0-9_.-]+)*$', description: 'Path before every route; existing clients need none', env: ['ARCP_PREFIX'] }),
  decorateAs: Type.String({ default: 'agentRegistry', pattern: '^[A-Za-z_][A-Za-z0-9_]*$', description: 'Name of the decorator on the Fastify instance' }),
  namespace: Type.String({ default: 'default', pattern: '^[A-Za-z0-9_-]{1,64}$', description: 'Separates registries that share a secret or a store; part of every token', env: ['ARCP_NAMESPACE'] }),
  publicUrl: Type.Optional(Type.String({ pattern: '^https?://[^\\s/]+[^\\s]*$', description: 'URL under which clients reach this registry', env: ['ARCP_ISSUER'] })),
  problemBase: Type.Optional(Type.String({ minLength: 1, description: 'Base of the problem type URIs; default: `<prefix>/problems/`', env: ['ARCP_PROBLEM_BASE'] })),
  routes: group({
    root: flag(false, 'Serve `GET /`', { env: ['ARCP_ROUTES_ROOT'] }),
    health: flag(true, 'Serve `/health` and what is below it', { env: ['ARCP_ROUTES_HEALTH'] }),
    wellKnown: flag(true, 'Serve `/.well-known/*`', { env: ['ARCP_ROUTES_WELL_KNOWN'] }),
    metrics: flag(true, 'Serve `/metrics` and `/metrics/scrape`', { env: ['ARCP_ROUTES_METRICS'] }),
    dashboard: flag(true, 'Serve `/dashboard/config` and the dashboard tier', { env: ['ARCP_ROUTES_DASHBOARD'] }),
    v1: flag(false, 'Serve `/v1`: the tier for clients of the Metered realtime protocol, and what is below it over HTTP', { env: ['ARCP_ROUTES_V1'] }),
    docs: flag(false, 'Serve `/docs`, `/openapi.json` and `/asyncapi.json`', { env: ['ARCP_ROUTES_DOCS'] })
  }, 'Groups of routes that can be left out'),
  allowedAgentTypes: list(['security', 'monitoring', 'automation', 'networking', 'testing'], 'Values of agent_type that may register, in any case; `*` allows all', { env: ['ALLOWED_AGENT_TYPES'] }),
  agentKeys: Type.Array(Type.Union([Type.String({ minLength: 10, maxLength: 200 }), AgentKey]), { default: [], description: 'Keys with which agents register: strings of 10 to 200 characters, or objects with `key`, `exclusive`, `ids`, `types`, `capabilities`, `maxAgents`', env: ['AGENT_KEYS'] }),
  peerKeys: Type.Array(PeerKey, { default: [], description: 'Publishable keys, with which pages open `/v1` without a token: objects with `key`, `channels`, `permissions`, `origins`, `maxConnections`', env: ['PEER_KEYS'] }),
  secretKeys: Type.Array(Type.String({ minLength: 20, maxLength: 300, pattern: '^[A-Za-z0-9_-]{1,64}:\\S{16,}$' }), { default: [], description: 'Keys of back ends for `/v1/…` over HTTP, `id:secret` with a secret of 16 characters or more', env: ['SECRET_KEYS'] }),
  publicFields: Type.Optional(Type.Array(Type.String({ minLength: 1 }), { description: 'Optional fields of a record that the public tier shows; default: all. Fields that clients require are always shown', env: ['ARCP_PUBLIC_FIELDS'] })),
  jwt: group({
    secret: Type.Optional(Type.Union([Type.String({ minLength: 32 }), Type.Array(Type.String({ minLength: 32 }), { minItems: 1 })], { description: 'Secret of 32 characters or more; of a list the first signs and all verify. Without one a random secret is made and kept in the storage', env: ['JWT_SECRET'] })),
    algorithm: Type.Union([Type.Literal('HS256'), Type.Literal('HS384'), Type.Literal('HS512')], { default: 'HS256', description: 'HS256, HS384 or HS512', env: ['JWT_ALGORITHM'] }),
    expiresInMs: ms(3600 * 60_000, 'Life of agent and user tokens', { env: ['JWT_EXPIRE_MINUTES'], envFactor: 60_000 })
  }, 'Tokens'),
  admin: group({
    username: Type.String({ minLength: 1, maxLength: 255, default: 'admin', description: 'Name of the admin', env: ['ADMIN_USERNAME'] }),
    password: Type.Optional(Type.String({ minLength: 1, maxLength: 1024, description: 'Password of the admin; without one nobody can log in', env: ['ADMIN_PASSWORD'] })),
    sessionTimeoutMs: ms(30 * 60_000, 'Life of an admin session', { env: ['SESSION_TIMEOUT'], envFactor: 60_000 }),
    maxSessions: count(5, 'Live sessions of an admin; the oldest ends when another is opened', { env: ['MAX_SESSIONS'] })
  }, 'Admin account and sessions'),
  attempts: group({
    burst: count(20, 'Failed logins, PINs or keys that an address or account may have at once', { env: ['RATE_LIMIT_BURST'] }),
    windowMs: ms(900_000, 'Time in which a full burst comes back', { env: ['RATE_LIMIT_RPM'], envFactor: 9_000 })
  }, 'Brute-force limits'),
  lease: group({
    durationMs: Type.Integer({ minimum: 200, maximum: 86_400_000, default: 60_000, description: 'Time without a sign of life after which an agent is dead (ms)', ...seconds('AGENT_HEARTBEAT_TIMEOUT') }),
    retentionMs: ms(3_600_000, 'Time a dead agent is kept before it is removed', seconds('AGENT_RETENTION')),
    cleanupIntervalMs: ms(60_000, 'Time between two removals of what is past its retention', seconds('AGENT_CLEANUP_INTERVAL')),
    preservation: flag(true, 'Hold leases when implausibly many end at once', { env: ['AGENT_SELF_PRESERVATION'] })
  }, 'Liveness'),
  limits: group({
    maxAgents: count(1_000_000, 'Agents in this registry', { env: ['ARCP_MAX_AGENTS'] }),
    maxRecordBytes: bytes(131_072, 'Largest registration as JSON', { env: ['ARCP_MAX_RECORD_BYTES'] }),
    maxBodyBytes: bytes(1_048_576, 'Largest request body', { env: ['MAX_JSON_SIZE'] }),
    maxQueryParams: count(50, 'Parameters of a query', { env: ['MAX_QUERY_PARAMS'] }),
    maxHeaderBytes: bytes(8192, 'Names and values of all headers', { env: ['MAX_HEADER_SIZE'] }),
    hookTimeoutMs: ms(5_000, 'Time that a hook of the host may take', { env: ['ARCP_HOOK_TIMEOUT_MS'] })
  }, 'Sizes and quotas'),
  admission: group({
    registrationsPerSecond: count(2_000, 'Registrations over HTTP that are let in for long; the next is answered 429', { env: ['ARCP_REGISTRATIONS_PER_SECOND'] }),
    upgradesPerSecond: count(1_000, 'Sockets and event streams that may be opened for long; the next is answered 503', { env: ['ARCP_UPGRADES_PER_SECOND'] }),
    burst: count(500, 'Either of them at once', { env: ['ARCP_ADMISSION_BURST'] })
  }, 'How fast a fleet may come back, in this process'),
  addresses: group({
    blocked: list([], 'Addresses and CIDR ranges that are refused', { env: ['BLOCKED_IPS'] }),
    allowed: list([], 'Addresses and CIDR ranges that are let in when others are denied', { env: ['ALLOWED_IP_RANGES'] }),
    defaultDeny: flag(false, 'Refuse whoever is not in `allowed`', { env: ['IP_DEFAULT_DENY'] })
  }, 'Address lists, for requests and upgrades alike'),
  feed: group({
    ringSize: count(10_000, 'Changes that are kept for watchers that resume', { env: ['ARCP_FEED_SIZE'] }),
    bookmarkIntervalMs: ms(30_000, 'Most time between two bookmarks', seconds('ARCP_BOOKMARK_INTERVAL')),
    keepAliveMs: ms(15_000, 'Silence after which an event stream shows that it is there; one that takes nothing for two of them is cut off', seconds('ARCP_FEED_KEEP_ALIVE')),
    maxStreams: count(1_000, 'Event streams and polls that wait; the next is answered 503', { env: ['ARCP_FEED_MAX_STREAMS'] }),
    maxStreamsPerCaller: count(100, 'The same, of one agent, user or admin', { env: ['ARCP_FEED_MAX_STREAMS_PER_CALLER'] }),
    maxStreamsPerAddress: count(500, 'The same, from one address', { env: ['ARCP_FEED_MAX_STREAMS_PER_ADDRESS'] })
  }, 'The feed of changes'),
  sockets: group({
    agentsUpdateIntervalMs: ms(1_000, 'Least time between two `agents_update` frames on the public tier', seconds('AGENTS_UPDATE_INTERVAL')),
    maxAgentsPerUpdate: count(100, 'Agents in a list that is sent unasked', { env: ['MAX_AGENTS_PER_UPDATE'] }),
    maxUpdateBytes: bytes(131_072, 'Size of a list that is sent unasked', { env: ['MAX_UPDATE_BYTES'] }),
    maxBufferedBytes: bytes(4_194_304, 'Unsent bytes after which a slow reader is closed (4008)', { env: ['WEBSOCKET_MAX_BUFFERED_BYTES'] }),
    maxUnauthenticated: count(64, 'Sockets that are not authenticated yet, per tier', { env: ['WEBSOCKET_MAX_UNAUTHENTICATED'] }),
    maxUnauthenticatedPerAddress: count(8, 'The same, per address', { env: ['WEBSOCKET_MAX_UNAUTHENTICATED_PER_ADDRESS'] }),
    maxConnectionsPerAddress: count(10_000, 'Sockets of all tiers from one address, authenticated or not; the next upgrade is answered 503', { env: ['WEBSOCKET_MAX_CONNECTIONS_PER_ADDRESS'] }),
    messagesPerSecondPerPrincipal: rate('Frames a second that all sockets of one agent, user or admin in this process may send for long; default: twice those of a connection', 'WEBSOCKET_MESSAGES_PER_SECOND_PER_PRINCIPAL'),
    burstPerPrincipal: rate('Frames that they may send at once; default: twice those of a connection', 'WEBSOCKET_BURST_PER_PRINCIPAL'),
    messagesPerSecondPerAddress: rate('Frames a second that all sockets from one address may send for long; default: ten times those of a connection, or one for each socket that the tiers take', 'WEBSOCKET_MESSAGES_PER_SECOND_PER_ADDRESS'),
    burstPerAddress: rate('Frames that they may send at once; default: ten times those of a connection, or two for each socket that the tiers take', 'WEBSOCKET_BURST_PER_ADDRESS'),
    allowedOrigins: Type.Array(Type.String({ pattern: originPattern }), { default: [], description: 'Origins whose pages may open sockets, as `https://app.example.com`; `*` stands for one label of a host, alone for all. Without any all may; what sends no `Origin` is no browser and not asked', env: ['ALLOWED_ORIGINS'] }),
    compression: flag(false, 'Take permessage-deflate where a client offers it, for frames over 1 KiB. It costs far more processor time than it saves on a local network; a host that has @fastify/websocket decides itself', { env: ['WEBSOCKET_COMPRESSION'] }),
    drainMs: ms(5_000, 'Time over which sockets are closed on shutdown', seconds('WEBSOCKET_DRAIN'))
  }, 'All sockets'),
  publicWs: tier('PUBLIC', '/public/ws', { intervalMs: 30_000, timeoutMs: 30_000, maxMessageSize: 4_096 }),
  dashboardWs: tier('DASHBOARD', '/dashboard/ws', { intervalMs: 5_000, timeoutMs: 10_000, maxMessageSize: 65_536, maxConnections: 5 }),
  agentsWs: tier('AGENT', '/agents/ws', { intervalMs: 5_000, timeoutMs: 10_000, maxMessageSize: 65_536 }),
  v1Ws: group(v1Members, 'The tier `/v1`'),
  messaging: group({
    maxConnectionsPerPeer: count(100, 'Sockets of one peer on `/v1` in this process; the next is closed (4010)', { env: ['MESSAGING_MAX_CONNECTIONS_PER_PEER'] }),
    maxSubscriptions: count(100, 'Channels and patterns that a connection may be subscribed to', { env: ['MESSAGING_MAX_SUBSCRIPTIONS'] }),
    maxRequests: count(100, 'Requests of a connection that wait for their answers', { env: ['MESSAGING_MAX_REQUESTS'] }),
    maxRequestsPerProcess: count(10_000, 'Requests of a process that wait for their answers', { env: ['MESSAGING_MAX_REQUESTS_PER_PROCESS'] }),
    historyEntries: count(1_000, 'Messages that are kept of a channel or an inbox', { env: ['MESSAGING_HISTORY_ENTRIES'] }),
    historyBytes: bytes(4_194_304, 'Size of what is kept of a channel or an inbox', { env: ['MESSAGING_HISTORY_BYTES'] }),
    historyAgeMs: ms(3_600_000, 'Time that a message is kept', seconds('MESSAGING_HISTORY_AGE')),
    msgIdMs: ms(300_000, 'Time that a `msgId` is remembered', seconds('MESSAGING_MSG_ID_AGE')),
    presenceTtlMs: Type.Integer({ minimum: 1_000, maximum: 3_600_000, default: 15_000, description: 'Time after which the peers of a process that has died are gone for the others (ms)', ...seconds('MESSAGING_PRESENCE_TTL') })
  }, 'Channels, inboxes, requests and presence'),
  dashboard: group({
    logCapacity: count(10_000, 'Log entries and alerts that are kept', { env: ['DASHBOARD_LOG_BUFFER_MAXLEN'] }),
    logMessageLength: count(2048, 'Characters of a log message', { env: ['DASHBOARD_LOG_MESSAGE_MAXLEN'] }),
    maxLogsPerFrame: count(200, 'Entries of a `logs` frame', { env: ['DASHBOARD_MAX_LOGS_PER_FRAME'] }),
    requireFingerprint: flag(false, 'Refuse an `auth` frame without the fingerprint of the session', { env: ['DASHBOARD_REQUIRE_FINGERPRINT'] }),
    slowRequestMs: ms(2_000, 'Time to answer after which a request is in the log of the dashboards', { env: ['DASHBOARD_SLOW_REQUEST_MS'] }),
    networkCapacityMbps: count(1000, 'What counts as a network that is fully used (megabits a second)', { env: ['NETWORK_INTERFACE_CAPACITY_MBPS'] }),
    alertRules: Type.Array(AlertRuleInput, { default: [], description: 'Alert rules beside the default ones, or in place of one with the same id' })
  }, 'The operator\'s side'),
  search: group({
    enabled: flag(true, 'Keep a text index and serve search; the index takes memory', { env: ['ARCP_SEARCH'] }),
    topK: Type.Integer({ minimum: 1, maximum: 100, default: 10, description: 'Results of a search that does not say', env: ['VECTOR_SEARCH_TOP_K'] }),
    minSimilarity: Type.Number({ minimum: 0, maximum: 1, default: 0.5, description: 'Least similarity of a search that does not say', env: ['VECTOR_SEARCH_MIN_SIMILARITY'] })
  }, 'Search'),
  metricsScrapeToken: Type.Optional(Type.String({ minLength: 16, pattern: '^\\S+$', description: 'Lets whoever bears it read `/metrics/scrape`', env: ['METRICS_SCRAPE_TOKEN'] })),
  storage: Type.Union([Type.Literal('memory'), Type.Literal('level'), Type.Literal('redis')], { default: 'memory', description: 'Where agents, sessions and the feed are kept: memory, level (a folder, one process) or redis (several processes)', env: ['STORE'] }),
  level: group({
    path: Type.String({ minLength: 1, default: './data', description: 'Folder of the level storage', env: ['ARCP_DATA_DIR'] }),
    durability: Type.Union([Type.Literal('commit'), Type.Literal('sync')], { default: 'commit', description: 'What an acknowledged write survives: commit the end of the process, sync also that of the machine', env: ['DURABILITY'] })
  }, 'The level storage'),
  redis: group({
    url: Type.Optional(Type.String({ pattern: '^(rediss?:/)?/\\S+$', description: 'URL of Redis, or the path of its socket; it wins over `host` and what belongs to it', env: ['REDIS_URL'] })),
    host: Type.Optional(Type.String({ minLength: 1, description: 'Host of Redis; default: 127.0.0.1', env: ['REDIS_HOST'] })),
    port: Type.Integer({ minimum: 1, maximum: 65_535, default: 6379, description: 'Port of Redis', env: ['REDIS_PORT'] }),
    db: Type.Integer({ minimum: 0, default: 0, description: 'Number of the database', env: ['REDIS_DB'] }),
    username: Type.Optional(Type.String({ minLength: 1, description: 'Name to log in to Redis with', env: ['REDIS_USERNAME'] })),
    password: Type.Optional(Type.String({ minLength: 1, description: 'Password to log in to Redis with', env: ['REDIS_PASSWORD'] })),
    tls: flag(false, 'Speak TLS with Redis', { env: ['REDIS_TLS'] }),
    sentinels: addressList('Sentinels that know where Redis is, as `host:port`', 'REDIS_SENTINELS'),
    sentinelName: Type.Optional(Type.String({ minLength: 1, description: 'Name that the Sentinels know it by', env: ['REDIS_SENTINEL_NAME'] })),
    cluster: addressList('Nodes of a Redis Cluster, as `host:port`', 'REDIS_CLUSTER'),
    commandTimeoutMs: ms(2_000, 'Time after which a command counts as failed', { env: ['REDIS_COMMAND_TIMEOUT_MS'] }),
    probeIntervalMs: ms(2_000, 'Time between two probes of the connections', { env: ['REDIS_PROBE_INTERVAL_MS'] }),
    client: Type.Optional(Type.Unsafe<Redis | Cluster>(Type.Object({}, { description: 'A client of ioredis that is used, duplicated and never closed, in place of all that' })))
  }, 'The Redis storage'),
  store: Type.Optional(Type.Unsafe<AgentStore>(Type.Object({}, { description: 'An AgentStore of your own, in place of `storage`' }))),
  state: Type.Optional(Type.Unsafe<KeyValueStore>(Type.Object({}, { description: 'A KeyValueStore of your own beside `store`: sessions, revocations, tickets; default: in memory' }))),
  onRegister: hook<OnRegisterHook>('Called before a registration is stored; a throw refuses it'),
  authenticate: hook<AuthenticateHook>('Tries bearer tokens that are not ours'),
  authorizePublish: hook<AuthorizePublishHook>('Called before a message is published to a channel; anything but `true` refuses it'),
  authorizeSubscribe: hook<AuthorizeSubscribeHook>('Called before a connection is subscribed to a channel or pattern; anything but `true` refuses it'),
  embed: hook<EmbedHook>('Makes vectors of texts; turns on search by meaning'),
  publicView: hook<PublicViewHook>('What the public tier shows of a registration')
}, { additionalProperties: false })

export type ResolvedOptions = Static<typeof OptionsSchema>

type DeepPartial<T> = T extends ((...args: never[]) => unknown) | unknown[] ? T
  : T extends object ? { [K in keyof T]?: DeepPartial<T[K]> } : T

/** The options of the plugin: every member may be left out. */
export type AgentRegistryOptions = DeepPartial<Omit<ResolvedOptions, 'store' | 'state' | 'redis' | 'agentKeys'>> & {
  store?: AgentStore
  state?: KeyValueStore
  redis?: Partial<ResolvedOptions['redis']>
  agentKeys?: Array<string | (Omit<Static<typeof AgentKey>, 'exclusive'> & { exclusive?: boolean })>
}

function isPlainObject (value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && Object.getPrototypeOf(value) === Object.prototype
}

/** A copy of the plain objects and arrays of `value`; class instances and functions stay what they are. */
function copy (value: unknown): unknown {
  if (Array.isArray(value)) return value.map(copy)
  if (!isPlainObject(value)) return value
  return Object.fromEntries(Object.entries(value).filter(([, v]) => v !== undefined).map(([k, v]) => [k, copy(v)]))
}

/**
 * Options with every default filled in.
 * @throws AGENT_REGISTRY_INVALID_OPTIONS naming each wrong option, what it is and what it should be.
 */
export function resolveOptions (input: unknown): ResolvedOptions {
  const options = Value.Default(OptionsSchema, copy(input ?? {}))
  // A store is somebody's object, also when it is a plain one.
  if (isPlainObject(options) && isPlainObject(input)) for (const name of ['store', 'state']) if (isPlainObject(input[name])) options[name] = input[name]
  const findings = new Map<string, string>()
  for (const { path, message, schema } of Value.Errors(OptionsSchema, options)) {
    const hint = typeof schema.description === 'string' ? ` (${schema.description})` : ''
    if (!findings.has(path)) findings.set(path, `${path.slice(1).replaceAll('/', '.') || 'options'}: ${message}${hint}`)
  }
  if (findings.size > 0) throw new OptionsError([...findings.values()].join('; '))
  return options as ResolvedOptions
}

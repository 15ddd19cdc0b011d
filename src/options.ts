import { Type, type Static, type TSchema } from '@sinclair/typebox'
import { Value } from '@sinclair/typebox/value'
import type { Cluster, Redis } from 'ioredis'
import { OptionsError } from './errors.js'
import type {
  AuthenticateHook, AuthorizePublishHook, AuthorizeSubscribeHook, EmbedHook, OnRegisterHook, PublicViewHook
} from './hooks.js'
import { AlertRuleInput } from './protocol/schemas/dashboard.js'
import { PeerChannels, PeerPermissions } from './protocol/schemas/peers.js'

/**
 * The mapping of an option to environment variables of the stand-alone server. `env`: variable names; the first one that
 * is set is used. `envFactor`: the value of one unit of the variable in the unit of the option (`AGENT_HEARTBEAT_TIMEOUT`
 * is in seconds, the option in milliseconds, so its factor is 1000).
 */
interface EnvMapping { env?: string[], envFactor?: number }

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
  Type.Optional(Type.Array(Type.String({ pattern: '^(\\[[^\\]\\s]+\\]|[^:\\s]+):\\d{1,5}$' }), {
    minItems: 1, description, env: [env]
  }))
const rate = (description: string, env: string) =>
  Type.Optional(Type.Integer({ minimum: 1, description, env: [env] }))
/** An object of the host application, kept by reference; `tsType` as for `hook`. */
const instance = <T>(tsType: string, description: string) => Type.Optional(Type.Unsafe<T>(Type.Object({}, { description, tsType })))

/** The stores of a custom storage, which `createStorage` checks. */
const customStorage = Type.Unsafe<object>(Type.Object({}, { tsType: 'CustomStorage' }))

/** A function of the host application. `tsType` is the name of its type, for the generated interface of the options. */
const hook = <F>(tsType: string, description: string) =>
  Type.Optional(Type.Unsafe<F>({ ...Type.Function([], Type.Any()), description, tsType }))

const seconds = (env: string, fallback?: string): EnvMapping => ({ env: fallback ? [env, fallback] : [env], envFactor: 1000 })

const tierTexts = {
  PUBLIC: ['Interval of `stats_update` frames', 'Timeout for the answer to a close frame'],
  AGENT: ['Minimum interval of agent lists', 'Timeout for authentication, and for the answer to a close frame'],
  DASHBOARD: ['Interval of data frames', 'Timeout for authentication, and for the answer to a close frame'],
  V1: ['', 'Timeout for the answer to a close frame']
} as const

interface TierDefaults { intervalMs: number, timeoutMs: number, maxMessageSize: number, maxConnections?: number }

function tier (name: keyof typeof tierTexts, path: string, defaults: TierDefaults) {
  return group({
    path: Type.String({
      default: path, pattern: '^/[A-Za-z0-9/_.-]+$', description: 'Path of this tier, relative to the prefix', env: [`${name}_WS_PATH`]
    }),
    intervalMs: ms(defaults.intervalMs, tierTexts[name][0], seconds(`${name}_WS_INTERVAL`, 'WEBSOCKET_INTERVAL')),
    timeoutMs: ms(defaults.timeoutMs, tierTexts[name][1], seconds(`${name}_WS_TIMEOUT`, 'WEBSOCKET_TIMEOUT')),
    pingIntervalMs: ms(
      30_000,
      'Time without a client frame after which the server pings; a connection without activity for two of these intervals is ' +
        'terminated',
      seconds(`${name}_WS_PING_INTERVAL`, 'WEBSOCKET_PING_INTERVAL')
    ),
    idleTimeoutMs: Type.Optional(Type.Integer({
      minimum: 1,
      maximum: 2_147_483_647,
      description: 'Time after which a socket that sends only pings and pongs is closed with 4028, even if it watches the ' +
        'registry; default: never (ms)',
      ...seconds(`${name}_WS_IDLE_TIMEOUT`, 'WEBSOCKET_IDLE_TIMEOUT')
    })),
    maxConnections: count(
      defaults.maxConnections ?? 100, 'Maximum number of sockets of this tier; further upgrades are answered with 503',
      { env: [`${name}_WS_MAX_CONNECTIONS`, 'WEBSOCKET_MAX_CONNECTIONS'] }
    ),
    maxFleetConnections: Type.Optional(Type.Integer({
      minimum: 1,
      description: 'Maximum number of sockets of this tier in all processes that share a store, counted twice a second; further ' +
        'upgrades are answered with 503',
      env: [`${name}_WS_MAX_FLEET_CONNECTIONS`]
    })),
    maxMessageSize: bytes(defaults.maxMessageSize, 'Maximum size of a frame', { env: [`${name}_WS_MAX_MESSAGE_SIZE`] }),
    messagesPerSecond: count(100, 'Sustained rate of frames of a connection (frames per second)', {
      env: [`${name}_WS_MESSAGES_PER_SECOND`]
    }),
    burst: count(200, 'Maximum burst of frames of a connection', { env: [`${name}_WS_BURST`] })
  }, `The tier \`${path}\``)
}

/** `/v1` has no interval frames. */
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
  exclusive: Type.Boolean({ default: false, description: 'May register its agents again while they are alive' }),
  ids: Type.Optional(Type.Array(Type.String({ minLength: 1, description: 'An agent_id, or a prefix followed by `*`' }), {
    minItems: 1
  })),
  types: Type.Optional(Type.Array(Type.String({ minLength: 1 }))),
  capabilities: Type.Optional(Type.Array(Type.String({ minLength: 1 }))),
  maxAgents: Type.Optional(Type.Integer({ minimum: 1 }))
}, { additionalProperties: false })

export const OptionsSchema = Type.Object({
  prefix: Type.String({
    default: '',
    pattern: '^(/[A-Za-z0-9_.-]+)*$',
    description: 'Path prefix of every route; existing ARCP clients require an empty prefix',
    env: ['ARCP_PREFIX']
  }),
  decorateAs: Type.String({
    default: 'agentRegistry', pattern: '^[A-Za-z_][A-Za-z0-9_]*$', description: 'Name of the decorator on the Fastify instance'
  }),
  namespace: Type.String({
    default: 'default',
    pattern: '^[A-Za-z0-9_-]{1,64}$',
    description: 'Separates registries that share a secret or a store; part of every token',
    env: ['ARCP_NAMESPACE']
  }),
  publicUrl: Type.Optional(Type.String({
    pattern: '^https?://[^\\s/]+[^\\s]*$', description: 'URL at which clients reach this registry', env: ['ARCP_ISSUER']
  })),
  problemBase: Type.Optional(Type.String({
    minLength: 1, description: 'Base of the problem type URIs; default: `<prefix>/problems/`', env: ['ARCP_PROBLEM_BASE']
  })),
  routes: group({
    root: flag(false, 'Serve `GET /`', { env: ['ARCP_ROUTES_ROOT'] }),
    health: flag(true, 'Serve `/health` and the routes below it', { env: ['ARCP_ROUTES_HEALTH'] }),
    wellKnown: flag(true, 'Serve `/.well-known/*`', { env: ['ARCP_ROUTES_WELL_KNOWN'] }),
    metrics: flag(true, 'Serve `/metrics` and `/metrics/scrape`', { env: ['ARCP_ROUTES_METRICS'] }),
    dashboard: flag(true, 'Serve `/dashboard/config` and the dashboard tier', { env: ['ARCP_ROUTES_DASHBOARD'] }),
    v1: flag(false, 'Serve `/v1`: the tier for clients of the Metered realtime protocol, and its HTTP routes', {
      env: ['ARCP_ROUTES_V1']
    }),
    docs: flag(false, 'Serve `/docs`, `/openapi.json` and `/asyncapi.json`', { env: ['ARCP_ROUTES_DOCS'] })
  }, 'Groups of routes to serve'),
  allowedAgentTypes: list(
    ['security', 'monitoring', 'automation', 'networking', 'testing'],
    'Values of agent_type that may register, case-insensitive; `*` allows all', { env: ['ALLOWED_AGENT_TYPES'] }
  ),
  agentKeys: Type.Array(Type.Union([Type.String({ minLength: 10, maxLength: 200 }), AgentKey]), {
    default: [],
    description: 'Keys with which agents register: strings of 10 to 200 characters, or objects with `key`, `exclusive`, `ids`, ' +
      '`types`, `capabilities` and `maxAgents`',
    env: ['AGENT_KEYS']
  }),
  peerKeys: Type.Array(PeerKey, {
    default: [],
    description: 'Publishable keys, which open `/v1` from a browser without a token: objects with `key`, `channels`, ' +
      '`permissions`, `origins` and `maxConnections`',
    env: ['PEER_KEYS']
  }),
  secretKeys: Type.Array(Type.String({ minLength: 20, maxLength: 300, pattern: '^[A-Za-z0-9_-]{1,64}:\\S{16,}$' }), {
    default: [],
    description: 'Keys of back ends for the HTTP routes below `/v1`, in the form `id:secret` with a secret of at least 16 characters',
    env: ['SECRET_KEYS']
  }),
  publicFields: Type.Optional(Type.Array(Type.String({ minLength: 1 }), {
    description: 'Optional fields of a record that the public tier shows; default: all. Fields that clients require are always shown',
    env: ['ARCP_PUBLIC_FIELDS']
  })),
  jwt: group({
    secret: Type.Optional(Type.Union([Type.String({ minLength: 32 }), Type.Array(Type.String({ minLength: 32 }), { minItems: 1 })], {
      description: 'Secret of at least 32 characters, or a list: the first one signs, all verify. Without it, a random secret ' +
        'is generated and kept in the storage',
      env: ['JWT_SECRET']
    })),
    algorithm: Type.Union([Type.Literal('HS256'), Type.Literal('HS384'), Type.Literal('HS512')], {
      default: 'HS256', description: 'Signature algorithm: HS256, HS384 or HS512', env: ['JWT_ALGORITHM']
    }),
    expiresInMs: ms(3600 * 60_000, 'Lifetime of agent and user tokens', { env: ['JWT_EXPIRE_MINUTES'], envFactor: 60_000 })
  }, 'Tokens'),
  admin: group({
    username: Type.String({
      minLength: 1, maxLength: 255, default: 'admin', description: 'User name of the admin', env: ['ADMIN_USERNAME']
    }),
    password: Type.Optional(Type.String({
      minLength: 1, maxLength: 1024, description: 'Password of the admin; without it, admin login is disabled', env: ['ADMIN_PASSWORD']
    })),
    sessionTimeoutMs: ms(30 * 60_000, 'Lifetime of an admin session', { env: ['SESSION_TIMEOUT'], envFactor: 60_000 }),
    maxSessions: count(5, 'Maximum number of sessions of an admin; a further login ends the oldest', { env: ['MAX_SESSIONS'] })
  }, 'Admin account and sessions'),
  attempts: group({
    burst: count(20, 'Maximum burst of failed logins, PINs or keys of an address or account', { env: ['RATE_LIMIT_BURST'] }),
    windowMs: ms(900_000, 'Time after which a full burst is available again', { env: ['RATE_LIMIT_RPM'], envFactor: 9_000 })
  }, 'Brute-force limits'),
  lease: group({
    durationMs: Type.Integer({
      minimum: 200,
      maximum: 86_400_000,
      default: 60_000,
      description: 'Time without a heartbeat after which an agent is dead (ms)',
      ...seconds('AGENT_HEARTBEAT_TIMEOUT')
    }),
    retentionMs: ms(3_600_000, 'Time after which a dead agent is removed', seconds('AGENT_RETENTION')),
    cleanupIntervalMs: ms(60_000, 'Interval at which dead agents past their retention are removed', seconds('AGENT_CLEANUP_INTERVAL')),
    preservation: flag(true, 'Self-preservation: hold leases when an implausible number of them end at once', {
      env: ['AGENT_SELF_PRESERVATION']
    })
  }, 'Liveness'),
  limits: group({
    maxAgents: count(1_000_000, 'Maximum number of agents', { env: ['ARCP_MAX_AGENTS'] }),
    maxRecordBytes: bytes(131_072, 'Maximum size of a registration as JSON', { env: ['ARCP_MAX_RECORD_BYTES'] }),
    maxBodyBytes: bytes(1_048_576, 'Maximum size of a request body', { env: ['MAX_JSON_SIZE'] }),
    maxQueryParams: count(50, 'Maximum number of query parameters', { env: ['MAX_QUERY_PARAMS'] }),
    maxHeaderBytes: bytes(8192, 'Maximum size of all header names and values', { env: ['MAX_HEADER_SIZE'] }),
    hookTimeoutMs: ms(5_000, 'Timeout of the hooks of the host application', { env: ['ARCP_HOOK_TIMEOUT_MS'] })
  }, 'Sizes and quotas'),
  admission: group({
    registrationsPerSecond: count(2_000, 'Sustained rate of registrations over HTTP (per second); further ones are answered with 429', {
      env: ['ARCP_REGISTRATIONS_PER_SECOND']
    }),
    upgradesPerSecond: count(
      1_000, 'Sustained rate of new sockets and event streams (per second); further ones are answered with 503',
      { env: ['ARCP_UPGRADES_PER_SECOND'] }
    ),
    burst: count(500, 'Maximum burst of either', { env: ['ARCP_ADMISSION_BURST'] })
  }, 'Admission rates of this process, which spread the reconnects of a fleet'),
  addresses: group({
    blocked: list([], 'Addresses and CIDR ranges to refuse', { env: ['BLOCKED_IPS'] }),
    allowed: list([], 'Addresses and CIDR ranges to allow when `defaultDeny` is on', { env: ['ALLOWED_IP_RANGES'] }),
    defaultDeny: flag(false, 'Refuse every address that is not in `allowed`', { env: ['IP_DEFAULT_DENY'] })
  }, 'Address lists, for requests and upgrades'),
  feed: group({
    ringSize: count(10_000, 'Number of changes kept for watchers that resume', { env: ['ARCP_FEED_SIZE'] }),
    bookmarkIntervalMs: ms(30_000, 'Maximum interval of bookmarks', seconds('ARCP_BOOKMARK_INTERVAL')),
    keepAliveMs: ms(
      15_000,
      'Time without data after which an event stream sends a comment; a stream whose client reads nothing for two of these ' +
        'intervals is closed',
      seconds('ARCP_FEED_KEEP_ALIVE')
    ),
    maxStreams: count(1_000, 'Maximum number of open event streams and long polls; further ones are answered with 503', {
      env: ['ARCP_FEED_MAX_STREAMS']
    }),
    maxStreamsPerCaller: count(100, 'Maximum number of open event streams and long polls of one agent, user or admin', {
      env: ['ARCP_FEED_MAX_STREAMS_PER_CALLER']
    }),
    maxStreamsPerAddress: count(500, 'Maximum number of open event streams and long polls from one address', {
      env: ['ARCP_FEED_MAX_STREAMS_PER_ADDRESS']
    })
  }, 'Change feed'),
  sockets: group({
    agentsUpdateIntervalMs: ms(
      1_000, 'Minimum interval of `agents_update` frames on the public tier', seconds('AGENTS_UPDATE_INTERVAL')
    ),
    maxAgentsPerUpdate: count(100, 'Maximum number of agents in an unrequested list', { env: ['MAX_AGENTS_PER_UPDATE'] }),
    maxUpdateBytes: bytes(131_072, 'Maximum size of an unrequested list', { env: ['MAX_UPDATE_BYTES'] }),
    maxBufferedBytes: bytes(4_194_304, 'Unsent bytes after which a slow consumer is closed with 4008', {
      env: ['WEBSOCKET_MAX_BUFFERED_BYTES']
    }),
    maxUnauthenticated: count(64, 'Maximum number of unauthenticated sockets per tier', { env: ['WEBSOCKET_MAX_UNAUTHENTICATED'] }),
    maxUnauthenticatedPerAddress: count(8, 'Maximum number of unauthenticated sockets per address', {
      env: ['WEBSOCKET_MAX_UNAUTHENTICATED_PER_ADDRESS']
    }),
    maxConnectionsPerAddress: count(
      10_000, 'Maximum number of sockets of all tiers from one address; further upgrades are answered with 503',
      { env: ['WEBSOCKET_MAX_CONNECTIONS_PER_ADDRESS'] }
    ),
    messagesPerSecondPerPrincipal: rate(
      'Sustained rate of frames of all sockets of one agent, user or admin in this process (per second); default: twice the ' +
        'rate of a connection',
      'WEBSOCKET_MESSAGES_PER_SECOND_PER_PRINCIPAL'
    ),
    burstPerPrincipal: rate(
      'Maximum burst of frames of one agent, user or admin; default: twice the burst of a connection', 'WEBSOCKET_BURST_PER_PRINCIPAL'
    ),
    messagesPerSecondPerAddress: rate(
      'Sustained rate of frames of all sockets from one address (per second); default: ten times the rate of a connection, or ' +
        'the number of sockets of all tiers if that is more',
      'WEBSOCKET_MESSAGES_PER_SECOND_PER_ADDRESS'
    ),
    burstPerAddress: rate(
      'Maximum burst of frames from one address; default: ten times the burst of a connection, or twice the number of sockets ' +
        'of all tiers if that is more',
      'WEBSOCKET_BURST_PER_ADDRESS'
    ),
    allowedOrigins: Type.Array(Type.String({ pattern: originPattern }), {
      default: [],
      description: 'Origins whose pages may open sockets, such as `https://app.example.com`. `*` matches one label of a host ' +
        'name; alone it allows all origins. An empty list allows all origins. Requests without an `Origin` header ' +
        'are not checked',
      env: ['ALLOWED_ORIGINS']
    }),
    compression: flag(
      false,
      'Accept permessage-deflate for frames over 1 KiB when a client offers it. It costs much processor time and saves little ' +
        'on a local network. It has no effect in a host that registered @fastify/websocket itself',
      { env: ['WEBSOCKET_COMPRESSION'] }
    ),
    drainMs: ms(5_000, 'Time over which sockets are closed on shutdown', seconds('WEBSOCKET_DRAIN'))
  }, 'All sockets'),
  publicWs: tier('PUBLIC', '/public/ws', { intervalMs: 30_000, timeoutMs: 30_000, maxMessageSize: 4_096 }),
  dashboardWs: tier('DASHBOARD', '/dashboard/ws', { intervalMs: 5_000, timeoutMs: 10_000, maxMessageSize: 65_536, maxConnections: 5 }),
  agentsWs: tier('AGENT', '/agents/ws', { intervalMs: 5_000, timeoutMs: 10_000, maxMessageSize: 65_536 }),
  v1Ws: group(v1Members, 'The tier `/v1`'),
  messaging: group({
    maxConnectionsPerPeer: count(
      100, 'Maximum number of sockets of one peer on `/v1` in this process; a further one is closed with 4010',
      { env: ['MESSAGING_MAX_CONNECTIONS_PER_PEER'] }
    ),
    maxSubscriptions: count(100, 'Maximum number of subscriptions of a connection', { env: ['MESSAGING_MAX_SUBSCRIPTIONS'] }),
    maxRequests: count(100, 'Maximum number of open requests of a connection', { env: ['MESSAGING_MAX_REQUESTS'] }),
    maxRequestsPerProcess: count(10_000, 'Maximum number of open requests of a process', {
      env: ['MESSAGING_MAX_REQUESTS_PER_PROCESS']
    }),
    historyEntries: count(1_000, 'Maximum number of messages kept of a channel or inbox', { env: ['MESSAGING_HISTORY_ENTRIES'] }),
    historyBytes: bytes(4_194_304, 'Maximum size of the messages kept of a channel or inbox', { env: ['MESSAGING_HISTORY_BYTES'] }),
    historyAgeMs: ms(3_600_000, 'Time for which a message is kept', seconds('MESSAGING_HISTORY_AGE')),
    msgIdMs: ms(300_000, 'Time for which a `msgId` is remembered', seconds('MESSAGING_MSG_ID_AGE')),
    presenceTtlMs: Type.Integer({
      minimum: 1_000,
      maximum: 3_600_000,
      default: 15_000,
      description: 'Time after which the peers of a crashed process leave (ms)',
      ...seconds('MESSAGING_PRESENCE_TTL')
    })
  }, 'Messaging: channels, inboxes, requests and presence'),
  dashboard: group({
    logCapacity: count(10_000, 'Number of log entries and alerts kept', { env: ['DASHBOARD_LOG_BUFFER_MAXLEN'] }),
    logMessageLength: count(2048, 'Maximum length of a log message (characters)', { env: ['DASHBOARD_LOG_MESSAGE_MAXLEN'] }),
    maxLogsPerFrame: count(200, 'Maximum number of entries of a `logs` frame', { env: ['DASHBOARD_MAX_LOGS_PER_FRAME'] }),
    requireFingerprint: flag(false, 'Refuse `auth` frames without the fingerprint of the session', {
      env: ['DASHBOARD_REQUIRE_FINGERPRINT']
    }),
    slowRequestMs: ms(2_000, 'Response time above which a request is logged on the dashboard', { env: ['DASHBOARD_SLOW_REQUEST_MS'] }),
    networkCapacityMbps: count(1000, 'Network capacity that counts as full utilisation (megabits per second)', {
      env: ['NETWORK_INTERFACE_CAPACITY_MBPS']
    }),
    alertRules: Type.Array(AlertRuleInput, {
      default: [], description: 'Alert rules in addition to the defaults; a rule replaces the default with the same id'
    })
  }, 'Dashboard'),
  search: group({
    enabled: flag(true, 'Serve search and keep its text index in memory', { env: ['ARCP_SEARCH'] }),
    topK: Type.Integer({
      minimum: 1, maximum: 100, default: 10, description: 'Default number of search results', env: ['VECTOR_SEARCH_TOP_K']
    }),
    minSimilarity: Type.Number({
      minimum: 0,
      maximum: 1,
      default: 0.5,
      description: 'Default minimum similarity of search results',
      env: ['VECTOR_SEARCH_MIN_SIMILARITY']
    })
  }, 'Search'),
  metricsScrapeToken: Type.Optional(Type.String({
    minLength: 16, pattern: '^\\S+$', description: 'Bearer token that may read `/metrics/scrape`', env: ['METRICS_SCRAPE_TOKEN']
  })),
  storage: Type.Union([Type.Literal('memory'), Type.Literal('level'), Type.Literal('redis'), customStorage], {
    default: 'memory',
    description: 'Storage of agents, sessions and the change feed: memory, level (a folder, one process), redis (several processes) ' +
      'or an object with stores of the host application',
    env: ['STORE']
  }),
  level: group({
    path: Type.String({ minLength: 1, default: './data', description: 'Folder of the level storage', env: ['ARCP_DATA_DIR'] }),
    durability: Type.Union([Type.Literal('commit'), Type.Literal('sync')], {
      default: 'commit',
      description: 'Durability of acknowledged writes: `commit` survives the end of the process, `sync` also survives power loss',
      env: ['DURABILITY']
    })
  }, 'Level storage'),
  redis: group({
    url: Type.Optional(Type.String({
      pattern: '^(rediss?:/)?/\\S+$',
      description: 'URL of Redis, or the path of its socket; takes precedence over `host`, `port`, `db`, `username`, `password` ' +
        'and `tls`',
      env: ['REDIS_URL']
    })),
    host: Type.Optional(Type.String({ minLength: 1, description: 'Host of Redis; default: 127.0.0.1', env: ['REDIS_HOST'] })),
    port: Type.Integer({ minimum: 1, maximum: 65_535, default: 6379, description: 'Port of Redis', env: ['REDIS_PORT'] }),
    db: Type.Integer({ minimum: 0, default: 0, description: 'Number of the Redis database', env: ['REDIS_DB'] }),
    username: Type.Optional(Type.String({ minLength: 1, description: 'User name for Redis', env: ['REDIS_USERNAME'] })),
    password: Type.Optional(Type.String({ minLength: 1, description: 'Password for Redis', env: ['REDIS_PASSWORD'] })),
    tls: flag(false, 'Use TLS for connections to Redis', { env: ['REDIS_TLS'] }),
    sentinels: addressList('Redis Sentinels, as `host:port`', 'REDIS_SENTINELS'),
    sentinelName: Type.Optional(Type.String({
      minLength: 1, description: 'Name of the master that the Sentinels monitor', env: ['REDIS_SENTINEL_NAME']
    })),
    cluster: addressList('Nodes of a Redis Cluster, as `host:port`', 'REDIS_CLUSTER'),
    commandTimeoutMs: ms(2_000, 'Timeout of a command', { env: ['REDIS_COMMAND_TIMEOUT_MS'] }),
    probeIntervalMs: ms(2_000, 'Interval of connection probes', { env: ['REDIS_PROBE_INTERVAL_MS'] }),
    client: instance<Redis | Cluster>(
      'Redis | Cluster',
      'An ioredis client to use instead of the other connection options. The registry duplicates it for its own connections and ' +
        'never closes it'
    )
  }, 'Redis storage'),
  onRegister: hook<OnRegisterHook>('OnRegisterHook', 'Called before a registration is stored; an error refuses it'),
  authenticate: hook<AuthenticateHook>('AuthenticateHook', 'Verifies bearer tokens that this registry did not issue'),
  authorizePublish: hook<AuthorizePublishHook>('AuthorizePublishHook',
    'Called before a message is published to a channel; any result other than `true` refuses it'
  ),
  authorizeSubscribe: hook<AuthorizeSubscribeHook>('AuthorizeSubscribeHook',
    'Called before a connection is subscribed to a channel or pattern; any result other than `true` refuses it'
  ),
  embed: hook<EmbedHook>('EmbedHook', 'Returns the embedding vectors of texts; enables semantic search'),
  publicView: hook<PublicViewHook>('PublicViewHook', 'Returns the form of a registration that the public tier shows')
}, { additionalProperties: false })

/** The options with every default filled in. */
export type ResolvedOptions = Static<typeof OptionsSchema>

function isPlainObject (value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && Object.getPrototypeOf(value) === Object.prototype
}

/** Copies the plain objects and arrays of `value`. Class instances and functions are kept by reference. */
function copy (value: unknown): unknown {
  if (Array.isArray(value)) return value.map(copy)
  if (!isPlainObject(value)) return value
  return Object.fromEntries(Object.entries(value).filter(([, v]) => v !== undefined).map(([k, v]) => [k, copy(v)]))
}

/**
 * Checks options and fills in the defaults.
 * @throws AGENT_REGISTRY_INVALID_OPTIONS with the name of each invalid option, the fault and the expected value
 */
export function resolveOptions (input: unknown): ResolvedOptions {
  const given = isPlainObject(input) ? input : {}
  // A custom storage is kept by reference, even if it is a plain object.
  const custom = typeof given.storage === 'object' && given.storage !== null ? given.storage : undefined
  const options = Value.Default(OptionsSchema, custom ? copy({ ...given, storage: undefined }) : copy(input ?? {}))
  if (isPlainObject(options) && custom) options.storage = custom
  const findings = new Map<string, string>()
  for (const { path, message, schema } of Value.Errors(OptionsSchema, options)) {
    const hint = typeof schema.description === 'string' ? ` (${schema.description})` : ''
    if (!findings.has(path)) findings.set(path, `${path.slice(1).replaceAll('/', '.') || 'options'}: ${message}${hint}`)
  }
  if (findings.size > 0) throw new OptionsError([...findings.values()].join('; '))
  return options as ResolvedOptions
}

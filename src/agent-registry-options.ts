// Generated from OptionsSchema (options.ts) by `npm run docs`. Do not edit.
import type { Cluster, Redis } from 'ioredis'
import type { AuthenticateHook, AuthorizePublishHook, AuthorizeSubscribeHook, EmbedHook, OnRegisterHook, PublicViewHook } from './hooks.js'
import type { CustomStorage } from './storage/storage.js'

/** The options of the plugin. */
export interface AgentRegistryOptions {
  /** Path prefix of every route; existing ARCP clients require an empty prefix. Default: `''` */
  prefix?: string
  /** Name of the decorator on the Fastify instance. Default: `'agentRegistry'` */
  decorateAs?: string
  /** Separates registries that share a secret or a store; part of every token. Default: `'default'` */
  namespace?: string
  /** URL at which clients reach this registry */
  publicUrl?: string
  /** Base of the problem type URIs; default: `<prefix>/problems/` */
  problemBase?: string
  /** Groups of routes to serve */
  routes?: {
    /** Serve `GET /`. Default: `false` */
    root?: boolean
    /** Serve `/health` and the routes below it. Default: `true` */
    health?: boolean
    /** Serve `/.well-known/*`. Default: `true` */
    wellKnown?: boolean
    /** Serve `/metrics` and `/metrics/scrape`. Default: `true` */
    metrics?: boolean
    /** Serve `/dashboard/config` and the dashboard tier. Default: `true` */
    dashboard?: boolean
    /** Serve `/v1`: the tier for clients of the Metered realtime protocol, and its HTTP routes. Default: `false` */
    v1?: boolean
    /** Serve `/docs`, `/openapi.json` and `/asyncapi.json`. Default: `false` */
    docs?: boolean
  }
  /**
   * Values of agent_type that may register, case-insensitive; `*` allows all. Default:
   * `['security','monitoring','automation','networking','testing']`
   */
  allowedAgentTypes?: string[]
  /**
   * Keys with which agents register: strings of 10 to 200 characters, or objects with `key`, `exclusive`, `ids`, `types`,
   * `capabilities` and `maxAgents`
   */
  agentKeys?: Array<string | {
    key: string
    /** May register its agents again while they are alive. Default: `false` */
    exclusive?: boolean
    ids?: string[]
    types?: string[]
    capabilities?: string[]
    maxAgents?: number
  }>
  /**
   * Publishable keys, which open `/v1` from a browser without a token: objects with `key`, `channels`, `permissions`, `origins`
   * and `maxConnections`
   */
  peerKeys?: Array<{
    key: string
    /** Channel names. A trailing `*` matches characters up to the next `/`, a trailing `**` also matches across `/` */
    channels: string[]
    permissions: Array<'publish' | 'subscribe' | 'presence' | 'send'>
    origins?: string[]
    maxConnections?: number
  }>
  /** Keys of back ends for the HTTP routes below `/v1`, in the form `id:secret` with a secret of at least 16 characters */
  secretKeys?: string[]
  /** Optional fields of a record that the public tier shows; default: all. Fields that clients require are always shown */
  publicFields?: string[]
  /** Tokens */
  jwt?: {
    /**
     * Secret of at least 32 characters, or a list: the first one signs, all verify. Without it, a random secret is generated and
     * kept in the storage
     */
    secret?: string | string[]
    /** Signature algorithm: HS256, HS384 or HS512. Default: `'HS256'` */
    algorithm?: 'HS256' | 'HS384' | 'HS512'
    /** Lifetime of agent and user tokens (ms). Default: `216000000` */
    expiresInMs?: number
  }
  /** Admin account and sessions */
  admin?: {
    /** User name of the admin. Default: `'admin'` */
    username?: string
    /** Password of the admin; without it, admin login is disabled */
    password?: string
    /** Lifetime of an admin session (ms). Default: `1800000` */
    sessionTimeoutMs?: number
    /** Maximum number of sessions of an admin; a further login ends the oldest. Default: `5` */
    maxSessions?: number
  }
  /** Brute-force limits */
  attempts?: {
    /** Maximum burst of failed logins, PINs or keys of an address or account. Default: `20` */
    burst?: number
    /** Time after which a full burst is available again (ms). Default: `900000` */
    windowMs?: number
  }
  /** Liveness */
  lease?: {
    /** Time without a heartbeat after which an agent is dead (ms). Default: `60000` */
    durationMs?: number
    /** Time after which a dead agent is removed (ms). Default: `3600000` */
    retentionMs?: number
    /** Interval at which dead agents past their retention are removed (ms). Default: `60000` */
    cleanupIntervalMs?: number
    /** Self-preservation: hold leases when an implausible number of them end at once. Default: `true` */
    preservation?: boolean
  }
  /** Sizes and quotas */
  limits?: {
    /** Maximum number of agents. Default: `1000000` */
    maxAgents?: number
    /** Maximum size of a registration as JSON (bytes). Default: `131072` */
    maxRecordBytes?: number
    /** Maximum size of a request body (bytes). Default: `1048576` */
    maxBodyBytes?: number
    /** Maximum number of query parameters. Default: `50` */
    maxQueryParams?: number
    /** Maximum size of all header names and values (bytes). Default: `8192` */
    maxHeaderBytes?: number
    /** Timeout of the hooks of the host application (ms). Default: `5000` */
    hookTimeoutMs?: number
  }
  /** Admission rates of this process, which spread the reconnects of a fleet */
  admission?: {
    /** Sustained rate of registrations over HTTP (per second); further ones are answered with 429. Default: `2000` */
    registrationsPerSecond?: number
    /** Sustained rate of new sockets and event streams (per second); further ones are answered with 503. Default: `1000` */
    upgradesPerSecond?: number
    /** Maximum burst of either. Default: `500` */
    burst?: number
  }
  /** Address lists, for requests and upgrades */
  addresses?: {
    /** Addresses and CIDR ranges to refuse */
    blocked?: string[]
    /** Addresses and CIDR ranges to allow when `defaultDeny` is on */
    allowed?: string[]
    /** Refuse every address that is not in `allowed`. Default: `false` */
    defaultDeny?: boolean
  }
  /** Change feed */
  feed?: {
    /** Number of changes kept for watchers that resume. Default: `10000` */
    ringSize?: number
    /** Maximum interval of bookmarks (ms). Default: `30000` */
    bookmarkIntervalMs?: number
    /**
     * Time without data after which an event stream sends a comment; a stream whose client reads nothing for two of these
     * intervals is closed (ms). Default: `15000`
     */
    keepAliveMs?: number
    /** Maximum number of open event streams and long polls; further ones are answered with 503. Default: `1000` */
    maxStreams?: number
    /** Maximum number of open event streams and long polls of one agent, user or admin. Default: `100` */
    maxStreamsPerCaller?: number
    /** Maximum number of open event streams and long polls from one address. Default: `500` */
    maxStreamsPerAddress?: number
  }
  /** All sockets */
  sockets?: {
    /** Minimum interval of `agents_update` frames on the public tier (ms). Default: `1000` */
    agentsUpdateIntervalMs?: number
    /** Maximum number of agents in an unrequested list. Default: `100` */
    maxAgentsPerUpdate?: number
    /** Maximum size of an unrequested list (bytes). Default: `131072` */
    maxUpdateBytes?: number
    /** Unsent bytes after which a slow consumer is closed with 4008 (bytes). Default: `4194304` */
    maxBufferedBytes?: number
    /** Maximum number of unauthenticated sockets per tier. Default: `64` */
    maxUnauthenticated?: number
    /** Maximum number of unauthenticated sockets per address. Default: `8` */
    maxUnauthenticatedPerAddress?: number
    /** Maximum number of sockets of all tiers from one address; further upgrades are answered with 503. Default: `10000` */
    maxConnectionsPerAddress?: number
    /**
     * Sustained rate of frames of all sockets of one agent, user or admin in this process (per second); default: twice the rate
     * of a connection
     */
    messagesPerSecondPerPrincipal?: number
    /** Maximum burst of frames of one agent, user or admin; default: twice the burst of a connection */
    burstPerPrincipal?: number
    /**
     * Sustained rate of frames of all sockets from one address (per second); default: ten times the rate of a connection, or the
     * number of sockets of all tiers if that is more
     */
    messagesPerSecondPerAddress?: number
    /**
     * Maximum burst of frames from one address; default: ten times the burst of a connection, or twice the number of sockets of
     * all tiers if that is more
     */
    burstPerAddress?: number
    /**
     * Origins whose pages may open sockets, such as `https://app.example.com`. `*` matches one label of a host name; alone it
     * allows all origins. An empty list allows all origins. Requests without an `Origin` header are not checked
     */
    allowedOrigins?: string[]
    /**
     * Accept permessage-deflate for frames over 1 KiB when a client offers it. It costs much processor time and saves little on
     * a local network. It has no effect in a host that registered @fastify/websocket itself. Default: `false`
     */
    compression?: boolean
    /** Time over which sockets are closed on shutdown (ms). Default: `5000` */
    drainMs?: number
  }
  /** The tier `/public/ws` */
  publicWs?: {
    /** Path of this tier, relative to the prefix. Default: `'/public/ws'` */
    path?: string
    /** Interval of `stats_update` frames (ms). Default: `30000` */
    intervalMs?: number
    /** Timeout for the answer to a close frame (ms). Default: `30000` */
    timeoutMs?: number
    /**
     * Time without a client frame after which the server pings; a connection without activity for two of these intervals is
     * terminated (ms). Default: `30000`
     */
    pingIntervalMs?: number
    /**
     * Time after which a socket that sends only pings and pongs is closed with 4028, even if it watches the registry; default:
     * never (ms)
     */
    idleTimeoutMs?: number
    /** Maximum number of sockets of this tier; further upgrades are answered with 503. Default: `100` */
    maxConnections?: number
    /**
     * Maximum number of sockets of this tier in all processes that share a store, counted twice a second; further upgrades are
     * answered with 503
     */
    maxFleetConnections?: number
    /** Maximum size of a frame (bytes). Default: `4096` */
    maxMessageSize?: number
    /** Sustained rate of frames of a connection (frames per second). Default: `100` */
    messagesPerSecond?: number
    /** Maximum burst of frames of a connection. Default: `200` */
    burst?: number
  }
  /** The tier `/dashboard/ws` */
  dashboardWs?: {
    /** Path of this tier, relative to the prefix. Default: `'/dashboard/ws'` */
    path?: string
    /** Interval of data frames (ms). Default: `5000` */
    intervalMs?: number
    /** Timeout for authentication, and for the answer to a close frame (ms). Default: `10000` */
    timeoutMs?: number
    /**
     * Time without a client frame after which the server pings; a connection without activity for two of these intervals is
     * terminated (ms). Default: `30000`
     */
    pingIntervalMs?: number
    /**
     * Time after which a socket that sends only pings and pongs is closed with 4028, even if it watches the registry; default:
     * never (ms)
     */
    idleTimeoutMs?: number
    /** Maximum number of sockets of this tier; further upgrades are answered with 503. Default: `5` */
    maxConnections?: number
    /**
     * Maximum number of sockets of this tier in all processes that share a store, counted twice a second; further upgrades are
     * answered with 503
     */
    maxFleetConnections?: number
    /** Maximum size of a frame (bytes). Default: `65536` */
    maxMessageSize?: number
    /** Sustained rate of frames of a connection (frames per second). Default: `100` */
    messagesPerSecond?: number
    /** Maximum burst of frames of a connection. Default: `200` */
    burst?: number
  }
  /** The tier `/agents/ws` */
  agentsWs?: {
    /** Path of this tier, relative to the prefix. Default: `'/agents/ws'` */
    path?: string
    /** Minimum interval of agent lists (ms). Default: `5000` */
    intervalMs?: number
    /** Timeout for authentication, and for the answer to a close frame (ms). Default: `10000` */
    timeoutMs?: number
    /**
     * Time without a client frame after which the server pings; a connection without activity for two of these intervals is
     * terminated (ms). Default: `30000`
     */
    pingIntervalMs?: number
    /**
     * Time after which a socket that sends only pings and pongs is closed with 4028, even if it watches the registry; default:
     * never (ms)
     */
    idleTimeoutMs?: number
    /** Maximum number of sockets of this tier; further upgrades are answered with 503. Default: `100` */
    maxConnections?: number
    /**
     * Maximum number of sockets of this tier in all processes that share a store, counted twice a second; further upgrades are
     * answered with 503
     */
    maxFleetConnections?: number
    /** Maximum size of a frame (bytes). Default: `65536` */
    maxMessageSize?: number
    /** Sustained rate of frames of a connection (frames per second). Default: `100` */
    messagesPerSecond?: number
    /** Maximum burst of frames of a connection. Default: `200` */
    burst?: number
  }
  /** The tier `/v1` */
  v1Ws?: {
    /** Path of this tier, relative to the prefix. Default: `'/v1'` */
    path?: string
    /** Timeout for the answer to a close frame (ms). Default: `10000` */
    timeoutMs?: number
    /**
     * Time without a client frame after which the server pings; a connection without activity for two of these intervals is
     * terminated (ms). Default: `30000`
     */
    pingIntervalMs?: number
    /**
     * Time after which a socket that sends only pings and pongs is closed with 4028, even if it watches the registry; default:
     * never (ms)
     */
    idleTimeoutMs?: number
    /** Maximum number of sockets of this tier; further upgrades are answered with 503. Default: `100` */
    maxConnections?: number
    /**
     * Maximum number of sockets of this tier in all processes that share a store, counted twice a second; further upgrades are
     * answered with 503
     */
    maxFleetConnections?: number
    /** Maximum size of a frame (bytes). Default: `65536` */
    maxMessageSize?: number
    /** Sustained rate of frames of a connection (frames per second). Default: `100` */
    messagesPerSecond?: number
    /** Maximum burst of frames of a connection. Default: `200` */
    burst?: number
  }
  /** Messaging: channels, inboxes, requests and presence */
  messaging?: {
    /** Maximum number of sockets of one peer on `/v1` in this process; a further one is closed with 4010. Default: `100` */
    maxConnectionsPerPeer?: number
    /** Maximum number of subscriptions of a connection. Default: `100` */
    maxSubscriptions?: number
    /** Maximum number of open requests of a connection. Default: `100` */
    maxRequests?: number
    /** Maximum number of open requests of a process. Default: `10000` */
    maxRequestsPerProcess?: number
    /** Maximum number of messages kept of a channel or inbox. Default: `1000` */
    historyEntries?: number
    /** Maximum size of the messages kept of a channel or inbox (bytes). Default: `4194304` */
    historyBytes?: number
    /** Time for which a message is kept (ms). Default: `3600000` */
    historyAgeMs?: number
    /** Time for which a `msgId` is remembered (ms). Default: `300000` */
    msgIdMs?: number
    /** Time after which the peers of a crashed process leave (ms). Default: `15000` */
    presenceTtlMs?: number
  }
  /** Dashboard */
  dashboard?: {
    /** Number of log entries and alerts kept. Default: `10000` */
    logCapacity?: number
    /** Maximum length of a log message (characters). Default: `2048` */
    logMessageLength?: number
    /** Maximum number of entries of a `logs` frame. Default: `200` */
    maxLogsPerFrame?: number
    /** Refuse `auth` frames without the fingerprint of the session. Default: `false` */
    requireFingerprint?: boolean
    /** Response time above which a request is logged on the dashboard (ms). Default: `2000` */
    slowRequestMs?: number
    /** Network capacity that counts as full utilisation (megabits per second). Default: `1000` */
    networkCapacityMbps?: number
    /** Alert rules in addition to the defaults; a rule replaces the default with the same id */
    alertRules?: Array<{
      /** The id of a built-in rule replaces that rule */
      id: string
      /** Of all rules of a type, only the most severe that applies is raised */
      type: string
      metric:
        | 'avg_response_time'
        | 'error_rate'
        | 'total_requests'
        | 'registry_avg_response_time'
        | 'registry_error_rate'
        | 'registry_total_requests'
        | 'agents_total'
        | 'agents_active'
        | 'agents_ratio'
        | 'agents_condition'
        | 'storage_status'
        | 'ai_status'
        | 'system_status'
        | 'cpu'
        | 'memory'
        | 'storage'
        | 'network'
      /** Default: `'>'` */
      comparison?: '>' | '>=' | '<' | '<=' | '='
      /** Response times in seconds, rates from 0 to 1, resources in percent; text with `=` only */
      threshold: number | string
      /** Time for which the condition must hold without interruption (ms). Default: `0` */
      forMs?: number
      severity?: 'critical' | 'warning' | 'info'
      /** Minimum time between two alerts of this rule; default by severity: 5, 15 and 60 minutes (ms) */
      cooldownMs?: number
      title?: string
      /** Placeholders: `{value}`, `{percent}`, `{threshold}` and the names of details */
      message: string
    }>
  }
  /** Search */
  search?: {
    /** Serve search and keep its text index in memory. Default: `true` */
    enabled?: boolean
    /** Default number of search results. Default: `10` */
    topK?: number
    /** Default minimum similarity of search results. Default: `0.5` */
    minSimilarity?: number
  }
  /** Bearer token that may read `/metrics/scrape` */
  metricsScrapeToken?: string
  /**
   * Storage of agents, sessions and the change feed: memory, level (a folder, one process), redis (several processes) or an
   * object with stores of the host application. Default: `'memory'`
   */
  storage?: 'memory' | 'level' | 'redis' | CustomStorage
  /** Level storage */
  level?: {
    /** Folder of the level storage. Default: `'./data'` */
    path?: string
    /**
     * Durability of acknowledged writes: `commit` survives the end of the process, `sync` also survives power loss. Default:
     * `'commit'`
     */
    durability?: 'commit' | 'sync'
  }
  /** Redis storage */
  redis?: {
    /** URL of Redis, or the path of its socket; takes precedence over `host`, `port`, `db`, `username`, `password` and `tls` */
    url?: string
    /** Host of Redis; default: 127.0.0.1 */
    host?: string
    /** Port of Redis. Default: `6379` */
    port?: number
    /** Number of the Redis database. Default: `0` */
    db?: number
    /** User name for Redis */
    username?: string
    /** Password for Redis */
    password?: string
    /** Use TLS for connections to Redis. Default: `false` */
    tls?: boolean
    /** Redis Sentinels, as `host:port` */
    sentinels?: string[]
    /** Name of the master that the Sentinels monitor */
    sentinelName?: string
    /** Nodes of a Redis Cluster, as `host:port` */
    cluster?: string[]
    /** Timeout of a command (ms). Default: `2000` */
    commandTimeoutMs?: number
    /** Interval of connection probes (ms). Default: `2000` */
    probeIntervalMs?: number
    /**
     * An ioredis client to use instead of the other connection options. The registry duplicates it for its own connections and
     * never closes it
     */
    client?: Redis | Cluster
  }
  /** Called before a registration is stored; an error refuses it */
  onRegister?: OnRegisterHook
  /** Verifies bearer tokens that this registry did not issue */
  authenticate?: AuthenticateHook
  /** Called before a message is published to a channel; any result other than `true` refuses it */
  authorizePublish?: AuthorizePublishHook
  /** Called before a connection is subscribed to a channel or pattern; any result other than `true` refuses it */
  authorizeSubscribe?: AuthorizeSubscribeHook
  /** Returns the embedding vectors of texts; enables semantic search */
  embed?: EmbedHook
  /** Returns the form of a registration that the public tier shows */
  publicView?: PublicViewHook
}

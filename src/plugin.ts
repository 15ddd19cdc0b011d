import type { FastifyBaseLogger, FastifyInstance, FastifyPluginAsync, FastifyRequest } from 'fastify'
import fp from 'fastify-plugin'
import auth from '../plugins/auth.js'
import docs from '../plugins/docs.js'
import freshness from '../plugins/freshness.js'
import jwt from '../plugins/jwt.js'
import limits from '../plugins/limits.js'
import metrics from '../plugins/metrics.js'
import problems, { problemBaseOf } from '../plugins/problems.js'
import validation from '../plugins/validation.js'
import websocket from '../plugins/websocket.js'
import agentMetricsRoutes from '../routes/agent-metrics.js'
import agentRoutes from '../routes/agents.js'
import authRoutes from '../routes/auth.js'
import dashboardRoutes from '../routes/dashboard.js'
import feedRoutes from '../routes/feed.js'
import healthRoutes from '../routes/health.js'
import metricsRoutes from '../routes/metrics.js'
import publicRoutes from '../routes/public.js'
import rootRoutes, { wellKnownRoutes } from '../routes/root.js'
import socketRoutes from '../routes/sockets.js'
import tokenRoutes from '../routes/tokens.js'
import v1Routes from '../routes/v1.js'
import type { AgentRegistryOptions } from './agent-registry-options.js'
import { createApi, type AgentRegistry } from './api.js'
import { Attempts } from './auth/attempts.js'
import { Authority } from './auth/authority.js'
import { KeyRing, PersistedSecrets } from './auth/keys.js'
import { PasswordHasher } from './auth/passwords.js'
import { PeerKeys, PeerTokens, SecretKeys } from './auth/peers.js'
import { Revocations } from './auth/revocations.js'
import { isImpostor } from './auth/rights.js'
import { Sessions } from './auth/sessions.js'
import { Tickets } from './auth/tickets.js'
import { OneTimeTokens, Tokens } from './auth/tokens.js'
import { Dashboard } from './dashboard/dashboard.js'
import { FrameProducer } from './dashboard/producer.js'
import { AlreadyRegisteredError } from './errors.js'
import { Idempotency } from './http/idempotency.js'
import { collectMethods } from './http/methods.js'
import { hideQueries } from './http/requests.js'
import { monotonicClock } from './lib/clock.js'
import { Admission } from './limits/admission.js'
import { LongRequests } from './limits/long-requests.js'
import { Messaging } from './messaging/messaging.js'
import { resolveOptions, type ResolvedOptions } from './options.js'
import { closeCodes } from './protocol/codes.js'
import type { Principal } from './protocol/principal.js'
import { hideableFields } from './protocol/schemas/agent.js'
import { Enrollment } from './registry/enrollment.js'
import { Feed } from './registry/feed/change-log.js'
import { FeedSubscribers } from './registry/feed/subscribers.js'
import { Registry } from './registry/registry.js'
import { Search } from './search/search.js'
import { drainGraceMs } from './sockets/drain.js'
import { createSockets } from './sockets/sockets.js'
import { KeyValueReplica } from './storage/kv-store.js'
import { MemoryKeyValueStore } from './storage/memory/kv-store.js'
import { createStorage } from './storage/storage.js'
import { isLoopback } from './webhooks/addresses.js'
import { Webhooks } from './webhooks/webhooks.js'

declare module 'fastify' {
  interface FastifyInstance {
    /** The registry; under another name if `decorateAs` is set. */
    agentRegistry: AgentRegistry
  }
}

const tempTokenLifeMs = 900_000
const sessionSweepMs = 1_000

type Store = Awaited<ReturnType<typeof createStore>>
type Services = Awaited<ReturnType<typeof createServices>>

function errorLogger (log: FastifyBaseLogger, component: string) {
  return function logError (error: unknown) { log.error({ err: error }, component) }
}

/** Creates the storage that the options select, and the replicas of its content. */
async function createStore (options: ResolvedOptions, log: FastifyBaseLogger) {
  const { lease, limits, feed, allowedAgentTypes, publicFields, onRegister, publicView } = options
  const storage = await createStorage(options, errorLogger(log, 'storage'))
  const kvReplica = new KeyValueReplica(storage.kv)
  const registry = new Registry({
    store: storage.agents,
    leaseMs: lease.durationMs,
    cleanupIntervalMs: lease.cleanupIntervalMs,
    allowedAgentTypes,
    maxAgents: limits.maxAgents,
    maxRecordBytes: limits.maxRecordBytes,
    hookTimeoutMs: limits.hookTimeoutMs,
    ringSize: feed.ringSize,
    hiddenFields: publicFields ? hideableFields.filter(field => !publicFields.includes(field)) : [],
    onRegister,
    publicView,
    onError: errorLogger(log, 'registry')
  })
  let closed: Promise<void> | undefined
  /** Closes the storage once. */
  const close = () => (closed ??= storage.broker.close().finally(() => kvReplica.close()).finally(() => registry.close()))
  return { storage, kvReplica, registry, close }
}

/** The configured secrets of tokens, or one that is persisted in the store. */
async function tokenSecretsOf ({ jwt: { secret } }: ResolvedOptions, persisted: PersistedSecrets): Promise<string[]> {
  if (secret === undefined) return [await persisted.tokens()]
  return typeof secret === 'string' ? [secret] : secret
}

/** Whether the server listens on loopback addresses only. */
function listensOnLoopback (app: FastifyInstance): boolean {
  const addresses = app.addresses()
  return addresses.length > 0 && addresses.every(address => typeof address === 'object' && isLoopback(address.address))
}

/** Creates all services of a registry. */
async function createServices (scope: FastifyInstance, options: ResolvedOptions, { storage, kvReplica, registry }: Store) {
  const { log } = scope
  const { admin, limits, namespace, admission: { upgradesPerSecond: perSecond, burst } } = options
  await registry.open()
  await kvReplica.open()

  // Deadlines in shared state follow the clock of the store, so that all processes agree on them.
  const now = () => storage.agents.now()
  const persisted = new PersistedSecrets(storage.kv)
  const secrets = await tokenSecretsOf(options, persisted)
  kvReplica.onReload(() => { persisted.restore().catch(errorLogger(log, 'secrets')) })
  const keys = new KeyRing(options.agentKeys, await persisted.agentKeys(secrets[0] ?? ''))
  await scope.register(jwt, { secrets, algorithm: options.jwt.algorithm })

  const tokens = new Tokens({ signer: scope.agentRegistrySigner, namespace, expiresInMs: options.jwt.expiresInMs, now })
  const sessions = new Sessions({ kvReplica, timeoutMs: admin.sessionTimeoutMs, maxSessions: admin.maxSessions, now })
  const maxTokenLifeMs = Math.max(options.jwt.expiresInMs, admin.sessionTimeoutMs, tempTokenLifeMs)
  const revocations = new Revocations({ kvReplica, maxTokenLifeMs, now })
  const attempts = new Attempts({ ...options.attempts, kv: storage.kv, now })
  const authority = new Authority({
    tokens,
    keys,
    sessions,
    revocations,
    attempts,
    passwords: new PasswordHasher(),
    admin,
    now,
    hookTimeoutMs: limits.hookTimeoutMs,
    authenticate: options.authenticate,
    currentIncarnation: id => registry.replica.get(id)?.record.incarnation
  })
  const tickets = new Tickets({ kv: storage.kv, now })
  const isRegistered = (id: string) => registry.replica.get(id) !== undefined
  const peerTokens = new PeerTokens({ tokens, now, maxLifeMs: options.jwt.expiresInMs, isRegistered })
  const peerKeys = new PeerKeys(options.peerKeys)
  const secretKeys = new SecretKeys(options.secretKeys, attempts)
  const oneTimeTokens = new OneTimeTokens({ kv: storage.kv, now })
  const enrollment = new Enrollment({ registry, tokens, keys, oneTimeTokens, revocations })

  const search = new Search({
    replica: registry.replica,
    onDifference: listener => registry.on('difference', listener),
    embed: options.embed,
    hookTimeoutMs: limits.hookTimeoutMs,
    defaults: options.search,
    metricsOf: ({ metrics }) => metrics,
    onError: errorLogger(log, 'search')
  })
  const messaging = new Messaging({ broker: storage.broker, registry, options, onError: errorLogger(log, 'messaging') })
  const idempotency = new Idempotency({ kv: storage.kv, now })
  const webhooks = new Webhooks({ now: monotonicClock(), allowLoopback: () => listensOnLoopback(scope) })
  const dashboard = new Dashboard({ options, registry, storageKind: storage.kind, now: monotonicClock(), log })

  const feed = new Feed(registry)
  const subscribers = new FeedSubscribers({ feed, bookmarkIntervalMs: options.feed.bookmarkIntervalMs, now })
  const longRequests = new LongRequests(options.feed)
  // Limits the rate of new sockets and streams.
  const admission = new Admission({ perSecond, burst, now })
  const onError = errorLogger(log, 'socket')
  const sockets = createSockets({
    options, registry, enrollment, authority, messaging, dashboard, peerKeys, kvReplica, feed, subscribers, now, onError
  })
  const { hub, slots } = sockets
  const producer = new FrameProducer({
    now: monotonicClock(),
    intervalMs: options.dashboardWs.intervalMs,
    frames: dashboard.frames,
    logs: dashboard.logs,
    watchers: () => slots.countOf('dashboard'),
    broadcast: (type, text) => sockets.broadcasts.sendToDashboards(type, text)
  })

  return {
    options,
    log,
    now,
    storage,
    storageKind: storage.kind,
    kvReplica,
    registry,
    enrollment,
    authority,
    tokens,
    tickets,
    sessions,
    revocations,
    attempts,
    peerTokens,
    peerKeys,
    secretKeys,
    idempotency,
    search,
    messaging,
    webhooks,
    dashboard,
    producer,
    feed,
    subscribers,
    longRequests,
    admission,
    sockets,
    hub,
    slots
  }
}

/** Records the events that operators see in the log of the dashboards. */
function connectDashboard ({ dashboard, registry, attempts, authority, enrollment }: Services) {
  registry.on('change', change => dashboard.agentChanged(change))
  registry.on('availability', fault => dashboard.storeAvailability(fault))
  registry.on('reload', differences => dashboard.storeReloaded(differences.length))
  attempts.on('lockout', (target, retryAfterMs) => dashboard.lockedOut(target, retryAfterMs))
  authority.on('audit', event => dashboard.audit.record(event))
  enrollment.on('replaced', instance => dashboard.agentReplaced(instance))
}

/** Sends changes to sockets and streams, and closes those whose access has ended. Listeners of an event run in this order. */
function connectSockets ({ registry, revocations, sessions, messaging, sockets, subscribers, longRequests }: Services) {
  const { hub, broadcasts, heartbeats } = sockets

  function endAccess (matches: (principal: Principal) => boolean, code: number, text: string) {
    hub.closeWhere(matches, code, text)
    longRequests.endWhere(matches, text)
  }

  function closeReplaced (id: string, newest: number) {
    heartbeats.closeReplaced(id, newest)
    const isReplaced = ({ type, agentId, incarnation }: Principal) =>
      type === 'agent' && agentId === id && (incarnation ?? Infinity) < newest
    longRequests.endWhere(isReplaced, 'Replaced by a newer instance')
  }

  /** Only the agent itself may use its id as a name from its registration on. */
  function closeImpostors (id: string) {
    if (messaging.peers.of(id).length === 0) return
    const usesName = (principal: Principal) => principal.subject === id && isImpostor(principal, () => true)
    endAccess(usesName, closeCodes.notAllowed, 'This name belongs to an agent')
  }

  registry.on('change', change => {
    const { id, event, before, after } = change
    broadcasts.agentChanged(change)
    subscribers.changed()
    if (event === 'registered' && before && after) closeReplaced(id, after.incarnation)
    if (event === 'registered' && !before) closeImpostors(id)
  })
  registry.on('reload', differences => {
    for (const difference of differences) broadcasts.agentChanged(difference)
    subscribers.changed()
    for (const { id, before, after } of differences) {
      if (before && after && after.incarnation > before.incarnation) closeReplaced(id, after.incarnation)
    }
  })
  revocations.on('revoked', revoked => {
    const isRevoked = 'jti' in revoked
      ? ({ tokenId }: Principal) => tokenId === revoked.jti
      : ({ type, agentId, incarnation }: Principal) =>
          (type === 'agent' || type === 'peer') && agentId === revoked.agentId && (incarnation ?? 0) <= revoked.incarnation
    endAccess(isRevoked, closeCodes.tokenInvalid, 'Token revoked')
  })
  sessions.on('ended', ({ id }, reason) => {
    // A token expires with its session, rounded to seconds: clients receive the same code whichever is noticed first.
    const ofSession = ({ sessionId }: Principal) => sessionId === id
    if (reason === 'expired') endAccess(ofSession, closeCodes.tokenExpired, 'Token expired')
    else endAccess(ofSession, closeCodes.tokenInvalid, 'Session ended')
  })
}

/** Keeps the services of a connection informed about its state. Listeners of an event run in this order. */
function connectHub ({ messaging, sockets: { hub, tiers, heartbeats, watches } }: Services) {
  hub.on('authenticated', connection => { heartbeats.add(connection) })
  hub.on('renewed', (connection, previous) => {
    heartbeats.replace(connection, previous)
    if (connection.isPeer) messaging.tokenChanged(connection)
  })
  hub.on('closed', (connection, wasClean) => {
    watches.stop(connection)
    if (connection.isPeer) messaging.removePeer(connection)
    heartbeats.remove(connection, wasClean)
    tiers[connection.tier.name].handshake?.closed(connection)
  })
}

/** Returns a listener that records refused requests in the audit log. */
function forbiddenListener ({ dashboard }: Services) {
  return function recordForbidden ({ message }: Error, { method, routeOptions, ip, agentRegistryPrincipal: principal }: FastifyRequest) {
    const target = `${method} ${routeOptions.url ?? 'unmatched'}`
    const details = { user_role: principal?.role, error: message }
    dashboard.audit.record({ type: 'permission_denied', subject: principal?.subject, target, address: ip, details })
  }
}

/** Registers the plugins that all routes use. They also apply to upgrades. */
async function registerPlugins (scope: FastifyInstance, services: Services, hasPrefix: boolean) {
  const { options, authority, sockets: { tiers, hub } } = services
  const { publicWs, agentsWs, dashboardWs, v1Ws, routes, prefix, sockets: { compression } } = options
  const paths = new Set([publicWs, agentsWs, dashboardWs, ...(routes.v1 ? [v1Ws] : [])].map(({ path }) => prefix + path))

  // Without a prefix, unknown paths belong to the host.
  await scope.register(problems, { base: problemBaseOf(options), onForbidden: forbiddenListener(services), handlesNotFound: hasPrefix })
  await scope.register(auth, { authority })
  await scope.register(metrics, services)
  await scope.register(limits, { options })
  await scope.register(validation)
  await scope.register(websocket, { paths, timeoutMs: agentsWs.timeoutMs, isCompressing: compression })
  if (routes.docs) await scope.register(docs, { options, tiers: Object.values(tiers) })
  // A keep-alive connection would delay the shutdown until it times out.
  scope.addHook('onSend', function closeConnection (_request, reply, _payload, done) {
    if (hub.isDraining) reply.header('connection', 'close')
    done()
  })
}

/** Registers all routes. */
async function registerRoutes (scope: FastifyInstance, services: Services) {
  const { options: { routes }, sockets, log } = services
  const { public: publicTier, agents, dashboard, v1 } = sockets.tiers
  const tiers = [publicTier, agents, ...(routes.v1 ? [v1] : []), ...(routes.dashboard ? [dashboard] : [])]
  const refuseOtherMethods = collectMethods(scope)

  await scope.register(rootRoutes, services)
  if (routes.health) await scope.register(healthRoutes, services)
  if (routes.wellKnown && !scope.prefix) await scope.register(wellKnownRoutes, services)
  await scope.register(authRoutes, { ...services, prefix: '/auth' })
  await scope.register(tokenRoutes, services)
  await scope.register(async function registryRoutes (reads) {
    await reads.register(freshness, services)
    await reads.register(agentRoutes, { ...services, prefix: '/agents' })
    await reads.register(feedRoutes, { ...services, prefix: '/agents' })
    await reads.register(agentMetricsRoutes, { ...services, prefix: '/agents' })
    await reads.register(publicRoutes, { ...services, prefix: '/public' })
  })
  await scope.register(socketRoutes, { sockets, tiers, upgrades: services, log, onError: errorLogger(log, 'socket') })
  if (routes.v1) await scope.register(v1Routes, { ...services, onForbidden: forbiddenListener(services), prefix: '/v1' })
  if (routes.metrics) await scope.register(metricsRoutes, services)
  if (routes.dashboard) await scope.register(dashboardRoutes, { ...services, prefix: '/dashboard' })
  refuseOtherMethods()
}

/** Starts all timers, and stops them when the app closes. */
async function startServices (scope: FastifyInstance, services: Services) {
  const { options, now, sessions, search, messaging, webhooks, dashboard, producer, subscribers, longRequests, sockets } = services
  const { feed: { bookmarkIntervalMs, keepAliveMs }, sockets: { drainMs } } = options
  if (options.search.enabled) search.open()
  await messaging.open()
  sockets.start()
  producer.start()
  dashboard.logs.add({ level: 'INFO', message: 'Monitoring started', source: 'system' })
  const feedTimer = setInterval(function tickFeed () {
    const time = now()
    subscribers.tick(time)
    longRequests.tick(time)
  }, Math.max(20, Math.min(1000, bookmarkIntervalMs / 4, keepAliveMs / 4))).unref()
  const sessionTimer = setInterval(function sweepSessions () { sessions.sweep() }, sessionSweepMs).unref()

  scope.addHook('preClose', async function drainConnections () {
    clearInterval(sessionTimer)
    await Promise.all([sockets.hub.drain(drainMs), longRequests.drain(drainMs)])
    sockets.stop()
    producer.stop()
    clearInterval(feedTimer)
    subscribers.close()
  })
  scope.addHook('onClose', async function closeServices () {
    search.close()
    messaging.close()
    webhooks.close()
  })
}

function warnOfOptions ({ options, storage, log }: Services, pluginTimeout = 0) {
  const { admin, agentKeys, sockets: { drainMs } } = options
  if (options.jwt.secret === undefined && storage.kv instanceof MemoryKeyValueStore) {
    log.warn({ option: 'jwt.secret' }, 'Tokens are signed with a secret that was generated for this run; they are invalid after a restart')
  }
  if (admin.password === undefined) log.info({ option: 'admin.password' }, 'Admin login is disabled because no password is set')
  if (agentKeys.length === 0) log.info({ option: 'agentKeys' }, 'Only the host and admins can register agents: no agent keys are set')
  if (pluginTimeout > 0 && drainMs + drainGraceMs >= pluginTimeout) {
    log.warn({ option: 'sockets.drainMs', pluginTimeout }, 'Fastify aborts the shutdown while sockets drain: increase its pluginTimeout')
  }
}

/** `/.well-known/*` is served at the origin whatever the prefix is, and belongs to the first registry there. */
function isFirstAtOrigin (app: FastifyInstance): boolean {
  return app.prefix === '' && !app.hasRoute({ method: 'GET', url: '/.well-known/jwks.json' })
}

async function wellKnownScope (scope: FastifyInstance, { options }: { options: ResolvedOptions }) {
  await scope.register(problems, { base: problemBaseOf(options), handlesNotFound: false })
  const refuseOtherMethods = collectMethods(scope)
  await scope.register(wellKnownRoutes, { options })
  refuseOtherMethods()
}

/**
 * The plugin: `await app.register(agentRegistry, { agentKeys: ['…'] })`.
 * @throws AGENT_REGISTRY_INVALID_OPTIONS, AGENT_REGISTRY_ALREADY_REGISTERED, and the errors of a store that cannot be opened
 */
async function agentRegistry (app: FastifyInstance, input: AgentRegistryOptions = {}): Promise<void> {
  const { prefix, ...given } = resolveOptions(input)
  const options = { ...given, prefix: app.prefix.replace(/\/$/, '') + prefix }
  if (app.hasDecorator(options.decorateAs)) throw new AlreadyRegisteredError(options.decorateAs)

  await app.register(async function agentRegistryScope (scope) {
    hideQueries(scope)
    const store = await createStore(options, scope.log)
    scope.addHook('onClose', async function closeStore () { await store.close() })
    try {
      const services = await createServices(scope, options, store)
      app.decorate(options.decorateAs, createApi(services))
      warnOfOptions(services, app.initialConfig.pluginTimeout)
      connectDashboard(services)
      connectSockets(services)
      connectHub(services)
      await registerPlugins(scope, services, prefix !== '')
      await scope.register(async function routes (child) { await registerRoutes(child, services) })
      await startServices(scope, services)
    } catch (error) {
      await store.close()
      throw error
    }
  }, { prefix })
  if (options.routes.wellKnown && isFirstAtOrigin(app)) await app.register(wellKnownScope, { options })
}

// Typed explicitly, so that TypeScript infers the parameters of inline hooks.
const plugin: FastifyPluginAsync<AgentRegistryOptions> = fp(agentRegistry, { name: 'fastify-agent-registry', fastify: '5.x' })

export default plugin

import type { FastifyInstance, FastifyPluginAsync, FastifyRequest } from 'fastify'
import fp from 'fastify-plugin'
import docs, { collectOpenapi } from '../plugins/docs.js'
import { addFreshness } from '../plugins/freshness.js'
import { registerJwt } from '../plugins/jwt.js'
import limits from '../plugins/limits.js'
import { collectMethods } from './http/methods.js'
import { createMetrics, reportAnswers } from '../plugins/metrics.js'
import { createProblemHandlers } from '../plugins/problems.js'
import { hideQueries } from './http/request-log.js'
import validation from '../plugins/validation.js'
import websocket from '../plugins/websocket.js'
import agentMetricsRoutes from '../routes/agent-metrics.js'
import agentRoutes from '../routes/agents.js'
import authRoutes from '../routes/auth.js'
import connectionRoutes from '../routes/connections.js'
import dashboardRoutes from '../routes/dashboard.js'
import feedRoutes from '../routes/feed.js'
import healthRoutes from '../routes/health.js'
import metricsRoutes from '../routes/metrics.js'
import problemRoutes from '../routes/problems.js'
import publicRoutes from '../routes/public.js'
import rootRoutes from '../routes/root.js'
import searchRoutes from '../routes/search.js'
import socketRoutes from '../routes/sockets.js'
import tokenRoutes from '../routes/tokens.js'
import wellKnownRoutes from '../routes/well-known.js'
import v1Routes from '../routes/v1.js'
import ticketRoutes from '../routes/ws-tickets.js'
import { FrameProducer } from './dashboard/producer.js'
import { monotonicClock } from './lib/clock.js'
import { isLoopback } from './webhooks/addresses.js'
import { createCore, type Core } from './core.js'
import { AlreadyRegisteredError } from './errors.js'
import { createApi, type AgentRegistry } from './api.js'
import { openFoundation, type Foundation } from './foundation.js'
import type { AgentRegistryOptions } from './agent-registry-options.js'
import { resolveOptions, type ResolvedOptions } from './options.js'
import { isImpostor } from './auth/rights.js'
import type { Principal } from './protocol/principal.js'
import { Admission } from './limits/admission.js'
import { LongRequests } from './limits/long-requests.js'
import { closeCodes } from './protocol/codes.js'
import { Feed } from './registry/feed/change-log.js'
import { Subscribers } from './registry/feed/subscribers.js'
import { drainGraceMs } from './sockets/drain.js'
import { createSockets, type Sockets } from './sockets/sockets.js'
import { MemoryKeyValueStore } from './storage/memory/kv-store.js'

declare module 'fastify' {
  interface FastifyInstance {
    /** The registry; under another name when `decorateAs` says so. */
    agentRegistry: AgentRegistry
  }
}

function warnOfOptions ({ jwt, admin, agentKeys, sockets: { drainMs } }: ResolvedOptions, { log, storage }: Core, pluginTimeout = 0) {
  if (jwt.secret === undefined && storage.kv instanceof MemoryKeyValueStore) log.warn({ option: 'jwt.secret' }, 'tokens are signed with a secret made for this run and end with it')
  if (admin.password === undefined) log.info({ option: 'admin.password' }, 'nobody can log in as admin')
  if (agentKeys.length === 0) log.info({ option: 'agentKeys' }, 'agents can register only through the host or an admin')
  if (pluginTimeout > 0 && drainMs + drainGraceMs >= pluginTimeout) log.warn({ option: 'sockets.drainMs', pluginTimeout }, 'Fastify gives up the close before sockets are drained: give it a longer pluginTimeout')
}

const problemBaseOf = ({ problemBase, prefix }: ResolvedOptions) => problemBase ?? `${prefix}/problems/`

/** What is refused for lack of permission is in the log. */
function forbiddenReporter ({ dashboard }: Core) {
  return function reportForbidden ({ message }: Error, { method, routeOptions, ip, agentRegistryPrincipal: principal }: FastifyRequest) {
    const target = `${method} ${routeOptions.url ?? 'unmatched'}`
    dashboard.audit.record({ type: 'permission_denied', subject: principal?.subject, target, address: ip, details: { user_role: principal?.role, error: message } })
  }
}

/** What every route of ours has: limits, validation, problem documents. */
async function prepare (scope: FastifyInstance, core: Core, hasPrefix: boolean) {
  const { options } = core
  const handlers = createProblemHandlers(problemBaseOf(options), forbiddenReporter(core))
  scope.decorateRequest('agentRegistryPrincipal', null)
  scope.setErrorHandler(handlers.errorHandler)
  // Without a prefix of ours what is not found is the host's to answer.
  if (hasPrefix) scope.setNotFoundHandler(handlers.notFoundHandler)
  reportAnswers(scope, core.dashboard.requests)
  scope.addHook('onRequest', function nameRequest (request, reply, done) {
    reply.header('x-request-id', request.id)
    done()
  })
  await scope.register(limits, { options })
  await scope.register(validation)
  const { publicWs, agentsWs, dashboardWs, v1Ws, routes, prefix, sockets: { compression: isCompressing } } = options
  const paths = new Set([publicWs, agentsWs, dashboardWs, ...(routes.v1 ? [v1Ws] : [])].map(({ path }) => prefix + path))
  await scope.register(websocket, { paths, timeoutMs: agentsWs.timeoutMs, isCompressing })
}

/** Whether nobody can reach this server but from the same machine. */
function listensOnLoopback (app: FastifyInstance): boolean {
  const addresses = app.addresses()
  return addresses.length > 0 && addresses.every(address => typeof address === 'object' && isLoopback(address.address))
}

interface RouteServices extends FeedServices { core: Core, sockets: Sockets, hub: Sockets['hub'], slots: Sockets['slots'] }

/** Routes that show what the registry knows. */
async function addReads (scope: FastifyInstance, core: Core, services: RouteServices) {
  addFreshness(scope, core.registry)
  if (core.options.search.enabled) await scope.register(searchRoutes, services)
  await scope.register(connectionRoutes, services)
  await scope.register(agentRoutes, { ...services, prefix: '/agents' })
  await scope.register(feedRoutes, { ...services, prefix: '/agents' })
  await scope.register(agentMetricsRoutes, { ...services, prefix: '/agents' })
  await scope.register(publicRoutes, { ...services, prefix: '/public' })
}

/** All routes, in one visible order. */
async function addRoutes (scope: FastifyInstance, core: Core, sockets: Sockets, feedServices: FeedServices) {
  const { routes } = core.options
  const refuseOtherMethods = collectMethods(scope)
  const { hub, slots } = sockets
  const services = { ...feedServices, core, sockets, hub, slots }
  const metrics = createMetrics(scope, services)
  // A connection that is kept alive would hold the shutdown until it times out.
  scope.addHook('onSend', function endConnection (_request, reply, _payload, done) {
    if (hub.isDraining) reply.header('connection', 'close')
    done()
  })
  if (routes.root) await scope.register(rootRoutes, services)
  if (routes.health) await scope.register(healthRoutes, services)
  if (routes.wellKnown && !scope.prefix) await scope.register(wellKnownRoutes, core)
  await scope.register(authRoutes, { ...services, prefix: '/auth' })
  await scope.register(tokenRoutes, { ...services, prefix: '/tokens' })
  await scope.register(ticketRoutes, services)
  await scope.register(async function registryReads (reads) { await addReads(reads, core, services) })
  await scope.register(problemRoutes)
  await scope.register(socketRoutes, socketRoutesOptions(core, sockets, feedServices.admission))
  if (routes.v1) {
    await scope.register(v1Routes, { ...services, onForbidden: forbiddenReporter(core), prefix: '/v1' })
  }
  if (routes.metrics) await scope.register(metricsRoutes, { core, metrics })
  if (routes.dashboard) {
    await scope.register(dashboardRoutes, { ...services, prefix: '/dashboard' })
  }
  refuseOtherMethods()
}

function socketRoutesOptions (core: Core, sockets: Sockets, admission: Admission) {
  const { options: { routes }, log } = core
  const { tiers: { public: publicTier, agents, dashboard, v1 }, hub, slots } = sockets
  const tiers = [publicTier, agents, ...(routes.v1 ? [v1] : []), ...(routes.dashboard ? [dashboard] : [])]
  return { sockets, tiers, upgrades: { ...core, hub, slots, admission }, log, onError: (error: unknown) => log.error({ err: error }, 'socket') }
}

/** `/.well-known/*` stands at the origin whatever the prefix is, and belongs to the first registry there. */
function isFirstAtOrigin (app: FastifyInstance): boolean {
  return app.prefix === '' && !app.hasRoute({ method: 'GET', url: '/.well-known/jwks.json' })
}

async function wellKnownScope (scope: FastifyInstance, { options }: { options: ResolvedOptions }) {
  scope.setErrorHandler(createProblemHandlers(problemBaseOf(options)).errorHandler)
  const refuseOtherMethods = collectMethods(scope)
  await scope.register(wellKnownRoutes, { options })
  refuseOtherMethods()
}

interface FeedServices {
  readonly feed: Feed
  readonly subscribers: Subscribers
  readonly longRequests: LongRequests
  /** Limits the rate of new sockets and streams. */
  readonly admission: Admission
}

/** The feed of changes, for sockets and over HTTP. */
function createFeedServices ({ registry, options, now }: Core): FeedServices {
  const { feed: { bookmarkIntervalMs }, admission: { upgradesPerSecond: perSecond, burst } } = options
  const feed = new Feed(registry)
  return {
    feed,
    subscribers: new Subscribers({ feed, bookmarkIntervalMs, now }),
    longRequests: new LongRequests(options.feed),
    admission: new Admission({ perSecond, burst, now })
  }
}

/** Subscribes the services to each other's events. Listeners of an event run in this order. */
function connectServices ({ registry, revocations, sessions, messaging }: Core, sockets: Sockets, { subscribers, longRequests }: FeedServices) {
  const { hub, tiers, broadcasts, heartbeats, watches } = sockets

  function endAccess (matches: (principal: Principal) => boolean, code: number, text: string) {
    hub.closeWhere(matches, code, text)
    longRequests.endWhere(matches, text)
  }

  function closeReplaced (id: string, newest: number) {
    heartbeats.closeReplaced(id, newest)
    const isReplaced = ({ type, agentId, incarnation }: Principal) => type === 'agent' && agentId === id && (incarnation ?? Infinity) < newest
    longRequests.endWhere(isReplaced, 'Replaced by a newer instance')
  }

  /** A newly registered agent alone may use its id as a name. */
  function closeImpostors (id: string) {
    if (messaging.peers.of(id).length === 0) return
    endAccess(principal => principal.subject === id && isImpostor(principal, () => true), closeCodes.notAllowed, 'This name belongs to an agent')
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
    for (const { id, before, after } of differences) if (before && after && after.incarnation > before.incarnation) closeReplaced(id, after.incarnation)
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

/** Starts all timers of sockets and of the feed. @returns a function that drains connections and stops the timers */
function startSockets ({ options, dashboard, now }: Core, sockets: Sockets, { subscribers, longRequests }: FeedServices): () => Promise<void> {
  const { feed: { bookmarkIntervalMs, keepAliveMs }, sockets: { drainMs } } = options
  const { slots, hub, broadcasts } = sockets
  sockets.start()
  const producer = new FrameProducer({
    now: monotonicClock(),
    intervalMs: options.dashboardWs.intervalMs,
    frames: dashboard.frames,
    logs: dashboard.logs,
    watchers: () => slots.countOf('dashboard'),
    broadcast: (type, text) => broadcasts.sendToDashboards(type, text)
  })
  producer.start()
  dashboard.logs.add({ level: 'INFO', message: 'Monitoring started', source: 'system' })
  const feedTimer = setInterval(function tickFeed () {
    const time = now()
    subscribers.tick(time)
    longRequests.tick(time)
  }, Math.max(20, Math.min(1000, bookmarkIntervalMs / 4, keepAliveMs / 4))).unref()

  return async function stopSockets () {
    await Promise.all([hub.drain(drainMs), longRequests.drain(drainMs)])
    sockets.stop()
    producer.stop()
    clearInterval(feedTimer)
    subscribers.close()
  }
}

async function start (scope: FastifyInstance, core: Core, sockets: Sockets, feedServices: FeedServices) {
  if (core.options.search.enabled) core.search.open()
  await core.messaging.open()
  const stopSockets = startSockets(core, sockets, feedServices)
  const sweep = setInterval(() => { core.sessions.sweep() }, 1000).unref()
  scope.addHook('preClose', async function drainSockets () {
    clearInterval(sweep)
    await stopSockets()
  })
  scope.addHook('onClose', async function closeClients () {
    core.search.close()
    core.messaging.close()
    core.webhooks.close()
  })
}

/** Everything that stands on the opened storage. */
async function build (app: FastifyInstance, scope: FastifyInstance, foundation: Foundation, hasPrefix: boolean) {
  const { options, tokenSecrets } = foundation
  const signer = await registerJwt(scope, options.decorateAs, tokenSecrets, options.jwt)
  const core = createCore(foundation, signer, () => listensOnLoopback(app))
  app.decorate(options.decorateAs, createApi(core))
  warnOfOptions(options, core, app.initialConfig.pluginTimeout)
  const feedServices = createFeedServices(core)
  const sockets = createSockets({ ...core, ...feedServices, onError: error => core.log.error({ err: error }, 'socket') })
  connectServices(core, sockets, feedServices)
  await prepare(scope, core, hasPrefix)
  if (options.routes.docs) await collectOpenapi(scope)
  await scope.register(async function registryRoutes (routes) { await addRoutes(routes, core, sockets, feedServices) })
  if (options.routes.docs) await scope.register(docs, { options, tiers: Object.values(sockets.tiers) })
  await start(scope, core, sockets, feedServices)
}

/**
 * The plugin: `await app.register(agentRegistry, { agentKeys: ['…'] })`.
 * @throws AGENT_REGISTRY_INVALID_OPTIONS, AGENT_REGISTRY_ALREADY_REGISTERED, and what a store throws that cannot open
 */
async function agentRegistry (app: FastifyInstance, input: AgentRegistryOptions = {}): Promise<void> {
  const { prefix, ...given } = resolveOptions(input)
  const options = { ...given, prefix: app.prefix.replace(/\/$/, '') + prefix }
  if (app.hasDecorator(options.decorateAs)) throw new AlreadyRegisteredError(options.decorateAs)

  await app.register(async function agentRegistryScope (scope) {
    hideQueries(scope)
    const foundation = await openFoundation(options, app.log)
    scope.addHook('onClose', async function closeStorage () { await foundation.close() })
    try {
      await build(app, scope, foundation, prefix !== '')
    } catch (error) {
      await foundation.close()
      throw error
    }
  }, { prefix })
  if (options.routes.wellKnown && isFirstAtOrigin(app)) await app.register(wellKnownScope, { options })
}

// Named, so that TypeScript knows the parameters of hooks that are written in place.
const plugin: FastifyPluginAsync<AgentRegistryOptions> = fp(agentRegistry, { name: 'fastify-agent-registry', fastify: '5.x' })

export default plugin

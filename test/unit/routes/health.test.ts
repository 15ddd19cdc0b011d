import t from 'tap'
import { embeddedStorage, storageHealth } from '../../../src/dashboard/health.js'
import { MemoryAgentStore } from '../../../src/storage/memory/agent-store.js'
import { createCore, type Core } from '../../../src/core.js'
import { openFoundation } from '../../../src/foundation.js'
import { resolveOptions } from '../../../src/options.js'
import { detailedHealth, health, redisHealth } from '../../../src/http/health-report.js'
import { hmacSigner } from '../auth/helper.js'
import { answerChecker, build, keys, password, problemOf, secret } from '../../support/harness.js'

const answers = answerChecker()
const paths = ['/health/detailed', '/health/config', '/health/redis', '/health/azure']
const embed = async (texts: readonly string[]) => texts.map(() => [1, 0])

t.test('how the parts are is for admins', async t => {
  const registry = await build(t, { routes: { docs: true } }, answers)
  const admin = await registry.admin()
  const agent = await registry.agent('agent-a')
  const { body: document } = await registry.get('/openapi.json')
  for (const path of paths) {
    t.equal((await registry.get(path, admin)).status, 200, path)
    t.equal(problemOf(t, await registry.get(path)), 'authentication-failed')
    t.equal(problemOf(t, await registry.get(path, { token: agent })), 'insufficient-permissions')
    t.match(document.paths[path].get.responses['200'].content['application/json'].schema.properties, { timestamp: Object, version: Object })
  }
  const none = await build(t, { routes: { health: false } }, answers)
  for (const path of paths) t.equal((await none.get(path, await none.admin())).status, 404)
})

t.test('in detail, what is there and what is not', async t => {
  const registry = await build(t, {}, answers)
  const admin = await registry.admin()
  await registry.agent('agent-a')
  t.match((await registry.get('/health/detailed', admin)).body, {
    status: 'healthy',
    service: 'ARCP Registry',
    version: '2.1.2',
    uptime: 'operational',
    timestamp: /Z$/,
    components: {
      registry: { status: 'healthy', agents_total: 1, agents_alive: 1 },
      storage: { status: 'healthy', redis: 'disconnected' },
      ai_services: { status: 'not_configured', azure_openai: 'not_configured' }
    },
    detailed: {
      database: { status: 'healthy', type: 'memory' },
      storage: { redis: 'disconnected', backup_storage: 'available' },
      ai_services: { azure_openai: 'not_configured', embeddings: false, vector_search: false },
      features: { agent_registration: true, heartbeat_monitoring: true, metrics_collection: true, websocket_broadcasts: true, jwt_authentication: true },
      agents: { total_registered: 1, alive_agents: 1, dead_agents: 0, agent_types: { testing: 1 }, embeddings_stored: 0 },
      performance: { redis_connected: false, ai_client_available: false }
    }
  })
  t.match((await registry.get('/health/redis', admin)).body, { status: 'unavailable', redis: 'disconnected', timestamp: /Z$/, version: '2.1.2' })
  t.match((await registry.get('/health/azure', admin)).body, { status: 'not_configured', details: { status: 'not_configured', reason: /\w/ } })
})

t.test('with vectors and a store of the host, they are what is there', async t => {
  const memory = new MemoryAgentStore({ leaseMs: 60_000, retentionMs: 60_000 })
  const store = new Proxy({} as MemoryAgentStore, { get: (_target, name) => { const value = Reflect.get(memory, name); return typeof value === 'function' ? value.bind(memory) : value } })
  const registry = await build(t, { embed, store }, answers)
  const admin = await registry.admin()
  t.match((await registry.get('/health/azure', admin)).body, { status: 'available', details: { status: 'available' } })
  t.match((await registry.get('/health/detailed', admin)).body, {
    status: 'healthy',
    components: { ai_services: { status: 'healthy', azure_openai: 'available' } },
    detailed: { database: { type: 'custom' }, ai_services: { embeddings: true, vector_search: true }, performance: { ai_client_available: true } }
  })
  t.match((await registry.get('/health')).body, { ai_services: { azure_openai: 'available', embeddings: true }, storage: { redis: 'not_configured' } })
})

t.test('settings are told by name, never by value', async t => {
  const registry = await build(t, { metricsScrapeToken: 'a-token-for-prometheus', lease: { durationMs: 61_234 }, addresses: { blocked: ['192.0.2.77'] }, embed, publicFields: ['metadata'] }, answers)
  const { body, text } = await registry.get('/health/config', await registry.admin())
  t.same(body.required_config, ['agentKeys', 'jwt.secret', 'admin.password'])
  t.same(body.optional_config, {
    azure: ['embed'],
    redis: [],
    security: ['publicFields', 'addresses.blocked', 'metricsScrapeToken'],
    agent: ['lease.durationMs'],
    service: ['sockets.agentsUpdateIntervalMs', 'sockets.drainMs', 'agentsWs.intervalMs']
  })
  for (const value of [...Object.values(keys), password, secret, 'a-token-for-prometheus', '61234', '192.0.2.77']) t.notOk(text.includes(value), value)
})

t.test('Redis that is there is connected, Redis that is gone degrades the service', async t => {
  const log = { info () {}, warn () {}, error () {} }
  const foundation = await openFoundation(resolveOptions({}), log)
  t.teardown(() => foundation.close())
  const core = createCore(foundation, hmacSigner())
  /** The same registry on top of storage that says this of itself. */
  const on = (storage: object): Core => {
    const dashboard = Object.create(core.dashboard, { health: { value: () => ({ components: { ...core.dashboard.health().components, storage } }) } })
    return { ...core, dashboard }
  }
  t.match(redisHealth(on({ redis: 'connected', status: 'healthy' })), { status: 'healthy', redis: 'connected' })
  t.match(redisHealth(on({ redis: 'error', status: 'degraded' })), { status: 'error', redis: 'unknown' })
  t.match(redisHealth(on(storageHealth('redis', true))), { status: 'unavailable', redis: 'disconnected' })
  t.match(health(on(storageHealth('redis', true))), { status: 'degraded', storage: { redis: 'disconnected' }, features: { redis_storage: false } })
  t.match(redisHealth(on(embeddedStorage())), { status: 'unavailable', redis: 'disconnected' })
  t.match(health(on({ redis: 'connected', status: 'healthy' })), { status: 'healthy', features: { redis_storage: true }, performance: { redis_connected: true } })
  t.match(detailedHealth(on({ redis: 'error', status: 'degraded' })), { status: 'degraded', components: { storage: { status: 'degraded', redis: 'disconnected' } } })
})

t.test('every answer was what its schema says', async t => { t.same(answers.findings, []) })

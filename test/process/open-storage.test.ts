import { execFileSync } from 'node:child_process'
import fastify from 'fastify'
import { Redis } from 'ioredis'
import t from 'tap'
import { MemoryMessageBroker } from '../../src/storage/memory/message-broker.js'
import agentRegistry, { MemoryKeyValueStore, MemoryAgentStore } from '../../src/index.js'
import type { AgentRegistryOptions } from '../../src/agent-registry-options.js'
import { resolveOptions } from '../../src/options.js'
import { connectionOf, createStorage } from '../../src/storage/storage.js'
import { builtServer } from '../support/server-process.js'

const built = builtServer(t)
const storage = (options: AgentRegistryOptions) => createStorage(resolveOptions(options), error => { throw error })
const connection = (redis: AgentRegistryOptions['redis']) => connectionOf(resolveOptions({ redis }).redis)

t.test('storage options: the options name the location of the data', async t => {
  const agents = new MemoryAgentStore({ leaseMs: 1000, retentionMs: 1000 })
  const state = new MemoryKeyValueStore()
  t.equal((await storage({})).kind, 'memory')
  t.equal((await storage({ storage: 'level', level: { path: t.testdir() } })).kind, 'level')
  t.equal((await storage({ storage: 'redis' })).kind, 'redis')
  t.match(await storage({ store: agents, state, storage: 'level' }), { kind: 'custom', agents, kv: state, broker: MemoryMessageBroker })
})

t.test('storage options: a store of the host is paired with an in-memory key-value store on its own clock', async t => {
  let now = 1_000_000
  const { kind, kv } = await storage({ store: new MemoryAgentStore({ leaseMs: 1000, retentionMs: 1000, clock: () => now }) })
  t.equal(kind, 'custom')
  await kv.put({ kind: 'ticket', key: 'one', value: 'x', until: now + 1000 })
  t.equal(await kv.get('ticket', 'one'), 'x')
  now += 1000
  t.equal(await kv.get('ticket', 'one'), undefined)
})

t.test('storage options: the Redis options name the server', async t => {
  const client = new Redis({ lazyConnect: true })
  t.teardown(() => client.disconnect())
  const login = { username: 'registry', password: 'secret' }
  const table: Array<[given: AgentRegistryOptions['redis'], expected: object]> = [
    [undefined, { host: '127.0.0.1', port: 6379, db: 0 }],
    [{ host: 'redis.test', port: 6380, db: 2, ...login, tls: true }, { host: 'redis.test', port: 6380, db: 2, ...login, tls: {} }],
    [{ url: 'rediss://redis.test/1', host: 'another.test' }, { url: 'rediss://redis.test/1' }],
    [{ url: '/run/redis.sock' }, { url: '/run/redis.sock' }],
    [{ sentinels: ['a.test:26379', '[::1]:26380'], sentinelName: 'main', db: 1 }, { sentinels: [{ host: 'a.test', port: 26379 }, { host: '::1', port: 26380 }], name: 'main', db: 1 }],
    [{ cluster: ['a.test:7000', 'b.test:7001'], ...login }, { cluster: [{ host: 'a.test', port: 7000 }, { host: 'b.test', port: 7001 }], ...login }]
  ]
  for (const [given, expected] of table) t.same(JSON.parse(JSON.stringify(connection(given))), expected, JSON.stringify(given))
  t.equal(connection({ client, host: 'redis.test' }).client, client)
  t.throws(() => connection({ sentinels: ['a.test:26379'] }), { message: /redis\.sentinelName/ })
  for (const wrong of [{ url: 'http://redis.test' }, { cluster: ['a.test'] }, { sentinels: [] }, { port: 0 }]) t.throws(() => connection(wrong), { code: 'AGENT_REGISTRY_INVALID_OPTIONS' }, JSON.stringify(wrong))
})

t.test('storage options: a registry that fails to start leaves nothing open', async t => {
  const options: AgentRegistryOptions = { storage: 'level', level: { path: t.testdir() } }
  const start = async (more: AgentRegistryOptions) => {
    const app = fastify()
    t.teardown(() => app.close())
    await app.register(agentRegistry, { ...options, ...more })
  }
  await t.rejects(start({ addresses: { blocked: ['everybody'] } }), { message: /addresses\.blocked/ })
  await t.rejects(start({ agentKeys: ['the-same-key', 'the-same-key'] }), { message: /agentKeys\.1/ })
  await t.resolves(start({}))
  await t.rejects(start({}), { message: /another/ }, 'a registry that started keeps its storage open')
})

t.test('storage options: a registry in memory loads neither LevelDB nor a Redis client', t => {
  const program = `
    import { createRequire } from 'node:module'
    import fastify from 'fastify'
    import agentRegistry from ${JSON.stringify(built.replace(/server\/main\.js$/, 'index.js'))}
    const app = fastify()
    const loaded = () => Object.keys(createRequire(import.meta.url).cache).filter(name => /node_modules.(ioredis|classic-level)/.test(name)).length
    await app.register(agentRegistry)
    console.log(loaded())
    await app.close()
    const other = fastify()
    await other.register(agentRegistry, { storage: 'level', level: { path: ${JSON.stringify(t.testdir())} } })
    console.log(loaded() > 0)
    await other.close()`
  t.equal(execFileSync(process.execPath, ['--input-type=module', '-e', program], { encoding: 'utf8' }), '0\ntrue\n')
  t.end()
})

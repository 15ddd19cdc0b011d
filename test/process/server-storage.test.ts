import { execFileSync } from 'node:child_process'
import { existsSync, readdirSync, realpathSync, writeFileSync } from 'node:fs'
import { join, resolve } from 'node:path'
import fastify from 'fastify'
import { Redis } from 'ioredis'
import t, { type Test } from 'tap'
import type { Environment } from '../../src/server/env.js'
import { MemoryMessageBroker } from '../../src/storage/memory/message-broker.js'
import agentRegistry, { MemoryAgentStore, MemoryKeyValueStore } from '../../src/index.js'
import type { AgentRegistryOptions } from '../../src/agent-registry-options.js'
import { resolveOptions } from '../../src/options.js'
import { connectionOf, createStorage } from '../../src/storage/storage.js'
import type { AgentRecord } from '../../src/storage/agent-store.js'
import { exportLines, importAgents, readAgents } from '../../src/server/transfer.js'
import { fingerprint, type Json, keys, password, registration } from '../support/harness.js'
import { builtServer, call, sourceArgs, start, start as startProcess, urlOf } from '../support/server-process.js'
import { manualClock } from '../unit/auth/helper.js'
import { byId, filesOf, leases, open } from '../unit/storage/level-helper.js'

const built = builtServer(t)
const settings = { PORT: '0', LOG_LEVEL: 'silent', ADMIN_PASSWORD: password, AGENT_KEYS: keys.plain, WEBSOCKET_DRAIN: '0.1' }

/** Starts the built server in `folder`, without options for the data. */
function startIn (t: Test, folder: string, env: Environment = {}) {
  return startProcess(t, folder, { args: [built], env: { ...settings, ...env } })
}

async function request (
  url: string, path: string, { token, body }: { token?: string, body?: object } = {}
): Promise<{ status: number, body: Json }> {
  const headers = {
    'x-client-fingerprint': fingerprint,
    'content-type': 'application/json',
    ...(token &&
    { authorization: `Bearer ${token}` })
  }
  const response = await fetch(url + path, { headers, ...(body && { method: 'POST', body: JSON.stringify(body) }) })
  return { status: response.status, body: await response.json() }
}

async function register (url: string): Promise<string> {
  const { body: { temp_token: token } } = await request(
    url, '/auth/agent/request_temp_token', { body: { agent_id: 'agent-one', agent_type: 'testing', agent_key: keys.plain } }
  )
  return (await request(url, '/agents/register', { token, body: registration() })).body.access_token
}

t.test('server storage: a restarted server keeps its agents and accepts the tokens it accepted before', async t => {
  const folder = realpathSync(t.testdir())
  const first = startIn(t, folder)
  const url = await urlOf(first)
  t.ok(first.output().split('\n').includes(`  data: ${join(folder, 'data')}`), 'the log names the data folder')
  const agent = await register(url)
  const { body: { access_token: admin } } = await request(url, '/auth/login', { body: { username: 'admin', password } })
  const { body: { access_token: gone } } = await request(url, '/auth/login', { body: { username: 'admin', password } })
  t.equal((await request(url, '/auth/logout', { token: gone, body: {} })).status, 200)
  const { body: before } = await request(url, '/agents/agent-one', { token: agent })
  first.child.kill('SIGTERM')
  t.equal((await first.ended).code, 0)

  const again = await urlOf(startIn(t, folder))
  const { status, body: after } = await request(again, '/agents/agent-one', { token: agent })
  t.equal(status, 200)
  t.same([after.incarnation, after.registered_at], [before.incarnation, before.registered_at])
  t.equal((await request(again, '/auth/session_status', { token: admin })).status, 200)
  t.equal((await request(again, '/auth/session_status', { token: gone })).status, 401, 'ended sessions stay ended')
  t.match((await request(again, '/health/detailed', { token: admin })).body, {
    detailed: { database: { type: 'level' } }, components: { storage: { status: 'healthy' } }
  })
  t.match((await request(again, '/health')).body, { status: 'healthy', storage: { redis: 'not_configured' } })
})

t.test('server storage: rotating the secret leaves every agent with its key', async t => {
  const folder = t.testdir()
  const [old, fresh] = ['a secret that was used until now ....', 'a secret that is used from now on ...']
  const first = startIn(t, folder, { JWT_SECRET: old })
  const agent = await register(await urlOf(first))
  first.child.kill('SIGTERM')
  await first.ended

  const second = startIn(t, folder, { JWT_SECRET: JSON.stringify([fresh, old]) })
  const url = await urlOf(second)
  t.equal((await request(url, '/agents/agent-one', { token: agent })).status, 200, 'tokens of the previous secret stay valid')
  second.child.kill('SIGTERM')
  await second.ended

  const third = await urlOf(startIn(t, folder, { JWT_SECRET: fresh }))
  t.equal((await request(third, '/agents/agent-one', { token: agent })).status, 401)
  const { body: { temp_token: token } } = await request(
    third, '/auth/agent/request_temp_token', { body: { agent_id: 'agent-one', agent_type: 'testing', agent_key: keys.plain } }
  )
  const response = await fetch(`${third}/agents/agent-one`, { method: 'DELETE', headers: { authorization: `Bearer ${token}` } })
  t.equal(response.status, 200, 'the key still owns its agents')
})

t.test('server storage: data is stored in the configured place only', async t => {
  const folder = t.testdir()
  const placed = startIn(t, folder, { ARCP_DATA_DIR: 'elsewhere' })
  await urlOf(placed)
  t.match(placed.output(), /^ {2}data: .+\/elsewhere$/m)
  const inMemory = startIn(t, folder, { STORE: 'memory' })
  await urlOf(inMemory)
  t.match(inMemory.output(), /^ {2}data: in memory, lost when this process ends$/m)
  t.ok(existsSync(join(folder, 'elsewhere')))
  t.notOk(existsSync(join(folder, 'data')))
})

t.test('server storage: foreign data or data in use ends the start and stays unchanged', async t => {
  const folder = t.testdir({ foreign: { 'letter.txt': 'not a store' } })
  const foreign = await startIn(t, folder, { ARCP_DATA_DIR: 'foreign' }).ended
  t.same([foreign.code, foreign.out], [1, ''])
  t.match(foreign.err, /^fastify-agent-registry: .*foreign.*\n$/)
  t.same(readdirSync(join(folder, 'foreign')), ['letter.txt'])
  await urlOf(startIn(t, folder))
  const second = await startIn(t, folder).ended
  t.same([second.code, second.out], [1, ''])
  t.match(second.err, /^fastify-agent-registry: .*data.*another process.*\n$/)
})

t.test('server storage: an unreachable Redis ends the start, and the log hides its password', async t => {
  const { code, out, err } = await startIn(t, t.testdir(), { REDIS_URL: 'redis://:hidden@127.0.0.1:1' }).ended
  t.same([code, out], [1, ''])
  t.match(err, /^fastify-agent-registry: .*Redis.*\n$/)
  t.notMatch(err, 'hidden')
})

const storage = (options: AgentRegistryOptions) => createStorage(resolveOptions(options), error => { throw error })
const connection = (redis: AgentRegistryOptions['redis']) => connectionOf(resolveOptions({ redis }).redis)

t.test('storage options: the options name the location of the data', async t => {
  const agents = new MemoryAgentStore({ leaseMs: 1000, retentionMs: 1000 })
  const [kv, broker] = [new MemoryKeyValueStore(), new MemoryMessageBroker()]
  t.equal((await storage({})).kind, 'memory')
  t.equal((await storage({ storage: 'level', level: { path: t.testdir() } })).kind, 'level')
  t.equal((await storage({ storage: 'redis' })).kind, 'redis')
  t.match(await storage({ storage: { agents, kv } }), { kind: 'custom', agents, kv, broker: MemoryMessageBroker })
  t.match(await storage({ storage: { agents, kv, broker } }), { kind: 'custom', agents, kv, broker })
  const invalid = { code: 'AGENT_REGISTRY_INVALID_OPTIONS', message: /storage: .* agents/ }
  await t.rejects(createStorage(resolveOptions({ storage: {} }), () => {}), invalid)
})

t.test('storage options: a store of the host is paired with an in-memory key-value store on its own clock', async t => {
  let now = 1_000_000
  const { kind, kv } = await storage({ storage: { agents: new MemoryAgentStore({ leaseMs: 1000, retentionMs: 1000, clock: () => now }) } })
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
    [{
      sentinels: [
        'a.test:26379', '[::1]:26380'
      ],
      sentinelName: 'main',
      db: 1
    }, { sentinels: [{ host: 'a.test', port: 26379 }, { host: '::1', port: 26380 }], name: 'main', db: 1 }],
    [{
      cluster: [
        'a.test:7000', 'b.test:7001'
      ],
      ...login
    }, { cluster: [{ host: 'a.test', port: 7000 }, { host: 'b.test', port: 7001 }], ...login }]
  ]
  for (const [given, expected] of table) t.same(JSON.parse(JSON.stringify(connection(given))), expected, JSON.stringify(given))
  t.equal(connection({ client, host: 'redis.test' }).client, client)
  t.throws(() => connection({ sentinels: ['a.test:26379'] }), { message: /redis\.sentinelName/ })
  for (const wrong of [{ url: 'http://redis.test' }, { cluster: ['a.test'] }, { sentinels: [] }, { port: 0 }]) {
    t.throws(() =>
      connection(wrong), { code: 'AGENT_REGISTRY_INVALID_OPTIONS' }, JSON.stringify(wrong))
  }
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
    const isStorage = name => /node_modules.(ioredis|classic-level)/.test(name)
    const loaded = () => Object.keys(createRequire(import.meta.url).cache).filter(isStorage).length
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

const root = t.testdir()
let folders = 0
const newFolder = () => join(root, `folder-${folders++}`)
const { allowedAgentTypes, limits: { maxRecordBytes } } = resolveOptions({})
const context = { rules: { allowedAgentTypes, maxRecordBytes }, now: Date.parse('2030-01-01T00:00:00Z') }
const read = (text: string) => readAgents(text, context)

/** The agents as a list of registrations. */
const fresh = (...ids: string[]) => read(JSON.stringify(ids.map(id => registration(id))))

/** A store with agents of one key in several states, one of them with metrics. */
async function fill (folder: string): Promise<readonly AgentRecord[]> {
  const { storage: { agents } } = await open(folder)
  for (const id of ['one', 'two', 'three', 'four'].map(name => `agent-${name}`)) {
    const body = JSON.stringify(read(JSON.stringify([registration(id)])).map(({ body }) => JSON.parse(body))[0])
    await agents.register({
      id,
      content: {
        body, type: 'testing', capabilities: ['cap one'], publicBody: null
      },
      claim: { kind: 'key', digest: 'key-a', exclusive: false },
      maxAgents: 100
    })
  }
  await agents.report({ id: 'agent-one', update: { request: { responseTime: 2, success: true } } })
  await agents.setState({ id: 'agent-two', state: 'draining', reason: 'asked' })
  await agents.setState({ id: 'agent-three', state: 'maintenance', reason: 'asked' })
  await agents.close()
  const again = await open(folder)
  await again.storage.agents.close()
  return byId(again.snapshot.agents)
}

async function agentsOf (folder: string) {
  const { storage, snapshot } = await open(folder)
  await storage.agents.close()
  return { ...snapshot, agents: byId(snapshot.agents) }
}

t.test('transfer: an export can be imported into an empty store and into one with agents', async t => {
  const folder = newFolder()
  const before = await fill(folder)
  const files = filesOf(folder)
  const lines = await exportLines(folder)
  t.same(JSON.parse(lines[0]!), { format: 'fastify-agent-registry/agents', version: 1, agents: 4 })
  t.same(await exportLines(folder), lines)
  t.equal(filesOf(folder)['AGENT-REGISTRY'], files['AGENT-REGISTRY'], 'the export does not change the registry')

  const other = newFolder()
  await importAgents(fresh('agent-zero'), { ...leases, path: other, replace: false })
  await importAgents(read(`${lines.join('\n')}\n`), { ...leases, path: other, replace: false })
  const { agents, revision, changes } = await agentsOf(other)
  t.equal(revision, 5)
  t.same(changes!.map(({ n, event, id, reason }) => [n, event, id, reason])
    .slice(-2), [[4, 'registered', 'agent-three', 'imported'], [5, 'registered', 'agent-four', 'imported']])
  t.same(agents.slice(1)
    .map(agent => ({ ...agent, created: 0, revision: 0 })), before.map(agent => ({ ...agent, created: 0, revision: 0 })))
})

t.test('transfer: imported agents have a full lease or retention and stay owned by their keys', async t => {
  const clock = manualClock()
  const folder = newFolder()
  const records = fresh('agent-one', 'agent-two').map(
    (record, index): AgentRecord => ({ ...record, ownerKey: 'key-a', state: index === 0 ? 'alive' : 'dead' })
  )
  await importAgents(records, { ...leases, path: folder, replace: false, clock })
  clock.advance(10 * leases.leaseMs)
  const { storage: { agents } } = await open(folder, { clock })
  clock.advance(leases.leaseMs - 1)
  t.equal(await agents.expire({ cleanup: true }), 0)
  clock.advance(1)
  t.equal(await agents.expire({ cleanup: true }), 1)
  clock.advance(leases.retentionMs - leases.leaseMs)
  t.equal(await agents.expire({ cleanup: true }), 1)
  const claim = { kind: 'key', digest: 'key-a', exclusive: false, maxAgents: 1 } as const
  t.same(await agents.register({ id: 'more', content: records[0]!, claim, maxAgents: 10 }), { ok: false, reason: 'key-full' })
  await agents.close()
})

t.test('transfer: existing ids refuse the whole import unless replacement is requested', async t => {
  const folder = newFolder()
  const before = await fill(folder)
  const ids = ['agent-zero', 'agent-one', 'agent-two', ...Array.from({ length: 10 }, (_, n) => `more-${n}`)]
  await t.rejects(importAgents(
    fresh(...ids), { ...leases, path: folder, replace: false }
  ), { message: 'nothing was imported, these agents are registered already (--replace replaces them): agent-one, agent-two' })
  t.same((await agentsOf(folder)).agents, before)

  await importAgents(fresh(...ids), { ...leases, path: folder, replace: true })
  const { agents } = await agentsOf(folder)
  t.equal(agents.length, 15)
  t.same([agents[0]!.id, agents[0]!.created, agents[0]!.ownerKey], ['agent-one', before[0]!.created, null])
  t.ok(agents[0]!.incarnation >= before[0]!.incarnation)
  await t.rejects(importAgents(fresh(...ids), { ...leases, path: folder, replace: false }), { message: /more-\d and 3 more$/ })
})

t.test('transfer: an ARCP state file, a list under `agents` and a bare list are read as registrations', async t => {
  const times = { registered_at: '2029-06-01T10:00:00.555085', last_seen: '2029-06-01 11:00:00.978259' }
  const state = {
    agents: {
      'agent-one': {
        ...registration('agent-one'), ...times, status: 'dead', similarity: null
      },
      'agent-two': { ...registration(), agent_id: undefined, registered_at: '2029-06-01T12:00:00+02:00' }
    },
    info_hashes: {}
  }
  const [one, two] = read(JSON.stringify(state))
  t.match(one, { id: 'agent-one', type: 'testing', capabilities: ['cap one'], ownerKey: null, state: 'dead', metrics: null })
  t.same([one!.registeredAt, one!.lastSeen], [Date.parse('2029-06-01T10:00:00.555Z'), Date.parse('2029-06-01T11:00:00.978Z')])
  t.notMatch(one!.body, 'similarity')
  t.match(
    two, { id: 'agent-two', state: 'alive', registeredAt: Date.parse('2029-06-01T10:00:00Z'), lastSeen: Date.parse('2029-06-01T10:00:00Z') }
  )
  for (const list of [[registration('agent-one')], { agents: [registration('agent-one')] }]) {
    t.match(read(JSON.stringify(list)), [{ id: 'agent-one', registeredAt: context.now }])
  }
  t.equal(read(JSON.stringify([{ ...registration('agent-one'), registered_at: 'yesterday' }]))[0]!.registeredAt, context.now)
})

t.test('transfer: every error in the input is reported', async t => {
  const exported = (...lines: object[]) =>
    [{ format: 'fastify-agent-registry/agents', version: 1, agents: lines.length }, ...lines].map(line => JSON.stringify(line)).join('\n')
  const record = fresh('agent-one')[0]!
  const table: Array<[text: string, finding: RegExp]> = [
    ['', /JSON/],
    ['"text"', /^the input is not an export, a state file of ARCP or a list/],
    ['{"agents":7}', /^the input is not/],
    ['{"format":"fastify-agent-registry/agents"}', /^the first line is not the header of an export/],
    ['{"format":"fastify-agent-registry/agents","version":2,"agents":0}', /^the export has version 2, and this program supports version 1/],
    [exported(record, record).split('\n').slice(0, 2).join('\n'), /^the export is truncated: it has 1 of 2 agents/],
    [exported(record, record), /^nothing was imported, invalid records:\n {2}line 3: duplicate agent_id 'agent-one'$/],
    [exported({ ...record, revision: 'x' }), /\n {2}line 2: \/revision: Expected integer$/],
    [exported({ ...record, id: 'agent-two' }), /\n {2}line 2: the registration has the agent_id 'agent-one'$/],
    [exported({ ...record, body: '{' }), /\n {2}line 2: .*JSON/],
    [exported({ ...record, body: '{}' }), /\n {2}line 2: \/agent_id: /],
    [JSON.stringify([7, registration('agent-one'), registration('x')]), /\n {2}item 1: \/?: Expected object\n {2}item 3: \/agent_id: /],
    [JSON.stringify(
      { agents: { 'agent-one': 7, 'agent-two': registration('agent-one') } }
    ), /\n {2}'agent-one': .*Expected object\n {2}'agent-two': its agent_id is 'agent-one'$/],
    [JSON.stringify(Array(25).fill({})), /\n {2}item 20: .*\n {2}and 5 more$/]
  ]
  for (const [text, finding] of table) t.throws(() => read(text), { message: finding }, text.slice(0, 60))
})

/** Runs the command as a process with the given standard input. */
async function run (t: Test, args: string[], input = '') {
  const { child, ended } = start(t, t.testdir(), { args: [...sourceArgs, resolve('src/server/main.ts'), ...args] })
  child.stdin!.end(input)
  const { code, out, err } = await ended
  return { code, out, err }
}

t.test('transfer: the commands copy from folder to folder, by a pipe and by a file', async t => {
  const folder = newFolder()
  await fill(folder)
  const { code, out, err } = await run(t, ['export', '--data-dir', folder])
  t.same([code, err, out.split('\n').length], [0, '', 6])
  const [piped, filed] = [newFolder(), newFolder()]
  t.same(await run(t, ['import', '--data-dir', piped, '-'], out), { code: 0, out: '', err: `4 agents imported into ${piped}\n` })
  const file = join(root, 'agents.jsonl')
  writeFileSync(file, out)
  t.match(await call(['import', file], { ARCP_DATA_DIR: filed, NODE_ENV: 'production' }), { code: 0, err: /^4 agents imported/ })
  for (const copy of [piped, filed]) t.equal((await agentsOf(copy)).agents.length, 4)
  t.match(
    await call(['import', '--data-dir', filed, file]), { code: 1, err: /registered already \(--replace replaces them\): agent-one, / }
  )
  t.match(await call(['import', '--replace', '--data-dir', filed, file]), { code: 0 })
  t.equal((await agentsOf(filed)).revision, 8)
  t.match(await call(['export'], { ARCP_DATA_DIR: filed }), { code: 0, out: /^(\{.*\}\n){5}$/ })
})

t.test('transfer: invalid input changes nothing', async t => {
  const folder = newFolder()
  t.same(await call(['export', '--data-dir', folder]), {
    code: 1, out: '', err: `fastify-agent-registry: there is no store in ${folder}: set its folder by --data-dir or ARCP_DATA_DIR\n`
  })
  t.notOk(existsSync(folder))
  const table: Array<[args: string[], err: RegExp]> = [
    [['restore'], /unknown command 'restore'; see --help/],
    [['--replace'], /these flags belong to a command/],
    [['export', '--replace', 'file'], /export does not accept --replace, file;/],
    [['import', 'one', 'two'], /import does not accept two;/],
    [['import', join(root, 'none.json')], /none\.json/]
  ]
  for (const [args, err] of table) t.match(await call(args), { code: 1, out: '', err })
})

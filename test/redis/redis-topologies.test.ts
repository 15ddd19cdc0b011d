import { spawn } from 'node:child_process'
import { writeFile } from 'node:fs/promises'
import { join, resolve } from 'node:path'
import { Cluster, Redis } from 'ioredis'
import t, { type Test } from 'tap'
import type { RedisConnection } from '../../src/storage/redis/connections.js'
import { freePort } from '../support/harness.js'
import { Peer, registration } from '../support/redis.js'
import { eventually, RedisServer, sharedRedis } from '../support/redis-server.js'
import { sourceArgs, start as startProcess, urlOf } from '../support/server-process.js'

const quick = { namespace: 'n', probeIntervalMs: 300, commandTimeoutMs: 1000 }

/** A free port whose cluster bus port is valid too. */
async function clusterPort (): Promise<number> {
  const port = await freePort()
  return port > 55_000 ? port - 20_000 : port
}

async function start (t: Test, ...args: string[]): Promise<RedisServer> {
  const server = await RedisServer.start(...args)
  t.teardown(() => server.stop())
  return server
}

async function startCluster (t: Test) {
  const port = await clusterPort()
  const server = await start(
    t, '--port', String(port), '--bind', '127.0.0.1', '--cluster-enabled', 'yes', '--cluster-announce-ip', '127.0.0.1'
  )
  await server.client.call('CLUSTER', 'ADDSLOTSRANGE', 0, 16383)
  await eventually('the cluster is up', async () => String(await server.client.call('CLUSTER', 'INFO')).includes('cluster_state:ok'))
  return { server, nodes: [{ host: '127.0.0.1', port }] }
}

async function open (t: Test, server: RedisServer, connection: RedisConnection): Promise<Peer> {
  const peer = await Peer.open(server, { ...quick, connection })
  t.teardown(() => peer.close())
  return peer
}

const haveEqualState = (...peers: [Peer, Peer]) => eventually('both processes have the same state', () =>
  peers[0].digest === peers[1].digest, () => {
  return peers.map(({ digest, agents, faults, errors, reloads }) => ({
    digest,
    agents: [
      ...agents.keys()
    ],
    faults,
    errors: errors.map(String),
    reloads: reloads.map(({ epoch, revision }) => `${epoch}:${revision}`)
  }))
})

/** Checks that two processes receive each other's agents, heartbeats and sessions, and reconnect after a disconnect. */
async function shares (t: Test, server: RedisServer, a: Peer, b: Peer) {
  const sessions: unknown[] = []
  await a.storage.kv.open({ changed () {}, reloaded () {} })
  await b.storage.kv.open({ changed: ({ key }) => { sessions.push(key) }, reloaded () {} })
  await a.store.register(registration('one'))
  await b.store.setState({ id: 'one', state: 'draining', reason: 'asked' })
  await eventually('a received it', () => a.agents.get('one')?.state === 'draining')
  const [outcome] = await a.store.renew([{ id: 'one' }])
  await eventually('b received the heartbeat', () =>
    b.agents.get('one')!.lastSeen === (outcome as { record: { lastSeen: number } }).record.lastSeen)
  await a.storage.kv.put({ kind: 'session', key: 's', value: 'v', until: Date.now() + 60_000 })
  await eventually('b received the session', () => sessions.includes('s'))
  await server.client.call('CLIENT', 'KILL', 'TYPE', 'normal', 'SKIPME', 'yes')
  await eventually('both reconnected', async () => {
    const outcomes = await Promise.allSettled([a, b].map(({ store }) => store.register(registration('two'))))
    return outcomes.every(({ status }) => status === 'fulfilled') &&
      [a, b].every(({ faults }) => faults.length === 0 || faults.at(-1) === null)
  })
  await haveEqualState(a, b)
  t.same([...a.agents.keys()].sort(), ['one', 'two'])
}

t.test('redis topologies: a cluster is configured by one of its nodes or by a client of the host', async t => {
  const { server, nodes } = await startCluster(t)
  const client = new Cluster(nodes)
  t.teardown(() => { client.disconnect() })
  const a = await open(t, server, { cluster: nodes })
  const b = await open(t, server, { client })
  await shares(t, server, a, b)
  t.equal(await client.ping(), 'PONG')
})

t.test('redis topologies: an unusable cluster fails without a wait', async t => {
  const port = await clusterPort()
  const server = await start(t, '--port', String(port), '--bind', '127.0.0.1', '--cluster-enabled', 'yes')
  await t.rejects(Peer.open(
    server, { ...quick, commandTimeoutMs: 200, connection: { cluster: [{ host: '127.0.0.1', port }] } }
  ), { message: /^Redis cannot be reached: / })
})

t.test('redis topologies: a stand-alone Redis is configured by URL, by host and port, or by a client of the host', async t => {
  const port = await clusterPort()
  const server = await start(t, '--port', String(port), '--bind', '127.0.0.1', '--requirepass', 'secret')
  const client = new Redis(port, '127.0.0.1', { password: 'secret' })
  t.teardown(() => { client.disconnect() })
  const a = await open(t, server, { url: `redis://:secret@127.0.0.1:${port}/0` })
  const b = await open(t, server, { host: '127.0.0.1', port, password: 'secret' })
  const c = await open(t, server, { client })
  await shares(t, server, a, b)
  await eventually('c has the same state', () => c.digest === a.digest)
  await t.rejects(Peer.open(server, { ...quick, connection: { host: '127.0.0.1', port, password: 'wrong' } }), { message: /WRONGPASS/ })
})

t.test('redis topologies: the new master is found through Sentinels', async t => {
  const [port, second, sentinelPort] = [await clusterPort(), await clusterPort(), await clusterPort()]
  const tcp = (port: number) => ['--port', String(port), '--bind', '127.0.0.1']
  const master = await start(t, ...tcp(port))
  const replica = await start(t, ...tcp(second), '--replicaof', `127.0.0.1 ${port}`)
  await eventually('the replica follows', async () => (await replica.client.info('replication')).includes('master_link_status:up'))
  const settings = join(master.folder, 'sentinel.conf')
  await writeFile(
    settings,
    `port ${sentinelPort}\nbind 127.0.0.1\nsentinel monitor main 127.0.0.1 ${port} 1\n` +
    'sentinel down-after-milliseconds main 1000\nsentinel failover-timeout main 2000\n'
  )
  const sentinel = spawn('redis-server', [settings, '--sentinel'], { stdio: 'ignore' })
  t.teardown(() => { sentinel.kill('SIGKILL') })
  const asked = new Redis(sentinelPort, '127.0.0.1', { retryStrategy: () => 50 }).on('error', () => {})
  t.teardown(() => { asked.disconnect() })
  await eventually('the Sentinel knows the replica', async () =>
    ((await asked.call('SENTINEL', 'REPLICAS', 'main').catch(() => [])) as unknown[]).length === 1)
  const connection = { sentinels: [{ host: '127.0.0.1', port: sentinelPort }], name: 'main' }
  const [a, b] = [await open(t, master, connection), await open(t, master, connection)]
  await a.store.register(registration('one'))
  await eventually('b and the replica received it', async () => b.n === 1 && (await replica.client.hget('{ar:n}:meta', 'revision')) === '1')
  await eventually('the Sentinel starts', () => asked.call('SENTINEL', 'FAILOVER', 'main').then(() => true, () => false))
  await eventually('the replica is the master', async () => (await replica.client.info('replication')).includes('role:master'))
  await eventually('both write to it', async () => {
    await Promise.allSettled([a.store.register(registration('two')), b.store.register(registration('three'))])
    return (await replica.client.hlen('{ar:n}:heads')) === 3
  })
  await haveEqualState(a, b)
  t.same([...a.agents.keys()].sort(), ['one', 'three', 'two'])
})

t.test('cli: the log shows the location of Redis without its credentials', async t => {
  const redis = await sharedRedis(t)
  const started = startProcess(t, t.testdir(), {
    args: [
      ...sourceArgs, resolve('src/server/main.ts')
    ],
    env: { PORT: '0', LOG_LEVEL: 'silent', REDIS_URL: redis.path, ARCP_NAMESPACE: 'named' }
  })
  await urlOf(started)
  t.match(started.output(), `data: Redis at ${redis.path}, namespace 'named'`)
})

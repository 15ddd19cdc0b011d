import t from 'tap'
import { brokerContract } from '../../src/storage/contract/index.js'
import { RedisStorage } from '../../src/storage/redis/storage.js'
import { newNamespace } from '../support/redis.js'
import { RedisServer } from '../support/redis-server.js'

const server = await RedisServer.start()
t.teardown(() => server.stop())

const connection = { path: server.path }
const fixed = { connection, leaseMs: 1000, retentionMs: 1000, commandTimeoutMs: 10_000, onError: (error: unknown) => { throw error } }

brokerContract({
  test: (name, run) => t.test(name, async t => { await t.resolves(run()) }),
  async build ({ limits }) {
    const namespace = newNamespace()
    const create = () => new RedisStorage({ ...fixed, namespace, messaging: { limits } }).broker
    return { broker: create(), another: async () => create() }
  },
  flags: { injectedClock: false, shared: true }
})

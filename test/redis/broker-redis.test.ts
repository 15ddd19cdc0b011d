import t from 'tap'
import { RedisStorage } from '../../src/storage/redis/storage.js'
import { newNamespace } from '../support/redis.js'
import { RedisServer } from '../support/redis-server.js'
import { brokerContract } from '../unit/messaging/broker-contract.js'

const server = await RedisServer.start()
t.teardown(() => server.stop())

t.test('the broker in Redis keeps the contract', async t => {
  await brokerContract(t, {
    injectedClock: false,
    shared: true,
    build (t, { limits }) {
      const namespace = newNamespace()
      return () => {
        const { broker } = new RedisStorage({ connection: { path: server.path }, namespace, leaseMs: 1000, retentionMs: 1000, commandTimeoutMs: 10_000, messaging: { limits }, onError: error => { throw error } })
        t.teardown(() => broker.close())
        return broker
      }
    }
  })
})

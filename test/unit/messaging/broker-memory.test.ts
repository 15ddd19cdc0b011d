import t from 'tap'
import { MemoryMessageBroker } from '../../../src/storage/memory/message-broker.js'
import { brokerContract } from './broker-contract.js'

t.test('the broker in memory keeps the contract', async t => {
  await brokerContract(t, { injectedClock: true, shared: false, build: (_t, settings) => () => new MemoryMessageBroker(settings) })
})

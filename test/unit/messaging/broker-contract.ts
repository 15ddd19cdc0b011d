import type { Test } from 'tap'
import type { Clock } from '../../../src/lib/clock.js'
import type { MessageBroker, BrokerLimits } from '../../../src/storage/message-broker.js'
import { timeOf } from '../../../src/storage/contract/time.js'
import { logs, sendings } from './broker-logs.js'
import { patterns } from './broker-patterns.js'
import { presence } from './broker-places.js'
import { processes, several } from './broker-processes.js'
import { Side } from './broker-side.js'

export interface BrokerSettings { clock: Clock, limits: Partial<BrokerLimits> }

/** Makes brokers, not opened, that share what they know. */
export type Family = () => MessageBroker

export interface BrokerContractOptions {
  /** A family that shares with no other one. */
  build: (t: Test, settings: BrokerSettings) => Family
  /** It measures time by the clock that it is given; otherwise the suite waits. */
  injectedClock: boolean
  /** A family has more than one member. */
  shared: boolean
}

/** One test for each promise that a broker makes. */
export async function brokerContract (t: Test, { build, injectedClock, shared }: BrokerContractOptions): Promise<void> {
  for (const [name, run, limits = {}] of [...logs, ...sendings, ...patterns, ...presence, ...processes, ...(shared ? several : [])]) {
    await t.test(name, async t => {
      const { clock, pass } = timeOf(injectedClock)
      const make = build(t, { clock, limits })
      const another = () => new Side(make()).open()
      const side = await another()
      await run(t, { side, broker: side.broker, another, pass })
    })
  }
}

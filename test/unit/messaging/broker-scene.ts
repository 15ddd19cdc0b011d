import type { Test } from 'tap'
import type { MessageBroker, BrokerLimits } from '../../../src/storage/message-broker.js'
import type { Side } from './broker-side.js'

export interface Scene {
  readonly side: Side
  readonly broker: MessageBroker
  another: () => Promise<Side>
  /** Lets time pass, in the broker's own measure. */
  pass: (ms: number) => Promise<void>
}

/** A promise of the contract, and the limits that it is tried with. */
export type Case = readonly [name: string, run: (t: Test, scene: Scene) => Promise<unknown>, limits?: Partial<BrokerLimits>]

export const log = 'c:workflows/one'
export const place = 'c:workflows/one'
/** Names that somebody may give to channels and peers. */
export const odd = ['c:', 'c:/', 'c: a b ', 'c:*', 'c:**', 'c:a/*/[b-z]?\\', 'c:ünï/☃/🚀', 'c:"{x}"', 'c:{a}:b', 'c:a\nb', 'c:\ud800', 'c:\udc00', `c:${'x'.repeat(256)}`, 'i:', 'i:c:x', 'i:\u0000']

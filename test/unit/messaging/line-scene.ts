import type { Principal } from '../../../src/protocol/principal.js'
import { problem } from '../../../src/errors.js'
import type { AppendCommand, Appended, BrokerListener, LogPage, LogPosition } from '../../../src/storage/message-broker.js'
import { MemoryMessageBroker } from '../../../src/storage/memory/message-broker.js'
import type { Peer } from '../../../src/messaging/peer.js'
import type { Dialect } from '../../../src/protocol/channel-names.js'
import { Rights } from '../../../src/auth/rights.js'
import type { EncodedMessage } from '../../../src/protocol/encoded-message.js'
import { until, type Json } from '../../support/harness.js'

export function principal (agentId: string, more: Partial<Principal> = {}): Principal {
  return {
    type: 'agent',
    role: 'agent',
    subject: agentId,
    agentId,
    incarnation: 1,
    tokenId: 'j',
    sessionId: null,
    expiresAt: null,
    scopes: [],
    keyDigest: null,
    ...more
  }
}

/** A connection that records its frames, and reports them as sent when the test allows it. */
export class Listener implements Peer {
  readonly id = Math.random().toString(36)
  readonly frames: Json[] = []
  readonly authenticatedPrincipal: Principal
  readonly rights: Rights
  readonly dialect: Dialect
  isOpen = true
  observes = false
  /** The callback that waits until the frames are sent. */
  go: (() => void) | undefined
  reads = true

  constructor (readonly peerId: string, { dialect = 'agents', ...more }: Partial<Principal> & { dialect?: Dialect } = {}) {
    this.authenticatedPrincipal = principal(peerId, more)
    this.rights = new Rights(this.authenticatedPrincipal)
    this.dialect = dialect
  }

  push ({ text }: EncodedMessage): void {
    this.frames.push(JSON.parse(text))
  }

  whenSent (_kind: string, go: () => void): void {
    this.go = go
    if (this.reads) setImmediate(go)
  }

  async next (type: string, index = 0): Promise<Json> {
    const found = () => this.frames.filter(frame => frame.type === type)[index]
    await until(found)
    return found()
  }

  /** The data of all `direct` frames. */
  get data (): Json[] {
    return this.frames.filter(({ type }) => type === 'direct').map(({ data }) => data)
  }
}

/** A broker with failures that the test controls. */
export class Faulty extends MemoryMessageBroker {
  listener!: BrokerListener
  /** Number of calls that fail next. */
  faults = 0
  error: () => Error = () => problem('storage-unavailable', 'Away')

  override async open (listener: BrokerListener): Promise<void> {
    this.listener = listener
    return super.open(listener)
  }

  override async append (command: AppendCommand): Promise<Appended> {
    this.#check()
    return super.append(command)
  }

  override async read (log: string, query: { since?: LogPosition | undefined, limit: number }): Promise<LogPage> {
    this.#check()
    return super.read(log, query)
  }

  override async follow (log: string): Promise<LogPosition> {
    this.#check()
    return super.follow(log)
  }

  #check () {
    if (this.faults <= 0) return
    this.faults--
    throw this.error()
  }
}

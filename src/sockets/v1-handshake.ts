import { isImpostor, mayParticipate, peerIdOf } from '../auth/rights.js'
import type { Principal } from '../protocol/principal.js'
import { closeCodes } from '../protocol/codes.js'
import type { Connection } from './connection.js'
import type { TierHandshake, UpgradeCredentials } from './handshake.js'
import { Multiset } from '../lib/multiset.js'
import { reportRefusal } from './refusals.js'
import type { SocketServices } from './services.js'

type Refusal = readonly [code: number, reason: string]

const refusals = {
  invalid: [closeCodes.tokenInvalid, 'Invalid token or key'],
  expired: [closeCodes.tokenExpired, 'Token expired'],
  'not-allowed': [closeCodes.notAllowed, 'Insufficient permissions']
} as const satisfies Record<string, Refusal>

export interface V1Limits {
  /** Sockets of a peer. */
  maxPerPeer: number
  /** Sockets that come with a publishable key, by its digest. */
  maxWithKey: (digest: string) => number
}

/** `/v1`: the upgrade says who is there; the answer is a welcome, or a close that says why not. */
export class V1Handshake implements TierHandshake {
  readonly #services: SocketServices
  readonly #limits: V1Limits
  readonly #withKey = new Multiset()

  constructor (services: SocketServices, limits: V1Limits) {
    this.#services = services
    this.#limits = limits
  }

  begin (connection: Connection, credentials: UpgradeCredentials): void {
    if (credentials === null || 'refused' in credentials) return this.#refuse(connection, null, refusals[credentials?.refused ?? 'invalid'])
    const { principal } = credentials
    const refusal = this.#objection(principal)
    if (refusal) this.#refuse(connection, principal, refusal)
    else this.#welcome(connection, principal)
  }

  left ({ principal }: Connection): void {
    const key = keyOf(principal!)
    if (key !== null) this.#withKey.delete(key)
  }

  #refuse (connection: Connection, principal: Principal | null, [code, reason]: Refusal) {
    if (code === closeCodes.notAllowed) reportRefusal(this.#services, connection, principal, reason)
    connection.close(code, reason)
  }

  #objection (principal: Principal): Refusal | undefined {
    const { registry, messaging } = this.#services
    if (!mayParticipate(principal) || isImpostor(principal, id => registry.get(id) !== undefined)) return refusals['not-allowed']
    const own = [...messaging.peers.of(peerIdOf(principal))].filter(({ dialect }) => dialect === 'v1')
    if (own.length >= this.#limits.maxPerPeer) return [closeCodes.overQuota, 'Too many connections of this peer']
    const key = keyOf(principal)
    if (key !== null && this.#withKey.count(key) >= this.#limits.maxWithKey(key)) return [closeCodes.overQuota, 'Too many connections with this key']
  }

  #welcome (connection: Connection, principal: Principal) {
    const { hub, messaging, now, options: { agentsWs } } = this.#services
    const key = keyOf(principal)
    if (key !== null) this.#withKey.add(key)
    hub.identify(connection, principal)
    connection.isPeer = true
    connection.sendFrame({
      type: 'welcome',
      peerId: connection.peerId,
      expiresAt: principal.expiresAt,
      serverTime: now() / 1000,
      // What one tier takes the other has to take too: they share inboxes.
      maxMessageSize: Math.min(connection.tier.options.maxMessageSize, agentsWs.maxMessageSize),
      ...(principal.ownMetadata && { metadata: principal.ownMetadata })
    })
    messaging.addPeer(connection)
  }
}

/** The publishable key that somebody came with. */
const keyOf = ({ type, keyDigest }: Principal) => type === 'peer' ? keyDigest : null

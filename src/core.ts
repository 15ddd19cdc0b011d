import { Attempts } from './auth/attempts.js'
import { Authority } from './auth/authority.js'
import { PasswordHasher } from './auth/passwords.js'
import { PeerKeys, SecretKeys, PeerTokens } from './auth/peers.js'
import { Revocations } from './auth/revocations.js'
import type { KeyValueReplica } from './storage/kv-replica.js'
import { Sessions } from './auth/sessions.js'
import { OneTimeTokens, Tokens, type Signer } from './auth/tokens.js'
import { Tickets } from './auth/tickets.js'
import { monotonicClock } from './lib/clock.js'
import { Dashboard } from './dashboard/dashboard.js'
import type { Log } from './dashboard/audit.js'
import type { Foundation } from './foundation.js'
import { Idempotency } from './http/idempotency.js'
import { Enrollment } from './registry/enrollment.js'
import { Messaging } from './messaging/messaging.js'
import type { ResolvedOptions } from './options.js'
import { Webhooks } from './webhooks/webhooks.js'
import { Search } from './search/search.js'
import type { Registry } from './registry/registry.js'
import type { Storage } from './storage/storage.js'

/** The domain of one registry, wired together; nothing in it knows of HTTP. */
export interface Core {
  readonly options: ResolvedOptions
  readonly log: Log
  readonly storage: Storage
  readonly state: KeyValueReplica
  readonly registry: Registry
  readonly enrollment: Enrollment
  readonly authority: Authority
  readonly tokens: Tokens
  readonly tickets: Tickets
  readonly peerTokens: PeerTokens
  readonly peerKeys: PeerKeys
  readonly secretKeys: SecretKeys
  readonly idempotency: Idempotency
  readonly sessions: Sessions
  readonly revocations: Revocations
  readonly search: Search
  readonly webhooks: Webhooks
  readonly dashboard: Dashboard
  readonly messaging: Messaging
  readonly now: () => number
}

const tempTokenLifeMs = 900_000

/** @param signer signs and checks tokens with the secrets of `foundation` */
export function createCore (foundation: Foundation, signer: Signer, listensOnLoopback?: () => boolean): Core {
  const { options, log, storage, registry, state, keys } = foundation
  const { jwt, admin, limits, namespace } = options
  // What processes share ends at the same moment for all of them: by the clock of the store.
  const now = () => storage.agents.now()
  const tokens = new Tokens({ signer, namespace, expiresInMs: jwt.expiresInMs, now })
  const sessions = new Sessions({ state, timeoutMs: admin.sessionTimeoutMs, maxSessions: admin.maxSessions, now })
  const revocations = new Revocations({ state, maxTokenLifeMs: Math.max(jwt.expiresInMs, admin.sessionTimeoutMs, tempTokenLifeMs), now })
  const dashboard = new Dashboard({ options, registry, storageKind: storage.kind, now: monotonicClock(), log })
  registry.on('change', change => dashboard.agentChanged(change))
  registry.on('availability', fault => dashboard.storeAvailability(fault))
  registry.on('reload', differences => dashboard.storeReloaded(differences.length))
  const onError = (error: unknown) => log.error({ err: error }, 'search')
  const attempts = new Attempts({ ...options.attempts, state: storage.kv, now })
  attempts.on('lockout', (target, retryAfterMs) => dashboard.lockedOut(target, retryAfterMs))
  const authority = new Authority({
    tokens,
    keys,
    sessions,
    revocations,
    attempts,
    passwords: new PasswordHasher(),
    admin,
    now,
    hookTimeoutMs: limits.hookTimeoutMs,
    authenticate: options.authenticate,
    currentIncarnation: id => registry.replica.get(id)?.record.incarnation
  })
  authority.on('audit', event => dashboard.audit.record(event))
  const enrollment = new Enrollment({ registry, tokens, keys, oneTimeTokens: new OneTimeTokens({ state: storage.kv, now }), revocations })
  enrollment.on('replaced', instance => dashboard.agentReplaced(instance))
  const search = new Search({
    replica: registry.replica,
    onDifference: listener => registry.on('difference', listener),
    embed: options.embed,
    hookTimeoutMs: limits.hookTimeoutMs,
    metricsOf: ({ metrics }) => metrics,
    onError
  })
  const webhooks = new Webhooks({ now: monotonicClock(), allowLoopback: listensOnLoopback })
  const tickets = new Tickets({ state: storage.kv, now })
  const peerTokens = new PeerTokens({ tokens, now, maxLifeMs: jwt.expiresInMs, isRegistered: id => registry.replica.get(id) !== undefined })
  const peerKeys = new PeerKeys(options.peerKeys)
  const secretKeys = new SecretKeys(options.secretKeys, attempts)
  const idempotency = new Idempotency({ state: storage.kv, now })
  const messaging = new Messaging({ broker: storage.broker, registry, options, onError: error => log.error({ err: error }, 'messaging') })
  return { options, log, storage, state, registry, enrollment, authority, tokens, tickets, peerTokens, peerKeys, secretKeys, idempotency, sessions, revocations, search, webhooks, dashboard, messaging, now }
}

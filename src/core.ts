import { randomBytes } from 'node:crypto'
import { Attempts } from './auth/attempts.js'
import { Authority } from './auth/authority.js'
import { KeyRing, keyRingSecret } from './auth/keys.js'
import { PasswordHasher } from './auth/passwords.js'
import { Revocations } from './auth/revocations.js'
import { Sessions } from './auth/sessions.js'
import { SpentTokens } from './auth/spent.js'
import { Tickets } from './auth/tickets.js'
import { Tokens, type Signer } from './auth/tokens.js'
import { monotonicClock } from './clock.js'
import { Dashboard } from './dashboard/dashboard.js'
import { Membership, type Replacement } from './membership.js'
import type { ResolvedOptions } from './options.js'
import { OutgoingCalls } from './outgoing/outgoing-calls.js'
import { Search } from './search/search.js'
import { Registry } from './registry/registry.js'
import { hideableFields } from './schemas/agent.js'
import { MemoryStore } from './store/memory.js'

/** The part of a logger that is used here. */
export interface Log {
  info (details: object, message: string): void
  warn (details: object, message: string): void
  error (details: object, message: string): void
}

/** The domain of one registry, wired together; nothing in it knows of HTTP. */
export interface Core {
  readonly options: ResolvedOptions
  readonly log: Log
  readonly registry: Registry
  readonly membership: Membership
  readonly authority: Authority
  readonly tokens: Tokens
  readonly tickets: Tickets
  readonly sessions: Sessions
  readonly revocations: Revocations
  readonly search: Search
  readonly outgoing: OutgoingCalls
  readonly dashboard: Dashboard
  readonly now: () => number
}

const tempTokenLifeMs = 900_000

/** The configured secrets, or one made for this run. */
export function secretsOf ({ jwt }: ResolvedOptions): string[] {
  if (jwt.secret === undefined) return [randomBytes(32).toString('base64url')]
  return typeof jwt.secret === 'string' ? [jwt.secret] : jwt.secret
}

/** What is not shown publicly of the fields that may be hidden. */
function hiddenFields ({ publicFields }: ResolvedOptions): string[] {
  return publicFields ? hideableFields.filter(field => !publicFields.includes(field)) : []
}

function createRegistry (options: ResolvedOptions, keys: KeyRing, log: Log): Registry {
  const { lease, limits, feed, allowedAgentTypes, onRegister, publicView } = options
  const store = options.store ?? new MemoryStore({ leaseMs: lease.durationMs, retentionMs: lease.retentionMs, preservation: lease.preservation })
  return new Registry({
    store,
    leaseMs: lease.durationMs,
    cleanupIntervalMs: lease.cleanupIntervalMs,
    allowedAgentTypes,
    maxAgents: limits.maxAgents,
    maxRecordBytes: limits.maxRecordBytes,
    hookTimeoutMs: limits.hookTimeoutMs,
    ringSize: feed.ringSize,
    hiddenFields: hiddenFields(options),
    onRegister,
    publicView,
    keyObjection: (digest, { agent_id: agentId, agent_type: agentType, capabilities }) => {
      const key = keys.byDigest(digest)
      return key && keys.allows(key, { agentId, agentType, capabilities })
    },
    onError: error => log.error({ err: error }, 'registry')
  })
}

/** @param signer signs and checks tokens with the secrets of `options` */
export function createCore (options: ResolvedOptions, signer: Signer, secrets: readonly string[], log: Log, listensOnLoopback?: () => boolean): Core {
  const now = monotonicClock()
  const { jwt, admin, attempts, limits, namespace } = options
  const keys = new KeyRing(options.agentKeys, keyRingSecret(secrets[0]!))
  const registry = createRegistry(options, keys, log)
  const tokens = new Tokens({ signer, namespace, expiresInMs: jwt.expiresInMs, now })
  const sessions = new Sessions({ timeoutMs: admin.sessionTimeoutMs, maxSessions: admin.maxSessions, now })
  const revocations = new Revocations({ maxTokenLifeMs: Math.max(jwt.expiresInMs, admin.sessionTimeoutMs, tempTokenLifeMs), now })
  const dashboard = new Dashboard({ options, registry, now, log })
  const onError = (error: unknown) => log.error({ err: error }, 'search')
  const authority = new Authority({
    tokens,
    keys,
    sessions,
    revocations,
    attempts: new Attempts({ ...attempts, now, onLockout: (target, retryAfterMs) => dashboard.lockedOut(target, retryAfterMs) }),
    passwords: new PasswordHasher(),
    admin,
    now,
    hookTimeoutMs: limits.hookTimeoutMs,
    authenticate: options.authenticate,
    onEvent: event => dashboard.audit.record(event),
    currentIncarnation: id => registry.replica.get(id)?.record.incarnation
  })
  const onReplaced = (replacement: Replacement) => dashboard.replaced(replacement)
  const membership = new Membership({ registry, tokens, keys, spent: new SpentTokens({ now }), revocations, onReplaced })
  const search = new Search({
    replica: registry.replica,
    onDifference: listener => registry.onDifference(listener),
    embed: options.embed,
    hookTimeoutMs: limits.hookTimeoutMs,
    metricsOf: ({ metrics }) => metrics,
    onError
  })
  const outgoing = new OutgoingCalls({ now, allowLoopback: listensOnLoopback })
  return { options, log, registry, membership, authority, tokens, tickets: new Tickets({ now }), sessions, revocations, search, outgoing, dashboard, now }
}

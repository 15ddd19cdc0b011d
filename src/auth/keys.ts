import { createHmac, hkdfSync, randomBytes } from 'node:crypto'
import { OptionsError } from '../errors.js'
import type { ResolvedOptions } from '../options.js'
import { forever, type KeyValueStore } from '../storage/kv-store.js'

/** A configured agent key, without its text. */
export interface AgentKey {
  readonly digest: string
  readonly exclusive: boolean
  readonly ids?: readonly string[]
  readonly types?: readonly string[]
  readonly capabilities?: readonly string[]
  readonly maxAgents?: number
}

interface KeyUse { agentId: string, agentType: string, capabilities: readonly string[] }

/** Derives the secret of a key ring from the secret of the tokens: equal in every process, and useless for signing tokens. */
export function keyRingSecret (tokenSecret: string): Buffer {
  return Buffer.from(hkdfSync('sha256', tokenSecret, '', 'agent-registry:agent-keys', 32))
}

function matchesId (pattern: string, id: string): boolean {
  return pattern.endsWith('*') ? id.startsWith(pattern.slice(0, -1)) : id === pattern
}

function matchesType (allowed: readonly string[], type: string): boolean {
  return allowed.some(name => name.toLowerCase() === type.toLowerCase())
}

/** The configured agent keys. Only their digests (HMAC-SHA-256 of the whole key) are kept. */
export class KeyRing {
  readonly #secret: Buffer
  readonly #keys = new Map<string, AgentKey>()

  /** @throws AGENT_REGISTRY_INVALID_OPTIONS if a key is configured twice */
  constructor (keys: ResolvedOptions['agentKeys'], secret: Buffer) {
    this.#secret = secret
    for (const [index, entry] of keys.entries()) this.#add(entry, index)
  }

  get size () { return this.#keys.size }

  find (key: string): AgentKey | undefined {
    return this.#keys.get(this.#digest(key))
  }

  byDigest (digest: string): AgentKey | undefined {
    return this.#keys.get(digest)
  }

  /** The reason why `key` may not register this agent; undefined if it may. */
  denialReason (key: AgentKey, { agentId, agentType, capabilities }: KeyUse): string | undefined {
    const { ids, types, capabilities: allowed } = key
    if (ids && !ids.some(pattern => matchesId(pattern, agentId))) return `This key does not cover the agent_id '${agentId}'`
    if (types && !matchesType(types, agentType)) return `This key does not cover the agent_type '${agentType}'`
    const extra = allowed && capabilities.find(capability => !allowed.includes(capability))
    return extra === undefined ? undefined : `This key does not cover the capability '${extra}'`
  }

  #add (entry: ResolvedOptions['agentKeys'][number], index: number) {
    const { key, ...rest } = typeof entry === 'string' ? { key: entry, exclusive: false } : entry
    const digest = this.#digest(key)
    if (this.#keys.has(digest)) throw new OptionsError(`agentKeys.${index}: this key is configured twice`)
    this.#keys.set(digest, { ...rest, digest })
  }

  #digest (key: string): string {
    return createHmac('sha256', this.#secret).update(key).digest('base64url')
  }
}

/** Secrets that are created once, stored, and equal in every process that shares the store. */
export class PersistedSecrets {
  readonly #kv: KeyValueStore
  readonly #known = new Map<string, string>()

  constructor (kv: KeyValueStore) {
    this.#kv = kv
  }

  /** The secret that signs tokens if none is configured. */
  tokens (): Promise<string> {
    return this.#persisted('tokens', () => randomBytes(48).toString('base64url'))
  }

  /**
   * The secret of the key ring, whose digests also tell which key owns which agent. It is derived from the first token
   * secret that the store was used with: it does not change when token secrets rotate, and without a persistent store it
   * is the same after a restart.
   */
  async agentKeys (tokenSecret: string): Promise<Buffer> {
    return Buffer.from(await this.#persisted('agent-keys', () => keyRingSecret(tokenSecret).toString('base64url')), 'base64url')
  }

  /** Stores the secrets again if the store has lost them, so that processes that start later use the same ones. */
  async restore (): Promise<void> {
    for (const [key, value] of this.#known) await this.#kv.put({ kind: 'secret', key, value, until: forever }, null)
  }

  async #persisted (key: string, create: () => string): Promise<string> {
    const created = create()
    const isFirst = await this.#kv.put({ kind: 'secret', key, value: created, until: forever }, null)
    const value = isFirst ? created : await this.#kv.get('secret', key)
    if (value === undefined) return this.#persisted(key, create)
    this.#known.set(key, value)
    return value
  }
}

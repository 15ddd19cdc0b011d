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

export interface KeyUse { agentId: string, agentType: string, capabilities: readonly string[] }

/** The secret of a key ring from the secret of the tokens: the same in every process, and no use for signing tokens. */
export function keyRingSecret (jwtSecret: string): Buffer {
  return Buffer.from(hkdfSync('sha256', jwtSecret, '', 'agent-registry:agent-keys', 32))
}

function matchesId (pattern: string, id: string): boolean {
  return pattern.endsWith('*') ? id.startsWith(pattern.slice(0, -1)) : id === pattern
}

function matchesType (allowed: readonly string[], type: string): boolean {
  return allowed.some(name => name.toLowerCase() === type.toLowerCase())
}

/** The configured agent keys, of which only digests (HMAC-SHA-256 over the whole key) are kept. */
export class KeyRing {
  readonly #secret: Buffer
  readonly #keys = new Map<string, AgentKey>()

  /** @throws AGENT_REGISTRY_INVALID_OPTIONS when a key is configured twice. */
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

  /** Why `key` may not register that agent; undefined when it may. */
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

/** Secrets that last as long as the store and are the same in every process that shares it. */
export class KeptSecrets {
  readonly #state: KeyValueStore
  readonly #known = new Map<string, string>()

  constructor (state: KeyValueStore) {
    this.#state = state
  }

  /** What tokens are signed with where no secret is configured. */
  tokens (): Promise<string> {
    return this.#kept('tokens', () => randomBytes(48).toString('base64url'))
  }

  /**
   * What agent keys are digested with, and with that who owns which agent: made from the first secret of the tokens
   * that the store was used with, so that it stays when those secrets rotate, and is the same again after a restart
   * without a lasting store.
   */
  async agentKeys (tokenSecret: string): Promise<Buffer> {
    return Buffer.from(await this.#kept('agent-keys', () => keyRingSecret(tokenSecret).toString('base64url')), 'base64url')
  }

  /** Puts back what the store has lost, so that processes that start from now on agree with this one. */
  async restore (): Promise<void> {
    for (const [key, value] of this.#known) await this.#state.put({ kind: 'secret', key, value, until: forever }, null)
  }

  async #kept (key: string, make: () => string): Promise<string> {
    const made = make()
    const isFirst = await this.#state.put({ kind: 'secret', key, value: made, until: forever }, null)
    const value = isFirst ? made : await this.#state.get('secret', key)
    if (value === undefined) return this.#kept(key, make)
    this.#known.set(key, value)
    return value
  }
}

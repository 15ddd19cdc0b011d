import { randomBytes } from 'node:crypto'
import { forever, type KeyValueStore } from '../storage/kv-store.js'
import { keyRingSecret } from './keys.js'

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

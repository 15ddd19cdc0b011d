import { createHash, randomBytes } from 'node:crypto'
import { problem } from '../errors.js'
import type { Clock } from '../lib/clock.js'
import type { KeyValueStore } from '../storage/kv-store.js'
import type { Principal } from '../protocol/principal.js'

export type TicketTier = 'public' | 'agents' | 'dashboard'
/** `expires_in` is in seconds. */
export interface Ticket { ticket: string, expires_in: number }

const lifeSeconds = 30
const kind = 'ticket'

/** Whoever can read the store can open nothing with what stands there. */
const keyOf = (ticket: string) => createHash('sha256').update(ticket).digest('base64url')

/** Tickets open one socket of one tier within 30 s, at any process, so that no token has to stand in a URL. */
export class Tickets {
  readonly #state: KeyValueStore
  readonly #now: Clock

  constructor ({ state, now }: { state: KeyValueStore, now: Clock }) {
    this.#state = state
    this.#now = now
  }

  /** @throws insufficient-permissions for a temporary token. */
  async issue ({ tier, principal }: { tier: TicketTier, principal: Principal }): Promise<Ticket> {
    if (principal.type === 'temp') throw problem('insufficient-permissions', 'A temporary token gets no ticket')
    const ticket = randomBytes(32).toString('base64url')
    const value = JSON.stringify({ tier, principal })
    await this.#state.put({ kind, key: keyOf(ticket), value, until: this.#now() + lifeSeconds * 1000 })
    return { ticket, expires_in: lifeSeconds }
  }

  /**
   * Whose ticket it is. It is spent by this, also when it was shown to another tier. What became of the principal
   * meanwhile is for `Authority.check` to say.
   */
  async take (ticket: string, tier: string): Promise<Principal | undefined> {
    const text = await this.#state.take(kind, keyOf(ticket))
    if (text === undefined) return undefined
    const issued = JSON.parse(text) as { tier: TicketTier, principal: Principal }
    return issued.tier === tier ? issued.principal : undefined
  }
}

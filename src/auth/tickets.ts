import { randomBytes } from 'node:crypto'
import { problem } from '../errors.js'
import { ExpiringMap } from '../expiring-map.js'
import type { Clock } from '../clock.js'
import type { Principal } from './principal.js'

export type TicketTier = 'public' | 'agents' | 'dashboard'
/** `expires_in` is in seconds. */
export interface Ticket { ticket: string, expires_in: number }

const lifeSeconds = 30

/** Tickets open one socket of one tier within 30 s, so that no token has to stand in a URL. */
export class Tickets {
  readonly #now: Clock
  readonly #tickets: ExpiringMap<{ tier: TicketTier, principal: Principal }>

  constructor ({ now, limit = 10_000 }: { now: Clock, limit?: number }) {
    this.#now = now
    this.#tickets = new ExpiringMap(now, limit)
  }

  /** @throws insufficient-permissions for a temporary token. */
  issue ({ tier, principal }: { tier: TicketTier, principal: Principal }): Ticket {
    if (principal.type === 'temp') throw problem('insufficient-permissions', 'A temporary token gets no ticket')
    const ticket = randomBytes(32).toString('base64url')
    this.#tickets.set(ticket, { tier, principal }, this.#now() + lifeSeconds * 1000)
    return { ticket, expires_in: lifeSeconds }
  }

  /**
   * Whose ticket it is. It is spent by this, also when it was shown to another tier. What became of the principal
   * meanwhile is for `Authority.check` to say.
   */
  take (ticket: string, tier: TicketTier): Principal | undefined {
    const entry = this.#tickets.take(ticket)
    return entry?.tier === tier ? entry.principal : undefined
  }
}

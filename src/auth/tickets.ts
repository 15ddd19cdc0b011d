import { createHash, randomBytes } from 'node:crypto'
import { problem } from '../errors.js'
import type { Clock } from '../lib/clock.js'
import type { Principal } from '../protocol/principal.js'
import type { KeyValueStore } from '../storage/kv-store.js'

type TicketTier = 'public' | 'agents' | 'dashboard'
/** `expires_in` is in seconds. */
interface Ticket { ticket: string, expires_in: number }

interface IssuedTicket { tier: TicketTier, principal: Principal }

const lifeSeconds = 30
const kind = 'ticket'

/** The store holds only digests, so that read access to it does not open sockets. */
const keyOf = (ticket: string) => createHash('sha256').update(ticket).digest('base64url')

/** Tickets open one socket of one tier within 30 s, at any process, so that no URL has to contain a token. */
export class Tickets {
  readonly #kv: KeyValueStore
  readonly #now: Clock

  constructor ({ kv, now }: { kv: KeyValueStore, now: Clock }) {
    this.#kv = kv
    this.#now = now
  }

  /** @throws insufficient-permissions for a temporary token */
  async issue ({ tier, principal }: IssuedTicket): Promise<Ticket> {
    if (principal.type === 'temp') throw problem('insufficient-permissions', 'Temporary tokens cannot request tickets')
    const ticket = randomBytes(32).toString('base64url')
    const value = JSON.stringify({ tier, principal } satisfies IssuedTicket)
    await this.#kv.put({ kind, key: keyOf(ticket), value, until: this.#now() + lifeSeconds * 1000 })
    return { ticket, expires_in: lifeSeconds }
  }

  /**
   * Uses up a ticket, even if it is for another tier. The caller must pass the principal to `Authority.check`, since its
   * token may have been revoked meanwhile.
   * @returns undefined for an unknown, used or expired ticket, and for one of another tier
   */
  async take (ticket: string, tier: string): Promise<Principal | undefined> {
    const text = await this.#kv.take(kind, keyOf(ticket))
    if (text === undefined) return undefined
    const issued: IssuedTicket = JSON.parse(text)
    return issued.tier === tier ? issued.principal : undefined
  }
}

import type { Principal } from '../protocol/principal.js'
import type { Connection } from './connection.js'
import type { SocketServices } from './services.js'

/** Tells the log that whoever `principal` is may not do something on this connection. */
export function reportRefusal ({ dashboard }: SocketServices, { tier, address }: Connection, principal: Principal | null, error: string): void {
  dashboard.audit.record({
    type: 'permission_denied',
    subject: principal?.subject,
    target: tier.options.path,
    address,
    details: { user_role: principal?.role, error }
  })
}
